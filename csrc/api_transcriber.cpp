// The part of the C interface that transcribes: argument checks.
#include "edgevoice.h"

#include "guard.h"
#include "handles.h"
#include "transcriber.h"

#include <algorithm>
#include <cmath>

using ev::fail;
using ev::guarded;

struct ev_cancel {
    std::atomic<bool> set{false};
};

struct ev_transcriber {
    ev::Transcriber transcriber;
};

namespace {

constexpr size_t sample_rate_hz = 16000;
// Upstream makes nothing of less, and its spectrogram counts in 32 bits.
constexpr size_t min_samples = sample_rate_hz / 10, max_samples = 12 * 3600 * sample_rate_hz;
constexpr size_t max_columns = max_samples / 160;

bool outside(const char *name, double value, double low, double high) {
    if (value >= low && value <= high)
        return false;
    fail(EV_ERR_ARGUMENT, std::string(name) + " must be between " + std::to_string(low) + " and " +
                              std::to_string(high) + ", got " + std::to_string(value));
    return true;
}

bool are_tokens(const char *name, const ev::Model &model, const int32_t *tokens, size_t n) {
    const int32_t *wrong = std::find_if(
        tokens, tokens + n, [&](int32_t token) { return token < 0 || token >= model.n_vocab(); });
    if (wrong == tokens + n)
        return true;
    fail(EV_ERR_ARGUMENT, std::string(name) + ": the model has tokens 0 to " +
                              std::to_string(model.n_vocab() - 1) + ", got " +
                              std::to_string(*wrong));
    return false;
}

ev_status check_audio(const float *samples, size_t n_samples) {
    if (n_samples < min_samples || n_samples > max_samples) {
        return fail(EV_ERR_AUDIO, "audio must have " + std::to_string(min_samples) +
                                      " samples (0.1 s) to " + std::to_string(max_samples) +
                                      " (12 h), got " + std::to_string(n_samples));
    }
    // Squared and summed over 400 samples, more is no number.
    if (!std::all_of(samples, samples + n_samples,
                     [](float value) { return std::fabs(value) < 1e15f; }))
        return fail(EV_ERR_AUDIO, "the samples are not finite, or too loud");
    return EV_OK;
}

ev_status check_options(const ev::Model &model, const ev_transcription &o, size_t n_samples) {
    const ev_model_info info = model.info();
    if (outside("threads", o.threads, 1, 64) ||
        (info.multilingual && outside("language", o.language, -1, model.n_languages() - 1)) ||
        outside("beam", o.beam, 1, 8) || outside("best_of", o.best_of, 1, 8) ||
        outside("n_finished", o.n_finished, 0, o.beam > 1 && o.temperature == 0 ? 80 : 0) ||
        outside("temperature", o.temperature, 0, 1) ||
        (o.temperature_step != 0 && outside("temperature_step", o.temperature_step, 0.05f, 1)) ||
        outside("entropy_threshold", o.entropy_threshold, 0, 100) ||
        outside("log_probability_threshold", o.log_probability_threshold, -1000, 0) ||
        outside("no_speech_threshold", o.no_speech_threshold, 0, 1) ||
        (o.length_penalty != -1 && outside("length_penalty", o.length_penalty, 0, 10)) ||
        outside("max_context", o.max_context, 0, info.n_text_ctx / 2) ||
        outside("start", o.start_cs, 0, 1e8) || outside("duration", o.duration_cs, 0, 1e8) ||
        outside("token_threshold", o.token_threshold, 0, 1) ||
        outside("token_sum_threshold", o.token_sum_threshold, 0, 1) ||
        outside("max_segment_length", o.max_segment_length, 0, 100'000) ||
        outside("max_tokens", o.max_tokens, 0, info.n_text_ctx / 2) ||
        outside("audio_ctx", o.audio_ctx, 0, info.n_audio_ctx) ||
        outside("max_initial_timestamp_s", o.max_initial_timestamp_s, 0, 30) ||
        outside("repetition_penalty", o.repetition_penalty, 1, 10) ||
        outside("no_repeat_ngram", o.no_repeat_ngram, 0, info.n_text_ctx / 2) ||
        outside("timeout_ms", o.timeout_ms, 0, 1e9) ||
        outside("prompt tokens", double(o.n_prompt), 0, 100'000))
        return EV_ERR_ARGUMENT;
    if (o.n_hotwords > 0 &&
        outside("hotwords, in tokens,", double(o.n_hotwords), 1, o.max_context - 1))
        return EV_ERR_ARGUMENT;
    if (!are_tokens("prompt", model, o.prompt, o.n_prompt) ||
        !are_tokens("hotwords", model, o.hotwords, o.n_hotwords) ||
        !are_tokens("suppress", model, o.suppress, o.n_suppress))
        return EV_ERR_ARGUMENT;
    if (o.translate && !info.multilingual)
        return fail(EV_ERR_ARGUMENT, "the model knows only English and cannot translate");
    const size_t start = size_t(o.start_cs) * (sample_rate_hz / 100);
    if (start + min_samples > n_samples) {
        return fail(EV_ERR_ARGUMENT, "start must be 0.1 s before the end of the audio, got " +
                                         std::to_string(o.start_cs / 100.0) + " s of " +
                                         std::to_string(double(n_samples) / sample_rate_hz) + " s");
    }
    return EV_OK;
}

std::atomic<bool> *flag(ev_cancel *cancel) { return cancel ? &cancel->set : nullptr; }

} // namespace

extern "C" {

ev_status ev_cancel_new(ev_cancel **out) {
    return guarded([&]() -> ev_status {
        *out = new ev_cancel;
        return EV_OK;
    });
}

void ev_cancel_set(ev_cancel *cancel) { cancel->set = true; }

void ev_cancel_free(ev_cancel *cancel) { delete cancel; }

const char *ev_language_code(int32_t id) { return ev::language_code(id); }

int32_t ev_model_languages(const ev_model *model) { return model->shared->n_languages(); }

ev_status ev_model_tokenize(const ev_model *model, const char *text, size_t length, int32_t *tokens,
                            size_t capacity, size_t *n_tokens) {
    return guarded([&]() -> ev_status {
        const std::vector<ev::Token> all = model->shared->tokenize(std::string(text, length));
        std::copy_n(all.begin(), std::min(all.size(), capacity), tokens);
        *n_tokens = all.size();
        return EV_OK;
    });
}

ev_status ev_model_token(const ev_model *model, int32_t token, const char **bytes, size_t *size) {
    return guarded([&]() -> ev_status {
        const ev::Model &shared = *model->shared;
        if (!are_tokens("token", shared, &token, 1))
            return EV_ERR_ARGUMENT;
        const bool is_text = token < shared.end_of_text();
        *bytes = is_text ? shared.bytes(token).data() : shared.name(token);
        *size = is_text ? shared.bytes(token).size() : std::char_traits<char>::length(*bytes);
        return EV_OK;
    });
}

void ev_model_special(const ev_model *model, ev_special *out) { *out = model->shared->special(); }

ev_status ev_transcriber_open(ev_model *model, ev_transcriber **out) {
    return guarded([&]() -> ev_status {
        if (!model->shared->for_transcription())
            return fail(EV_ERR_ARGUMENT, "the model was not opened for transcription");
        *out = new ev_transcriber{ev::Transcriber(model->shared)};
        return EV_OK;
    });
}

ev_status ev_transcriber_run(ev_transcriber *transcriber, const float *samples, size_t n_samples,
                             const ev_transcription *options, ev_cancel *cancel,
                             ev_transcribed *out) {
    return guarded([&]() -> ev_status {
        if (const ev_status status = check_audio(samples, n_samples); status != EV_OK)
            return status;
        ev::Transcriber &own = transcriber->transcriber;
        if (const ev_status status = check_options(own.model(), *options, n_samples);
            status != EV_OK)
            return status;
        *out = ev_transcribed{};
        return own.run(samples, n_samples, *options,
                       options->grammar ? options->grammar->shared : nullptr, flag(cancel), *out);
    });
}

ev_status ev_transcriber_detect(ev_transcriber *transcriber, const float *samples, size_t n_samples,
                                int32_t threads, ev_cancel *cancel, float *probabilities) {
    return guarded([&]() -> ev_status {
        if (const ev_status status = check_audio(samples, n_samples); status != EV_OK)
            return status;
        ev::Transcriber &own = transcriber->transcriber;
        if (outside("threads", threads, 1, 64))
            return EV_ERR_ARGUMENT;
        if (own.model().n_languages() == 0)
            return fail(EV_ERR_ARGUMENT, "the model knows only English");
        std::vector<float> found;
        const ev_status status = own.detect(samples, n_samples, threads, flag(cancel), found);
        if (status == EV_OK)
            std::copy(found.begin(), found.end(), probabilities);
        return status;
    });
}

ev_status ev_transcriber_mel(ev_transcriber *transcriber, const float *samples, size_t n_samples,
                             int32_t threads, const float **values, size_t *n_columns) {
    return guarded([&]() -> ev_status {
        if (const ev_status status = check_audio(samples, n_samples); status != EV_OK)
            return status;
        if (outside("threads", threads, 1, 64))
            return EV_ERR_ARGUMENT;
        ev::Transcriber &own = transcriber->transcriber;
        own.compute_mel(samples, n_samples, threads);
        const ev::UpstreamState::Mel mel = own.state().mel();
        *values = mel.values;
        *n_columns = size_t(mel.columns);
        return EV_OK;
    });
}

ev_status ev_transcriber_set_mel(ev_transcriber *transcriber, const float *values,
                                 size_t n_columns) {
    return guarded([&]() -> ev_status {
        if (outside("columns", double(n_columns), 1, double(max_columns)))
            return EV_ERR_ARGUMENT;
        ev::Transcriber &own = transcriber->transcriber;
        const size_t n = n_columns * size_t(own.model().info().n_mels);
        if (!std::all_of(values, values + n, [](float value) { return std::isfinite(value); }))
            return fail(EV_ERR_AUDIO, "the spectrogram is not finite");
        own.set_mel(values, n_columns);
        return EV_OK;
    });
}

ev_status ev_transcriber_encode(ev_transcriber *transcriber, size_t column, int32_t threads,
                                const float **values, size_t *n_positions, size_t *n_state) {
    return guarded([&]() -> ev_status {
        if (outside("threads", threads, 1, 64))
            return EV_ERR_ARGUMENT;
        return transcriber->transcriber.encode(column, threads, *values, *n_positions, *n_state);
    });
}

ev_status ev_transcriber_decode(ev_transcriber *transcriber, const int32_t *tokens, size_t n_tokens,
                                size_t n_past, int32_t threads, const float **logits) {
    return guarded([&]() -> ev_status {
        ev::Transcriber &own = transcriber->transcriber;
        const double room = own.model().info().n_text_ctx;
        if (outside("threads", threads, 1, 64) || outside("tokens", double(n_tokens), 1, room) ||
            outside("tokens, those before included", double(n_tokens) + double(n_past), 1, room) ||
            !are_tokens("tokens", own.model(), tokens, n_tokens))
            return EV_ERR_ARGUMENT;
        return own.decode(tokens, n_tokens, n_past, threads, *logits);
    });
}

void ev_transcriber_free(ev_transcriber *transcriber) { delete transcriber; }

} // extern "C"
