#include "whisper_core.h"

// Upstream's source, unchanged, with the warnings it has always had.
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

#include <new>

namespace ev {

namespace {

void (*log_sink)(char, const char *) = nullptr;

void forward_log(ggml_log_level level, const char *text, void *) {
    switch (level) {
    case GGML_LOG_LEVEL_ERROR: log_sink('E', text); break;
    case GGML_LOG_LEVEL_WARN: log_sink('W', text); break;
    case GGML_LOG_LEVEL_INFO: log_sink('I', text); break;
    default: log_sink('D', text); break;
    }
}

// whisper.cpp reads before the start of shorter audio (its issue 3923); 1.1 s also is the shortest
// audio the model was found stable on.
constexpr size_t min_samples = WHISPER_SAMPLE_RATE * 11 / 10;

}  // namespace

void redirect_log(void (*sink)(char, const char *)) {
    log_sink = sink;
    whisper_log_set(forward_log, nullptr);
}

std::shared_ptr<const Model> Model::load(const char *path) {
    whisper_context_params params = whisper_context_default_params();
    params.use_gpu = false;
    // Flash attention pads keys to a multiple of 256 and does not mask them: wrong results at
    // small encoder windows.
    params.flash_attn = false;

    std::shared_ptr<Model> model(new Model);
    model->context_ = whisper_init_from_file_with_params_no_state(path, params);
    if (model->context_ == nullptr) return nullptr;

    const whisper_vocab &vocab = model->context_->vocab;
    model->n_vocab_ = vocab.n_vocab;
    model->end_of_text_ = vocab.token_eot;
    model->no_speech_ = vocab.token_nosp;
    model->bytes_.resize(vocab.token_eot);
    for (Token id = 0; id < vocab.token_eot; ++id) model->bytes_[id] = vocab.id_to_token.at(id);
    model->trie_ = std::make_unique<VocabTrie>(model->bytes_);
    return model;
}

Model::~Model() { whisper_free(context_); }

ev_model_info Model::info() const {
    const whisper_hparams &h = context_->model.hparams;
    return {h.n_vocab,       h.n_audio_ctx, h.n_text_ctx,
            h.n_audio_layer, h.ftype,       context_->vocab.is_multilingual() ? 1 : 0};
}

std::vector<Token> Model::prompt(int32_t language) const {
    const whisper_vocab &vocab = context_->vocab;
    std::vector<Token> tokens{vocab.token_sot};
    if (vocab.is_multilingual()) {
        tokens.push_back(vocab.token_sot + 1 + language);
        tokens.push_back(vocab.token_transcribe);
    }
    tokens.push_back(vocab.token_not);
    return tokens;
}

Decoder::Decoder(std::shared_ptr<const Model> model, int32_t threads, int32_t beam)
    : model_(std::move(model)), threads_(threads) {
    whisper_context *context = model_->context();
    state_ = whisper_init_state(context);
    if (state_ == nullptr) throw std::bad_alloc();

    // Upstream sizes the cache for one sequence. 8 cells more for the prompt.
    const whisper_hparams &h = context->model.hparams;
    whisper_kv_cache_free(state_->kv_self);
    if (!whisper_kv_cache_init(state_->kv_self, state_->backends[0], context->itype,
                               h.n_text_state, h.n_text_layer,
                               GGML_PAD((max_tokens + 1) * beam + 8, 256))) {
        whisper_free_state(state_);
        throw std::bad_alloc();
    }
}

Decoder::~Decoder() { whisper_free_state(state_); }

bool Decoder::mel(const float *samples, size_t n_samples) {
    std::vector<float> padded;
    if (n_samples < min_samples) {
        padded.assign(samples, samples + n_samples);
        padded.resize(min_samples, 0.0f);
        samples = padded.data();
        n_samples = padded.size();
    }
    return whisper_pcm_to_mel_with_state(model_->context(), state_, samples, int(n_samples),
                                         threads_) == 0;
}

bool Decoder::encode(int32_t audio_ctx) {
    state_->exp_n_audio_ctx = audio_ctx;
    clear_cache();
    return whisper_encode_internal(*model_->context(), *state_, 0, threads_, nullptr, nullptr);
}

bool Decoder::decode(const std::vector<Input> &inputs) {
    whisper_batch &batch = state_->batch;
    batch.n_tokens = int32_t(inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
        batch.token[i] = inputs[i].token;
        batch.pos[i] = inputs[i].position;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = inputs[i].sequence;
        batch.logits[i] = 1;
    }
    return whisper_decode_internal(*model_->context(), *state_, batch, threads_, false, nullptr,
                                   nullptr);
}

const float *Decoder::logits(size_t row) const {
    return state_->logits.data() + row * size_t(model_->n_vocab());
}

void Decoder::clear_cache() { whisper_kv_cache_clear(state_->kv_self); }

void Decoder::copy_sequence(int32_t from, int32_t to) {
    whisper_kv_cache_seq_cp(state_->kv_self, from, to, -1, -1);
}

void Decoder::drop_sequence(int32_t sequence) {
    whisper_kv_cache_seq_rm(state_->kv_self, sequence, -1, -1);
}

std::unique_ptr<Vad> Vad::load(const char *path) {
    whisper_vad_context_params params = whisper_vad_default_context_params();
    params.n_threads = 1;
    params.use_gpu = false;
    std::unique_ptr<Vad> vad(new Vad);
    vad->context_ = whisper_vad_init_from_file_with_params(path, params);
    return vad->context_ == nullptr ? nullptr : std::move(vad);
}

Vad::~Vad() { whisper_vad_free(context_); }

bool Vad::process(const float *samples, float &probability) {
    if (!whisper_vad_detect_speech_no_reset(context_, samples, int(window_samples))) return false;
    probability = context_->probs[0];
    return true;
}

void Vad::reset() { whisper_vad_reset_state(context_); }

}  // namespace ev

extern "C" const char *ev_whisper_version(void) { return whisper_version(); }
extern "C" const char *ev_kernels(void) { return whisper_print_system_info(); }
extern "C" int32_t ev_language_id(const char *code) { return whisper_lang_id(code); }
