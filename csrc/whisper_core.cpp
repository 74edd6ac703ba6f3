#include "whisper_core.h"

#include "half_matrix.h"

// Upstream includes these, too; they come first so that only upstream's own abort() is another.
#include <algorithm>
#include <atomic>
#include <cassert>
#include <cfloat>
#include <climits>
#include <cmath>
#include <codecvt>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <new>
#include <numeric>
#include <random>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

// WHISPER_ASSERT ends the process; here it ends the call.
[[noreturn]] static void upstream_assertion_failed() {
    throw std::logic_error("whisper.cpp came upon what it does not expect; see the log");
}

// Upstream's source, unchanged, with the warnings it has always had.
#define abort upstream_assertion_failed
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wcast-qual"
#include "whisper.cpp"
#pragma GCC diagnostic pop
#undef abort

#include <malloc.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

namespace ev {

namespace {

void (*log_sink)(char, const char *) = nullptr;

// Set while upstream would log four lines for each 32 ms of audio.
thread_local bool quiet = false;

void forward_log(ggml_log_level level, const char *text, void *) {
    if (quiet && level != GGML_LOG_LEVEL_ERROR)
        return;
    switch (level) {
    case GGML_LOG_LEVEL_ERROR:
        log_sink('E', text);
        break;
    case GGML_LOG_LEVEL_WARN:
        log_sink('W', text);
        break;
    case GGML_LOG_LEVEL_INFO:
        log_sink('I', text);
        break;
    default:
        log_sink('D', text);
        break;
    }
}

// What commands of a second or two take with a beam of 8. More is taken when it is needed, as all
// pages of a cache are used from the first token on: values lie number by number.
constexpr int32_t first_cells = 256;

// Half of the text window less one, as upstream keeps.
constexpr int32_t max_context = 223;

// Upstream fills a cache with zeros, which takes memory for the longest audio there can be. Pages
// given back read as zeros, too, and are taken again only where something is written.
void give_back(const whisper_kv_cache &cache) {
    const uintptr_t page = uintptr_t(sysconf(_SC_PAGESIZE));
    const uintptr_t begin = uintptr_t(ggml_backend_buffer_get_base(cache.buffer));
    const uintptr_t first = (begin + page - 1) / page * page;
    const uintptr_t end = (begin + ggml_backend_buffer_get_size(cache.buffer)) / page * page;
    if (first < end) // else, and when it fails, nothing is lost but memory
        madvise(reinterpret_cast<void *>(first), end - first, MADV_DONTNEED);
}

} // namespace

void redirect_log(void (*sink)(char, const char *)) {
    log_sink = sink;
    whisper_log_set(forward_log, nullptr);
    ggml_log_set(forward_log, nullptr); // upstream does so only with the first state
}

namespace {

// Attention of so many copies of all alignment heads is in upstream's memory for word times at
// once: weights, normalised, permuted twice, filtered, the mean of them; and what is not so large.
constexpr size_t alignment_copies = 8, alignment_rest = 32u << 20;

// Sets whose alignment heads are used. False, and why, when the model has no such heads.
bool set_alignment(whisper_context &context, const char *name, const whisper_aheads &own,
                   std::string &error) {
    static const std::map<std::string, whisper_alignment_heads_preset> presets = {
        {"top", WHISPER_AHEADS_N_TOP_MOST},
        {"tiny.en", WHISPER_AHEADS_TINY_EN},
        {"tiny", WHISPER_AHEADS_TINY},
        {"base.en", WHISPER_AHEADS_BASE_EN},
        {"base", WHISPER_AHEADS_BASE},
        {"small.en", WHISPER_AHEADS_SMALL_EN},
        {"small", WHISPER_AHEADS_SMALL},
        {"medium.en", WHISPER_AHEADS_MEDIUM_EN},
        {"medium", WHISPER_AHEADS_MEDIUM},
        {"large-v1", WHISPER_AHEADS_LARGE_V1},
        {"large-v2", WHISPER_AHEADS_LARGE_V2},
        {"large-v3", WHISPER_AHEADS_LARGE_V3},
        {"large-v3-turbo", WHISPER_AHEADS_LARGE_V3_TURBO},
    };
    whisper_alignment_heads_preset chosen = WHISPER_AHEADS_CUSTOM;
    if (own.n_heads == 0) {
        const auto preset = presets.find(name);
        if (preset == presets.end()) {
            error = std::string("unknown alignment \"") + name + "\"";
            return false;
        }
        chosen = preset->second;
    }
    const whisper_hparams &h = context.model.hparams;
    size_t n_heads = size_t(h.n_text_head);
    if (chosen != WHISPER_AHEADS_N_TOP_MOST) {
        const whisper_aheads heads = own.n_heads == 0 ? g_aheads.at(chosen) : own;
        n_heads = heads.n_heads;
        for (size_t i = 0; i < heads.n_heads; ++i) {
            const whisper_ahead &head = heads.heads[i];
            if (head.n_text_layer < 0 || head.n_text_layer >= h.n_text_layer || head.n_head < 0 ||
                head.n_head >= h.n_text_head) {
                error = own.n_heads == 0 ? std::string("the alignment of ") + name +
                                               " is of a larger model than this one"
                                         : "the model has no such alignment heads";
                return false;
            }
        }
        context.params.dtw_aheads = heads;
    }
    context.params.dtw_token_timestamps = true;
    context.params.dtw_aheads_preset = chosen;
    context.params.dtw_n_top = 1;
    const size_t weights = size_t(h.n_text_ctx) * size_t(h.n_audio_ctx) * sizeof(float);
    context.params.dtw_mem_size = alignment_copies * n_heads * weights + alignment_rest;
    return true;
}

} // namespace

std::shared_ptr<const Model> Model::load(const char *path, const ModelUse &use,
                                         std::string &error) {
    whisper_context_params params = whisper_context_default_params();
    params.use_gpu = use.gpu >= 0;
    params.gpu_device = std::max(use.gpu, 0);
    // Flash attention pads keys to a multiple of 256 and does not mask them: wrong results at
    // small encoder windows.
    params.flash_attn = false;

    std::shared_ptr<Model> model(new Model);
    model->context_ = whisper_init_from_file_with_params_no_state(path, params);
    if (model->context_ == nullptr) {
        error = "whisper.cpp refused the file; see the log";
        return nullptr;
    }
    model->heads_ = std::make_unique<whisper_ahead[]>(use.n_heads);
    for (size_t i = 0; i < use.n_heads; ++i)
        model->heads_[i] = {use.heads[2 * i], use.heads[2 * i + 1]};
    if (use.alignment || use.n_heads > 0) {
        // Of upstream's own use of it, within whisper_full, asserts end the process when a window
        // ends with a tenth of a second: its context does not know of it, a copy does.
        model->aligning_ = std::make_unique<whisper_context>(*model->context_);
        model->aligning_->vocab.id_to_token.clear();
        model->aligning_->vocab.token_to_id.clear();
        if (!set_alignment(*model->aligning_, use.alignment, {use.n_heads, model->heads_.get()},
                           error))
            return nullptr;
    }
    model->for_transcription_ = use.transcription;

    const whisper_vocab &vocab = model->context_->vocab;
    model->n_vocab_ = vocab.n_vocab;
    model->end_of_text_ = vocab.token_eot;
    model->no_speech_ = vocab.token_nosp;
    model->start_of_transcript_ = vocab.token_sot;
    std::vector<std::string_view> tokens;
    for (Token id = 0; id < vocab.token_eot; ++id) {
        tokens.push_back(vocab.id_to_token.at(id));
        model->begins_.push_back(uint32_t(model->bytes_.size()));
        model->bytes_ += tokens.back();
    }
    model->begins_.push_back(uint32_t(model->bytes_.size()));
    model->bytes_.shrink_to_fit();
    model->begins_.shrink_to_fit();
    model->trie_ = std::make_unique<VocabTrie>(tokens);
    // Nobody else asks upstream for tokens any more: two maps of 50,000 strings.
    if (!use.transcription) {
        model->context_->vocab.id_to_token.clear();
        model->context_->vocab.token_to_id.clear();
    }
    return model;
}

Model::Model() = default;

bool Model::on_gpu() const { return context_->params.use_gpu; }

Model::~Model() { whisper_free(context_); }

ev_model_info Model::info() const {
    const whisper_hparams &h = context_->model.hparams;
    return {h.n_vocab,
            h.n_mels,
            h.n_audio_ctx,
            h.n_text_ctx,
            h.n_audio_layer,
            h.ftype,
            context_->vocab.is_multilingual() ? 1 : 0,
            h.n_text_layer,
            h.n_audio_state};
}

const char *Model::name(Token token) const {
    const auto found = context_->vocab.id_to_token.find(token);
    return found == context_->vocab.id_to_token.end() ? "" : found->second.c_str();
}

ev_special Model::special() const {
    const whisper_vocab &v = context_->vocab;
    return {v.token_eot,  v.token_sot,  v.token_translate, v.token_transcribe, v.token_solm,
            v.token_prev, v.token_nosp, v.token_not,       v.token_beg};
}

int32_t Model::n_languages() const {
    return context_->vocab.is_multilingual() ? context_->vocab.num_languages() : 0;
}

namespace {

enum class Letter { space, letter, digit, other };

// By the classes of the C locale, as upstream's expression has them: bytes above ASCII are other.
Letter kind(char c) {
    if (c == ' ' || (c >= '\t' && c <= '\r'))
        return Letter::space;
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return Letter::letter;
    return c >= '0' && c <= '9' ? Letter::digit : Letter::other;
}

// Where the word ends that begins at `at`: GPT-2's 's|'t|'re|'ve|'m|'ll|'d| ?letters| ?digits|
// ?others|spaces before the last|spaces. Upstream has the same as a std::regex, which calls itself
// for each letter and overflows the stack on long words.
size_t word_end(const std::string &text, size_t at) {
    for (const char *ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
        if (text.compare(at, std::strlen(ending), ending) == 0)
            return at + std::strlen(ending);
    }
    size_t end = at;
    if (text[end] == ' ' && end + 1 < text.size() && kind(text[end + 1]) != Letter::space)
        ++end;
    const Letter of = kind(text[end]);
    while (end < text.size() && kind(text[end]) == of)
        ++end;
    // Spaces: the last one belongs to the word after them.
    return of == Letter::space && end < text.size() && end - at > 1 ? end - 1 : end;
}

} // namespace

std::vector<Token> Model::tokenize(const std::string &text) const {
    std::vector<Token> tokens;
    for (size_t at = 0; at < text.size();) {
        const size_t end = word_end(text, at);
        while (at < end) {
            const auto [token, size] = trie_->longest(std::string_view(text).substr(at, end - at));
            if (size > 0)
                tokens.push_back(token);
            at += std::max<size_t>(size, 1);
        }
    }
    return tokens;
}

const float *Model::mel_filters() const { return context_->model.filters.data.data(); }

std::vector<Token> Model::prompt(int32_t language, const std::string &context) const {
    const whisper_vocab &vocab = context_->vocab;
    std::vector<Token> tokens;
    if (!context.empty()) {
        const std::vector<Token> said = tokenize(context);
        const size_t kept = std::min(said.size(), size_t(max_context));
        tokens.push_back(vocab.token_prev);
        tokens.insert(tokens.end(), said.end() - int64_t(kept), said.end());
    }
    tokens.push_back(vocab.token_sot);
    if (vocab.is_multilingual()) {
        tokens.push_back(vocab.token_sot + 1 + language);
        tokens.push_back(vocab.token_transcribe);
    }
    tokens.push_back(vocab.token_not);
    return tokens;
}

// What upstream's state would hold, without its buffers for the longest audio and the whole
// vocabulary: one piece of memory serves all graphs, one after the other, and grows with them.
struct Decoder::State {
    ~State() {
        whisper_kv_cache_free(self);
        whisper_kv_cache_free(cross);
        ggml_gallocr_free(memory);
        ggml_backend_free(backend);
    }

    ggml_backend_t backend = nullptr;
    ggml_gallocr_t memory = nullptr;
    whisper_kv_cache self = {}, cross = {};
    std::vector<uint8_t> meta; // of a graph's tensors
    int32_t audio_ctx = 0;

    // Room for a graph of so many nodes; views and inputs are counted, too.
    ggml_context *context(size_t nodes) {
        meta.resize(ggml_tensor_overhead() * nodes + ggml_graph_overhead_custom(nodes, false));
        return ggml_init({meta.size(), meta.data(), true});
    }
};

Decoder::Decoder(std::shared_ptr<const Model> model, int32_t threads, int32_t cells)
    : model_(std::move(model)), state_(std::make_unique<State>()) {
    const whisper_context *context = model_->context();
    const whisper_hparams &h = context->model.hparams;
    state_->backend = ggml_backend_cpu_init();
    if (state_->backend == nullptr)
        throw std::bad_alloc();
    ggml_backend_cpu_set_n_threads(state_->backend, threads);
    state_->memory = ggml_gallocr_new(ggml_backend_get_default_buffer_type(state_->backend));
    if (!whisper_kv_cache_init(state_->self, state_->backend, context->itype, h.n_text_state,
                               h.n_text_layer, std::min(first_cells, cells)))
        throw std::bad_alloc();
    if (!whisper_kv_cache_init(state_->cross, state_->backend, context->itype, h.n_text_state,
                               h.n_text_layer, GGML_PAD(h.n_audio_ctx, 256)))
        throw std::bad_alloc();
    give_back(state_->cross);
    cells_.resize(size_t(cells));
    positions_.resize(size_t(cells));
}

Decoder::~Decoder() = default;

namespace {

// So many cells that lie side by side, before and after.
struct Run {
    size_t from, to, n;
};

// From a cache to another or to other places of the same. Keys of a layer lie cell by cell, values
// number by number.
void move_cells(const whisper_kv_cache &from, const whisper_kv_cache &to, size_t n_layer,
                size_t n_state, const std::vector<Run> &runs) {
    const auto move = [&](const ggml_tensor *source, ggml_tensor *target, size_t rows,
                          size_t width) {
        const size_t bytes = ggml_element_size(source) * width;
        for (size_t row = 0; row < rows; ++row) {
            const char *old = static_cast<const char *>(source->data) + row * bytes * from.size;
            char *place = static_cast<char *>(target->data) + row * bytes * to.size;
            for (const Run &run : runs)
                std::memmove(place + run.to * bytes, old + run.from * bytes, run.n * bytes);
        }
    };
    move(from.k, to.k, n_layer, n_state);
    move(from.v, to.v, n_layer * n_state, 1);
}

} // namespace

bool Decoder::make_room(int32_t cells) {
    whisper_kv_cache &old = state_->self;
    if (cells > int32_t(cells_.size()))
        return false;
    if (cells <= int32_t(old.size))
        return true;
    const whisper_hparams &h = model_->context()->model.hparams;
    const size_t n_state = size_t(h.n_text_state), n_layer = size_t(h.n_text_layer);
    whisper_kv_cache more = {};
    // By so many, so that a long search does not move what it has at each step.
    const int32_t size =
        std::min(std::max(cells, int32_t(old.size) + first_cells), int32_t(cells_.size()));
    if (!whisper_kv_cache_init(more, state_->backend, model_->context()->itype, h.n_text_state,
                               h.n_text_layer, size))
        throw std::bad_alloc();
    move_cells(old, more, n_layer, n_state, {{0, 0, size_t(next_cell_)}});
    std::swap(old, more);
    whisper_kv_cache_free(more);
    return true;
}

int32_t Decoder::room() const { return int32_t(state_->self.size); }

std::vector<int32_t> Decoder::keep_only(const std::vector<int32_t> &wanted) {
    constexpr int32_t gone = -1, stays = 0;
    std::vector<int32_t> numbers(size_t(next_cell_), gone);
    for (int32_t cell : wanted) {
        for (; cell >= 0 && numbers[cell] == gone; cell = cells_[cell].parent)
            numbers[cell] = stays;
    }
    std::vector<Run> runs;
    int32_t kept = 0;
    for (int32_t cell = 0; cell < next_cell_; ++cell) {
        if (numbers[cell] == gone)
            continue;
        if (runs.empty() || runs.back().from + runs.back().n != size_t(cell))
            runs.push_back({size_t(cell), size_t(kept), 0});
        ++runs.back().n;
        const Input &input = cells_[cell]; // a parent has a lower number, so it has its new one
        cells_[kept] = {input.token, input.parent < 0 ? -1 : numbers[input.parent]};
        positions_[kept] = positions_[cell];
        numbers[cell] = kept++;
    }
    const whisper_hparams &h = model_->context()->model.hparams;
    const size_t n_state = size_t(h.n_text_state);
    move_cells(state_->self, state_->self, size_t(h.n_text_layer), n_state, runs);
    float *states = hidden(Audio::heard).data();
    for (const Run &run : runs)
        std::memmove(states + run.to * n_state, states + run.from * n_state,
                     run.n * n_state * sizeof(float));
    next_cell_ = kept;
    // What is nearly full again would have to be looked through at each step.
    if (kept > room() / 4 * 3)
        make_room(room() + 1);
    return numbers;
}

namespace {

// Attention weights of so many bytes are computed at a time: those of all heads together grow with
// the square of the audio, 13 s take 12 MB and as much again for a copy. Up to 3.2 s it is all
// heads of tiny, so that short commands lose nothing.
constexpr int64_t attention_bytes = 1 << 20;

// The encoder of upstream's whisper_build_graph_conv, _encoder and _cross in one graph, whose
// attention takes some heads at a time.
struct Encoder {
    const whisper_model &model;
    ggml_type itype;
    int64_t n_ctx;
    ggml_context *ctx = nullptr;
    ggml_cgraph *graph = nullptr;
    ggml_tensor *attended = nullptr; // (n_state, n_ctx), of one layer after the other

    int64_t n_state() const { return model.hparams.n_audio_state; }
    int64_t n_head() const { return model.hparams.n_audio_head; }
    int64_t width() const { return n_state() / n_head(); }
    int64_t heads_at_once() const {
        const int64_t head_bytes = n_ctx * n_ctx * int64_t(sizeof(float));
        return std::min(n_head(), std::max<int64_t>(1, attention_bytes / head_bytes));
    }
    size_t n_nodes() const {
        const int64_t blocks = (n_head() + heads_at_once() - 1) / heads_at_once();
        return size_t(64 + model.hparams.n_audio_layer * (40 + 16 * blocks) +
                      model.hparams.n_text_layer * 16);
    }

    ggml_tensor *norm(ggml_tensor *x, ggml_tensor *weight, ggml_tensor *bias) const {
        return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, model.hparams.eps), weight), bias);
    }
    ggml_tensor *linear(ggml_tensor *weight, ggml_tensor *x, ggml_tensor *bias) const {
        return ggml_add(ctx, ggml_mul_mat(ctx, weight, x), bias);
    }
    // (n_state, n_ctx) -> (width, n_heads, n_ctx), of some heads
    ggml_tensor *heads(ggml_tensor *x, int64_t first, int64_t n) const {
        return ggml_view_3d(ctx, x, width(), n, n_ctx, x->nb[0] * width(), x->nb[1],
                            x->nb[0] * width() * first);
    }

    ggml_tensor *attention(const whisper_layer_encoder &layer, ggml_tensor *x) const {
        ggml_tensor *q = linear(layer.attn_q_w, x, layer.attn_q_b);
        ggml_tensor *k = ggml_mul_mat(ctx, layer.attn_k_w, x);
        ggml_tensor *v = linear(layer.attn_v_w, x, layer.attn_v_b);
        const float scale = 1.0f / sqrtf(float(width()));
        for (int64_t first = 0; first < n_head(); first += heads_at_once()) {
            const int64_t n = std::min(heads_at_once(), n_head() - first);
            ggml_tensor *some_q = ggml_permute(ctx, heads(q, first, n), 0, 2, 1, 3);
            ggml_tensor *some_k =
                ggml_permute(ctx, ggml_cast(ctx, heads(k, first, n), itype), 0, 2, 1, 3);
            ggml_tensor *some_v =
                ggml_cast(ctx, ggml_permute(ctx, heads(v, first, n), 1, 2, 0, 3), itype);
            ggml_tensor *weights =
                ggml_soft_max_ext(ctx, ggml_mul_mat(ctx, some_k, some_q), nullptr, scale, 0.0f);
            ggml_tensor *y = ggml_permute(ctx, ggml_mul_mat(ctx, some_v, weights), 0, 2, 1, 3);
            ggml_build_forward_expand(graph, ggml_cpy(ctx, y, heads(attended, first, n)));
        }
        return linear(layer.attn_ln_1_w, attended, layer.attn_ln_1_b);
    }

    // Returns the input of the graph, which ends in the keys and values of the decoder's layers.
    ggml_tensor *build(const whisper_kv_cache &cross) {
        graph = ggml_new_graph_custom(ctx, n_nodes(), false);
        ggml_tensor *mel = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, 2 * n_ctx, model.hparams.n_mels);
        ggml_set_input(mel);
        attended = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_state(), n_ctx);
        const auto convolve = [&](ggml_tensor *weight, ggml_tensor *input, int stride,
                                  ggml_tensor *bias) {
            ggml_tensor *y = ggml_conv_1d_ph(ctx, weight, input, stride, 1);
            return ggml_gelu(ctx, ggml_add(ctx, y, bias));
        };
        ggml_tensor *x = convolve(model.e_conv_1_w, mel, 1, model.e_conv_1_b);
        x = convolve(model.e_conv_2_w, x, 2, model.e_conv_2_b);
        ggml_tensor *places =
            ggml_view_2d(ctx, model.e_pe, model.e_pe->ne[0], n_ctx, model.e_pe->nb[1], 0);
        x = ggml_add(ctx, places, ggml_cont(ctx, ggml_transpose(ctx, x)));
        for (const whisper_layer_encoder &layer : model.layers_encoder) {
            x = ggml_add(ctx, attention(layer, norm(x, layer.attn_ln_0_w, layer.attn_ln_0_b)), x);
            ggml_tensor *y = norm(x, layer.mlp_ln_w, layer.mlp_ln_b);
            y = ggml_gelu(ctx, linear(layer.mlp_0_w, y, layer.mlp_0_b));
            x = ggml_add(ctx, linear(layer.mlp_1_w, y, layer.mlp_1_b), x);
        }
        x = norm(x, model.e_ln_w, model.e_ln_b);

        const float scale = std::pow(float(width()), -0.25f); // as in Decoder::run
        const size_t size_k = ggml_element_size(cross.k), size_v = ggml_element_size(cross.v);
        for (size_t il = 0; il < model.layers_decoder.size(); ++il) {
            const whisper_layer_decoder &layer = model.layers_decoder[il];
            ggml_tensor *k = ggml_scale(ctx, ggml_mul_mat(ctx, layer.cross_attn_k_w, x), scale);
            ggml_tensor *v =
                ggml_transpose(ctx, linear(layer.cross_attn_v_w, x, layer.cross_attn_v_b));
            const size_t before = il * size_t(n_ctx * n_state());
            ggml_tensor *to_k = ggml_view_1d(ctx, cross.k, n_state() * n_ctx, size_k * before);
            ggml_tensor *to_v = ggml_view_2d(ctx, cross.v, n_ctx, n_state(), size_t(n_ctx) * size_v,
                                             size_v * before);
            ggml_build_forward_expand(graph, ggml_cpy(ctx, k, to_k));
            ggml_build_forward_expand(graph, ggml_cpy(ctx, v, to_v));
        }
        return mel;
    }
};

} // namespace

bool Decoder::encode(const float *mel, int32_t audio_ctx, bool (*stopped)(void *), void *of) {
    next_cell_ = 0;
    state_->audio_ctx = audio_ctx;
    Encoder encoder{model_->context()->model, model_->context()->itype, audio_ctx};
    encoder.ctx = state_->context(encoder.n_nodes());
    ggml_tensor *input = encoder.build(state_->cross);
    ggml_free(encoder.ctx);
    if (!ggml_gallocr_alloc_graph(state_->memory, encoder.graph))
        return false;
    ggml_backend_tensor_set(input, mel, 0, ggml_nbytes(input));
    ggml_backend_cpu_set_abort_callback(state_->backend, stopped, of);
    const bool done =
        ggml_backend_graph_compute(state_->backend, encoder.graph) == GGML_STATUS_SUCCESS;
    ggml_backend_cpu_set_abort_callback(state_->backend, nullptr, nullptr);
    return done;
}

namespace {

#ifndef EV_SCALAR // without vectors ggml's own product is taken
void compute_product(ggml_tensor *dst, int part, int parts, void *) {
    const ggml_tensor *weight = dst->src[0], *x = dst->src[1];
    const size_t height = size_t(weight->ne[1]);
    multiply_half(static_cast<const uint16_t *>(weight->data), size_t(weight->ne[0]),
                  static_cast<const float *>(x->data), size_t(x->ne[1]),
                  static_cast<float *>(dst->data), height, height * part / parts,
                  height * (part + 1) / parts);
}
#endif

// Weight (width, height) times x (width, n).
ggml_tensor *product(ggml_context *ctx, ggml_tensor *weight, ggml_tensor *x) {
#ifndef EV_SCALAR
    if (weight->type == GGML_TYPE_F16 && weight->ne[0] % int64_t(lanes) == 0 &&
        ggml_is_contiguous(weight) && ggml_is_contiguous(x)) {
        ggml_tensor *sources[] = {weight, x};
        return ggml_custom_4d(ctx, GGML_TYPE_F32, weight->ne[1], x->ne[1], 1, 1, sources, 2,
                              compute_product, GGML_N_TASKS_MAX, nullptr);
    }
#endif
    return ggml_mul_mat(ctx, weight, x);
}

} // namespace

namespace {

// Rows of the output matrix are gathered as float32, 1.5 KB each for tiny; where names can be said
// it is thousands.
constexpr int64_t gathered_rows = 1024;

size_t gather_nodes(const std::vector<Token> &extra) {
    return 4 * (extra.size() / size_t(gathered_rows) + 1);
}

} // namespace

struct Decoder::Output {
    ggml_tensor *block;
    ggml_tensor *wanted;                 // null without extra rows
    std::vector<ggml_tensor *> gathered; // of extra rows, some at a time
};

template <typename Fill, typename Keep>
bool Decoder::compute(ggml_cgraph *graph, const Output &output, const std::vector<Token> &extra,
                      const Fill &fill, const Keep &keep) {
    if (!ggml_gallocr_alloc_graph(state_->memory, graph))
        return false;
    fill();
    if (output.wanted)
        ggml_backend_tensor_set(output.wanted, extra.data(), 0, extra.size() * sizeof(Token));
    if (ggml_backend_graph_compute(state_->backend, graph) != GGML_STATUS_SUCCESS)
        return false;
    find_logits(output);
    keep();
    return true;
}

void Decoder::find_logits(const Output &output) {
    const size_t n_block = size_t(output.block->ne[0]), n = size_t(output.block->ne[1]);
    n_columns_ = n_block + (output.wanted ? size_t(output.wanted->ne[0]) : 0);
    if (!output.wanted) { // rows of the whole vocabulary take 200 KB each
        logits_ = static_cast<const float *>(output.block->data);
        return;
    }
    copied_.resize(n * n_columns_);
    logits_ = copied_.data();
    for (size_t i = 0; i < n; ++i) {
        float *row = copied_.data() + i * n_columns_;
        ggml_backend_tensor_get(output.block, row, i * output.block->nb[1],
                                n_block * sizeof(float));
        float *column = row + n_block;
        for (const ggml_tensor *some : output.gathered) {
            ggml_backend_tensor_get(some, column, i * some->nb[1], some->nb[1]);
            column += some->ne[0];
        }
    }
}

bool Decoder::run(const std::vector<Input> &inputs, Audio audio, Rows rows,
                  const std::vector<Token> &extra) {
    const whisper_model &model = model_->context()->model;
    const whisper_hparams &h = model.hparams;
    whisper_kv_cache &cache = state_->self;
    const int32_t n = int32_t(inputs.size());
    const int32_t first = next_cell_;
    const int32_t n_kv = first + n;
    if (n == 0 || !make_room(n_kv))
        return false;

    const int64_t n_state = h.n_text_state;
    const int64_t n_head = h.n_text_head;
    const int64_t width = n_state / n_head;
    const int64_t n_audio = state_->audio_ctx;
    // Upstream scales queries and keys each by the fourth root, for the sake of half precision.
    const float scale = std::pow(float(width), -0.25f);

    const size_t n_nodes = 64 + 64 * size_t(h.n_text_layer) + gather_nodes(extra);
    ggml_context *ctx = state_->context(n_nodes);
    ggml_cgraph *graph = ggml_new_graph_custom(ctx, n_nodes, false);
    const auto input = [&](ggml_tensor *tensor) {
        ggml_set_input(tensor);
        return tensor;
    };
    const auto norm = [&](ggml_tensor *x, ggml_tensor *weight, ggml_tensor *bias) {
        return ggml_add(ctx, ggml_mul(ctx, ggml_norm(ctx, x, h.eps), weight), bias);
    };
    const auto linear = [&](ggml_tensor *weight, ggml_tensor *x, ggml_tensor *bias) {
        return ggml_add(ctx, product(ctx, weight, x), bias);
    };
    // (n_state, n) -> (width, n, n_head)
    const auto heads = [&](ggml_tensor *x) {
        return ggml_permute(ctx, ggml_reshape_3d(ctx, x, width, n_head, n), 0, 2, 1, 3);
    };
    // Attention over keys (width, n_keys, n_head) and transposed values (n_keys, width, n_head).
    const auto attend = [&](ggml_tensor *q, ggml_tensor *k, ggml_tensor *v, ggml_tensor *mask,
                            float factor) {
        ggml_tensor *weights = ggml_soft_max_ext(ctx, ggml_mul_mat(ctx, k, q), mask, factor, 0.0f);
        return ggml_cont_2d(ctx, ggml_permute(ctx, ggml_mul_mat(ctx, v, weights), 0, 2, 1, 3),
                            n_state, n);
    };

    ggml_tensor *tokens = input(ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n));
    ggml_tensor *positions = input(ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n));
    ggml_tensor *mask = input(ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_kv, n));
    ggml_tensor *x = ggml_add(ctx, ggml_get_rows(ctx, model.d_te, tokens),
                              ggml_get_rows(ctx, model.d_pe, positions));

    const int64_t cells = cache.size;
    const size_t size_k = ggml_element_size(cache.k), size_v = ggml_element_size(cache.v);
    const size_t size_kc = ggml_element_size(state_->cross.k);
    const size_t size_vc = ggml_element_size(state_->cross.v);
    for (int64_t il = 0; il < h.n_text_layer; ++il) {
        const whisper_layer_decoder &layer = model.layers_decoder[il];

        // Self-attention: write this batch's keys and values to its cells, read all cells.
        ggml_tensor *y = norm(x, layer.attn_ln_0_w, layer.attn_ln_0_b);
        ggml_tensor *q = ggml_scale(ctx, linear(layer.attn_q_w, y, layer.attn_q_b), scale);
        ggml_tensor *k = ggml_scale(ctx, product(ctx, layer.attn_k_w, y), scale);
        ggml_tensor *v = ggml_transpose(ctx, linear(layer.attn_v_w, y, layer.attn_v_b));
        ggml_build_forward_expand(graph,
                                  ggml_cpy(ctx, k,
                                           ggml_view_1d(ctx, cache.k, n * n_state,
                                                        size_k * n_state * (il * cells + first))));
        ggml_build_forward_expand(graph,
                                  ggml_cpy(ctx, v,
                                           ggml_view_2d(ctx, cache.v, n, n_state, cells * size_v,
                                                        size_v * (il * cells * n_state + first))));
        ggml_tensor *all_k = ggml_view_3d(ctx, cache.k, width, n_kv, n_head, size_k * n_state,
                                          size_k * width, size_k * n_state * cells * il);
        ggml_tensor *all_v = ggml_view_3d(ctx, cache.v, n_kv, width, n_head, cells * size_v,
                                          cells * size_v * width, cells * size_v * n_state * il);
        y = attend(heads(q), all_k, all_v, mask, 1.0f);
        x = ggml_add(ctx, x, linear(layer.attn_ln_1_w, y, layer.attn_ln_1_b));

        // Cross-attention. For silence of all kinds - an encoder output of zero - keys are zero
        // and every value is the bias, so attention gives the bias whatever the query.
        if (audio == Audio::heard) {
            y = norm(x, layer.cross_attn_ln_0_w, layer.cross_attn_ln_0_b);
            q = linear(layer.cross_attn_q_w, y, layer.cross_attn_q_b);
            ggml_tensor *cross_k =
                ggml_view_3d(ctx, state_->cross.k, width, n_audio, n_head, size_kc * n_state,
                             size_kc * width, size_kc * n_state * n_audio * il);
            ggml_tensor *cross_v =
                ggml_view_3d(ctx, state_->cross.v, n_audio, width, n_head, n_audio * size_vc,
                             n_audio * size_vc * width, n_audio * size_vc * n_state * il);
            y = attend(heads(q), cross_k, cross_v, nullptr, scale);
        } else {
            y = layer.cross_attn_v_b;
        }
        x = ggml_add(ctx, x, linear(layer.cross_attn_ln_1_w, y, layer.cross_attn_ln_1_b));

        y = norm(x, layer.mlp_ln_w, layer.mlp_ln_b);
        y = ggml_gelu(ctx, linear(layer.mlp_0_w, y, layer.mlp_0_b));
        x = ggml_add(ctx, x, linear(layer.mlp_1_w, y, layer.mlp_1_b));
    }
    x = norm(x, model.d_ln_w, model.d_ln_b);

    ggml_set_output(x);
    const Output out = output(ctx, graph, x, rows, extra);
    ggml_free(ctx);

    values_.clear();
    mask_.assign(size_t(n_kv) * n, -INFINITY);
    for (int32_t i = 0; i < n; ++i) {
        const int32_t parent = inputs[i].parent;
        cells_[first + i] = inputs[i];
        positions_[first + i] = parent < 0 ? 0 : positions_[parent] + 1;
        values_.push_back(inputs[i].token);
        float *row = mask_.data() + size_t(i) * n_kv;
        for (int32_t cell = first + i; cell >= 0; cell = cells_[cell].parent)
            row[cell] = 0.0f;
    }
    const auto fill = [&] {
        ggml_backend_tensor_set(tokens, values_.data(), 0, n * sizeof(int32_t));
        ggml_backend_tensor_set(positions, positions_.data() + first, 0, n * sizeof(int32_t));
        ggml_backend_tensor_set(mask, mask_.data(), 0, mask_.size() * sizeof(float));
    };
    const auto keep = [&] {
        std::vector<float> &kept = hidden(audio);
        kept.resize(std::max(kept.size(), size_t(n_kv) * size_t(n_state)));
        ggml_backend_tensor_get(x, kept.data() + first * n_state, 0, ggml_nbytes(x));
        next_cell_ = n_kv;
    };
    return compute(graph, out, extra, fill, keep);
}

bool Decoder::look_again(const std::vector<int32_t> &cells, Audio audio, Rows rows,
                         const std::vector<Token> &extra) {
    const int64_t n_state = model_->context()->model.hparams.n_text_state;
    const size_t n_nodes = 16 + gather_nodes(extra);
    ggml_context *ctx = state_->context(n_nodes);
    ggml_cgraph *graph = ggml_new_graph_custom(ctx, n_nodes, false);
    ggml_tensor *x = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_state, int64_t(cells.size()));
    ggml_set_input(x);
    const Output out = output(ctx, graph, x, rows, extra);
    ggml_free(ctx);

    const auto fill = [&] {
        for (size_t i = 0; i < cells.size(); ++i) {
            ggml_backend_tensor_set(x, hidden(audio).data() + cells[i] * n_state, i * x->nb[1],
                                    x->nb[1]);
        }
    };
    return compute(graph, out, extra, fill, [] {});
}

// One block of rows, and the gathered ones.
Decoder::Output Decoder::output(ggml_context *ctx, ggml_cgraph *graph, ggml_tensor *hidden,
                                Rows rows, const std::vector<Token> &extra) const {
    const whisper_model &model = model_->context()->model;
    const bool all = rows == Rows::all;
    const int64_t n_block = all ? model.hparams.n_vocab : frequent_tokens;
    Output out = {};
    out.block = product(
        ctx, ggml_view_2d(ctx, model.d_te, model.d_te->ne[0], n_block, model.d_te->nb[1], 0),
        hidden);
    ggml_set_output(out.block);
    ggml_build_forward_expand(graph, out.block);
    if (!all && !extra.empty()) {
        out.wanted = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, int64_t(extra.size()));
        ggml_set_input(out.wanted);
        for (int64_t at = 0; at < out.wanted->ne[0]; at += gathered_rows) {
            const int64_t n = std::min(gathered_rows, out.wanted->ne[0] - at);
            ggml_tensor *some = ggml_view_1d(ctx, out.wanted, n, size_t(at) * sizeof(Token));
            out.gathered.push_back(ggml_mul_mat(ctx, ggml_get_rows(ctx, model.d_te, some), hidden));
            ggml_set_output(out.gathered.back());
            ggml_build_forward_expand(graph, out.gathered.back());
        }
    }
    return out;
}

UpstreamState::UpstreamState(std::shared_ptr<const Model> model)
    : model_(std::move(model)),
      state_(whisper_init_state(model_->aligning() ? model_->aligning() : model_->context())) {
    if (state_ == nullptr)
        throw std::bad_alloc();
}

UpstreamState::~UpstreamState() { whisper_free_state(state_); }

void UpstreamState::set_audio_ctx(int32_t audio_ctx) { state_->exp_n_audio_ctx = audio_ctx; }

void UpstreamState::watch(bool (*stopped)(void *), void *of) {
    for (ggml_backend_t backend : state_->backends) {
        if (ggml_backend_is_cpu(backend))
            ggml_backend_cpu_set_abort_callback(backend, stopped, of);
    }
}

void UpstreamState::set_energy(const float *samples, size_t n_samples) {
    state_->energy = get_signal_energy(samples, int(n_samples), 32); // as in whisper_full
}

void UpstreamState::align(size_t first, int32_t language, int32_t threads, int64_t end_cs) {
    // Upstream's filter over time is seven positions wide and must fit in.
    constexpr int64_t least_frames = 16, most_frames = 100 * WHISPER_CHUNK_SIZE;
    std::vector<whisper_segment> &all = state_->result_all;
    if (model_->aligning() == nullptr || first >= all.size() || all[first].tokens.empty())
        return;
    const whisper_vocab &vocab = context()->vocab;
    const whisper_hparams &h = context()->model.hparams;
    // As whisper_full has set the first segment's time.
    const int64_t seek = all[first].t0 - 2 * (all[first].tokens[0].tid - vocab.token_beg);
    const int64_t n_frames = std::min({most_frames, all.back().t1 - seek, end_cs - seek});
    const int64_t n_audio = state_->exp_n_audio_ctx > 0 ? state_->exp_n_audio_ctx : h.n_audio_ctx;
    int64_t n_text = 0;
    for (size_t i = first; i < all.size(); ++i) {
        for (const whisper_token_data &token : all[i].tokens)
            n_text += token.id < vocab.token_eot;
    }
    if (n_frames < least_frames || n_frames > 2 * n_audio || n_text == 0 ||
        n_text + 4 > h.n_text_ctx)
        return;
    all.reserve(all.size() + 1); // upstream looks at the place behind the last one
    whisper_full_params params = whisper_full_default_params(WHISPER_SAMPLING_GREEDY);
    params.language = whisper_lang_str(language);
    whisper_exp_compute_token_level_timestamps_dtw(model_->aligning(), state_, params, int(first),
                                                   all.size() - first, int(seek), int(n_frames), 7,
                                                   threads);
}

void UpstreamState::clear() {
    state_->t_mel_us = state_->t_encode_us = state_->t_prompt_us = 0;
    state_->t_decode_us = state_->t_batchd_us = state_->t_sample_us = 0;
    state_->energy.clear();
    state_->result_all.clear();
    forget_logits();
    // Texts are drawn as in a new state: the same audio and options give the same text.
    for (int i = 0; i < WHISPER_MAX_DECODERS; ++i)
        state_->decoders[i].rng = std::mt19937(i);
}

bool UpstreamState::doubtful(float log_probability, float entropy) const {
    // As whisper_sequence_score, over all windows.
    constexpr size_t n_last = 32;
    std::vector<Token> all;
    double sum = 0.0;
    for (const whisper_segment &segment : state_->result_all) {
        for (const whisper_token_data &token : segment.tokens) {
            sum += double(token.plog);
            all.push_back(token.id);
        }
    }
    if (all.empty())
        return false;
    if (sum / double(all.size()) < double(log_probability))
        return true;
    if (all.size() <= n_last)
        return false;
    std::map<Token, int> counts;
    for (auto token = all.end() - n_last; token != all.end(); ++token)
        ++counts[*token];
    double variety = 0.0;
    for (const auto &[token, count] : counts) {
        const double share = double(count) / n_last;
        variety -= share * std::log(share);
    }
    return variety < double(entropy);
}

void UpstreamState::forget_logits() {
    // Behind a prompt or a language upstream takes "no speech" from a row of logits that it has not
    // computed: what the last call left there must not decide.
    state_->logits.clear();
}

std::pair<std::vector<Token>, std::vector<Token>> UpstreamState::prompts() const {
    return {state_->prompt_past0, state_->prompt_past1};
}

void UpstreamState::set_prompts(const std::vector<Token> &carried, const std::vector<Token> &before,
                                bool keep) {
    state_->prompt_past0 = carried;
    std::vector<Token> &rolling = state_->prompt_past1;
    if (!keep)
        rolling.clear();
    rolling.insert(rolling.begin(), before.begin(), before.end());
}

void UpstreamState::make_room(int32_t beams) {
    if (state_->kv_self_n_dec >= beams)
        return;
    // As whisper_full, which then finds room enough.
    const whisper_hparams &h = context()->model.hparams;
    whisper_kv_cache_free(state_->kv_self);
    if (!whisper_kv_cache_init(state_->kv_self, state_->backends[0], context()->itype,
                               h.n_text_state, h.n_text_layer,
                               GGML_PAD(h.n_text_ctx, 256) * (beams + 2))) {
        whisper_free_state(state_);
        forget();
        throw std::bad_alloc();
    }
    state_->kv_self_n_dec = beams;
}

namespace {

struct BeamText {
    std::vector<whisper_token_data> tokens;
    double sum = 0.0; // of log-probabilities
    bool has_time = false;
    int seek_delta = 100 * WHISPER_CHUNK_SIZE;

    void add(const whisper_token_data &token, Token first_time) {
        tokens.push_back(token);
        sum += double(token.plog);
        if (token.id > first_time) {
            has_time = true;
            seek_delta = 2 * (token.id - first_time);
        }
    }
    // OpenAI's MaximumLikelihoodRanker; `alpha` below 0: none. The end of text does not count.
    double score(float alpha) const {
        const double length = double(std::max<size_t>(tokens.size(), 2) - 1);
        return sum / (alpha < 0.0f ? length : std::pow((5.0 + length) / 6.0, double(alpha)));
    }
};

struct BeamCandidate {
    size_t from;
    whisper_token_data token;
    double sum;
};

// What may follow a text, the likeliest first.
void likeliest(whisper_context &context, whisper_decoder &decoder, size_t n, size_t from,
               double sum, std::vector<BeamCandidate> &out) {
    std::vector<Token> order(decoder.logprobs.size());
    std::iota(order.begin(), order.end(), 0);
    n = std::min(n, order.size());
    std::partial_sort(order.begin(), order.begin() + ptrdiff_t(n), order.end(),
                      [&](Token a, Token b) { return decoder.logprobs[a] > decoder.logprobs[b]; });
    const whisper_token_data time = whisper_sample_token(context, decoder, true);
    for (size_t i = 0; i < n && std::isfinite(decoder.logprobs[order[i]]); ++i) {
        whisper_token_data token = time;
        token.id = order[i];
        token.p = decoder.probs[token.id];
        token.plog = decoder.logprobs[token.id];
        if (token.id >= context.vocab.token_beg) {
            token.tid = token.id;
            token.pt = token.p;
        }
        out.push_back({from, token, sum + double(token.plog)});
    }
}

} // namespace

std::vector<whisper_token_data> UpstreamState::search(const whisper_full_params &params,
                                                      int32_t n_finished) {
    whisper_context &model = *context();
    const size_t n_beams = size_t(params.beam_search.beam_size);
    const int n_before = state_->decoders[0].i_batch + 1;
    const Token end = model.vocab.token_eot, first_time = model.vocab.token_beg;
    const auto cells = [&](size_t side, size_t beam) { // upstream's own sequence is 0
        return whisper_seq_id(1 + side * n_beams + beam);
    };
    const std::unique_ptr<whisper_batch, void (*)(whisper_batch *)> batch(
        new whisper_batch(whisper_batch_init(int32_t(n_beams), 1)), [](whisper_batch *of) {
            whisper_batch_free(*of);
            delete of;
        });
    whisper_decoder decoder{}; // for one text after the other
    std::vector<BeamText> texts(1), finished;
    for (int n = 0, n_most = whisper_n_text_ctx(&model) / 2 - 4; n < n_most; ++n) {
        std::vector<BeamCandidate> candidates;
        for (size_t i = 0; i < texts.size(); ++i) {
            decoder.sequence.tokens = texts[i].tokens;
            decoder.has_ts = texts[i].has_time;
            decoder.seek_delta = texts[i].seek_delta;
            decoder.i_batch = n == 0 ? n_before - 1 : int(i);
            whisper_process_logits(model, *state_, decoder, params, 0.0f);
            likeliest(model, decoder, n_beams + 1, i, texts[i].sum, candidates);
        }
        std::stable_sort(
            candidates.begin(), candidates.end(),
            [](const BeamCandidate &a, const BeamCandidate &b) { return a.sum > b.sum; });
        const size_t side = size_t(n % 2);
        std::vector<BeamText> next;
        for (const BeamCandidate &candidate : candidates) {
            if (next.size() == n_beams)
                break;
            BeamText text = texts[candidate.from];
            text.add(candidate.token, first_time);
            if (candidate.token.id == end ||
                (params.max_tokens > 0 && n >= params.max_tokens)) { // as upstream ends one
                if (finished.size() < size_t(n_finished))
                    finished.push_back(std::move(text));
                continue;
            }
            whisper_kv_cache_seq_cp(state_->kv_self, n == 0 ? 0 : cells(1 - side, candidate.from),
                                    cells(side, next.size()), -1, -1);
            next.push_back(std::move(text));
        }
        for (size_t i = 0; n > 0 && i < texts.size(); ++i)
            whisper_kv_cache_seq_rm(state_->kv_self, cells(1 - side, i), -1, -1);
        texts = std::move(next);
        if (texts.empty() || finished.size() >= size_t(n_finished))
            break;
        batch->n_tokens = int32_t(texts.size());
        for (size_t i = 0; i < texts.size(); ++i) {
            batch->token[i] = texts[i].tokens.back().id;
            batch->pos[i] = n_before + n;
            batch->n_seq_id[i] = 1;
            batch->seq_id[i][0] = cells(side, i);
            batch->logits[i] = 1;
        }
        if (!whisper_decode_internal(model, *state_, *batch, params.n_threads, false,
                                     params.abort_callback, params.abort_callback_user_data))
            return {};
    }
    for (size_t side = 0; side < 2; ++side) {
        for (size_t i = 0; i < n_beams; ++i)
            whisper_kv_cache_seq_rm(state_->kv_self, cells(side, i), -1, -1);
    }
    for (BeamText &text : texts) { // the likeliest first
        if (finished.size() >= n_beams)
            break;
        text.tokens.push_back({end, first_time, 1.0f, 0.0f, 0.0f, 0.0f, -1, -1, -1, 0.0f});
        finished.push_back(std::move(text));
    }
    const auto best = std::max_element(
        finished.begin(), finished.end(), [&](const BeamText &a, const BeamText &b) {
            return a.score(params.length_penalty) < b.score(params.length_penalty);
        });
    return best == finished.end() ? std::vector<whisper_token_data>() : std::move(best->tokens);
}

void UpstreamState::follow(const std::vector<whisper_token_data> &text, size_t at, float *logits) {
    const whisper_vocab &vocab = context()->vocab;
    std::vector<whisper_token_data> &taken = state_->decoders[0].sequence.tokens;
    if (at > 0 && at <= text.size() && !taken.empty())
        taken.back() = text[at - 1]; // with its time, and its probability if that is small
    const whisper_token_data &token = text[std::min(at, text.size() - 1)];
    // The token is to be the likeliest and to have its probability: the rest goes to the tokens for
    // languages and tasks, to which upstream does nothing more. A token less likely than an equal
    // share of the rest gets a little more than that share, until it is set right above.
    const size_t first = size_t(vocab.token_eot) + 1, n = size_t(vocab.token_beg) - first;
    const float p = std::clamp(token.p, 1.01f / float(n + 1), 1.0f);
    std::fill(logits, logits + vocab.n_vocab, -INFINITY);
    if (p < 1.0f)
        std::fill(logits + first, logits + first + n, std::log((1.0f - p) / float(n)));
    logits[token.id] = std::log(p);
}

int64_t UpstreamState::taken_cs(int64_t window_cs, int32_t max_tokens) const {
    const std::vector<Token> &said = state_->prompt_past1; // ends with the tokens of the window
    const Token zero = context()->vocab.token_beg;
    const size_t n = said.size();
    if (state_->result_all.empty() || n < 2 || said[n - 1] <= zero)
        return window_cs;
    // A single time at the end tells that nothing follows it, unless the text was cut there.
    size_t n_tokens = state_->result_all.size() - 1; // of two times between segments they have one
    for (const whisper_segment &segment : state_->result_all)
        n_tokens += segment.tokens.size();
    if (said[n - 2] < zero && (max_tokens == 0 || n_tokens <= size_t(max_tokens)))
        return window_cs;
    return std::min(window_cs, int64_t(2 * (said[n - 1] - zero)));
}

UpstreamState::Times UpstreamState::times() const {
    return {state_->t_mel_us / 1e3, state_->t_encode_us / 1e3, state_->t_prompt_us / 1e3,
            (state_->t_decode_us + state_->t_batchd_us) / 1e3, state_->t_sample_us / 1e3};
}

UpstreamState::Mel UpstreamState::mel() const {
    return {state_->mel.data.data(), state_->mel.n_mel, state_->mel.n_len};
}

size_t UpstreamState::n_state() const { return size_t(context()->model.hparams.n_audio_state); }

std::vector<float> UpstreamState::encoded() const {
    std::vector<float> values;
    if (state_->embd_enc != nullptr) {
        values.resize(size_t(ggml_nelements(state_->embd_enc)));
        ggml_backend_tensor_get(state_->embd_enc, values.data(), 0, values.size() * sizeof(float));
    }
    return values;
}

std::unique_ptr<Vad> Vad::load(const char *path) {
    whisper_vad_context_params params = whisper_vad_default_context_params();
    params.n_threads = 1;
    params.use_gpu = false;
    std::unique_ptr<Vad> vad(new Vad);
    vad->context_ = whisper_vad_init_from_file_with_params(path, params);
    if (vad->context_ == nullptr)
        return nullptr;
    vad->reset(); // upstream leaves the recurrent state uninitialised
    return vad;
}

Vad::~Vad() { whisper_vad_free(context_); }

bool Vad::process(const float *samples, float &probability) {
    quiet = true;
    // Upstream reports success whatever happens inside, so look whether it wrote a probability.
    context_->probs.assign(1, NAN);
    const bool done = whisper_vad_detect_speech_no_reset(context_, samples, int(window_samples));
    quiet = false;
    probability = context_->probs[0];
    return done && std::isfinite(probability);
}

void spare_memory() {
#ifdef __GLIBC__
    // Each thread would keep what it freed for itself. Large pieces go back when they are freed:
    // without a limit of ours, glibc raises its own to the largest piece it has seen. Sound of
    // seconds between what stays would hold 2 MB, were it not among them.
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
#endif
}

void give_back_freed() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

const std::vector<std::string> &gpus() {
    static const std::vector<std::string> found = [] {
        std::vector<std::string> names;
        for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
            const ggml_backend_dev_t device = ggml_backend_dev_get(i);
            const auto type = ggml_backend_dev_type(device);
            if (type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU)
                names.push_back(std::string(ggml_backend_dev_name(device)) + ": " +
                                ggml_backend_dev_description(device));
        }
        return names;
    }();
    return found;
}

const std::string &kernels() {
    // Upstream's text is without those that found nothing, and changes while it is made.
    static const std::string text = [] {
        std::string all = whisper_print_system_info();
        std::stringstream backends(EV_BACKENDS);
        if (backends.peek() != EOF)
            all += "DEVICES : ";
        for (std::string name; std::getline(backends, name, ' ');) {
            size_t n_devices = 0;
            for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
                const ggml_backend_reg_t backend = ggml_backend_reg_get(i);
                if (strcasecmp(ggml_backend_reg_name(backend), name.c_str()) == 0)
                    n_devices = ggml_backend_reg_dev_count(backend);
            }
            all += name + " = " + std::to_string(n_devices) + " | ";
        }
        return all;
    }();
    return text;
}

int32_t language_id(const char *code) { return whisper_lang_id(code); }

const char *language_code(int32_t id) {
    return id < 0 || id > whisper_lang_max_id() ? nullptr : whisper_lang_str(id);
}

bool Vad::speech(const float *samples, size_t n_samples, const Cut &cut,
                 std::vector<int64_t> &out) {
    whisper_vad_params params = whisper_vad_default_params();
    params.threshold = cut.threshold;
    params.min_speech_duration_ms = cut.min_speech_ms;
    params.min_silence_duration_ms = cut.min_silence_ms;
    params.max_speech_duration_s = cut.max_speech_s;
    params.speech_pad_ms = cut.pad_ms;
    quiet = true;
    const std::unique_ptr<whisper_vad_segments, decltype(&whisper_vad_free_segments)> found(
        whisper_vad_segments_from_samples(context_, params, samples, int(n_samples)),
        whisper_vad_free_segments);
    quiet = false;
    out.clear();
    for (int i = 0; found && i < whisper_vad_segments_n_segments(found.get()); ++i) {
        out.push_back(int64_t(whisper_vad_segments_get_segment_t0(found.get(), i)));
        out.push_back(int64_t(whisper_vad_segments_get_segment_t1(found.get(), i)));
    }
    return found != nullptr;
}

void Vad::reset() { whisper_vad_reset_state(context_); }

} // namespace ev

extern "C" const char *ev_whisper_version(void) { return whisper_version(); }
