// Files whose offsets pass 2 GB on 32-bit machines.
#define _FILE_OFFSET_BITS 64

#include "synthetic_model.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include <unistd.h>

namespace test {

Tensor &Model::tensor(const std::string &name) {
    for (Tensor &candidate : tensors)
        if (candidate.name == name)
            return candidate;
    fprintf(stderr, "no tensor %s in the synthetic model\n", name.c_str());
    exit(2);
}

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
    const auto convolution = [&](std::string name, int32_t in) {
        const int32_t type = storage.ftype == F32.ftype ? 0 : 1;
        const uint64_t bytes = type == 0 ? 4 : 2;
        add(std::move(name), {3, in, state}, type, bytes * 3 * uint64_t(in) * uint64_t(state));
    };
    const auto weight = [&](std::string name, int32_t in, int32_t out) {
        const uint64_t count = uint64_t(in) * uint64_t(out);
        add(std::move(name), {in, out}, storage.type, count / storage.block * storage.bytes);
    };
    f32("encoder.positional_embedding", {state, 1500});
    convolution("encoder.conv1.weight", 80);
    f32("encoder.conv1.bias", {1, state});
    convolution("encoder.conv2.weight", state);
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

namespace {

template <typename T> void put(std::ofstream &out, const T &value) {
    out.write(reinterpret_cast<const char *>(&value), sizeof value);
}

} // namespace

void write_model(const Model &model, const std::string &path) {
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
        const std::string &word = size_t(i) < model.first_words.size()
                                      ? model.first_words[size_t(i)]
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
        const auto start = out.tellp();
        for (const auto &[offset, bytes] : tensor.data) {
            out.seekp(start + std::streamoff(offset));
            out << bytes;
        }
        out.seekp(start + std::streamoff(tensor.bytes));
    }
    out << model.tail;
    const auto size = off_t(out.tellp());
    out.close();
    if (!out || truncate(path.c_str(), size) != 0) { // also writes a hole at the end
        fprintf(stderr, "cannot write %s\n", path.c_str());
        exit(2);
    }
}

} // namespace test
