// Transcription as upstream decodes it (whisper_full), with what it lacks: checked options, a
// deadline and cancelling also within the encoder, tokens filtered in time, a grammar that cannot
// be left, and no way to end the process.
#pragma once

#include "exact.h"
#include "whisper_core.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <vector>

struct whisper_full_params;

namespace ev {

// Which tokens a text may go on with under a grammar. Beams ask at the same time.
class TokenFilter {
  public:
    TokenFilter(std::shared_ptr<const Model> model, std::shared_ptr<const Automaton> grammar);

    const Automaton *grammar() const { return grammar_.get(); }
    // Leaves only logits of what can follow `tokens`. Throws as ExactDfa does.
    void apply(const Token *tokens, size_t n_tokens, float *logits, size_t n_logits);

  private:
    struct Allowed {
        bool known = false;
        std::vector<Token> tokens;
    };
    void walk(const VocabTrie::Node &node, int32_t state, std::vector<Token> &out);

    std::shared_ptr<const Model> model_;
    std::shared_ptr<const Automaton> grammar_;
    ExactDfa dfa_;
    std::vector<Allowed> allowed_; // by state
    std::vector<bool> may_;        // by token, of one call
    std::mutex mutex_;
};

class Transcriber {
  public:
    explicit Transcriber(std::shared_ptr<const Model> model);

    const Model &model() const { return *model_; }

    // As the functions of edgevoice.h; audio and options have passed the checks of
    // api_transcriber.cpp.
    ev_status run(const float *samples, size_t n_samples, const ev_transcription &options,
                  const std::shared_ptr<const Automaton> &grammar, std::atomic<bool> *cancelled,
                  ev_transcribed &out);
    ev_status detect(const float *samples, size_t n_samples, int32_t threads,
                     std::atomic<bool> *cancelled, std::vector<float> &probabilities);

    void compute_mel(const float *samples, size_t n_samples, int32_t threads);
    void set_mel(const float *values, size_t columns);
    ev_status encode(size_t column, int32_t threads, const float *&values, size_t &n_positions,
                     size_t &n_state);
    ev_status decode(const Token *tokens, size_t n_tokens, size_t n_past, int32_t threads,
                     const float *&logits);
    UpstreamState &state();

  private:
    struct Run; // of the call under way

    ev_status languages(Run &run, int32_t threads, std::vector<float> &probabilities);
    void give_new_segments(Run &run);
    // whisper_full; with a window that fits, if that is not 0, and again with all of it if the text
    // is doubtful.
    int transcribe(Run &run, const whisper_full_params &params, int32_t fitting);

    std::shared_ptr<const Model> model_;
    std::unique_ptr<UpstreamState> state_;
    std::unique_ptr<TokenFilter> filter_; // of the last grammar
    std::vector<float> probabilities_, encoded_;
    bool has_mel_ = false, has_encoded_ = false;
    size_t n_decoded_ = 0; // tokens in the decoder's cache
};

} // namespace ev
