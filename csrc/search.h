// Beam search for the sentence of the grammar that the audio most likely says.
//
// Each step runs all hypotheses through the decoder in one batch. A hypothesis may go on only with
// tokens whose bytes the grammar accepts where it stands (the mask is exact), and may end only
// where a sentence may end. The score is the log-probability over the whole vocabulary plus a
// reward for each token, because plain scores prefer short sentences. Hypotheses that differ only
// in case and punctuation are one: the better one stays and their probabilities add up.
#pragma once

#include "automaton.h"
#include "whisper_core.h"

#include <atomic>
#include <chrono>
#include <string>
#include <vector>

namespace ev {

struct SearchOptions {
    int32_t beam;
    int32_t n_best;
    int32_t max_tokens;
    float token_reward;
};

struct Found {
    std::string text;
    double score;
    double log_probability;
    int32_t tokens;
    float worst_gap;
};

// Stop conditions, looked at between steps.
struct Stop {
    std::atomic<bool> *cancelled;
    bool has_deadline;
    std::chrono::steady_clock::time_point deadline;

    // EV_OK to go on.
    ev_status check() const {
        if (cancelled->load(std::memory_order_relaxed)) return EV_ERR_CANCELLED;
        if (has_deadline && std::chrono::steady_clock::now() >= deadline) return EV_ERR_DEADLINE;
        return EV_OK;
    }
};

class Search {
  public:
    Search(std::shared_ptr<const Model> model, std::shared_ptr<const Automaton> grammar);

    void set_grammar(std::shared_ptr<const Automaton> grammar);

    // The decoder holds the encoder output. On EV_OK `found` has at most n_best sentences, best
    // first, each different after folding case and punctuation.
    ev_status run(Decoder &decoder, const std::vector<Token> &prompt, const SearchOptions &options,
                  const Stop &stop, std::vector<Found> &found, float &no_speech_probability,
                  int32_t &steps);

  private:
    struct Allowed {
        Token token;
        int32_t next;
    };

    struct Hypothesis {
        std::vector<Token> tokens;
        double score = 0.0;
        double log_probability = 0.0;
        float gap1 = 0.0f, gap2 = 0.0f;  // the two worst gaps, gap1 <= gap2 <= 0
        int32_t state = 0;               // of the DFA
        int32_t sequence = 0;            // in the decoder's cache
        uint64_t folded = 0;             // hash of the text without case and punctuation
    };

    const std::vector<Allowed> &allowed(int32_t state);
    void walk(const VocabTrie::Node &node, int32_t state, std::vector<Allowed> &out);
    std::string text(const std::vector<Token> &tokens) const;
    static uint64_t fold(uint64_t hash, const std::string &bytes);
    static void add_gap(Hypothesis &hypothesis, float gap);

    std::shared_ptr<const Model> model_;
    Dfa dfa_;
    std::vector<std::vector<Allowed>> allowed_;  // by DFA state, empty: not yet computed
    std::vector<bool> allowed_known_;
};

}  // namespace ev
