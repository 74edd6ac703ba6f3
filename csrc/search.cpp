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

// A hypothesis this much worse than the best of its step does not come back: on the coffee
// recordings at 6 dB, 15 and 8 give the same answers, and 8 a tenth less work.
constexpr double prune_nats = 8.0;

// A sentence that has not overtaken the best finished one after this many more tokens never did, on
// the coffee recordings at 6 dB.
constexpr int32_t overtake_tokens = 6;

// Sentences this much behind the best of the first pass are not scored again.
constexpr double rescore_nats = 12.0;

bool is_separator(uint8_t byte) {
    return byte == ' ' || byte == ',' || byte == '-' || byte == '.' || byte == '?' || byte == '!';
}

double log_add(double a, double b) {
    const double high = std::max(a, b), low = std::min(a, b);
    return high + std::log1p(std::exp(low - high));
}

} // namespace

Search::Search(std::shared_ptr<const Model> model, std::shared_ptr<const Automaton> grammar)
    : model_(std::move(model)), dfa_(std::move(grammar)), column_(model_->n_vocab()) {}

void Search::set_grammar(std::shared_ptr<const Automaton> grammar) {
    dfa_ = Dfa(std::move(grammar));
    allowed_.clear();
    allowed_known_.clear();
}

void Search::walk(const VocabTrie::Node &node, int32_t state, std::vector<Allowed> &out) {
    if (node.token >= 0)
        out.push_back({node.token, state});
    const VocabTrie::Node *children = model_->trie().children(node);
    for (uint16_t i = 0; i < node.n_children; ++i) {
        const int32_t next = dfa_.step(state, children[i].byte);
        if (next != Dfa::dead)
            walk(children[i], next, out);
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
    for (const Token token : tokens)
        text += model_->bytes(token);
    if (!text.empty() && text[0] == ' ')
        text.erase(0, 1);
    return text;
}

// The lowest bit says that a separator is waiting to be written: runs of them count once, and none
// counts at the start.
uint64_t Search::fold(uint64_t hash, const std::string &bytes) {
    for (const char c : bytes) {
        uint8_t byte = uint8_t(c);
        if (is_separator(byte)) {
            if (hash > 1)
                hash |= 1;
            continue;
        }
        if (hash & 1)
            hash = ((hash ^ ' ') * 0x100000001b3u) & ~uint64_t(1);
        if (byte >= 'A' && byte <= 'Z')
            byte += 'a' - 'A';
        hash = ((hash ^ (uint64_t(byte) << 1)) * 0x100000001b3u) & ~uint64_t(1);
        if (hash == 0)
            hash = 2;
    }
    return hash;
}

void Search::assign_columns(std::vector<Token> &extra) {
    extra.push_back(model_->end_of_text());
    std::sort(extra.begin(), extra.end());
    extra.erase(std::unique(extra.begin(), extra.end()), extra.end());
    for (size_t i = 0; i < extra.size(); ++i) {
        column_[extra[i]] = Decoder::frequent_tokens + int32_t(i);
    }
}

std::vector<Token> Search::extra_tokens(const std::vector<Hypothesis> &live) {
    std::vector<Token> extra;
    for (const Hypothesis &hypothesis : live) {
        for (const Allowed &step : allowed(hypothesis.state)) {
            if (step.token >= Decoder::frequent_tokens)
                extra.push_back(step.token);
        }
    }
    assign_columns(extra);
    return extra;
}

ev_status Search::first_pass(Decoder &decoder, size_t n_prompt, const SearchOptions &options,
                             const Stop &stop, std::vector<Finished> &finished, int32_t &steps) {
    struct Candidate {
        size_t parent;
        Allowed step;
        double score, log_probability;
    };
    const Token end_of_text = model_->end_of_text();
    const size_t beam = size_t(options.beam);
    std::vector<Hypothesis> live(1), next;
    std::vector<Candidate> candidates;
    std::vector<Decoder::Input> inputs;
    std::unordered_map<uint64_t, size_t> merged, finished_by_text;

    live[0].state = dfa_.start();
    if (live[0].state == Dfa::dead)
        return EV_OK;
    for (size_t i = 0; i < n_prompt; ++i)
        live[0].cells.push_back(int32_t(i));

    for (int32_t length = 1;; ++length) {
        if (const ev_status status = stop.check(); status != EV_OK)
            return status;
        const bool whole = length == 1; // the first logits are those of the prompt
        candidates.clear();
        for (size_t i = 0; i < live.size(); ++i) {
            const Hypothesis &hypothesis = live[i];
            const float *logits = whole ? first_logits_.data() : decoder.logits(i);
            const LogSum sum =
                log_sum_exp(logits, whole ? first_logits_.size() : decoder.n_columns());
            if (!std::isfinite(sum.log))
                return EV_ERR_INFERENCE;
            const auto log_probability = [&](Token token) {
                const bool direct = whole || token < Decoder::frequent_tokens;
                return double(logits[direct ? token : column_[token]]) - sum.log;
            };
            if (dfa_.accepting(hypothesis.state)) {
                const double end = log_probability(end_of_text);
                const double score = hypothesis.score + end + options.search_reward;
                const double whole_sentence = hypothesis.log_probability + end;
                const uint64_t key = hypothesis.folded & ~uint64_t(1);
                const auto [it, added] = finished_by_text.try_emplace(key, finished.size());
                if (added) {
                    finished.push_back({hypothesis.tokens, score, score, whole_sentence});
                } else {
                    Finished &same = finished[it->second];
                    same.total = log_add(same.total, score);
                    if (score > same.score) {
                        same.score = score;
                        same.log_probability = whole_sentence;
                        same.tokens = hypothesis.tokens;
                    }
                }
            }
            if (length > options.max_tokens)
                continue;
            for (const Allowed &step : allowed(hypothesis.state)) {
                const double token = log_probability(step.token);
                candidates.push_back({i, step, hypothesis.score + token + options.search_reward,
                                      hypothesis.log_probability + token});
            }
        }

        // What can still come: a token never adds more than its reward, and a sentence that ended
        // wrongly has paid for it, so that a right one overtakes it within a few tokens.
        double bar = -std::numeric_limits<double>::infinity();
        for (const Finished &done : finished)
            bar = std::max(bar, done.total);
        bar -= double(options.search_reward) *
               std::min(options.max_tokens + 1 - length, overtake_tokens);
        double best = -std::numeric_limits<double>::infinity();
        for (const Candidate &c : candidates)
            best = std::max(best, c.score);
        bar = std::max(bar, best - prune_nats);
        candidates.erase(std::remove_if(candidates.begin(), candidates.end(),
                                        [&](const Candidate &c) { return !(c.score > bar); }),
                         candidates.end());
        if (candidates.empty())
            return EV_OK;

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
            if (next.size() == beam)
                continue;
            merged.emplace(folded, next.size());
            Hypothesis hypothesis = live[c.parent];
            hypothesis.tokens.push_back(c.step.token);
            hypothesis.score = c.score;
            hypothesis.log_probability = c.log_probability;
            hypothesis.state = c.step.next;
            hypothesis.folded = folded;
            next.push_back(std::move(hypothesis));
        }
        live.swap(next);

        inputs.clear();
        for (const Hypothesis &hypothesis : live) {
            inputs.push_back(
                {hypothesis.tokens.back(), int32_t(hypothesis.cells.size()), &hypothesis.cells});
        }
        const int32_t first_cell = decoder.next_cell();
        if (!decoder.run(inputs, Decoder::Audio::heard, Decoder::Rows::some, extra_tokens(live))) {
            return EV_ERR_INFERENCE;
        }
        for (size_t i = 0; i < live.size(); ++i)
            live[i].cells.push_back(first_cell + int32_t(i));
        ++steps;
    }
}

ev_status Search::score_tree(Decoder &decoder, const std::vector<Token> &prompt,
                             Decoder::Audio audio, std::vector<Finished> &finished) {
    // The tree of all prefixes: node i holds a token; its logits say what follows.
    struct Node {
        Token token;
        std::vector<int32_t> ancestors; // cells
        std::unordered_map<Token, int32_t> children;
    };
    const bool heard = audio == Decoder::Audio::heard;
    const int32_t n_prompt = int32_t(prompt.size());
    decoder.rewind(n_prompt); // the first pass is over; its cells are free
    const int32_t base = decoder.next_cell();

    std::vector<Node> nodes;
    std::unordered_map<Token, int32_t> roots;
    const auto child = [&](int32_t parent, Token token) {
        auto &children = parent < 0 ? roots : nodes[parent].children;
        const auto [it, added] = children.try_emplace(token, int32_t(nodes.size()));
        const int32_t id = it->second;
        if (added) {
            Node node{token, {}, {}};
            if (parent >= 0) {
                node.ancestors = nodes[parent].ancestors;
                node.ancestors.push_back(base + parent);
            } else if (heard) {
                for (int32_t i = 0; i < n_prompt; ++i)
                    node.ancestors.push_back(i);
            }
            nodes.push_back(std::move(node));
        }
        return id;
    };
    // With the audio the prompt is in the cache; without, it begins the tree.
    int32_t start = -1;
    if (!heard) {
        for (const Token token : prompt)
            start = child(start, token);
    }
    std::vector<Token> extra;
    for (const Finished &done : finished) {
        int32_t at = start;
        for (const Token token : done.tokens) {
            at = child(at, token);
            if (token >= Decoder::frequent_tokens)
                extra.push_back(token);
        }
    }
    assign_columns(extra);

    std::vector<Decoder::Input> inputs;
    for (const Node &node : nodes) {
        inputs.push_back({node.token, int32_t(node.ancestors.size()), &node.ancestors});
    }
    const Decoder::Rows rows = heard ? Decoder::Rows::all : Decoder::Rows::some;
    if (!decoder.run(inputs, audio, rows, extra))
        return EV_ERR_INFERENCE;

    std::vector<LogSum> sums;
    for (size_t i = 0; i < nodes.size(); ++i) {
        sums.push_back(log_sum_exp(decoder.logits(i), decoder.n_columns()));
        if (!std::isfinite(sums.back().log)) {
            return EV_ERR_INFERENCE;
        }
    }
    const LogSum first_sum = log_sum_exp(first_logits_.data(), first_logits_.size());
    for (Finished &done : finished) {
        int32_t at = start;
        double total = 0.0;
        for (size_t i = 0; i <= done.tokens.size(); ++i) {
            const Token token = i < done.tokens.size() ? done.tokens[i] : model_->end_of_text();
            const float *logits = at < 0 ? first_logits_.data() : decoder.logits(at);
            const LogSum &sum = at < 0 ? first_sum : sums[at];
            const bool direct = heard || token < Decoder::frequent_tokens;
            const float logit = logits[direct ? token : column_[token]];
            total += double(logit) - sum.log;
            if (heard) {
                const float gap = logit - sum.max;
                done.end_gap = gap; // the last one stays
                if (gap < done.gap1) {
                    done.gap2 = done.gap1;
                    done.gap1 = gap;
                } else if (gap < done.gap2) {
                    done.gap2 = gap;
                }
            }
            if (i < done.tokens.size())
                at = child(at, token);
        }
        (heard ? done.log_probability : done.language) = total;
    }
    return EV_OK;
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

    decoder.rewind(0);
    std::vector<std::vector<int32_t>> ancestors(prompt.size());
    std::vector<Decoder::Input> inputs;
    for (size_t i = 0; i < prompt.size(); ++i) {
        for (size_t j = 0; j < i; ++j)
            ancestors[i].push_back(int32_t(j));
        inputs.push_back({prompt[i], int32_t(i), &ancestors[i]});
    }
    if (!decoder.run(inputs, Decoder::Audio::heard, Decoder::Rows::all, {}))
        return EV_ERR_INFERENCE;
    const size_t n_vocab = decoder.n_columns();
    const LogSum sum = log_sum_exp(decoder.logits(0), n_vocab);
    no_speech_probability = std::exp(decoder.logits(0)[model_->no_speech()] - sum.log);
    const float *last = decoder.logits(prompt.size() - 1);
    first_logits_.assign(last, last + n_vocab);

    std::vector<Finished> finished;
    if (const ev_status status = first_pass(decoder, prompt.size(), options, stop, finished, steps);
        status != EV_OK) {
        return status;
    }
    if (finished.empty())
        return EV_OK;

    const auto by_total = [](const Finished &a, const Finished &b) { return a.total > b.total; };
    std::sort(finished.begin(), finished.end(), by_total);
    size_t keep = 0;
    while (keep < finished.size() && keep < size_t(options.n_best) &&
           finished[keep].total > finished[0].total - rescore_nats) {
        ++keep;
    }
    finished.resize(keep);

    if (keep > 1 && options.lm_weight > 0.0f) {
        if (const ev_status status = stop.check(); status != EV_OK)
            return status;
        if (const ev_status status =
                score_tree(decoder, prompt, Decoder::Audio::left_out, finished);
            status != EV_OK) {
            return status;
        }
        for (Finished &done : finished) {
            // Other spellings count by the share the first pass saw.
            done.total += done.log_probability - done.score - options.lm_weight * done.language +
                          options.token_reward * double(done.tokens.size() + 1);
        }
        std::sort(finished.begin(), finished.end(), by_total);
    }

    if (const ev_status status = stop.check(); status != EV_OK)
        return status;
    std::vector<Finished> winner{finished[0]};
    if (const ev_status status = score_tree(decoder, prompt, Decoder::Audio::heard, winner);
        status != EV_OK) {
        return status;
    }
    finished[0] = winner[0];
    for (const Finished &done : finished) {
        found.push_back({text(done.tokens), done.total, done.log_probability,
                         int32_t(done.tokens.size()) + 1, done.gap1, done.gap2, done.end_gap});
    }
    return EV_OK;
}

} // namespace ev
