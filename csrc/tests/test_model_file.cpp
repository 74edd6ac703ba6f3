// Tests of ev_model_file_check on synthetic tiny models whose weights are holes in the file.
//
//   test_model_file [MODEL...]     real models named as arguments must be accepted too
#define _FILE_OFFSET_BITS 64

#include "../model_file.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <unistd.h>

static int failures = 0;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition);          \
            ++failures;                                                                            \
        }                                                                                          \
    } while (0)

namespace {

struct Tensor {
    std::string name;
    std::vector<int32_t> shape;
    int32_t type;
    uint64_t bytes;
    int32_t n_dims; // as written, for wrong ones
    int32_t length; // of the name, as written
};

// A model file that can be made wrong in one place.
struct Model {
    uint32_t magic = 0x67676d6c;
    // n_vocab, audio ctx/state/head/layer, text ctx/state/head/layer, n_mels, ftype: tiny.en in f16
    std::vector<int32_t> header = {51864, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 1};
    int32_t filter_rows = 80, filter_columns = 201;
    float filter = 0.01f;
    int32_t words = 50257;
    std::string first_word = "!", last_word = " "; // whisper.cpp looks " " up
    std::vector<Tensor> tensors;
    std::string tail;

    Tensor &tensor(const std::string &name) {
        for (Tensor &candidate : tensors)
            if (candidate.name == name)
                return candidate;
        fprintf(stderr, "no tensor %s in the synthetic model\n", name.c_str());
        exit(2);
    }
};

enum : size_t { N_VOCAB, AUDIO_CTX, STATE, HEADS, LAYERS, TEXT_CTX, TEXT_STATE, TEXT_HEADS };
enum : size_t { TEXT_LAYERS = 8, N_MELS = 9, FTYPE = 10 };

struct Storage {
    int32_t ftype, type;
    uint64_t block, bytes;
};
constexpr Storage F16 = {1, 1, 1, 2}, Q8_0 = {2007, 8, 32, 34}, Q5_1 = {2009, 7, 32, 24},
                  Q5_0 = {2008, 6, 32, 22}, Q4_K = {2012, 12, 256, 144};

Model whisper(int32_t state, int32_t heads, int32_t layers, int32_t text_layers, Storage storage) {
    Model model;
    model.header = {51864, 1500,  state,       heads, layers,       448,
                    state, heads, text_layers, 80,    storage.ftype};
    const auto add = [&](std::string name, std::vector<int32_t> shape, int32_t type,
                         uint64_t bytes) {
        const auto length = int32_t(name.size());
        model.tensors.push_back(
            {std::move(name), shape, type, bytes, int32_t(shape.size()), length});
    };
    const auto f32 = [&](std::string name, std::vector<int32_t> shape) {
        uint64_t bytes = 4;
        for (int32_t n : shape)
            bytes *= uint64_t(n);
        add(std::move(name), shape, 0, bytes);
    };
    const auto f16 = [&](std::string name, int32_t in) {
        add(std::move(name), {3, in, state}, 1, 2 * 3 * uint64_t(in) * uint64_t(state));
    };
    const auto weight = [&](std::string name, int32_t in, int32_t out) {
        const uint64_t count = uint64_t(in) * uint64_t(out);
        add(std::move(name), {in, out}, storage.type, count / storage.block * storage.bytes);
    };
    f32("encoder.positional_embedding", {state, 1500});
    f16("encoder.conv1.weight", 80);
    f32("encoder.conv1.bias", {1, state});
    f16("encoder.conv2.weight", state);
    f32("encoder.conv2.bias", {1, state});
    f32("encoder.ln_post.weight", {state});
    f32("encoder.ln_post.bias", {state});
    f32("decoder.positional_embedding", {state, 448});
    weight("decoder.token_embedding.weight", state, 51864);
    f32("decoder.ln.weight", {state});
    f32("decoder.ln.bias", {state});
    for (const bool encoder : {true, false}) {
        for (int32_t i = 0; i < (encoder ? layers : text_layers); ++i) {
            const std::string block =
                (encoder ? "encoder.blocks." : "decoder.blocks.") + std::to_string(i);
            for (const char *attention : {".attn", ".cross_attn"}) {
                if (encoder && strcmp(attention, ".attn") != 0)
                    continue;
                f32(block + attention + "_ln.weight", {state});
                f32(block + attention + "_ln.bias", {state});
                for (const char *part : {".query", ".key", ".value", ".out"}) {
                    weight(block + attention + part + ".weight", state, state);
                    if (strcmp(part, ".key") != 0)
                        f32(block + attention + part + ".bias", {state});
                }
            }
            f32(block + ".mlp_ln.weight", {state});
            f32(block + ".mlp_ln.bias", {state});
            weight(block + ".mlp.0.weight", state, 4 * state);
            f32(block + ".mlp.0.bias", {4 * state});
            weight(block + ".mlp.2.weight", 4 * state, state);
            f32(block + ".mlp.2.bias", {state});
        }
    }
    return model;
}

Model tiny() { return whisper(384, 6, 4, 4, F16); }

template <typename T> void put(std::ofstream &out, const T &value) {
    out.write(reinterpret_cast<const char *>(&value), sizeof value);
}

void write(const Model &model, const std::string &path) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    put(out, model.magic);
    for (int32_t value : model.header)
        put(out, value);
    put(out, model.filter_rows);
    put(out, model.filter_columns);
    for (int32_t i = 0; i < 80 * 201; ++i)
        put(out, model.filter);
    put(out, model.words);
    const std::string middle = "ahead";
    for (int32_t i = 0; i < model.words; ++i) {
        const std::string &word = i == 0                 ? model.first_word
                                  : i + 1 == model.words ? model.last_word
                                                         : middle;
        put(out, uint32_t(word.size()));
        out << word;
    }
    for (const Tensor &tensor : model.tensors) {
        put(out, tensor.n_dims);
        put(out, tensor.length);
        put(out, tensor.type);
        for (int32_t n : tensor.shape)
            put(out, n);
        out << tensor.name;
        out.seekp(std::streamoff(tensor.bytes), std::ios::cur);
    }
    out << model.tail;
    const auto size = off_t(out.tellp());
    out.close();
    if (!out || truncate(path.c_str(), size) != 0) { // also writes a hole at the end
        fprintf(stderr, "cannot write %s\n", path.c_str());
        exit(2);
    }
}

std::string folder;

bool accepted(const Model &model) {
    const std::string path = folder + "/model.bin";
    write(model, path);
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
    const std::string path = folder + "/model.bin";
    write(model, path);
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
    empty_word.first_word = "";
    CHECK(accepted(empty_word));
    Model other_order = tiny();
    std::swap(other_order.tensors.front(), other_order.tensors.back());
    CHECK(accepted(other_order));
}

void what_is_no_file_is_refused() {
    CHECK(refused_file(folder + "/absent.bin", "No such file"));
    CHECK(refused_file(folder, "not a regular file"));
    CHECK(refused_file("/dev/zero", "not a regular file"));
}

void cut_files_are_refused() {
    const std::string path = folder + "/cut.bin";
    write(tiny(), path);
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

int main(int argc, char **argv) {
    const char *base = getenv("TMPDIR");
    folder = std::string(base && *base ? base : "/tmp") + "/test_model_file.XXXXXX";
    if (!mkdtemp(&folder[0])) {
        perror("mkdtemp");
        return 2;
    }
    sound_models_are_accepted();
    what_is_no_file_is_refused();
    cut_files_are_refused();
    wrong_headers_are_refused();
    wrong_tensors_are_refused();
    for (int i = 1; i < argc; ++i) {
        std::string error;
        const bool ok = ev_model_file_check(argv[i], error);
        printf("%s: %s\n", argv[i], ok ? "accepted" : error.c_str());
        CHECK(ok);
    }
    for (const char *name : {"/model.bin", "/cut.bin"})
        unlink((folder + name).c_str());
    rmdir(folder.c_str());
    printf("test_model_file: %s\n", failures == 0 ? "passed" : "FAILED");
    return failures == 0 ? 0 : 1;
}
