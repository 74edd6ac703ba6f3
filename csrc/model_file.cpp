// See model_file.h. The journey of a file:
//   1. magic and 11 header numbers       -> Header, compared with the published Whisper sizes
//   2. mel filter bank                   -> finite numbers
//   3. vocabulary                        -> count and lengths
//   4. expected tensors from the header  -> name, shape, type
//   5. tensors of the file               -> each must be one of them, once, and whole
#define _FILE_OFFSET_BITS 64 // large models pass 2 GB; 32-bit Raspberry Pi OS counts in 32 bits

#include "model_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <unordered_map>

#include <sys/stat.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model files are little-endian and are read as they are"
#endif

namespace {

constexpr uint32_t MAGIC = 0x67676d6c; // "ggml" read as a little-endian number
constexpr int32_t FFT_BINS = 201;      // of Whisper's 400-sample window: 400 / 2 + 1
constexpr int32_t MIN_WORDS = 50256;   // GPT-2's vocabulary without end-of-text
constexpr uint32_t MAX_WORD = 128;     // longest word of the published vocabularies, in bytes
constexpr int32_t MAX_NAME = 64;       // longest tensor name is 43 characters
constexpr int32_t MAX_DIMS = 3;        // convolution weights; whisper.cpp has room for 4
constexpr int32_t QUANT_VERSION = 2;   // GGML_QNT_VERSION of the pinned ggml
constexpr int32_t QUANT_FACTOR = 1000; // GGML_QNT_VERSION_FACTOR: ftype = version * 1000 + type

struct Refusal {
    std::string text;
};

[[noreturn, gnu::format(printf, 1, 2)]] void refuse(const char *format, ...) {
    char text[512]; // the longest sentence, with a 64-character name in it, is under 300
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    throw Refusal{text};
}

struct CloseFile {
    void operator()(FILE *file) const { fclose(file); }
};

// A file that knows how much of itself is left: every read past its end is a refusal.
class Reader {
  public:
    explicit Reader(const char *path) {
        struct stat info;
        if (stat(path, &info) != 0)
            refuse("the model file cannot be read: %s", strerror(errno));
        if (!S_ISREG(info.st_mode)) // opening a pipe would wait for ever
            refuse("the model is not a regular file (mode %o)", unsigned(info.st_mode));
        file_.reset(fopen(path, "rb"));
        if (!file_)
            refuse("the model file cannot be opened: %s", strerror(errno));
        size_ = uint64_t(info.st_size);
    }

    uint64_t position() const { return position_; }
    uint64_t left() const { return size_ - position_; }

    void need(uint64_t bytes, const char *what) const {
        if (bytes > left())
            refuse("the file ends inside %s: %llu bytes wanted at byte %llu, but it has only %llu",
                   what, (unsigned long long)bytes, (unsigned long long)position_,
                   (unsigned long long)size_);
    }

    void read(void *out, size_t bytes, const char *what) {
        need(bytes, what);
        if (bytes > 0 && fread(out, 1, bytes, file_.get()) != bytes)
            refuse("reading %s at byte %llu failed: %s", what, (unsigned long long)position_,
                   ferror(file_.get()) ? strerror(errno) : "the file became shorter");
        position_ += bytes;
    }

    template <typename T> T number(const char *what) {
        T value;
        read(&value, sizeof value, what);
        return value;
    }

    void skip(uint64_t bytes, const char *what) {
        need(bytes, what);
        if (fseeko(file_.get(), off_t(bytes), SEEK_CUR) != 0)
            refuse("seeking in %s at byte %llu failed: %s", what, (unsigned long long)position_,
                   strerror(errno));
        position_ += bytes;
    }

  private:
    std::unique_ptr<FILE, CloseFile> file_;
    uint64_t size_ = 0;
    uint64_t position_ = 0;
};

// How weights are stored: `bytes` hold `block` numbers. From ggml.h and ggml-common.h.
struct Storage {
    int32_t ftype; // number in the file's header
    int32_t type;  // number at each tensor
    int32_t block;
    int32_t bytes;
};
constexpr Storage F32 = {0, 0, 1, 4};
constexpr Storage F16 = {1, 1, 1, 2};
constexpr Storage WEIGHT_STORAGES[] = {
    F16,
    {2, 2, 32, 18},     // q4_0
    {3, 3, 32, 20},     // q4_1
    {7, 8, 32, 34},     // q8_0
    {8, 6, 32, 22},     // q5_0
    {9, 7, 32, 24},     // q5_1
    {10, 10, 256, 84},  // q2_k
    {11, 11, 256, 110}, // q3_k
    {12, 12, 256, 144}, // q4_k
    {13, 13, 256, 176}, // q5_k
    {14, 14, 256, 210}, // q6_k
};

struct Size {
    int32_t state, heads, layers;
};
constexpr Size PUBLISHED_SIZES[] = {
    {384, 6, 4},    // tiny
    {512, 8, 6},    // base
    {768, 12, 12},  // small
    {1024, 16, 24}, // medium
    {1280, 20, 32}, // large
};

struct Header { // in the order of the file
    int32_t n_vocab, n_audio_ctx, n_audio_state, n_audio_head, n_audio_layer;
    int32_t n_text_ctx, n_text_state, n_text_head, n_text_layer, n_mels, ftype;
};
static_assert(sizeof(Header) == 44);

struct Tensor {
    std::array<int32_t, 3> shape; // fastest dimension first, missing ones are 1
    Storage storage;
    bool seen;
};
using Tensors = std::unordered_map<std::string, Tensor>;

const Storage &weight_storage(const Header &header, bool may_be_f32) {
    const int32_t version = header.ftype / QUANT_FACTOR, ftype = header.ftype % QUANT_FACTOR;
    if (header.ftype == F32.ftype && may_be_f32)
        return F32;
    if (header.ftype == F32.ftype) // GGML_ASSERT(src0->type == GGML_TYPE_F16) in im2col
        refuse("the weights are all f32 (ftype 0), on which whisper.cpp aborts; convert to f16");
    for (const Storage &storage : WEIGHT_STORAGES) {
        if (storage.ftype != ftype)
            continue;
        if (version != QUANT_VERSION && !(version == 0 && ftype == F16.ftype))
            refuse("the weights have quantisation version %d (ftype %d), allowed is %d", version,
                   header.ftype, QUANT_VERSION);
        if (header.n_audio_state % storage.block != 0)
            refuse("ftype %d stores blocks of %d weights, into which rows of %d do not divide",
                   header.ftype, storage.block, header.n_audio_state);
        return storage;
    }
    refuse("ftype is %d, which is no storage of weights that whisper.cpp runs", header.ftype);
}

Header read_header(Reader &file) {
    const uint32_t magic = file.number<uint32_t>("the magic number");
    if (magic != MAGIC)
        refuse("the file starts with 0x%08x instead of 0x%08x: it is no ggml model", magic, MAGIC);
    const Header header = file.number<Header>("the header");
    if (header.n_vocab < 51864 || header.n_vocab > 51866) // English; multilingual v1/v2; v3
        refuse("n_vocab is %d, allowed are 51864, 51865 and 51866", header.n_vocab);
    if (header.n_audio_ctx != 1500)
        refuse("n_audio_ctx is %d, allowed is 1500", header.n_audio_ctx);
    if (header.n_text_ctx != 448)
        refuse("n_text_ctx is %d, allowed is 448", header.n_text_ctx);
    if (header.n_mels != 80 && header.n_mels != 128)
        refuse("n_mels is %d, allowed are 80 and 128", header.n_mels);
    const Size *size = std::find_if(std::begin(PUBLISHED_SIZES), std::end(PUBLISHED_SIZES),
                                    [&](const Size &published) {
                                        return published.state == header.n_audio_state &&
                                               published.heads == header.n_audio_head &&
                                               published.layers == header.n_audio_layer;
                                    });
    if (size == std::end(PUBLISHED_SIZES))
        refuse("the encoder has state %d, %d heads and %d layers, which is no published Whisper",
               header.n_audio_state, header.n_audio_head, header.n_audio_layer);
    const bool layers_known = header.n_text_layer == size->layers || header.n_text_layer == 2 ||
                              header.n_text_layer == 4; // distilled: 2 or 4; turbo: 4
    if (header.n_text_state != size->state || header.n_text_head != size->heads || !layers_known)
        refuse("the decoder has state %d, %d heads and %d layers, which does not go with the "
               "encoder's %d, %d and %d",
               header.n_text_state, header.n_text_head, header.n_text_layer, size->state,
               size->heads, size->layers);
    return header;
}

void read_mel_filters(Reader &file, const Header &header) {
    const int32_t n_mel = file.number<int32_t>("the size of the mel filters");
    const int32_t n_fft = file.number<int32_t>("the size of the mel filters");
    if (n_mel != header.n_mels || n_fft != FFT_BINS)
        refuse("the mel filters are %d x %d, expected are %d x %d", n_mel, n_fft, header.n_mels,
               FFT_BINS);
    for (int32_t band = 0; band < n_mel; ++band)
        for (const float weight : file.number<std::array<float, FFT_BINS>>("the mel filters"))
            if (!std::isfinite(weight))
                refuse("mel filter %d holds %f, which is no finite number", band, double(weight));
}

void read_vocabulary(Reader &file, const Header &header) {
    const int32_t words = file.number<int32_t>("the size of the vocabulary");
    if (words < MIN_WORDS || words > header.n_vocab)
        refuse("the vocabulary has %d words, allowed are %d to n_vocab = %d", words, MIN_WORDS,
               header.n_vocab);
    char word[MAX_WORD];
    bool has_space = false;
    for (int32_t i = 0; i < words; ++i) {
        const uint32_t length = file.number<uint32_t>("the vocabulary");
        if (length > MAX_WORD)
            refuse("word %d of the vocabulary is %u bytes long, at most %u are allowed", i, length,
                   MAX_WORD);
        file.read(word, length, "the vocabulary");
        has_space |= length == 1 && word[0] == ' ';
    }
    if (!has_space) // whisper_process_logits looks it up with map::at
        refuse("the vocabulary of %d words has no word that is one space", words);
}

// The tensors whisper_model_load creates for these sizes, by its names and in its shapes.
Tensors expected_tensors(const Header &header, bool may_be_f32) {
    Tensors tensors;
    const Storage &weight = weight_storage(header, may_be_f32);
    const Storage &convolution = weight.ftype == F32.ftype ? F32 : F16; // never quantised
    const int32_t state = header.n_audio_state, wide = 4 * state;       // wide: inside the MLP
    const auto add = [&](const std::string &name, int32_t ne0, int32_t ne1, int32_t ne2,
                         const Storage &storage) {
        tensors[name] = {{ne0, ne1, ne2}, storage, false};
    };
    const auto matrix = [&](const std::string &name, int32_t in, int32_t out) {
        add(name, in, out, 1, weight);
    };
    const auto vector = [&](const std::string &name, int32_t n) { add(name, n, 1, 1, F32); };
    const auto norm = [&](const std::string &name) {
        vector(name + ".weight", state);
        vector(name + ".bias", state);
    };
    const auto linear = [&](const std::string &name, int32_t in, int32_t out) {
        matrix(name + ".weight", in, out);
        vector(name + ".bias", out);
    };
    const auto attention = [&](const std::string &name) {
        norm(name + "_ln");
        linear(name + ".query", state, state);
        matrix(name + ".key.weight", state, state); // Whisper's keys have no bias
        linear(name + ".value", state, state);
        linear(name + ".out", state, state);
    };
    const auto mlp = [&](const std::string &block) {
        norm(block + "mlp_ln");
        linear(block + "mlp.0", state, wide);
        linear(block + "mlp.2", wide, state);
    };

    add("encoder.positional_embedding", state, header.n_audio_ctx, 1, F32);
    add("encoder.conv1.weight", 3, header.n_mels, state, convolution);
    add("encoder.conv1.bias", 1, state, 1, F32);
    add("encoder.conv2.weight", 3, state, state, convolution);
    add("encoder.conv2.bias", 1, state, 1, F32);
    norm("encoder.ln_post");
    for (int32_t layer = 0; layer < header.n_audio_layer; ++layer) {
        const std::string block = "encoder.blocks." + std::to_string(layer) + ".";
        attention(block + "attn");
        mlp(block);
    }
    add("decoder.positional_embedding", state, header.n_text_ctx, 1, F32);
    matrix("decoder.token_embedding.weight", state, header.n_vocab);
    norm("decoder.ln");
    for (int32_t layer = 0; layer < header.n_text_layer; ++layer) {
        const std::string block = "decoder.blocks." + std::to_string(layer) + ".";
        attention(block + "attn");
        attention(block + "cross_attn");
        mlp(block);
    }
    return tensors;
}

void read_tensor(Reader &file, Tensors &tensors) {
    const auto where = (unsigned long long)file.position();
    const int32_t n_dims = file.number<int32_t>("the header of a tensor");
    const int32_t length = file.number<int32_t>("the header of a tensor");
    const int32_t type = file.number<int32_t>("the header of a tensor");
    if (n_dims < 1 || n_dims > MAX_DIMS)
        refuse("the tensor at byte %llu has %d dimensions, allowed are 1 to %d", where, n_dims,
               MAX_DIMS);
    if (length < 1 || length > MAX_NAME)
        refuse("the name of the tensor at byte %llu is %d bytes long, allowed are 1 to %d", where,
               length, MAX_NAME);
    std::array<int32_t, 3> shape = {1, 1, 1};
    for (int32_t i = 0; i < n_dims; ++i)
        shape[size_t(i)] = file.number<int32_t>("the shape of a tensor");
    std::string name(size_t(length), '\0');
    file.read(&name[0], name.size(), "the name of a tensor");
    if (!std::all_of(name.begin(), name.end(), [](char c) { return c > 0x20 && c < 0x7f; }))
        refuse("the name of the tensor at byte %llu is not printable ASCII", where);

    const auto found = tensors.find(name);
    if (found == tensors.end())
        refuse("tensor '%s' at byte %llu is not part of this Whisper size", name.c_str(), where);
    Tensor &expected = found->second;
    if (expected.seen)
        refuse("tensor '%s' occurs a second time at byte %llu", name.c_str(), where);
    if (shape != expected.shape)
        refuse("tensor '%s' has shape [%d, %d, %d], expected is [%d, %d, %d]", name.c_str(),
               shape[0], shape[1], shape[2], expected.shape[0], expected.shape[1],
               expected.shape[2]);
    if (type != expected.storage.type)
        refuse("tensor '%s' has type %d, expected is %d", name.c_str(), type,
               expected.storage.type);
    expected.seen = true;
    // Cannot overflow: the shape is the expected one, at most 51866 x 1280.
    const uint64_t count = uint64_t(shape[0]) * uint64_t(shape[1]) * uint64_t(shape[2]);
    const std::string what = "tensor '" + name + "'";
    file.skip(count / uint64_t(expected.storage.block) * uint64_t(expected.storage.bytes),
              what.c_str());
}

void check(const char *path, bool may_be_f32) {
    Reader file(path);
    const Header header = read_header(file);
    Tensors tensors = expected_tensors(header, may_be_f32);
    read_mel_filters(file, header);
    read_vocabulary(file, header);
    if (file.left() == 0)
        refuse("the file ends after the vocabulary and holds no weights (a file for tests?)");
    for (size_t seen = 0; seen < tensors.size(); ++seen) {
        if (file.left() == 0) {
            std::string missing = "~"; // sorts behind every name
            for (const auto &entry : tensors)
                if (!entry.second.seen)
                    missing = std::min(missing, entry.first);
            refuse("%zu of %zu tensors are missing, among them '%s'", tensors.size() - seen,
                   tensors.size(), missing.c_str());
        }
        read_tensor(file, tensors);
    }
    if (file.left() > 0)
        refuse("%llu bytes follow the last tensor", (unsigned long long)file.left());
}

} // namespace

bool ev_model_file_check(const char *path, std::string &error, bool may_be_f32) noexcept {
    error.clear();
    try {
        check(path, may_be_f32);
        return true;
    } catch (Refusal &refusal) {
        error = std::move(refusal.text);
    } catch (...) {              // std::bad_alloc is all that is left
        error = "out of memory"; // short enough to need no memory itself
    }
    return false;
}
