// ev_model_quantize: every kind from f16 and f32, and what is refused.
#define _FILE_OFFSET_BITS 64

#include "edgevoice.h"

#include "check.h"
#include "model_file.h"
#include "synthetic_model.h"

#include <cmath>
#include <cstring>

namespace test {

namespace {

std::string written(const Model &model) {
    const std::string path = folder() + "/source.bin";
    write_model(model, path);
    return path;
}

// The error, or nothing when the result is sound and has this file type.
std::string quantize(const std::string &source, int32_t file_type) {
    const std::string target = folder() + "/quantised.bin";
    if (ev_model_quantize(source.c_str(), target.c_str(), file_type) != EV_OK)
        return ev_last_error();
    std::string error;
    CHECK(ev_model_file_check(target.c_str(), error));
    const std::string made = read_file(target);
    int32_t header[12];
    std::memcpy(header, made.data(), sizeof header);
    CHECK(header[11] == 2000 + file_type);
    return error;
}

bool refused(const std::string &source, int32_t file_type, const std::string &text) {
    const std::string error = quantize(source, file_type);
    const bool good = error.find(text) != std::string::npos;
    if (!good)
        fprintf(stderr, "  wanted '%s', said: %s\n", text.c_str(), error.c_str());
    return good;
}

// As many bytes of one value, for the beginning of a tensor.
template <typename T> std::string values(T value, size_t count) {
    std::string bytes;
    for (size_t i = 0; i < count; ++i)
        bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
    return bytes;
}

void every_kind_is_made_and_sound() {
    const std::string halves = written(tiny());
    for (const int32_t file_type : {2, 3, 7, 8, 9})
        CHECK(quantize(halves, file_type).empty());
    const std::string singles = written(whisper(384, 6, 4, 4, F32));
    for (const int32_t file_type : {2, 7})
        CHECK(quantize(singles, file_type).empty());
}

// Blocks of 256: the rows of base divide into them, and tiny's do not.
void kinds_of_long_blocks() {
    const std::string base = written(whisper(512, 8, 6, 2, F16));
    for (const int32_t file_type : {10, 11, 12, 13, 14})
        CHECK(quantize(base, file_type).empty());
    const std::string source = written(tiny());
    for (const int32_t file_type : {10, 11, 12, 13, 14})
        CHECK(refused(source, file_type, "has rows of 384 values, but q"));
}

void f16_and_f32_give_the_same() {
    const char *matrix = "decoder.blocks.0.mlp.0.weight", *convolution = "encoder.conv1.weight";
    Model single = whisper(384, 6, 4, 4, F32), half = tiny();
    single.tensor(matrix).data[0] = values(0.5f, 384);
    single.tensor(convolution).data[0] = values(0.25f, 30);
    half.tensor(matrix).data[0] = values(uint16_t(0x3800), 384); // 0.5
    half.tensor(convolution).data[0] = values(uint16_t(0x3400), 30);
    CHECK(quantize(written(single), 7).empty());
    const std::string of_single = read_file(folder() + "/quantised.bin");
    CHECK(quantize(written(half), 7).empty());
    CHECK(of_single == read_file(folder() + "/quantised.bin"));
}

void what_is_refused() {
    const std::string source = written(tiny());
    for (const int32_t file_type : {-1, 0, 1, 4, 5, 6, 15, 25, 99, 2007})
        CHECK(refused(source, file_type, "is no supported quantisation"));
    CHECK(refused(written(whisper(384, 6, 4, 4, Q8_0)), 7, "not f16 or f32 but of file type 2007"));
    CHECK(refused(folder() + "/absent.bin", 7, "No such file"));
    const std::string good = read_file(written(tiny()));
    write_file(folder() + "/cut.bin", good.substr(0, good.size() - 1));
    CHECK(refused(folder() + "/cut.bin", 7, "ends inside tensor"));
    for (const float bad : {INFINITY, -INFINITY, NAN}) {
        Model model = whisper(384, 6, 4, 4, F32);
        model.tensor("encoder.blocks.1.attn.key.weight").data[400] = values(bad, 1);
        CHECK(refused(written(model), 2, "encoder.blocks.1.attn.key.weight holds a value"));
    }
    Model mixed = whisper(384, 6, 4, 4, F32);
    mixed.tensor("encoder.conv1.weight").type = 1;
    CHECK(refused(written(mixed), 7, "has type 1, expected is 0"));
}

} // namespace

void test_quantize() {
    every_kind_is_made_and_sound();
    kinds_of_long_blocks();
    f16_and_f32_give_the_same();
    what_is_refused();
}

} // namespace test
