// Beam search for the sentence of the grammar that the audio most likely says.
//
// First pass. Each step runs all hypotheses through the decoder in one batch. A hypothesis may go
// on only with tokens whose bytes the grammar accepts where it stands (the mask is exact), and may
// end only where a sentence may end. Its score is the log-probability plus a reward for each token,
// because plain scores prefer short sentences. Probabilities are normalised over the tokens that
// any hypothesis may take and the most frequent ones of the vocabulary, which costs a tenth of the
// whole. Hypotheses that differ only in case and punctuation are one, whether they come to a text
// in the same step or one after the other: the beam holds different sentences, not spellings.
//
// Inside free text nearly every token is allowed, so there the likeliest are tried one by one, the
// whole vocabulary normalises, nothing is rewarded, and a text that repeats itself ends. That makes
// a step three times as long, and what may be anything crowds the beam; so a search can be asked to
// look at the sentences without free text first.
//
// Second pass. The sentences found are scored together as one tree without the audio, which is
// what Whisper believes about text in general (the internal language model); a share of that is
// subtracted. Of the winner the whole vocabulary is looked at, for the decision to accept it; no
// pass is needed for that, the decoder keeps what it saw.
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

// What a search ends with.
struct Found {
    struct Sentence {
        std::string text;
        double score;
        double log_probability;
        int32_t tokens; // end-of-text included
    };
    std::vector<Sentence> sentences; // best first
    std::vector<ev_token> tokens;    // of the best sentence, exact
    float no_speech_probability = 0.0f;
    int32_t steps = 0; // decoder steps of the first pass
};

// Stop conditions, looked at between steps of the search and operations of the encoder.
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

    // Whether the grammar has sentences without free text and others.
    bool has_both() const { return grammar_->has_both(); }

    // The decoder holds the encoder output. On EV_OK `found` has at most n_best sentences, best
    // first, each different after folding case and punctuation. `text`: which sentences of the
    // grammar to look at.
    ev_status run(Decoder &decoder, const std::vector<Token> &prompt, Dfa::Text text,
                  const SearchOptions &options, const Stop &stop, Found &found);

    // What the model would have written without a grammar, for the audio in the decoder: greedy,
    // over the whole vocabulary.
    ev_status transcribe(Decoder &decoder, const std::vector<Token> &prompt, int32_t max_tokens,
                         const Stop &stop, Found::Sentence &out);

  private:
    struct Allowed {
        Token token;
        int32_t next; // state of the DFA
    };

    struct Hypothesis {
        double mass;      // log-sum of the probabilities of all spellings, nats
        double best;      // log-probability of the likeliest spelling
        int32_t rewarded; // tokens
        int32_t state;    // of the DFA
        uint64_t folded;  // hash of the text without case and punctuation
        int32_t cell;     // of the last token in the decoder's cache
    };

    // A text that an earlier step led to. A spelling of more tokens that comes there later and is
    // less likely adds little, and would go on beside it to the end: before this rule most of a
    // beam was spellings of one sentence.
    struct Reached {
        uint64_t folded;
        int32_t state;
        double mass;
    };

    struct Candidate {
        size_t parent;
        Allowed step;
        double score;
        double log_probability; // of the token
    };

    // A token that may stand at a place of the best sentence.
    struct Rival {
        size_t place;
        Token token, said; // `said` is the sentence's token there
        float lead;        // of its logit over that of `said`, with the audio
    };

    // Cells say what follows them, so each list of cells is one longer than the tokens.
    struct Finished {
        std::vector<Token> tokens;    // of the likeliest spelling
        std::vector<int32_t> heard;   // cells of the first pass
        std::vector<int32_t> unheard; // cells of the pass without audio
        double mass, best;            // as in Hypothesis
        int32_t rewarded;
        uint64_t folded;
        double score = 0.0;
    };

    // A language over bytes as one over tokens, built as far as it was needed.
    struct Language {
        Dfa dfa;
        std::vector<std::vector<Allowed>> allowed; // by DFA state
        std::vector<bool> known;                   // whether `allowed` was computed
        size_t listed = 0;                         // tokens in `allowed`

        size_t bytes() const {
            return dfa.bytes() + allowed.size() * sizeof allowed[0] + listed * sizeof(Allowed);
        }
        void forget();
    };

    const std::vector<Allowed> &allowed(int32_t state);
    void walk(const VocabTrie::Node &node, int32_t state, std::vector<Allowed> &out);
    int32_t step(int32_t state, Token token);
    std::string text(const std::vector<Token> &tokens) const;
    static uint64_t fold(uint64_t hash, std::string_view bytes);

    // Runs a batch with the rows that `live` hypotheses need next.
    bool decode(Decoder &decoder, const std::vector<Decoder::Input> &inputs,
                const std::vector<Hypothesis> &live);
    float logit(const float *row, Token token) const;
    ev_status first_pass(Decoder &decoder, const std::vector<Token> &prompt,
                         const SearchOptions &options, const Stop &stop, int32_t &steps);
    void candidates_of(const Decoder &decoder, size_t index, const float *row, double log_sum,
                       double reward);
    void keep_best(const Decoder &decoder, size_t beam);
    // Lets the decoder forget what no hypothesis goes on from and no sentence found went through.
    void forget_dead(Decoder &decoder, double reward);
    void finish(const Decoder &decoder, const Hypothesis &hypothesis, double end);
    ev_status subtract_language(Decoder &decoder, const std::vector<Token> &prompt,
                                const SearchOptions &options);
    ev_status score_exactly(Decoder &decoder, const std::vector<Token> &prompt,
                            const SearchOptions &options, Found &found);
    ev_status find_acoustic_gaps(Decoder &decoder, float lm_weight, Found &found);
    // Adds end-of-text, makes the tokens unique, and notes which column of the logits each will
    // have.
    void assign_columns(std::vector<Token> &extra);

    std::shared_ptr<const Model> model_;
    std::shared_ptr<const Automaton> grammar_;
    Language any_, fixed_;        // all sentences, and those without free text
    Language *language_ = &any_;  // of the search under way
    std::vector<int32_t> column_; // by token, of the decoder's logits; valid for extra tokens
    bool all_rows_ = false;       // the last batch has a column for every token

    // Of the search under way; kept between searches for their memory.
    std::vector<Hypothesis> live_, next_;
    std::vector<Reached> reached_;
    std::vector<Candidate> candidates_;
    std::vector<Finished> finished_;
    std::vector<Decoder::Input> inputs_;
    std::vector<Token> extra_;
    std::vector<Rival> rivals_;
};

} // namespace ev
