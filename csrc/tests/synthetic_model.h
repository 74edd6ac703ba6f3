// Whisper model files made by hand: the structure of a real one, weights that are holes in the
// file.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace test {

struct Tensor {
    std::string name;
    std::vector<int32_t> shape;
    int32_t type;
    uint64_t bytes;
    int32_t n_dims;                            // as written, for wrong ones
    int32_t length;                            // of the name, as written
    std::map<uint64_t, std::string> data = {}; // by offset; zeros elsewhere
};

// A model file that can be made wrong in one place.
struct Model {
    uint32_t magic = 0x67676d6c;
    // n_vocab, audio ctx/state/head/layer, text ctx/state/head/layer, n_mels, ftype: tiny.en in f16
    std::vector<int32_t> header = {51864, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 1};
    int32_t filter_rows = 80, filter_columns = 201;
    float filter = 0.01f;
    int32_t words = 50257;
    std::vector<std::string> first_words = {"!"};
    std::string last_word = " "; // whisper.cpp looks it up
    std::vector<Tensor> tensors;
    std::string tail;

    Tensor &tensor(const std::string &name); // ends the process when there is none
};

// Places in Model::header.
enum : size_t { N_VOCAB, AUDIO_CTX, STATE, HEADS, LAYERS, TEXT_CTX, TEXT_STATE, TEXT_HEADS };
enum : size_t { TEXT_LAYERS = 8, N_MELS = 9, FTYPE = 10 };

struct Storage {
    int32_t ftype, type;
    uint64_t block, bytes;
};
constexpr Storage F32 = {0, 0, 1, 4}, F16 = {1, 1, 1, 2}, Q8_0 = {2007, 8, 32, 34},
                  Q5_1 = {2009, 7, 32, 24}, Q5_0 = {2008, 6, 32, 22}, Q4_K = {2012, 12, 256, 144};

// Convolutions are f16, as in every file, and f32 where all is.
Model whisper(int32_t state, int32_t heads, int32_t layers, int32_t text_layers, Storage storage);
inline Model tiny() { return whisper(384, 6, 4, 4, F16); }

void write_model(const Model &model, const std::string &path);

} // namespace test
