// Beam search for the sentence of the grammar that the audio most likely says.
//
// First pass. Each step runs all hypotheses through the decoder in one batch. A hypothesis may go
// on only with tokens whose bytes the grammar accepts where it stands (the mask is exact), and may
// end only where a sentence may end. Its score is the log-probability plus a reward for each token,
// because plain scores prefer short sentences. Probabilities are normalised over the tokens that
// any hypothesis may take and the most frequent ones of the vocabulary, which costs a tenth of the
// whole. Hypotheses that differ only in case and punctuation are one: the better one stays and
// their probabilities add up.
//
// Second pass. The sentences found are scored together as one tree without the audio, which is
// what Whisper believes about text in general (the internal language model); a share of that is
// subtracted. The winner is scored once more, exactly, for the decision to accept it.
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
    float search_reward; // for each token in the first pass
    float token_reward;  // for each token in the second pass
    float lm_weight;
};

struct Found {
    std::string text;
    double score;
    double log_probability;
    int32_t tokens;
    float worst_gap, second_gap, end_gap;
};

// Stop conditions, looked at between steps.
struct Stop {
    std::atomic<bool> *cancelled;
    bool has_deadline;
    std::chrono::steady_clock::time_point deadline;

    // EV_OK to go on.
    ev_status check() const {
        if (cancelled->load(std::memory_order_relaxed))
            return EV_ERR_CANCELLED;
        if (has_deadline && std::chrono::steady_clock::now() >= deadline)
            return EV_ERR_DEADLINE;
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
        double score = 0.0;
        double log_probability = 0.0; // of this spelling
        int32_t state = 0;            // of the DFA
        uint64_t folded = 0;          // hash of the text without case and punctuation
        std::vector<int32_t> cells;   // of prompt and tokens in the decoder's cache
        std::vector<Token> tokens;
    };

    struct Finished {
        std::vector<Token> tokens;
        double score;                   // of the best spelling
        double total;                   // log-sum of all spellings
        double log_probability;         // of the best spelling
        double language = 0.0;          // log-probability without the audio
        float gap1 = 0.0f, gap2 = 0.0f; // the two worst gaps, gap1 <= gap2 <= 0
        float end_gap = 0.0f;
    };

    const std::vector<Allowed> &allowed(int32_t state);
    void walk(const VocabTrie::Node &node, int32_t state, std::vector<Allowed> &out);
    std::string text(const std::vector<Token> &tokens) const;
    static uint64_t fold(uint64_t hash, const std::string &bytes);
    ev_status first_pass(Decoder &decoder, size_t n_prompt, const SearchOptions &options,
                         const Stop &stop, std::vector<Finished> &finished, int32_t &steps);
    ev_status score_tree(Decoder &decoder, const std::vector<Token> &prompt, Decoder::Audio audio,
                         std::vector<Finished> &finished);
    // Adds end-of-text, makes the tokens unique, and notes which column of the logits each will
    // have.
    void assign_columns(std::vector<Token> &extra);
    std::vector<Token> extra_tokens(const std::vector<Hypothesis> &live);

    std::shared_ptr<const Model> model_;
    Dfa dfa_;
    std::vector<std::vector<Allowed>> allowed_; // by DFA state, empty: not yet computed
    std::vector<bool> allowed_known_;
    std::vector<int32_t> column_;     // by token, of the decoder's logits; valid for extra tokens
    std::vector<float> first_logits_; // over the whole vocabulary, for the first token
};

} // namespace ev
