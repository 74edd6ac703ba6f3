#include "search.h"

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace ev {

namespace {

// The DFA and the token lists are kept from utterance to utterance; past this many states (some
// 100 bytes each, plus token lists) they are rebuilt from what the next utterance needs.
constexpr size_t max_cached_states = 200'000;

// A hypothesis this much worse than the best of its step has never won on the coffee recordings
// (206 clips at 6 dB and clean); dropping it keeps noise from filling the beam.
constexpr double prune_nats = 15.0;

bool is_separator(uint8_t byte) {
    return byte == ' ' || byte == ',' || byte == '-' || byte == '.' || byte == '?' || byte == '!';
}

double log_add(double a, double b) {
    const double high = std::max(a, b), low = std::min(a, b);
    return high + std::log1p(std::exp(low - high));
}

}  // namespace

Search::Search(std::shared_ptr<const Model> model, std::shared_ptr<const Automaton> grammar)
    : model_(std::move(model)), dfa_(std::move(grammar)) {}

void Search::set_grammar(std::shared_ptr<const Automaton> grammar) {
    dfa_ = Dfa(std::move(grammar));
    allowed_.clear();
    allowed_known_.clear();
}

void Search::walk(const VocabTrie::Node &node, int32_t state, std::vector<Allowed> &out) {
    if (node.token >= 0) out.push_back({node.token, state});
    const VocabTrie::Node *children = model_->trie().children(node);
    for (uint16_t i = 0; i < node.n_children; ++i) {
        const int32_t next = dfa_.step(state, children[i].byte);
        if (next != Dfa::dead) walk(children[i], next, out);
    }
}

const std::vector<Search::Allowed> &Search::allowed(int32_t state) {
    if (size_t(state) >= allowed_.size()) {
        allowed_.resize(state + 1);
        allowed_known_.resize(state + 1, false);
    }
    if (!allowed_known_[state]) {
        std::vector<Allowed> tokens;
        walk(model_->trie().root(), state, tokens);
        tokens.shrink_to_fit();
        allowed_[state] = std::move(tokens);
        allowed_known_[state] = true;
    }
    return allowed_[state];
}

std::string Search::text(const std::vector<Token> &tokens) const {
    std::string text;
    for (const Token token : tokens) text += model_->bytes(token);
    if (!text.empty() && text[0] == ' ') text.erase(0, 1);
    return text;
}

// The lowest bit says that a separator is waiting to be written: runs of them count once, and none
// counts at the start.
uint64_t Search::fold(uint64_t hash, const std::string &bytes) {
    for (const char c : bytes) {
        uint8_t byte = uint8_t(c);
        if (is_separator(byte)) {
            if (hash > 1) hash |= 1;
            continue;
        }
        if (hash & 1) hash = ((hash ^ ' ') * 0x100000001b3u) & ~uint64_t(1);
        if (byte >= 'A' && byte <= 'Z') byte += 'a' - 'A';
        hash = ((hash ^ (uint64_t(byte) << 1)) * 0x100000001b3u) & ~uint64_t(1);
        if (hash == 0) hash = 2;
    }
    return hash;
}

void Search::add_gap(Hypothesis &hypothesis, float gap) {
    if (gap < hypothesis.gap1) {
        hypothesis.gap2 = hypothesis.gap1;
        hypothesis.gap1 = gap;
    } else if (gap < hypothesis.gap2) {
        hypothesis.gap2 = gap;
    }
}

ev_status Search::run(Decoder &decoder, const std::vector<Token> &prompt,
                      const SearchOptions &options, const Stop &stop, std::vector<Found> &found,
                      float &no_speech_probability, int32_t &steps) {
    found.clear();
    steps = 0;
    if (dfa_.size() > max_cached_states) {
        dfa_.clear();
        allowed_.clear();
        allowed_known_.clear();
    }

    const size_t n_vocab = size_t(model_->n_vocab());
    const Token end_of_text = model_->end_of_text();
    const size_t beam = size_t(options.beam);

    decoder.clear_cache();
    std::vector<Decoder::Input> inputs;
    for (size_t i = 0; i < prompt.size(); ++i) inputs.push_back({prompt[i], int32_t(i), 0});
    if (!decoder.decode(inputs)) return EV_ERR_INFERENCE;
    {
        const LogSum sum = log_sum_exp(decoder.logits(0), n_vocab);
        no_speech_probability = std::exp(decoder.logits(0)[model_->no_speech()] - sum.log);
    }

    std::vector<Hypothesis> live(1);
    live[0].state = dfa_.start();
    if (live[0].state == Dfa::dead) return EV_OK;
    size_t first_row = prompt.size() - 1;  // of the logits that belong to live[0]

    struct Finished {
        Hypothesis hypothesis;
        double total;  // log-sum of the scores of its spellings
    };
    std::vector<Finished> finished;
    std::unordered_map<uint64_t, size_t> finished_by_text;

    struct Candidate {
        size_t parent;
        Allowed step;
        double score, log_probability;
        float gap;
    };
    std::vector<Candidate> candidates;
    std::unordered_map<uint64_t, size_t> merged;
    std::vector<Hypothesis> next;

    for (int32_t length = 1;; ++length) {
        if (const ev_status status = stop.check(); status != EV_OK) return status;
        candidates.clear();
        for (size_t i = 0; i < live.size(); ++i) {
            const Hypothesis &hypothesis = live[i];
            const float *logits = decoder.logits(first_row + i);
            const LogSum sum = log_sum_exp(logits, n_vocab);
            if (!std::isfinite(sum.log)) return EV_ERR_INFERENCE;
            if (dfa_.accepting(hypothesis.state)) {
                Hypothesis done = hypothesis;
                const double log_probability = double(logits[end_of_text]) - sum.log;
                done.log_probability += log_probability;
                done.score += log_probability + options.token_reward;
                add_gap(done, logits[end_of_text] - sum.max);
                const uint64_t key = done.folded & ~uint64_t(1);
                const auto [it, added] = finished_by_text.try_emplace(key, finished.size());
                if (added) {
                    finished.push_back({done, done.score});
                } else {
                    Finished &same = finished[it->second];
                    same.total = log_add(same.total, done.score);
                    if (done.score > same.hypothesis.score) same.hypothesis = done;
                }
            }
            if (length > options.max_tokens) continue;
            for (const Allowed &step : allowed(hypothesis.state)) {
                const double log_probability = double(logits[step.token]) - sum.log;
                candidates.push_back({i, step,
                                      hypothesis.score + log_probability + options.token_reward,
                                      hypothesis.log_probability + log_probability,
                                      logits[step.token] - sum.max});
            }
        }

        // What can still come: a token never adds more than its reward.
        double bar = -std::numeric_limits<double>::infinity();
        if (!finished.empty()) {
            for (const Finished &done : finished) bar = std::max(bar, done.total);
            bar -= double(options.token_reward) * (options.max_tokens + 1 - length);
        }
        double best = -std::numeric_limits<double>::infinity();
        for (const Candidate &c : candidates) best = std::max(best, c.score);
        bar = std::max(bar, best - prune_nats);
        candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                        [&](const Candidate &c) { return !(c.score > bar); }),
                         candidates.end());
        if (candidates.empty()) break;

        // More candidates than the beam, because spellings of one text will be merged.
        const size_t keep = std::min(candidates.size(), beam * 8);
        const auto better = [](const Candidate &a, const Candidate &b) {
            return a.score != b.score ? a.score > b.score : a.step.token < b.step.token;
        };
        std::partial_sort(candidates.begin(), candidates.begin() + keep, candidates.end(), better);

        next.clear();
        merged.clear();
        for (size_t i = 0; i < keep; ++i) {
            const Candidate &c = candidates[i];
            const uint64_t folded = fold(live[c.parent].folded, model_->bytes(c.step.token));
            if (const auto it = merged.find(folded); it != merged.end()) {
                Hypothesis &same = next[it->second];
                same.score = log_add(same.score, c.score);
                continue;
            }
            if (next.size() == beam) continue;
            merged.emplace(folded, next.size());
            Hypothesis hypothesis = live[c.parent];
            hypothesis.tokens.push_back(c.step.token);
            hypothesis.score = c.score;
            hypothesis.log_probability = c.log_probability;
            hypothesis.state = c.step.next;
            hypothesis.folded = folded;
            add_gap(hypothesis, c.gap);
            next.push_back(std::move(hypothesis));
        }

        // Two ranges of sequence numbers take turns, so that a parent may have several children.
        const int32_t base = (length % 2) * options.beam + 1;
        inputs.clear();
        for (size_t i = 0; i < next.size(); ++i) {
            const int32_t sequence = base + int32_t(i);
            decoder.copy_sequence(next[i].sequence, sequence);
            next[i].sequence = sequence;
            inputs.push_back({next[i].tokens.back(),
                              int32_t(prompt.size() + next[i].tokens.size() - 1), sequence});
        }
        for (const Hypothesis &old : live) decoder.drop_sequence(old.sequence);
        live.swap(next);
        if (!decoder.decode(inputs)) return EV_ERR_INFERENCE;
        first_row = 0;
        ++steps;
    }

    std::sort(finished.begin(), finished.end(),
              [](const Finished &a, const Finished &b) { return a.total > b.total; });
    for (size_t i = 0; i < finished.size() && i < size_t(options.n_best); ++i) {
        const Hypothesis &h = finished[i].hypothesis;
        found.push_back({text(h.tokens), finished[i].total, h.log_probability,
                         int32_t(h.tokens.size()) + 1, (h.gap1 + h.gap2) / 2});
    }
    return EV_OK;
}

}  // namespace ev
