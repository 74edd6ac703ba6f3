#include "search.h"

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ev {

namespace {

// The DFA and the token lists are kept from utterance to utterance; past so many bytes they are
// forgotten, and rebuilt from what the next utterance needs. Of the home grammar these are some 15
// different sentences; without end they would add memory for hours, for the 2 to 7 of 94 ms that an
// utterance takes longer to which none is known (7 of 340 with 2,000 names).
constexpr size_t max_cached_bytes = 2 << 20;

// The whole vocabulary is looked at for so many tokens at a time: a row of it takes 200 KB,
// and commands have five to fifteen.
constexpr size_t exact_rows = 16;

// A hypothesis this much worse than the best of its step does not come back: on the coffee
// recordings at 6 dB, 15 and 8 give the same answers, and 8 a tenth less work.
constexpr double prune_nats = 8.0;

// A sentence that has not overtaken the best finished one after this many more tokens never did, on
// the coffee recordings, clear and at 6 dB: 6 and 4 give the same answers, and 4 six hundredths
// less time, under a large grammar more than a tenth.
constexpr int32_t overtake_tokens = 4;

// Sentences this much behind the best of the first pass are not scored again.
constexpr double rescore_nats = 12.0;

// At 0.4 of the language model, a token this far behind would have to be e^20 times less likely as
// text to come first.
constexpr float rival_nats = 8.0f;

// In free text, how many of the likeliest tokens each hypothesis may go on with: twice the largest
// beam that was measured.
constexpr size_t free_candidates = 16;

bool is_separator(uint8_t byte) {
    return byte == ' ' || byte == ',' || byte == '-' || byte == '.' || byte == '?' || byte == '!';
}

double log_add(double a, double b) {
    const double high = std::max(a, b), low = std::min(a, b);
    return high + std::log1p(std::exp(low - high));
}

} // namespace

Search::Search(std::shared_ptr<const Model> model, std::shared_ptr<const Automaton> grammar)
    : model_(std::move(model)), grammar_(std::move(grammar)), any_{Dfa(grammar_), {}, {}},
      fixed_{Dfa(grammar_, Dfa::Text::fixed), {}, {}}, column_(model_->n_vocab()) {}

void Search::set_grammar(std::shared_ptr<const Automaton> grammar) {
    grammar_ = std::move(grammar);
    any_ = {Dfa(grammar_), {}, {}};
    fixed_ = {Dfa(grammar_, Dfa::Text::fixed), {}, {}};
}

void Search::Language::forget() {
    dfa.clear();
    allowed = {};
    known = {};
    listed = 0;
}

void Search::walk(const VocabTrie::Node &node, int32_t state, std::vector<Allowed> &out) {
    if (node.token >= 0)
        out.push_back({node.token, state});
    const VocabTrie::Node *children = model_->trie().children(node);
    for (uint16_t i = 0; i < node.n_children; ++i) {
        const int32_t next = language_->dfa.step(state, children[i].byte);
        if (next != Dfa::dead)
            walk(children[i], next, out);
    }
}

const std::vector<Search::Allowed> &Search::allowed(int32_t state) {
    Language &language = *language_;
    if (size_t(state) >= language.allowed.size()) {
        language.allowed.resize(state + 1);
        language.known.resize(state + 1, false);
    }
    if (!language.known[state]) {
        std::vector<Allowed> tokens;
        walk(model_->trie().root(), state, tokens);
        tokens.shrink_to_fit();
        language.listed += tokens.size();
        language.allowed[state] = std::move(tokens);
        language.known[state] = true;
    }
    return language.allowed[state];
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
uint64_t Search::fold(uint64_t hash, std::string_view bytes) {
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

int32_t Search::step(int32_t state, Token token) {
    for (const char byte : model_->bytes(token)) {
        state = language_->dfa.step(state, uint8_t(byte));
        if (state == Dfa::dead)
            break;
    }
    return state;
}

void Search::assign_columns(std::vector<Token> &extra) {
    extra.push_back(model_->end_of_text());
    std::sort(extra.begin(), extra.end());
    extra.erase(std::unique(extra.begin(), extra.end()), extra.end());
    extra.erase(extra.begin(),
                std::lower_bound(extra.begin(), extra.end(), Decoder::frequent_tokens));
    for (size_t i = 0; i < extra.size(); ++i)
        column_[extra[i]] = Decoder::frequent_tokens + int32_t(i);
}

float Search::logit(const float *row, Token token) const {
    return row[all_rows_ || token < Decoder::frequent_tokens ? token : column_[token]];
}

bool Search::decode(Decoder &decoder, const std::vector<Decoder::Input> &inputs,
                    const std::vector<Hypothesis> &live) {
    all_rows_ = std::any_of(live.begin(), live.end(),
                            [&](const Hypothesis &h) { return language_->dfa.free(h.state); });
    extra_.clear();
    if (!all_rows_) {
        for (const Hypothesis &hypothesis : live) {
            for (const Allowed &step : allowed(hypothesis.state))
                extra_.push_back(step.token);
        }
        assign_columns(extra_);
    }
    return decoder.run(inputs, Decoder::Audio::heard,
                       all_rows_ ? Decoder::Rows::all : Decoder::Rows::some, extra_);
}

namespace {

// Whether a sequence that ends in `token` and goes on backwards from `cell` says the same thing
// over and over: one token five times, or two to sixteen tokens three times. A grammar cannot loop,
// free text can.
bool repeats(const Decoder &decoder, int32_t cell, Token token) {
    constexpr size_t longest = 16, times = 3, single_times = 5;
    Token tail[longest * times]; // last token first
    size_t n = 0;
    tail[n++] = token;
    for (; cell >= 0 && n < longest * times; cell = decoder.at(cell).parent)
        tail[n++] = decoder.at(cell).token;
    for (size_t period = 1; period <= longest; ++period) {
        const size_t length = period * (period == 1 ? single_times : times);
        if (length <= n && std::equal(tail + period, tail + length, tail))
            return true;
    }
    return false;
}

} // namespace

// What one hypothesis may go on with.
void Search::candidates_of(const Decoder &decoder, size_t index, const float *row, double log_sum,
                           double reward) {
    const Hypothesis &hypothesis = live_[index];
    const auto add = [&](const Allowed &step, double more) {
        const double token = double(logit(row, step.token)) - log_sum;
        const double score = hypothesis.mass + token + reward * hypothesis.rewarded + more;
        candidates_.push_back({index, step, score, token});
    };
    if (!language_->dfa.free(hypothesis.state)) {
        for (const Allowed &step : allowed(hypothesis.state))
            add(step, reward);
        return;
    }
    const Token end_of_text = model_->end_of_text();
    const float least = *std::max_element(row, row + end_of_text) - float(prune_nats);
    extra_.clear();
    for (Token token = 0; token < end_of_text; ++token) {
        if (row[token] >= least)
            extra_.push_back(token);
    }
    const size_t keep = std::min(extra_.size(), free_candidates);
    std::partial_sort(extra_.begin(), extra_.begin() + int64_t(keep), extra_.end(),
                      [&](Token a, Token b) { return row[a] != row[b] ? row[a] > row[b] : a < b; });
    for (size_t i = 0; i < keep; ++i) {
        const int32_t next = step(hypothesis.state, extra_[i]);
        if (next != Dfa::dead && !model_->bytes(extra_[i]).empty() &&
            !repeats(decoder, hypothesis.cell, extra_[i])) {
            add({extra_[i], next}, 0.0);
        }
    }
}

void Search::finish(const Decoder &decoder, const Hypothesis &hypothesis, double end) {
    const uint64_t folded = hypothesis.folded & ~uint64_t(1);
    const auto same = std::find_if(finished_.begin(), finished_.end(),
                                   [&](const Finished &f) { return f.folded == folded; });
    const bool is_new = same == finished_.end();
    if (is_new)
        finished_.emplace_back();
    Finished &done = is_new ? finished_.back() : *same;
    const double best = hypothesis.best + end;
    done.mass = is_new ? hypothesis.mass + end : log_add(done.mass, hypothesis.mass + end);
    if (!is_new && best <= done.best)
        return;
    done.folded = folded;
    done.best = best;
    done.rewarded = hypothesis.rewarded + 1;
    done.tokens.clear();
    done.heard.assign(1, hypothesis.cell);
    for (int32_t cell = hypothesis.cell; decoder.at(cell).token < model_->end_of_text();
         cell = decoder.at(cell).parent) {
        done.tokens.push_back(decoder.at(cell).token);
        done.heard.push_back(decoder.at(cell).parent);
    }
    std::reverse(done.tokens.begin(), done.tokens.end());
    std::reverse(done.heard.begin(), done.heard.end());
}

// Fills next_ with the best candidates, one for each text.
void Search::keep_best(const Decoder &decoder, size_t beam) {
    // More candidates than the beam, because spellings of one text will be merged.
    const size_t keep = std::min(candidates_.size(), beam * 8);
    std::partial_sort(candidates_.begin(), candidates_.begin() + int64_t(keep), candidates_.end(),
                      [](const Candidate &a, const Candidate &b) {
                          return a.score != b.score ? a.score > b.score
                                                    : a.step.token < b.step.token;
                      });
    next_.clear();
    inputs_.clear();
    for (size_t i = 0; i < keep; ++i) {
        const Candidate &c = candidates_[i];
        const Hypothesis &parent = live_[c.parent];
        const uint64_t folded = fold(parent.folded, model_->bytes(c.step.token));
        const double mass = parent.mass + c.log_probability;
        const auto same = std::find_if(next_.begin(), next_.end(), [&](const Hypothesis &h) {
            return h.folded == folded && h.state == c.step.next;
        });
        if (same != next_.end()) {
            same->mass = log_add(same->mass, mass);
            continue;
        }
        const bool is_late = std::any_of(reached_.begin(), reached_.end(), [&](const Reached &r) {
            return r.folded == folded && r.state == c.step.next && r.mass >= mass;
        });
        if (is_late || next_.size() == beam)
            continue;
        const int32_t rewarded = parent.rewarded + (language_->dfa.free(parent.state) ? 0 : 1);
        next_.push_back({mass, parent.best + c.log_probability, rewarded, c.step.next, folded,
                         decoder.next_cell() + int32_t(next_.size())});
        inputs_.push_back({c.step.token, parent.cell});
    }
    live_.swap(next_);
    for (const Hypothesis &h : live_)
        reached_.push_back({h.folded, h.state, h.mass});
}

void Search::forget_dead(Decoder &decoder, double reward) {
    // Spellings of a sentence that are still to come do not lift it from so far behind.
    double best = -std::numeric_limits<double>::infinity();
    const auto score = [&](const Finished &done) { return done.mass + reward * done.rewarded; };
    for (const Finished &done : finished_)
        best = std::max(best, score(done));
    finished_.erase(std::remove_if(finished_.begin(), finished_.end(),
                                   [&](const Finished &done) {
                                       return score(done) < best - 2.0 * rescore_nats;
                                   }),
                    finished_.end());
    std::vector<int32_t> wanted;
    for (const Hypothesis &hypothesis : live_)
        wanted.push_back(hypothesis.cell);
    for (const Finished &done : finished_)
        wanted.push_back(done.heard.back());
    const std::vector<int32_t> numbers = decoder.keep_only(wanted);
    for (Hypothesis &hypothesis : live_)
        hypothesis.cell = numbers[hypothesis.cell];
    for (Finished &done : finished_) {
        for (int32_t &cell : done.heard)
            cell = numbers[cell];
    }
}

ev_status Search::first_pass(Decoder &decoder, const std::vector<Token> &prompt,
                             const SearchOptions &options, const Stop &stop, int32_t &steps) {
    const double reward = options.search_reward;
    constexpr double never = -std::numeric_limits<double>::infinity();
    live_.clear();
    reached_.clear();
    finished_.clear();
    const int32_t start = language_->dfa.start();
    if (start != Dfa::dead) // else only the transcript's beginning is looked at, for no-speech
        live_.push_back({0.0, 0.0, 0, start, 0, int32_t(prompt.size()) - 1});

    decoder.rewind();
    inputs_.clear();
    for (size_t i = 0; i < prompt.size(); ++i)
        inputs_.push_back({prompt[i], int32_t(i) - 1});
    if (!decode(decoder, inputs_, live_))
        return EV_ERR_INFERENCE;
    if (live_.empty())
        return EV_OK;

    for (int32_t length = 1;; ++length) {
        if (const ev_status status = stop.check(); status != EV_OK)
            return status;
        candidates_.clear();
        for (size_t i = 0; i < live_.size(); ++i) {
            const float *row = decoder.logits(length == 1 ? prompt.size() - 1 : i);
            const LogSum sum = log_sum_exp(row, decoder.n_columns());
            if (!std::isfinite(sum.log))
                return EV_ERR_INFERENCE;
            if (language_->dfa.accepting(live_[i].state))
                finish(decoder, live_[i], double(logit(row, model_->end_of_text())) - sum.log);
            if (length <= options.max_tokens)
                candidates_of(decoder, i, row, sum.log, reward);
        }

        // What can still come: a token never adds more than its reward, and a sentence that ended
        // wrongly has paid for it, so that a right one overtakes it within a few tokens.
        double bar = never, best = never;
        for (const Finished &done : finished_)
            bar = std::max(bar, done.mass + reward * done.rewarded);
        bar -= reward * std::min(options.max_tokens + 1 - length, overtake_tokens);
        for (const Candidate &c : candidates_)
            best = std::max(best, c.score);
        bar = std::max(bar, best - prune_nats);
        candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                         [&](const Candidate &c) { return !(c.score > bar); }),
                          candidates_.end());
        if (candidates_.empty())
            return EV_OK;

        if (decoder.next_cell() + options.beam > decoder.room())
            forget_dead(decoder, reward);
        keep_best(decoder, size_t(options.beam));
        if (live_.empty()) // nothing but late spellings
            return EV_OK;
        if (!decode(decoder, inputs_, live_))
            return EV_ERR_INFERENCE;
        ++steps;
    }
}

// Ranks what the first pass found, the internal language model taken out.
ev_status Search::subtract_language(Decoder &decoder, const std::vector<Token> &prompt,
                                    const SearchOptions &options) {
    for (Finished &done : finished_)
        done.score = done.mass + double(options.token_reward) * done.rewarded;
    const auto better = [](const Finished &a, const Finished &b) { return a.score > b.score; };
    std::sort(finished_.begin(), finished_.end(), better);
    size_t keep = 0;
    while (keep < finished_.size() && keep < size_t(options.n_best) &&
           finished_[keep].score > finished_[0].score - rescore_nats) {
        ++keep;
    }
    finished_.resize(keep);
    if (options.lm_weight == 0.0f)
        return EV_OK;

    // The tree of all prefixes; cell i holds node i. Its logits say what follows.
    decoder.rewind();
    inputs_.clear();
    const auto child = [&](int32_t parent, Token token) {
        for (size_t i = 0; i < inputs_.size(); ++i) {
            if (inputs_[i].parent == parent && inputs_[i].token == token)
                return int32_t(i);
        }
        inputs_.push_back({token, parent});
        return int32_t(inputs_.size()) - 1;
    };
    int32_t start = -1;
    for (const Token token : prompt)
        start = child(start, token);
    extra_.clear();
    for (Finished &done : finished_) {
        int32_t at = start;
        done.unheard.assign(1, at);
        for (const Token token : done.tokens) {
            at = child(at, token);
            done.unheard.push_back(at);
            extra_.push_back(token);
        }
    }
    assign_columns(extra_);
    all_rows_ = false;
    if (!decoder.run(inputs_, Decoder::Audio::left_out, Decoder::Rows::some, extra_))
        return EV_ERR_INFERENCE;

    std::vector<float> sums;
    for (size_t i = 0; i < inputs_.size(); ++i) {
        sums.push_back(log_sum_exp(decoder.logits(i), decoder.n_columns()).log);
        if (!std::isfinite(sums.back()))
            return EV_ERR_INFERENCE;
    }
    for (Finished &done : finished_) {
        int32_t state = language_->dfa.start();
        double language = 0.0;
        for (size_t i = 0; i <= done.tokens.size(); ++i) {
            const Token token = i < done.tokens.size() ? done.tokens[i] : model_->end_of_text();
            const size_t at = size_t(done.unheard[i]);
            // Free text is taken as the model says it: without its idea of language, nonsense and
            // repetition would win.
            if (!language_->dfa.free(state))
                language += double(logit(decoder.logits(at), token)) - sums[at];
            if (i < done.tokens.size())
                state = step(state, token);
        }
        done.score -= double(options.lm_weight) * language;
    }
    std::sort(finished_.begin(), finished_.end(), better);
    return EV_OK;
}

// Looks at the whole vocabulary where the best sentence, if there is one, went, and where the
// transcript began.
ev_status Search::score_exactly(Decoder &decoder, const std::vector<Token> &prompt,
                                const SearchOptions &options, Found &found) {
    const auto transcript = std::find(prompt.begin(), prompt.end(), model_->start_of_transcript());
    std::vector<int32_t> cells = {int32_t(transcript - prompt.begin())};
    if (!finished_.empty())
        cells.insert(cells.end(), finished_[0].heard.begin(), finished_[0].heard.end());
    std::vector<Token> tokens;
    if (!finished_.empty()) {
        tokens = finished_[0].tokens;
        tokens.push_back(model_->end_of_text());
    }
    double total = 0.0;
    size_t bytes = 0;
    rivals_.clear();
    for (size_t at = 0; at < cells.size(); ++at) {
        if (at % exact_rows == 0) {
            const auto first = cells.begin() + int64_t(at);
            const auto last = first + int64_t(std::min(exact_rows, cells.size() - at));
            if (!decoder.look_again({first, last}, Decoder::Audio::heard, Decoder::Rows::all, {}))
                return EV_ERR_INFERENCE;
        }
        const float *row = decoder.logits(at % exact_rows);
        const LogSum sum = log_sum_exp(row, decoder.n_columns());
        if (!std::isfinite(sum.log))
            return EV_ERR_INFERENCE;
        if (at == 0) { // the transcript's beginning; behind it, where each token was chosen
            found.no_speech_probability = std::exp(row[model_->no_speech()] - float(sum.log));
            continue;
        }
        const size_t i = at - 1;
        if (i + 1 < tokens.size())
            bytes += model_->bytes(tokens[i]).size();
        const float log_probability = row[tokens[i]] - sum.log;
        total += log_probability;
        found.tokens.push_back(
            {int32_t(bytes), log_probability, sum.max - sum.log, row[tokens[i]] - sum.max});
        // What else may stand here, the language model taken out of both: what is much less likely
        // than the likeliest cannot win by that.
        for (Token token = 0; token <= model_->end_of_text(); ++token) {
            if (row[token] >= sum.max - rival_nats || token == tokens[i])
                rivals_.push_back({i, token, tokens[i], row[token] - row[tokens[i]]});
        }
    }
    if (finished_.empty())
        return EV_OK;
    finished_[0].best = total;
    return options.lm_weight > 0.0f ? find_acoustic_gaps(decoder, options.lm_weight, found) : EV_OK;
}

// Of differences between logits no normaliser is needed, so the rivals' rows are enough.
ev_status Search::find_acoustic_gaps(Decoder &decoder, float lm_weight, Found &found) {
    extra_.clear();
    for (const Rival &rival : rivals_)
        extra_.push_back(rival.token);
    assign_columns(extra_);
    all_rows_ = false;
    if (!decoder.look_again(finished_[0].unheard, Decoder::Audio::left_out, Decoder::Rows::some,
                            extra_))
        return EV_ERR_INFERENCE;
    for (ev_token &token : found.tokens)
        token.acoustic_gap = 0.0f;
    for (const Rival &rival : rivals_) {
        const float *row = decoder.logits(rival.place);
        const float language = logit(row, rival.token) - logit(row, rival.said);
        float &gap = found.tokens[rival.place].acoustic_gap;
        gap = std::min(gap, lm_weight * language - rival.lead);
    }
    return EV_OK;
}

ev_status Search::transcribe(Decoder &decoder, const std::vector<Token> &prompt, int32_t max_tokens,
                             const Stop &stop, Found::Sentence &out) {
    const Token end_of_text = model_->end_of_text();
    decoder.rewind();
    inputs_.clear();
    for (size_t i = 0; i < prompt.size(); ++i)
        inputs_.push_back({prompt[i], int32_t(i) - 1});
    if (!decoder.run(inputs_, Decoder::Audio::heard, Decoder::Rows::all, {}))
        return EV_ERR_INFERENCE;
    size_t last = prompt.size() - 1; // row of the last batch that says what follows
    int32_t cell = int32_t(last);
    double spoken = 0.0, best = -std::numeric_limits<double>::infinity();
    std::vector<Token> tokens;
    size_t length = 0;
    for (;;) {
        if (const ev_status status = stop.check(); status != EV_OK)
            return status;
        const float *row = decoder.logits(last);
        const LogSum sum = log_sum_exp(row, decoder.n_columns());
        if (!std::isfinite(sum.log))
            return EV_ERR_INFERENCE;
        // Where a text loops it should have ended before, at the likeliest place.
        const double ended = spoken + double(row[end_of_text]) - sum.log;
        if (ended > best) {
            best = ended;
            length = tokens.size();
        }
        const Token token = Token(std::max_element(row, row + end_of_text + 1) - row);
        if (token == end_of_text) {
            best = ended;
            length = tokens.size();
            break;
        }
        if (int32_t(tokens.size()) == max_tokens || repeats(decoder, cell, token))
            break;
        spoken += double(row[token]) - sum.log;
        tokens.push_back(token);
        inputs_.assign(1, {token, cell});
        cell = decoder.next_cell();
        last = 0;
        if (!decoder.run(inputs_, Decoder::Audio::heard, Decoder::Rows::all, {}))
            return EV_ERR_INFERENCE;
    }
    tokens.resize(length);
    out = {text(tokens), best, best, int32_t(length) + 1};
    return EV_OK;
}

ev_status Search::run(Decoder &decoder, const std::vector<Token> &prompt, Dfa::Text text,
                      const SearchOptions &options, const Stop &stop, Found &found) {
    found = Found{};
    language_ = text == Dfa::Text::any ? &any_ : &fixed_;
    if (language_->bytes() > max_cached_bytes)
        language_->forget();
    if (const ev_status status = first_pass(decoder, prompt, options, stop, found.steps);
        status != EV_OK) {
        return status;
    }
    if (!finished_.empty()) {
        if (const ev_status status = subtract_language(decoder, prompt, options); status != EV_OK)
            return status;
        if (const ev_status status = stop.check(); status != EV_OK)
            return status;
    }
    if (const ev_status status = score_exactly(decoder, prompt, options, found); status != EV_OK)
        return status;

    for (const Finished &done : finished_) {
        found.sentences.push_back(
            {this->text(done.tokens), done.score, done.best, int32_t(done.tokens.size()) + 1});
    }
    // text() leaves the space of the first token out.
    if (!finished_.empty() && !finished_[0].tokens.empty() &&
        model_->bytes(finished_[0].tokens[0])[0] == ' ') {
        for (ev_token &token : found.tokens)
            --token.end;
    }
    return EV_OK;
}

} // namespace ev
