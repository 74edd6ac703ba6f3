// The C interface: argument checks, one catch for everything, and the log.
#include "edgevoice.h"

#include "guard.h"
#include "handles.h"
#include "model_file.h"
#include "nearest.h"
#include "quantize.h"
#include "search.h"
#include "sentences.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

struct ev_sentences {
    ev::SentenceGraph graph;
};

struct ev_nearest {
    ev::Nearest nearest;
    ev::Nearest::Found found;
    std::vector<ev_near> sentences;
};

// Longest text: 128 tokens are some 100 words, more than anybody says in 28 s without a pause.
constexpr int32_t max_tokens = 128;

struct ev_session {
    ev_session(std::shared_ptr<const ev::Model> model, std::shared_ptr<const ev::Automaton> grammar,
               const ev_options &chosen)
        : options(chosen),
          prompt(model->prompt(chosen.language, chosen.context ? chosen.context : "")),
          decoder(model, chosen.threads,
                  max_tokens * std::max(chosen.beam, chosen.n_best) + int32_t(prompt.size())),
          search(model, grammar) {
        options.context = nullptr; // the caller's
    }

    ev_options options;
    std::vector<ev::Token> prompt;
    ev::Decoder decoder;
    ev::Search search;
    std::atomic<bool> cancelled{false};
    ev::Found found;
    std::vector<ev_hypothesis> hypotheses;
    ev::Found::Sentence written;
    int32_t max_tokens_now = 0;  // of the audio in the decoder; 0: none, or transcribed already
    ev::Stop recognition{};      // of the recognition under way
    bool free_text_left = false; // it may be asked for the sentences with free text

    ev::Stop stop() {
        return {&cancelled, options.timeout_ms > 0,
                std::chrono::steady_clock::now() + std::chrono::milliseconds(options.timeout_ms)};
    }
};

using ev::fail;
using ev::guarded;

namespace {

// The log of the last 64 KiB, whole lines.
constexpr size_t log_capacity = 64 * 1024;
// The rest of a longer piece is cut, so that every line fits the buffer it is taken with.
constexpr size_t log_line_capacity = 2048;
std::mutex log_mutex;
std::string log_lines;
std::once_flag log_once;

void append_log(char level, const char *text) {
    const std::lock_guard<std::mutex> lock(log_mutex);
    const bool continues = !log_lines.empty() && log_lines.back() != '\n';
    if (!continues) {
        log_lines += level;
        log_lines += ' ';
    }
    log_lines.append(text, strnlen(text, log_line_capacity));
    if (log_lines.size() > log_capacity) {
        const size_t line = log_lines.find('\n', log_lines.size() - log_capacity);
        log_lines.erase(0, line == std::string::npos ? log_lines.size() : line + 1);
    }
}

void start_log() {
    std::call_once(log_once, [] { ev::redirect_log(append_log); });
}

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

constexpr size_t sample_rate_hz = 16000;
constexpr size_t max_samples = 28 * sample_rate_hz; // the encoder's window is 30 s

ev_status check_length(size_t n_samples) {
    if (n_samples > 0 && n_samples <= max_samples)
        return EV_OK;
    return fail(EV_ERR_AUDIO, "audio must have 1 to " + std::to_string(max_samples) +
                                  " samples (28 s), got " + std::to_string(n_samples));
}

// One encoder position is 20 ms, two columns of the spectrogram. Cutting the window to the
// utterance is what makes short commands cheap; 32 positions (0.64 s) of silence after the end keep
// the decoder from looping, and multiples of 64 keep the matrix kernels on whole tiles. At most
// 1472 of the model's 1500.
int32_t audio_ctx_for(size_t n_samples) {
    const size_t positions = (n_samples * 50 + sample_rate_hz - 1) / sample_rate_hz + 32;
    return int32_t((positions + 63) / 64 * 64);
}

// Nobody speaks more tokens: 10 in a second is twice the fastest of the coffee recordings.
int32_t max_tokens_for(size_t n_samples) {
    return int32_t(std::min<size_t>(8 + n_samples * 10 / sample_rate_hz, size_t(max_tokens)));
}

ev_status stopped(ev_status status) {
    return fail(status, status == EV_ERR_CANCELLED  ? "recognition was cancelled"
                        : status == EV_ERR_DEADLINE ? "recognition took too long"
                                                    : "the decoder failed; see the log");
}

// Searches for what the audio in the decoder says.
ev_status search(ev_session &session, ev::Dfa::Text text, int32_t most_tokens, ev_result &out) {
    const Clock::time_point start = Clock::now();
    const ev_options &options = session.options;
    const ev::SearchOptions search{options.beam, options.n_best,       most_tokens,
                                   1.0f,         options.token_reward, options.lm_weight};
    const ev::Found &found = session.found;
    const ev_status status = session.search.run(session.decoder, session.prompt, text, search,
                                                session.recognition, session.found);
    if (status != EV_OK)
        return stopped(status);
    out.search_ms = ms_since(start);
    session.max_tokens_now = most_tokens;

    session.hypotheses.clear();
    for (const ev::Found::Sentence &sentence : found.sentences) {
        session.hypotheses.push_back(
            {sentence.text.c_str(), sentence.score, sentence.log_probability, sentence.tokens});
    }
    out.hypotheses = session.hypotheses.data();
    out.n_hypotheses = int32_t(session.hypotheses.size());
    out.tokens = found.tokens.data();
    out.n_tokens = int32_t(found.tokens.size());
    out.no_speech_probability = found.no_speech_probability;
    out.steps = found.steps;
    return EV_OK;
}

ev_status open_model(const char *path, const ev::ModelUse &use, ev_model **out) {
    return guarded([&]() -> ev_status {
        start_log();
        std::string error;
        if (!ev_model_file_check(path, error))
            return fail(EV_ERR_MODEL, error);
        auto model = ev::Model::load(path, use, error);
        if (model == nullptr)
            return fail(EV_ERR_MODEL, error);
        *out = new ev_model{std::move(model)};
        return EV_OK;
    });
}

} // namespace

extern "C" {

const char *ev_last_error(void) { return ev::last_error().c_str(); }

const char *ev_kernels(void) {
    start_log();
    return ev::kernels().c_str();
}

const char *ev_gpu(int32_t index) {
    start_log();
    const std::vector<std::string> &all = ev::gpus();
    return index < 0 || size_t(index) >= all.size() ? nullptr : all[size_t(index)].c_str();
}

size_t ev_log_take(char *buffer, size_t capacity) {
    if (capacity == 0)
        return 0;
    const std::lock_guard<std::mutex> lock(log_mutex);
    size_t n = std::min(log_lines.size(), capacity - 1);
    const size_t line = n == 0 ? std::string::npos : log_lines.rfind('\n', n - 1);
    n = line == std::string::npos ? 0 : line + 1;
    std::memcpy(buffer, log_lines.data(), n);
    buffer[n] = 0;
    log_lines.erase(0, n);
    return n;
}

void ev_memory_spare(void) { ev::spare_memory(); }

void ev_memory_give_back(void) { ev::give_back_freed(); }

ev_status ev_model_open(const char *path, ev_model **out) { return open_model(path, {}, out); }

ev_status ev_model_open_for_transcription(const char *path, const char *alignment,
                                          const int32_t *heads, size_t n_heads, int32_t gpu,
                                          ev_model **out) {
    if (n_heads > EV_MAX_ALIGNMENT_HEADS) {
        return fail(EV_ERR_ARGUMENT, "alignment heads must be at most " +
                                         std::to_string(EV_MAX_ALIGNMENT_HEADS) + ", got " +
                                         std::to_string(n_heads));
    }
    if (gpu < -1 || gpu >= int32_t(ev::gpus().size())) {
        return fail(EV_ERR_ARGUMENT, "there are " + std::to_string(ev::gpus().size()) +
                                         " graphics devices, got number " + std::to_string(gpu));
    }
    return open_model(path, {true, alignment, heads, n_heads, gpu}, out);
}

ev_status ev_model_quantize(const char *input, const char *output, int32_t file_type) {
    return guarded([&]() -> ev_status {
        std::string error;
        if (!ev_model_file_check(input, error, true) ||
            !ev::quantize(input, output, file_type, error)) {
            return fail(EV_ERR_MODEL, error);
        }
        return EV_OK;
    });
}

ev_status ev_model_share(const ev_model *model, ev_model **out) {
    return guarded([&]() -> ev_status {
        *out = new ev_model{model->shared};
        return EV_OK;
    });
}

void ev_model_info_get(const ev_model *model, ev_model_info *out) { *out = model->shared->info(); }

const float *ev_model_mel_filters(const ev_model *model) { return model->shared->mel_filters(); }

int32_t ev_language_id(const char *code) {
    start_log();
    return ev::language_id(code);
}

void ev_model_free(ev_model *model) { delete model; }

ev_status ev_grammar_open(const uint32_t *arcs, size_t n_arcs, const uint32_t *first_arc,
                          size_t n_nodes, ev_grammar **out) {
    return guarded([&]() -> ev_status {
        std::string error;
        auto automaton = ev::Automaton::make(arcs, n_arcs, first_arc, n_nodes, error);
        if (automaton == nullptr)
            return fail(EV_ERR_GRAMMAR, error);
        *out = new ev_grammar{std::move(automaton)};
        return EV_OK;
    });
}

void ev_grammar_free(ev_grammar *grammar) { delete grammar; }

ev_status ev_grammar_match(const ev_grammar *grammar, const char *text, size_t length,
                           ev_label *labels, size_t capacity, size_t *n_labels) {
    return guarded([&]() -> ev_status {
        const std::vector<ev_label> all = grammar->shared->match(text, length);
        std::copy_n(all.begin(), std::min(all.size(), capacity), labels);
        *n_labels = all.size();
        return EV_OK;
    });
}

ev_status ev_grammar_can_go_on(const ev_grammar *grammar, const char *text, size_t length,
                               int32_t *can_go_on) {
    return guarded([&]() -> ev_status {
        *can_go_on = grammar->shared->can_go_on(text, length);
        return EV_OK;
    });
}

ev_status ev_grammar_sentences(const ev_grammar *grammar, const uint8_t *is_free, size_t n_free,
                               size_t effort, ev_sentences **out) {
    return guarded([&]() -> ev_status {
        const std::vector<bool> free(is_free, is_free + n_free);
        *out = new ev_sentences{ev::sentence_graph(*grammar->shared, free, effort)};
        return EV_OK;
    });
}

void ev_sentences_get(const ev_sentences *sentences, ev_sentence_graph *out) {
    const ev::SentenceGraph &graph = sentences->graph;
    *out = {graph.complete,      graph.n_states(),     graph.first_edge.data(),
            graph.bytes.data(),  graph.targets.data(), graph.first_accept.data(),
            graph.accepts.data()};
}

void ev_sentences_free(ev_sentences *sentences) { delete sentences; }

ev_status ev_grammar_ahead(const ev_grammar *grammar, const char *text, size_t length,
                           const uint32_t *calls, size_t n_calls, size_t most, char *words,
                           uint8_t *called, ev_ahead *out) {
    return guarded([&]() -> ev_status {
        const std::vector<uint32_t> named(calls, calls + n_calls);
        const ev::Ahead found = ev::look_ahead(*grammar->shared, text, length, named, most);
        std::copy(found.calls.begin(), found.calls.end(), called);
        char *end = words;
        for (const std::string &word : found.words) {
            end = std::copy(word.begin(), word.end(), end);
            *end++ = '\n';
        }
        *out = {found.reached, size_t(end - words), found.more};
        return EV_OK;
    });
}

ev_status ev_grammar_choices(const ev_grammar *grammar, const ev_model *model, const char *text,
                             size_t length, size_t *n_tokens) {
    return guarded([&]() -> ev_status {
        *n_tokens = ev::count_choices(grammar->shared, model->shared->trie(), text, length);
        return EV_OK;
    });
}

ev_status ev_model_fewest_tokens(const ev_model *model, const char *text, size_t length,
                                 int32_t *n_tokens) {
    return guarded([&]() -> ev_status {
        *n_tokens = model->shared->trie().fewest(std::string(text, length));
        return EV_OK;
    });
}

ev_status ev_nearest_open(const ev_grammar *grammar, const ev_language *language,
                          ev_nearest **out) {
    return guarded([&]() -> ev_status {
        const ev::Language known{language->kept,     language->missing, language->spare,
                                 language->alike,    language->silent,  language->endings,
                                 language->spellings};
        *out = new ev_nearest{ev::Nearest(*grammar->shared, known), {}, {}};
        return EV_OK;
    });
}

ev_status ev_nearest_find(ev_nearest *nearest, const char *text, size_t length, int32_t max_cost,
                          int32_t n_best, int32_t max_work, const ev_near **found, int32_t *n_found,
                          int32_t *searched, int32_t *work) {
    return guarded([&]() -> ev_status {
        if (n_best < 1 || n_best > 64) {
            return fail(EV_ERR_ARGUMENT,
                        "n_best must be between 1 and 64, got " + std::to_string(n_best));
        }
        nearest->found =
            nearest->nearest.find(std::string(text, length), max_cost, size_t(n_best), max_work);
        nearest->sentences.clear();
        for (const ev::Nearest::Sentence &sentence : nearest->found.sentences)
            nearest->sentences.push_back({sentence.text.c_str(), sentence.cost});
        *found = nearest->sentences.data();
        *n_found = int32_t(nearest->sentences.size());
        *searched = nearest->found.searched;
        *work = nearest->found.work;
        return EV_OK;
    });
}

void ev_nearest_free(ev_nearest *nearest) { delete nearest; }

ev_status ev_session_open(ev_model *model, ev_grammar *grammar, const ev_options *options,
                          ev_session **out) {
    return guarded([&]() -> ev_status {
        const auto outside = [](const char *name, double value, double low, double high) {
            if (value >= low && value <= high)
                return false;
            fail(EV_ERR_ARGUMENT, std::string(name) + " must be between " + std::to_string(low) +
                                      " and " + std::to_string(high) + ", got " +
                                      std::to_string(value));
            return true;
        };
        if (outside("threads", options->threads, 1, 64) || outside("beam", options->beam, 1, 32) ||
            outside("n_best", options->n_best, 1, 32) ||
            outside("token_reward", options->token_reward, 0, 10) ||
            outside("lm_weight", options->lm_weight, 0, 1) ||
            outside("timeout_ms", options->timeout_ms, 0, 3'600'000)) {
            return EV_ERR_ARGUMENT;
        }
        // Language tokens run from 0 to 98 or 99, depending on the model.
        if (model->shared->info().multilingual && outside("language", options->language, 0, 98)) {
            return EV_ERR_ARGUMENT;
        }
        if (model->shared->on_gpu())
            return fail(EV_ERR_ARGUMENT, "the weights are on a graphics device, but commands are "
                                         "recognised on the processor; open the model for it");
        *out = new ev_session(model->shared, grammar->shared, *options);
        return EV_OK;
    });
}

ev_status ev_session_set_grammar(ev_session *session, ev_grammar *grammar) {
    return guarded([&]() -> ev_status {
        session->search.set_grammar(grammar->shared);
        session->free_text_left = false;
        return EV_OK;
    });
}

ev_status ev_mel_columns(size_t n_samples, size_t *n_columns) {
    return guarded([&]() -> ev_status {
        if (const ev_status status = check_length(n_samples); status != EV_OK)
            return status;
        *n_columns = 2 * size_t(audio_ctx_for(n_samples));
        return EV_OK;
    });
}

ev_status ev_session_recognise(ev_session *session, const float *mel, size_t n_values,
                               size_t n_samples, int32_t free_text, ev_result *out) {
    return guarded([&]() -> ev_status {
        session->max_tokens_now = 0;
        session->free_text_left = false;
        if (const ev_status status = check_length(n_samples); status != EV_OK)
            return status;
        const int32_t audio_ctx = audio_ctx_for(n_samples);
        const size_t wanted =
            2 * size_t(audio_ctx) * size_t(session->decoder.model().info().n_mels);
        if (n_values != wanted) {
            return fail(EV_ERR_ARGUMENT, "the spectrogram must have " + std::to_string(wanted) +
                                             " values, got " + std::to_string(n_values));
        }
        if (!std::all_of(mel, mel + n_values, [](float value) { return std::isfinite(value); }))
            return fail(EV_ERR_AUDIO, "the spectrogram is not finite; the audio is too loud");
        session->cancelled = false;
        session->recognition = session->stop();
        *out = ev_result{};

        const Clock::time_point encode_start = Clock::now();
        out->audio_ctx = audio_ctx;
        const auto is_over = [](void *of) {
            return static_cast<const ev::Stop *>(of)->check() != EV_OK;
        };
        if (!session->decoder.encode(mel, audio_ctx, is_over, &session->recognition)) {
            if (const ev_status status = session->recognition.check(); status != EV_OK)
                return stopped(status);
            return fail(EV_ERR_INFERENCE, "the encoder failed; see the log");
        }
        out->encode_ms = ms_since(encode_start);

        const bool without = free_text == 0 && session->search.has_both();
        const int32_t most = max_tokens_for(n_samples);
        const ev_status status =
            search(*session, without ? ev::Dfa::Text::fixed : ev::Dfa::Text::any, most, *out);
        session->free_text_left = without && status == EV_OK;
        out->without_free_text = session->free_text_left;
        return status;
    });
}

ev_status ev_session_recognise_free_text(ev_session *session, ev_result *out) {
    return guarded([&]() -> ev_status {
        if (!session->free_text_left)
            return fail(EV_ERR_ARGUMENT, "there is no recognition that left free text out");
        session->free_text_left = false;
        *out = ev_result{};
        return search(*session, ev::Dfa::Text::any, std::exchange(session->max_tokens_now, 0),
                      *out);
    });
}

ev_status ev_session_transcribe(ev_session *session, ev_hypothesis *out) {
    return guarded([&]() -> ev_status {
        if (session->max_tokens_now == 0)
            return fail(EV_ERR_ARGUMENT, "there is no recognition to transcribe");
        const int32_t most = std::exchange(session->max_tokens_now, 0);
        session->free_text_left = false;
        const ev_status status = session->search.transcribe(session->decoder, session->prompt, most,
                                                            session->stop(), session->written);
        if (status != EV_OK)
            return stopped(status);
        const ev::Found::Sentence &written = session->written;
        *out = {written.text.c_str(), written.score, written.log_probability, written.tokens};
        return EV_OK;
    });
}

void ev_session_cancel(ev_session *session) { session->cancelled = true; }

void ev_session_free(ev_session *session) { delete session; }

ev_status ev_vad_open(const char *path, ev_vad **out) {
    return guarded([&]() -> ev_status {
        start_log();
        auto vad = ev::Vad::load(path);
        if (vad == nullptr)
            return fail(EV_ERR_MODEL, "whisper.cpp refused the voice detector file");
        *out = new ev_vad{std::move(vad)};
        return EV_OK;
    });
}

ev_status ev_vad_process(ev_vad *vad, const float *samples, size_t n_samples, float *probability) {
    return guarded([&]() -> ev_status {
        if (n_samples != ev::Vad::window_samples) {
            return fail(EV_ERR_AUDIO, "a window has 512 samples, got " + std::to_string(n_samples));
        }
        if (!vad->vad->process(samples, *probability)) {
            return fail(EV_ERR_INFERENCE, "the voice detector failed; see the log");
        }
        return EV_OK;
    });
}

ev_status ev_vad_speech(ev_vad *vad, const float *samples, size_t n_samples, float threshold,
                        int32_t min_speech_ms, int32_t min_silence_ms, float max_speech_s,
                        int32_t pad_ms, int64_t *out, size_t capacity, size_t *n_out) {
    return guarded([&]() -> ev_status {
        constexpr size_t most = 12 * 3600 * sample_rate_hz;
        constexpr int32_t most_ms = 60'000;
        if (n_samples == 0 || n_samples > most) {
            return fail(EV_ERR_AUDIO, "audio must have 1 to " + std::to_string(most) +
                                          " samples (12 h), got " + std::to_string(n_samples));
        }
        const auto within = [](double value, double low, double high) {
            return value >= low && value <= high; // a value that is no number is not
        };
        if (!within(threshold, 0, 1) || !within(min_speech_ms, 0, most_ms) ||
            !within(min_silence_ms, 0, most_ms) || !within(max_speech_s, 1, 1e6) ||
            !within(pad_ms, 0, most_ms)) {
            return fail(EV_ERR_ARGUMENT, "threshold must be 0-1, max_speech_s 1 and more, and each "
                                         "time at most 60 s");
        }
        std::vector<int64_t> found;
        const ev::Vad::Cut cut{threshold, min_speech_ms, min_silence_ms, pad_ms, max_speech_s};
        if (!vad->vad->speech(samples, n_samples, cut, found))
            return fail(EV_ERR_INFERENCE, "the voice detector failed; see the log");
        vad->vad->reset();
        std::copy_n(found.begin(), std::min(found.size(), capacity), out);
        *n_out = found.size();
        return EV_OK;
    });
}

void ev_vad_reset(ev_vad *vad) { vad->vad->reset(); }

void ev_vad_free(ev_vad *vad) { delete vad; }

} // extern "C"
