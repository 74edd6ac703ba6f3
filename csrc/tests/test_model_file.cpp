// ev_model_file_check on synthetic tiny models whose weights are holes in the file.
#define _FILE_OFFSET_BITS 64

#include "model_file.h"

#include "check.h"
#include "synthetic_model.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>

#include <unistd.h>

namespace test {

namespace {

bool accepted(const Model &model) {
    const std::string path = folder() + "/model.bin";
    write_model(model, path);
    std::string error = "left over";
    const bool ok = ev_model_file_check(path.c_str(), error);
    if (!ok)
        fprintf(stderr, "  said: %s\n", error.c_str());
    CHECK(ok == error.empty());
    return ok;
}

// True when the file is refused in words that hold `text`.
bool refused_file(const std::string &path, const std::string &text) {
    std::string error;
    const bool ok = ev_model_file_check(path.c_str(), error);
    const bool good = !ok && error.find(text) != std::string::npos;
    if (!good)
        fprintf(stderr, "  wanted '%s', said: %s\n", text.c_str(), ok ? "(ok)" : error.c_str());
    return good;
}

bool refused(const std::function<void(Model &)> &spoil, const std::string &text) {
    Model model = tiny();
    spoil(model);
    const std::string path = folder() + "/model.bin";
    write_model(model, path);
    return refused_file(path, text);
}

void sound_models_are_accepted() {
    CHECK(accepted(tiny()));
    CHECK(accepted(whisper(384, 6, 4, 4, Q8_0)));
    CHECK(accepted(whisper(384, 6, 4, 4, Q5_1)));
    CHECK(accepted(whisper(384, 6, 4, 4, Q5_0)));
    CHECK(accepted(whisper(512, 8, 6, 6, Q4_K)));
    CHECK(accepted(whisper(768, 12, 12, 4, F16)));   // distil-small.en
    CHECK(accepted(whisper(1280, 20, 32, 4, Q5_0))); // like large-v3-turbo
    Model no_end_of_text = tiny();
    no_end_of_text.words = 50256;
    CHECK(accepted(no_end_of_text));
    Model full_vocabulary = tiny();
    full_vocabulary.words = 51864;
    CHECK(accepted(full_vocabulary));
    Model empty_word = tiny(); // multilingual files hold one
    empty_word.first_words = {""};
    CHECK(accepted(empty_word));
    Model other_order = tiny();
    std::swap(other_order.tensors.front(), other_order.tensors.back());
    CHECK(accepted(other_order));
}

void all_f32_is_only_for_quantising() {
    const std::string path = folder() + "/f32.bin";
    write_model(whisper(384, 6, 4, 4, F32), path);
    std::string error;
    CHECK(ev_model_file_check(path.c_str(), error, true) && error.empty());
    CHECK(refused_file(path, "all f32"));
    write_model(whisper(384, 6, 4, 4, F16), path); // what can be run can be quantised
    CHECK(ev_model_file_check(path.c_str(), error, true) && error.empty());
    Model half = whisper(384, 6, 4, 4, F32);
    half.tensor("encoder.conv2.weight").type = 1;
    write_model(half, path);
    CHECK(!ev_model_file_check(path.c_str(), error, true));
    CHECK(error.find("has type 1, expected is 0") != std::string::npos);
}

void what_is_no_file_is_refused() {
    CHECK(refused_file(folder() + "/absent.bin", "No such file"));
    CHECK(refused_file(folder(), "not a regular file"));
    CHECK(refused_file("/dev/zero", "not a regular file"));
}

void cut_files_are_refused() {
    const std::string path = folder() + "/cut.bin";
    write_model(tiny(), path);
    std::ifstream whole(path, std::ios::binary | std::ios::ate);
    const auto size = off_t(whole.tellg());
    const off_t filters = 4 + 44 + 8, vocabulary = filters + 80 * 201 * 4 + 4;
    const off_t weights = vocabulary + 50257 * (4 + 5) - 8, first_data = weights + 12 + 8 + 28;
    const struct {
        off_t size;
        const char *text;
    } cuts[] = {// from long to short: the file is cut in place
                {size - 1, "ends inside tensor"},
                {first_data + 384 * 1500 * 4 + 5, "ends inside the header of a tensor"},
                {first_data + 384 * 1500 * 4, "of 167 tensors are missing"},
                {first_data + 1000, "ends inside tensor 'encoder.positional_embedding'"},
                {weights + 21, "ends inside the name of a tensor"},
                {weights + 14, "ends inside the shape of a tensor"},
                {weights, "holds no weights"},
                {300000, "ends inside the vocabulary"},
                {1024, "ends inside the mel filters"},
                {8, "ends inside the header"},
                {3, "ends inside the magic number"},
                {0, "ends inside the magic number"}};
    for (const auto &cut : cuts) {
        CHECK(truncate(path.c_str(), cut.size) == 0);
        CHECK(refused_file(path, cut.text));
    }
}

void wrong_headers_are_refused() {
    const auto with = [](size_t field, int32_t value, const char *text) {
        return refused([=](Model &m) { m.header[field] = value; }, text);
    };
    CHECK(refused([](Model &m) { m.magic = 0x46554747; }, "0x46554747")); // GGUF
    CHECK(with(N_VOCAB, 51863, "n_vocab is 51863"));
    CHECK(with(N_VOCAB, 51865, "decoder.token_embedding.weight"));
    CHECK(with(AUDIO_CTX, -1, "n_audio_ctx is -1"));
    CHECK(with(TEXT_CTX, 1 << 30, "n_text_ctx is 1073741824"));
    CHECK(with(STATE, 512, "state 512, 6 heads and 4 layers"));
    CHECK(with(HEADS, 0, "0 heads"));
    CHECK(with(LAYERS, 5, "5 layers"));
    CHECK(with(TEXT_STATE, 512, "decoder has state 512"));
    CHECK(with(TEXT_HEADS, 7, "7 heads"));
    CHECK(with(TEXT_LAYERS, 3, "3 layers"));
    CHECK(with(TEXT_LAYERS, 2, "bytes follow the last tensor")); // those of two more layers
    CHECK(with(N_MELS, 81, "n_mels is 81"));
    CHECK(with(N_MELS, 128, "mel filters are 80 x 201, expected are 128 x 201"));
    CHECK(with(FTYPE, 0, "all f32"));
    CHECK(with(FTYPE, 4, "ftype is 4")); // GGML_ASSERT in ggml
    CHECK(with(FTYPE, 99, "ftype is 99"));
    CHECK(with(FTYPE, -1, "ftype is -1"));
    CHECK(with(FTYPE, -999, "ftype is -999"));
    CHECK(with(FTYPE, INT32_MIN, "ftype is -2147483648"));
    CHECK(with(FTYPE, 1007, "quantisation version 1"));
    CHECK(with(FTYPE, 7, "quantisation version 0"));
    CHECK(with(FTYPE, 2012, "blocks of 256")); // q4_k needs rows of 256, tiny has 384
    CHECK(refused([](Model &m) { m.filter_rows = -80; }, "-80 x 201"));
    CHECK(refused([](Model &m) { m.filter_columns = 400; }, "80 x 400"));
    CHECK(refused([](Model &m) { m.filter = INFINITY; }, "mel filter 0 holds inf"));
    CHECK(refused([](Model &m) { m.words = 0; }, "has 0 words"));
    CHECK(refused([](Model &m) { m.words = -5; }, "has -5 words"));
    CHECK(refused([](Model &m) { m.words = 51865; }, "has 51865 words"));
    CHECK(refused([](Model &m) { m.last_word = std::string(129, ' '); }, "word 50256 of the voc"));
    CHECK(refused([](Model &m) { m.last_word = "  "; }, "no word that is one space")); // map::at
}

void wrong_tensors_are_refused() {
    const auto with = [](const char *name, const std::function<void(Tensor &)> &spoil,
                         const char *text) {
        return refused([&](Model &m) { spoil(m.tensor(name)); }, text);
    };
    const char *matrix = "decoder.blocks.3.mlp.0.weight";
    CHECK(refused([](Model &m) { m.tail = "x"; }, "1 bytes follow the last tensor"));
    CHECK(refused([](Model &m) { m.tail.assign(100, '\0'); }, "100 bytes follow"));
    CHECK(refused([](Model &m) { m.tensors.clear(); }, "holds no weights"));
    CHECK(refused([](Model &m) { m.tensors.pop_back(); },
                  "1 of 167 tensors are missing, among them 'decoder.blocks.3.mlp.2.bias'"));
    CHECK(refused([](Model &m) { m.tensors[9] = m.tensors[10]; },
                  "tensor 'decoder.ln.bias' occurs a second time"));
    CHECK(with(matrix, [](Tensor &t) { t.name[0] = 'D'; }, "'Decoder.blocks.3.mlp.0.weight'"));
    CHECK(with(matrix, [](Tensor &t) { t.name[0] = '\x1b'; }, "not printable"));
    CHECK(with(matrix, [](Tensor &t) { t.name[7] = '\0'; }, "not printable"));
    CHECK(with(matrix, [](Tensor &t) { t.length = 65; }, "65 bytes long"));
    CHECK(with(matrix, [](Tensor &t) { t.length = 0; }, "0 bytes long"));
    CHECK(with(matrix, [](Tensor &t) { t.length = INT32_MAX; }, "2147483647 bytes long"));
    CHECK(with(matrix, [](Tensor &t) { t.length = -1; }, "-1 bytes long"));
    CHECK(with(matrix, [](Tensor &t) { t.n_dims = 0; }, "has 0 dimensions"));
    CHECK(with(matrix, [](Tensor &t) { t.n_dims = -2; }, "has -2 dimensions"));
    CHECK(with(matrix, [](Tensor &t) { t.n_dims = 9; }, "has 9 dimensions"));
    CHECK(with(matrix, [](Tensor &t) { t.shape = {-384, -1536}; }, "shape [-384, -1536, 1]"));
    CHECK(with(matrix, [](Tensor &t) { t.shape[1] = INT32_MAX; }, "[384, 2147483647, 1]"));
    CHECK(with(matrix, [](Tensor &t) { t.shape = {1536, 384}; }, "expected is [384, 1536, 1]"));
    CHECK(with(matrix, [](Tensor &t) { t.type = 0; }, "has type 0, expected is 1"));
    CHECK(with(matrix, [](Tensor &t) { t.type = -1; }, "has type -1"));
    CHECK(with(matrix, [](Tensor &t) { t.type = 1 << 20; }, "has type 1048576"));
    CHECK(with("encoder.conv1.bias", [](Tensor &t) { t.type = 1; }, "expected is 0"));
}

} // namespace

void test_model_file() {
    sound_models_are_accepted();
    all_f32_is_only_for_quantising();
    what_is_no_file_is_refused();
    cut_files_are_refused();
    wrong_headers_are_refused();
    wrong_tensors_are_refused();
}

} // namespace test
