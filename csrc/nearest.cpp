#include "nearest.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <queue>
#include <sstream>
#include <tuple>

namespace ev {

namespace {

// Stands for a word of free text in the tables of a grammar; texts have no control characters.
constexpr uint8_t free_word = 0x01;
// What one DFA keeps from text to text.
constexpr size_t max_cached_bytes = 2 << 20;

std::vector<std::string> split(const std::string &text) {
    std::vector<std::string> words;
    std::istringstream stream(text);
    for (std::string word; stream >> word;)
        words.push_back(word);
    return words;
}

size_t utf8_length(uint8_t lead) { return lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

// Tolerates bytes that are no UTF-8: they are letters of their own.
std::u32string decoded(std::string_view text) {
    std::u32string letters;
    for (size_t i = 0; i < text.size();) {
        const uint8_t lead = uint8_t(text[i]);
        const size_t length = utf8_length(lead);
        char32_t letter = length == 1 ? lead : lead & (0xFF >> (length + 1));
        size_t k = 1;
        for (; k < length && i + k < text.size() && (uint8_t(text[i + k]) & 0xC0) == 0x80; ++k)
            letter = letter << 6 | (uint8_t(text[i + k]) & 0x3F);
        letters += k == length ? letter : char32_t(lead);
        i += k == length ? length : 1;
    }
    return letters;
}

void encode(char32_t letter, std::string &text) {
    if (letter < 0x80) {
        text += char(letter);
    } else if (letter < 0x800) {
        text += char(0xC0 | letter >> 6);
        text += char(0x80 | (letter & 0x3F));
    } else if (letter < 0x10000) {
        text += char(0xE0 | letter >> 12);
        text += char(0x80 | (letter >> 6 & 0x3F));
        text += char(0x80 | (letter & 0x3F));
    } else {
        text += char(0xF0 | letter >> 18);
        text += char(0x80 | (letter >> 12 & 0x3F));
        text += char(0x80 | (letter >> 6 & 0x3F));
        text += char(0x80 | (letter & 0x3F));
    }
}

// Latin, Greek and Cyrillic; of other scripts an upper-case letter is a letter of its own.
char32_t lower(char32_t letter) {
    if (letter < 0x80)
        return letter >= 'A' && letter <= 'Z' ? letter + 32 : letter;
    if ((letter >= 0xC0 && letter <= 0xDE && letter != 0xD7) ||
        (letter >= 0x391 && letter <= 0x3A9) || (letter >= 0x410 && letter <= 0x42F)) {
        return letter + 32;
    }
    if (letter >= 0x400 && letter <= 0x40F)
        return letter + 80;
    if ((letter >= 0x100 && letter <= 0x137) || (letter >= 0x14A && letter <= 0x177))
        return letter | 1;
    if ((letter >= 0x139 && letter <= 0x148) || (letter >= 0x179 && letter <= 0x17E))
        return letter + (letter & 1);
    return letter;
}

using Nodes = std::vector<std::vector<Arc>>;

std::shared_ptr<const Automaton> automaton_of(const Nodes &nodes) {
    std::vector<uint32_t> arcs, first{0};
    for (const std::vector<Arc> &node : nodes) {
        for (const Arc &arc : node)
            arcs.insert(arcs.end(), {arc.kind, arc.value, arc.target});
        first.push_back(uint32_t(arcs.size() / 3));
    }
    std::string error;
    auto made = Automaton::make(arcs.data(), arcs.size() / 3, first.data(), nodes.size(), error);
    if (made == nullptr)
        throw std::length_error("the grammar is too large to look for its nearest sentences: " +
                                error);
    return made;
}

// The grammar with a byte in place of each word of free text: the first RANGE arc of a word reads
// it, and no other does, as a word is only left at a separator.
std::shared_ptr<const Automaton> with_free_words(const Automaton &automaton) {
    Nodes nodes(automaton.size());
    for (uint32_t node = 0; node < nodes.size(); ++node) {
        for (const Arc *arc = automaton.begin(node); arc != automaton.end(node); ++arc) {
            nodes[node].push_back(*arc);
            if (arc->kind == EV_ARC_RANGE)
                nodes[node].back() = {EV_ARC_BYTE, free_word, arc->target};
        }
    }
    return automaton_of(nodes);
}

// The words of a grammar, without free text, as an automaton without calls: where a network
// returns, any of its callers may go on. So it has words that no sentence has, if networks are
// called within words; it lacks none.
class Vocabulary {
  public:
    explicit Vocabulary(const Automaton &automaton) : automaton_(automaton) {
        const uint32_t n = uint32_t(automaton.size());
        nodes_.resize(n + 2); // the start, those of the grammar, the end
        end_ = n + 1;
        starts_.push_back(at(0));
        for (uint32_t node = 0; node < n; ++node)
            add(node);
        for (const auto &[entry, callers] : callers_) {
            for (const uint32_t node : returning(entry)) {
                for (const uint32_t caller : callers)
                    go(at(node), caller);
            }
        }
        for (const uint32_t start : starts_)
            go(0, start);
        nodes_[end_].push_back({EV_ARC_ACCEPT, 0, 0});
    }

    std::shared_ptr<const Automaton> automaton() {
        // Without the ways between: a name that 40 sentences use ends once, not 40 times.
        Nodes short_cut(nodes_.size());
        std::vector<uint32_t> seen(nodes_.size(), UINT32_MAX);
        std::vector<bool> wanted(nodes_.size());
        std::vector<uint32_t> todo{0};
        wanted[0] = true;
        while (!todo.empty()) {
            const uint32_t node = todo.back();
            todo.pop_back();
            std::vector<uint32_t> reached{node};
            seen[node] = node;
            for (size_t i = 0; i < reached.size(); ++i) {
                const bool passed = reached[i] != node && reads(reached[i]);
                if (passed)
                    short_cut[node].push_back({EV_ARC_EPSILON, 0, reached[i]});
                for (const Arc &arc : nodes_[reached[i]]) {
                    const bool moves = arc.kind == EV_ARC_EPSILON;
                    if (moves && seen[arc.target] != node) {
                        seen[arc.target] = node;
                        reached.push_back(arc.target);
                    }
                    if (!moves && reached[i] == node)
                        short_cut[node].push_back(arc);
                    if (!wanted[arc.target] && (!moves || reads(arc.target))) {
                        wanted[arc.target] = true;
                        todo.push_back(arc.target);
                    }
                }
            }
        }
        merge(short_cut);
        return automaton_of(short_cut);
    }

  private:
    // Makes one of nodes from which the same words go on: the "light" of 2,000 names is one.
    static void merge(Nodes &nodes) {
        constexpr uint32_t unseen = UINT32_MAX;
        std::vector<uint32_t> same(nodes.size(), unseen); // the first node like this one
        std::map<std::vector<uint32_t>, uint32_t> known;
        std::vector<std::pair<uint32_t, size_t>> open{{0, 0}}; // a node, and arcs that are done
        same[0] = 0;
        while (!open.empty()) {
            auto &[node, done] = open.back();
            if (done < nodes[node].size()) {
                const uint32_t target = nodes[node][done++].target;
                if (same[target] == unseen) {
                    same[target] = target; // as long as it is open
                    open.emplace_back(target, 0);
                }
                continue;
            }
            std::vector<std::array<uint32_t, 3>> arcs;
            for (Arc &arc : nodes[node]) {
                arc.target = same[arc.target];
                arcs.push_back({arc.kind, arc.value, arc.target});
            }
            std::sort(arcs.begin(), arcs.end());
            arcs.erase(std::unique(arcs.begin(), arcs.end()), arcs.end());
            std::vector<uint32_t> key;
            nodes[node].clear();
            for (const auto &[kind, value, target] : arcs) {
                nodes[node].push_back({kind, value, target});
                key.insert(key.end(), {kind, value, target});
            }
            same[node] = known.try_emplace(std::move(key), node).first->second;
            open.pop_back();
        }
    }

    static uint32_t at(uint32_t node) { return node + 1; }
    void go(uint32_t from, uint32_t to) { nodes_[from].push_back({EV_ARC_EPSILON, 0, to}); }

    // Whether a node has arcs of its own, of letters or the end.
    bool reads(uint32_t node) const {
        return std::any_of(nodes_[node].begin(), nodes_[node].end(),
                           [](const Arc &arc) { return arc.kind != EV_ARC_EPSILON; });
    }

    void add(uint32_t node) {
        for (const Arc *arc = automaton_.begin(node); arc != automaton_.end(node); ++arc) {
            switch (arc->kind) {
            case EV_ARC_BYTE:
            case EV_ARC_GLUE:
                nodes_[at(node)].push_back({EV_ARC_BYTE, arc->value, at(arc->target)});
                break;
            case EV_ARC_EPSILON:
            case EV_ARC_LABEL:
                go(at(node), at(arc->target));
                break;
            case EV_ARC_CALL:
                go(at(node), at(arc->value));
                callers_[arc->value].push_back(at(arc->target));
                break;
            case EV_ARC_SEPARATOR:
                go(at(node), end_);
                starts_.push_back(at(arc->target));
                if (arc->value != 0) {
                    starts_.push_back(at(arc->value));
                    callers_[arc->value].push_back(at(arc->target));
                }
                break;
            case EV_ARC_ACCEPT:
                go(at(node), end_);
                break;
            default:
                break;
            }
        }
    }

    // Nodes of a network at which it returns.
    std::vector<uint32_t> returning(uint32_t entry) const {
        std::vector<uint32_t> found, nodes{entry};
        std::unordered_set<uint32_t> seen{entry};
        for (size_t i = 0; i < nodes.size(); ++i) {
            const uint32_t node = nodes[i];
            for (const Arc *arc = automaton_.begin(node); arc != automaton_.end(node); ++arc) {
                if (arc->kind == EV_ARC_RETURN)
                    found.push_back(node);
                else if (arc->kind != EV_ARC_ACCEPT && seen.insert(arc->target).second)
                    nodes.push_back(arc->target);
            }
        }
        return found;
    }

    const Automaton &automaton_;
    Nodes nodes_;
    uint32_t end_;
    std::vector<uint32_t> starts_;
    std::unordered_map<uint32_t, std::vector<uint32_t>> callers_; // of each network
};

uint64_t hashed(uint64_t hash, std::string_view text) {
    for (const char byte : text) // FNV-1a
        hash = (hash ^ uint8_t(byte)) * 0x100000001b3u;
    return hash;
}

// Bytes that stand for no letter of a word: separators and upper case are the surface's.
bool is_mark(uint32_t byte) {
    return byte <= ' ' || byte == 0x7F || (byte >= 'A' && byte <= 'Z') || byte == '.' ||
           byte == '?' || byte == '!' || byte == ',' || byte == '-';
}

} // namespace

Letters::Letters(const Language &language)
    : silent_(decoded(language.silent)), endings_(decoded(language.endings)) {
    uint32_t group = 1;
    for (const std::string &letters : split(language.alike)) {
        for (const char32_t letter : decoded(letters))
            groups_[letter] |= group;
        group <<= 1;
    }
    const std::vector<std::string> spellings = split(language.spellings);
    for (size_t i = 0; i + 1 < spellings.size(); i += 2) {
        const std::u32string one = decoded(spellings[i]), other = decoded(spellings[i + 1]);
        spellings_.push_back({one, other});
        spellings_.push_back({other, one});
    }
}

int32_t Letters::alone(char32_t letter, char32_t before) const {
    if (letter == before || letter == '\'' || letter == 0x2019)
        return cost::doubled * (before == 0 ? cost::first : 1);
    if (before == 0)
        return cost::letter * cost::first;
    const bool unheard = silent_.find(letter) != std::u32string::npos || alike(letter, before);
    return unheard ? cost::alike : cost::letter;
}

Nearest::Nearest(const Automaton &automaton, const Language &language)
    : letters_(language), missing_(split(language.missing)), sentences_(with_free_words(automaton)),
      words_(Vocabulary(automaton).automaton()) {
    for (const std::string &word : split(language.kept)) {
        kept_.insert(word);
        if (word.size() >= 4) // "ten" is in "listen"
            parts_.push_back(word);
    }
    for (const std::string &word : split(language.spare))
        spare_.insert(word);
    const auto kept = [this](const std::string &word) { return is_kept(word); };
    missing_.erase(std::remove_if(missing_.begin(), missing_.end(), kept), missing_.end());
    // The first letter is looked up among all words: done now, not while somebody waits.
    const int32_t start = words_.start();
    for (int byte = 0; start != Dfa::dead && byte < 256; ++byte)
        words_.step(start, uint8_t(byte));
    sentences_.start();
}

bool Nearest::is_kept(const std::string &word) const {
    const auto digit = [](char byte) { return byte >= '0' && byte <= '9'; };
    return std::any_of(word.begin(), word.end(), digit) || kept_.count(word) != 0 ||
           std::any_of(parts_.begin(), parts_.end(), [&](const std::string &part) {
               return word.find(part) != std::string::npos;
           });
}

bool Nearest::knows(std::string_view word) {
    int32_t state = words_.start();
    for (size_t i = 0; i < word.size() && state != Dfa::dead; ++i)
        state = words_.step(state, uint8_t(word[i]));
    return state != Dfa::dead && words_.accepting(state);
}

int32_t Nearest::walk(int32_t state, std::string_view text) {
    if (state != sentences_.start())
        state = sentences_.step(state, ' ');
    for (size_t i = 0; i < text.size() && state != Dfa::dead; ++i)
        state = sentences_.step(state, uint8_t(text[i]));
    return state;
}

// What it costs to write words in place of one that was said: a table with a row for each letter
// of the word, and a column for each of what was said.
class Comparison {
  public:
    Comparison(const Letters &letters, const std::u32string &said)
        : letters_(letters), said_(said), width_(said.size() + 1), rows_{0}, least_{0} {
        for (size_t i = 0; i < said.size(); ++i)
            rows_.push_back(rows_[i] + letters.alone(said[i], i == 0 ? 0 : said[i - 1]));
    }

    const std::u32string &word() const { return word_; }
    // Of the whole word in place of all that was said.
    int32_t cost() {
        const size_t j = word_.size(), i = width_ - 1;
        int32_t best = at(j, i);
        if (j > 1 && letters_.ending(word_[j - 1]))
            best = std::min(best, at(j - 1, i) + cost::alike);
        if (i > 1 && letters_.ending(said_[i - 1]))
            best = std::min(best, at(j, i - 1) + cost::alike);
        return best;
    }
    // No word that begins like this costs less: later rows are made of the last two.
    int32_t least() const {
        const size_t j = word_.size();
        return std::min(least_[j], least_[j == 0 ? 0 : j - 1]);
    }

    void pop() {
        word_.pop_back();
        least_.pop_back();
        rows_.resize(rows_.size() - width_);
    }

    void push(char32_t letter) {
        const char32_t before = word_.empty() ? 0 : word_.back();
        word_ += letter;
        rows_.resize(rows_.size() + width_);
        const size_t j = word_.size();
        const int32_t added = letters_.alone(letter, before);
        pairs_.clear();
        for (const Letters::Pair &pair : letters_.spellings()) {
            if (ends(word_, j, pair.other))
                pairs_.push_back(&pair);
        }
        for (size_t i = 0; i < width_; ++i) {
            int32_t best = at(j - 1, i) + added;
            if (i > 0) {
                const int32_t dropped = at(0, i) - at(0, i - 1);
                best = std::min({best, at(j, i - 1) + dropped, at(j - 1, i - 1) + swapped(i, j)});
            }
            if (i > 1 && j > 1 && said_[i - 1] == before && said_[i - 2] == letter)
                best = std::min(best, at(j - 2, i - 2) + cost::alike * times(i - 2, j - 2));
            for (const Letters::Pair *pair : pairs_) {
                if (ends(said_, i, pair->one)) {
                    const size_t from = j - pair->other.size(), back = i - pair->one.size();
                    best = std::min(best, at(from, back) + cost::alike * times(back, from));
                }
            }
            at(j, i) = best;
        }
        least_.push_back(*std::min_element(rows_.end() - int64_t(width_), rows_.end()));
    }

  private:
    int32_t &at(size_t j, size_t i) { return rows_[j * width_ + i]; }
    static int32_t times(size_t i, size_t j) { return i == 0 || j == 0 ? cost::first : 1; }
    static bool ends(const std::u32string &text, size_t length, const std::u32string &end) {
        return end.size() <= length && text.compare(length - end.size(), end.size(), end) == 0;
    }
    int32_t swapped(size_t i, size_t j) const {
        const char32_t one = said_[i - 1], other = word_[j - 1];
        if (one == other)
            return 0;
        return (letters_.alike(one, other) ? cost::alike : cost::letter) * times(i - 1, j - 1);
    }

    const Letters &letters_;
    const std::u32string &said_;
    const size_t width_;
    std::u32string word_;
    std::vector<int32_t> rows_;                // row j: of the first j letters of the word
    std::vector<int32_t> least_;               // in each row
    std::vector<const Letters::Pair *> pairs_; // the second of which ends the word
};

// All other words of the grammar that cost little enough, depth first.
class Nearest::Comparer {
  public:
    Comparer(Nearest &of, const std::u32string &said, int32_t &work, int32_t max_work)
        : of_(of), comparison_(of.letters_, said), letters_(said.size()), work_(work),
          max_work_(max_work) {}

    std::vector<Change> run() {
        if (of_.words_.start() != Dfa::dead && cost::most(letters_) > 0 && letters_ <= max_letters)
            visit(of_.words_.start(), 0, 0);
        return std::move(found_);
    }

  private:
    // From a state of the DFA; `begun`: a letter of which `missing` bytes are to come.
    void visit(int32_t state, char32_t begun, size_t missing) {
        const std::bitset<256> possible = of_.words_.possible(state);
        for (uint32_t byte = 0; byte < 256 && work_ < max_work_; ++byte) {
            const bool goes_on = (byte & 0xC0) == 0x80;
            if (!possible[byte] || goes_on != (missing > 0) || is_mark(byte))
                continue;
            const size_t length = utf8_length(uint8_t(byte));
            const char32_t letter = goes_on       ? begun << 6 | (byte & 0x3F)
                                    : length == 1 ? byte
                                                  : byte & (0xFF >> (length + 1));
            const size_t left = goes_on ? missing - 1 : length - 1;
            const int32_t next = of_.words_.step(state, uint8_t(byte));
            if (next == Dfa::dead || (left == 0 && lower(letter) != letter))
                continue;
            if (left > 0)
                visit(next, letter, left);
            else
                compare(next, letter);
        }
    }

    void compare(int32_t state, char32_t letter) {
        ++work_;
        comparison_.push(letter);
        const std::u32string &word = comparison_.word();
        const int32_t cost = comparison_.cost();
        if (cost > 0 && cost <= cost::most(std::min(letters_, word.size())) &&
            of_.words_.accepting(state)) {
            std::string text;
            for (const char32_t each : word)
                encode(each, text);
            if (!of_.is_kept(text))
                found_.push_back({text, cost});
        }
        if (comparison_.least() <= cost::most(letters_) && word.size() < max_letters)
            visit(state, 0, 0);
        comparison_.pop();
    }

    Nearest &of_;
    Comparison comparison_;
    const size_t letters_;
    int32_t &work_;
    const int32_t max_work_;
    std::vector<Change> found_;
};

// One search: the cheapest step first, of equal ones that which is furthest in the text.
class Nearest::Search {
  public:
    Search(Nearest &of, const std::string &text, int32_t max_cost, size_t n_best, int32_t max_work)
        : of_(of), max_cost_(max_cost), n_best_(n_best), max_work_(max_work) {
        for (const std::string &written : split(text)) {
            Said said{};
            said.written = written;
            said.letters = decoded(written);
            for (char32_t &letter : said.letters) {
                letter = lower(letter);
                encode(letter, said.word);
            }
            said.kept = of.is_kept(said.word);
            said.known = of.knows(written);
            said.spare = of.spare_.count(said.word) != 0;
            said_.push_back(std::move(said));
        }
    }

    Found run() {
        const int32_t start = of_.sentences_.start();
        if (said_.empty() || said_.size() > max_words || start == Dfa::dead)
            return {};
        push({0, start, 0, -1, false, false, 0xcbf29ce484222325u, ""});
        while (!queue_.empty()) {
            if (found_.work >= max_work_ || found_.sentences.size() >= n_best_)
                return std::move(found_);
            const int32_t number = std::get<2>(queue_.top());
            const Step step = steps_[size_t(number)];
            queue_.pop();
            found_.searched = step.cost;
            // Of the ways to a place the n_best cheapest suffice; the same words count once.
            const uint64_t place =
                uint64_t(uint32_t(step.state)) << 32 | uint64_t(step.at) << 1 | step.spelling;
            if (!texts_.insert(step.text_hash ^ place * 0x9e3779b97f4a7c15u).second ||
                ++ways_[place] > n_best_) {
                continue;
            }
            ++found_.work;
            if (step.spelling)
                spell(step);
            else
                go_on(step, number);
        }
        found_.searched = max_cost_ + 1;
        return std::move(found_);
    }

  private:
    void push(Step step) {
        if (step.state == Dfa::dead || step.cost > max_cost_)
            return;
        queue_.emplace(step.cost, -step.at, int32_t(steps_.size()));
        steps_.push_back(std::move(step));
    }

    void go_on(const Step &step, int32_t number) {
        if (size_t(step.at) == said_.size()) {
            // Words in free text and those of the grammar may be the same.
            if (of_.sentences_.accepting(step.state) && told_.insert(step.text_hash).second)
                found_.sentences.push_back({sentence(step), step.cost});
        } else {
            read(step, number, said_[size_t(step.at)]);
        }
        for (const std::string &word : of_.missing_) {
            if (!step.free)
                take(step, number, word, cost::small, 0);
        }
        any_word(step, number, 0);
    }

    // What may become of the next word.
    void read(const Step &step, int32_t number, Said &said) {
        take(step, number, said.written, 0, 1);
        take(step, number, said.written, cost::free, 1, true);
        if (said.kept)
            return;
        if (!said.known) {
            look_up(said);
            for (const Change &change : said.changes)
                take(step, number, change.word, change.cost, 1);
        }
        take(step, number, "", said.spare ? cost::small : cost::word, 1);
        any_word(step, number, 1);
        if (size_t(step.at) + 1 < said_.size()) {
            join(said, said_[size_t(step.at) + 1]);
            for (const Change &change : said.joined)
                take(step, number, change.word, change.cost, 2);
        }
    }

    // Goes `words` on in the text with a word of the sentence, or several; "": with none.
    void take(const Step &from, int32_t number, const std::string &word, int32_t cost,
              int32_t words, bool free = false) {
        if (from.cost + cost > max_cost_)
            return;
        ++found_.work;
        int32_t state = from.state;
        uint64_t hash = from.text_hash;
        if (!word.empty()) {
            state = of_.walk(state, free ? std::string_view("\x01", 1) : word);
            hash = hashed(hashed(hash, word), " ");
        }
        const bool in_free = word.empty() ? from.free : free;
        push({from.cost + cost, state, from.at + words, number, false, in_free, hash, word});
    }

    void look_up(Said &said) {
        if (said.looked_up)
            return;
        said.looked_up = true;
        said.changes = Comparer(of_, said.letters, found_.work, max_work_).run();
        // Two words without the space between them.
        for (size_t i = 1; i < said.word.size(); ++i) {
            const std::string one = said.word.substr(0, i), other = said.word.substr(i);
            if (of_.knows(one) && of_.knows(other) && !of_.is_kept(one) && !of_.is_kept(other))
                said.changes.push_back({one + " " + other, cost::space});
        }
    }

    // One word with a space in it.
    void join(Said &said, const Said &next) {
        if (said.joined_up || next.kept)
            return;
        said.joined_up = true;
        const std::string both = said.word + next.word;
        if (of_.knows(both) && !of_.is_kept(both))
            said.joined.push_back({both, cost::space});
        if (said.known && next.known)
            return;
        const std::u32string letters = said.letters + next.letters;
        for (Change &change : Comparer(of_, letters, found_.work, max_work_).run())
            said.joined.push_back({std::move(change.word), cost::space + change.cost});
    }

    // Any word of the grammar: in place of the next one (`words` 1), or before it (0).
    void any_word(const Step &step, int32_t number, int32_t words) {
        if (step.cost + cost::word > max_cost_)
            return;
        const int32_t state = of_.walk(step.state, "");
        const uint64_t hash = hashed(step.text_hash, words == 0 ? "+" : "=");
        push({step.cost + cost::word, state, step.at + words, number, true, false, hash, ""});
    }

    // One letter more of such a word; `step.parent` is the step before the word.
    void spell(const Step &step) {
        const std::bitset<256> possible = of_.sentences_.possible(step.state);
        const bool ends = possible[' '] || of_.sentences_.accepting(step.state);
        if (!step.word.empty() && ends && !of_.is_kept(step.word)) {
            const uint64_t before = steps_[size_t(step.parent)].text_hash;
            const uint64_t hash = hashed(hashed(before, step.word), " ");
            push({step.cost, step.state, step.at, step.parent, false, false, hash, step.word});
        }
        for (uint32_t byte = 0; byte < 256 && step.word.size() < max_letters; ++byte) {
            if (!possible[byte] || is_mark(byte))
                continue;
            Step next = step;
            next.state = of_.sentences_.step(step.state, uint8_t(byte));
            next.word += char(byte);
            next.text_hash = hashed(step.text_hash, next.word);
            push(std::move(next));
        }
    }

    std::string sentence(const Step &last) const {
        std::vector<std::string> words;
        for (const Step *step = &last; step->parent >= 0; step = &steps_[size_t(step->parent)]) {
            if (!step->word.empty())
                words.push_back(step->word);
        }
        std::string text;
        for (auto word = words.rbegin(); word != words.rend(); ++word)
            text += (text.empty() ? "" : " ") + *word;
        return text;
    }

    Nearest &of_;
    const int32_t max_cost_;
    const size_t n_best_;
    const int32_t max_work_;
    std::vector<Said> said_;
    std::vector<Step> steps_;
    // Cost, how far in the text (negative), number of the step.
    using Waiting = std::tuple<int32_t, int32_t, int32_t>;
    std::priority_queue<Waiting, std::vector<Waiting>, std::greater<>> queue_;
    std::unordered_map<uint64_t, size_t, BothHalves> ways_;
    std::unordered_set<uint64_t> texts_, told_;
    Found found_;
};

Nearest::Found Nearest::find(const std::string &text, int32_t max_cost, size_t n_best,
                             int32_t max_work) {
    if (std::any_of(text.begin(), text.end(), [](char byte) { return uint8_t(byte) < ' '; }))
        return {};
    for (Dfa *dfa : {&sentences_, &words_}) {
        if (dfa->bytes() > max_cached_bytes)
            dfa->clear();
    }
    return Search(*this, text, max_cost, n_best, max_work).run();
}

} // namespace ev
