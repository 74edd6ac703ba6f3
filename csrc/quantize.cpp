#include "quantize.h"

#include "ggml.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <vector>

namespace ev {

namespace {

constexpr size_t file_type_index = 10; // of the header's eleven numbers

class Copier {
  public:
    Copier(const char *input, const char *output)
        : in(input, std::ios::binary), out(output, std::ios::binary | std::ios::trunc) {}

    template <typename T> T read() {
        T value{};
        in.read(reinterpret_cast<char *>(&value), sizeof value);
        return value;
    }
    template <typename T> void write(const T &value) {
        out.write(reinterpret_cast<const char *>(&value), sizeof value);
    }
    template <typename T> T copy() {
        const T value = read<T>();
        write(value);
        return value;
    }
    void copy_bytes(size_t n) {
        buffer.resize(n);
        in.read(buffer.data(), std::streamsize(n));
        out.write(buffer.data(), std::streamsize(n));
    }

    std::ifstream in;
    std::ofstream out;
    std::vector<char> buffer;
};

// What whisper.cpp quantises: matrices, but not those it adds to activations.
bool is_quantized(const std::string &name, int32_t n_dims) {
    return n_dims == 2 && name != "encoder.conv1.bias" && name != "encoder.conv2.bias" &&
           name != "encoder.positional_embedding" && name != "decoder.positional_embedding";
}

// The type of the matrices, or GGML_TYPE_COUNT; ggml's own function aborts on what it does not
// know.
ggml_type type_of(int file_type) {
    switch (file_type) {
    case GGML_FTYPE_MOSTLY_Q4_0:
        return GGML_TYPE_Q4_0;
    case GGML_FTYPE_MOSTLY_Q4_1:
        return GGML_TYPE_Q4_1;
    case GGML_FTYPE_MOSTLY_Q5_0:
        return GGML_TYPE_Q5_0;
    case GGML_FTYPE_MOSTLY_Q5_1:
        return GGML_TYPE_Q5_1;
    case GGML_FTYPE_MOSTLY_Q8_0:
        return GGML_TYPE_Q8_0;
    case GGML_FTYPE_MOSTLY_Q2_K:
        return GGML_TYPE_Q2_K;
    case GGML_FTYPE_MOSTLY_Q3_K:
        return GGML_TYPE_Q3_K;
    case GGML_FTYPE_MOSTLY_Q4_K:
        return GGML_TYPE_Q4_K;
    case GGML_FTYPE_MOSTLY_Q5_K:
        return GGML_TYPE_Q5_K;
    case GGML_FTYPE_MOSTLY_Q6_K:
        return GGML_TYPE_Q6_K;
    default:
        return GGML_TYPE_COUNT;
    }
}

} // namespace

bool quantize(const char *input, const char *output, int file_type, std::string &error) {
    const ggml_type type = type_of(file_type);
    if (type == GGML_TYPE_COUNT) {
        error = "file type " + std::to_string(file_type) + " is no supported quantisation";
        return false;
    }
    Copier copier(input, output);
    if (!copier.in || !copier.out) {
        error = !copier.in ? "the input cannot be read" : "the output cannot be written";
        return false;
    }

    copier.copy<uint32_t>(); // magic
    std::array<int32_t, 11> header{};
    for (int32_t &number : header)
        number = copier.read<int32_t>();
    if (header[file_type_index] != GGML_FTYPE_MOSTLY_F16 &&
        header[file_type_index] != GGML_FTYPE_ALL_F32) {
        error = "the input is not f16 or f32 but of file type " +
                std::to_string(header[file_type_index]) +
                "; quantise the f16 model it was made from";
        return false;
    }
    header[file_type_index] = GGML_QNT_VERSION * GGML_QNT_VERSION_FACTOR + file_type;
    for (const int32_t number : header)
        copier.write(number);
    const int32_t n_mel = copier.copy<int32_t>(), n_fft = copier.copy<int32_t>();
    copier.copy_bytes(size_t(n_mel) * size_t(n_fft) * sizeof(float));
    const int32_t n_words = copier.copy<int32_t>();
    for (int32_t i = 0; i < n_words; ++i)
        copier.copy_bytes(copier.copy<uint32_t>());

    std::vector<float> values;
    std::vector<ggml_fp16_t> halves;
    std::vector<char> quantized;
    while (copier.in.peek() != std::char_traits<char>::eof()) {
        const int32_t n_dims = copier.copy<int32_t>();
        const int32_t name_length = copier.copy<int32_t>();
        const int32_t source = copier.read<int32_t>();
        int64_t columns = 1, elements = 1;
        std::array<int32_t, 4> dims{};
        for (int32_t i = 0; i < n_dims; ++i) {
            dims[i] = copier.read<int32_t>();
            elements *= dims[i];
            if (i == 0)
                columns = dims[i];
        }
        std::string name(size_t(name_length), '\0');
        copier.in.read(name.data(), name_length);

        const bool convolution = n_dims == 3 && source == GGML_TYPE_F32;
        const bool convert = is_quantized(name, n_dims) || convolution;
        const ggml_type wanted = convolution ? GGML_TYPE_F16 : type;
        if (convert && columns % ggml_blck_size(wanted) != 0) {
            error = "tensor " + name + " has rows of " + std::to_string(columns) + " values, but " +
                    ggml_type_name(type) + " has blocks of " +
                    std::to_string(ggml_blck_size(type)) +
                    "; whisper.cpp wants one type for all matrices, so take q4_0, q4_1, q5_0, q5_1 "
                    "or q8_0";
            return false;
        }
        copier.write(convert ? int32_t(wanted) : source);
        for (int32_t i = 0; i < n_dims; ++i)
            copier.write(dims[i]);
        copier.out.write(name.data(), name_length);
        if (!convert) {
            copier.copy_bytes(size_t(elements) * ggml_type_size(ggml_type(source)));
            continue;
        }
        values.resize(size_t(elements));
        if (source == GGML_TYPE_F32) {
            copier.in.read(reinterpret_cast<char *>(values.data()),
                           elements * int64_t(sizeof(float)));
        } else {
            halves.resize(size_t(elements));
            copier.in.read(reinterpret_cast<char *>(halves.data()),
                           elements * int64_t(sizeof(ggml_fp16_t)));
            ggml_fp16_to_fp32_row(halves.data(), values.data(), elements);
        }
        // ggml casts what it computes of them to integers
        if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
            error = "tensor " + name + " holds a value that is no finite number";
            return false;
        }
        const int64_t rows = elements / columns;
        quantized.resize(size_t(rows) * ggml_row_size(wanted, columns));
        ggml_quantize_chunk(wanted, values.data(), quantized.data(), 0, rows, columns, nullptr);
        copier.out.write(quantized.data(), std::streamsize(quantized.size()));
    }
    copier.out.flush();
    if (!copier.out) {
        error = "writing failed; is the disk full?";
        return false;
    }
    return true;
}

} // namespace ev
