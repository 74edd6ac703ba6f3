#include "sentences.h"

#include "follow.h"

#include <algorithm>
#include <bitset>
#include <map>
#include <stdexcept>
#include <unordered_map>

namespace ev {

namespace {

Config config_of(uint64_t key) {
    return {uint32_t(key >> 8) & ((uint32_t(1) << 28) - 1), uint32_t(key >> 36), Mode(key & 0xFF)};
}

// Where plain text leads: the surface of automaton.cpp less its variants.
class Walker {
  public:
    explicit Walker(const Automaton &automaton) : automaton_(automaton) {}

    CallStacks stacks;

    // Adds all that configurations lead to without a byte; of several that are the same, one
    // stays. `enter(config, arc)`: whether to follow a call.
    template <typename Enter>
    void close(std::vector<Config> &configs, bool skip_words, const Enter &enter) {
        seen_.clear();
        size_t kept = 0;
        for (const Config &config : configs) {
            if (seen_.insert(config.key()))
                configs[kept++] = config;
        }
        configs.resize(kept);
        for (size_t i = 0; i < configs.size(); ++i) {
            const Config config = configs[i];
            follow(automaton_, stacks, config, [&](const Config &next, const Arc &arc) {
                if ((!skip_words && skips(config, next, arc)) ||
                    (arc.kind == EV_ARC_CALL && !enter(config, arc))) {
                    return;
                }
                if (!seen_.insert(next.key()))
                    return;
                if (configs.size() >= max_state_configs) {
                    throw std::length_error(
                        "rules and lists of the grammar call each other too often");
                }
                configs.push_back(next);
            });
        }
    }

    void close(std::vector<Config> &configs, bool skip_words) {
        close(configs, skip_words, [](const Config &, const Arc &) { return true; });
    }

    // Calls `emit(arc)` for each arc that reads a byte next; one of our own stands for the space
    // between two words. `loose`: a sign that needs no space before it may have one.
    template <typename Emit> void next(const Config &config, bool loose, const Emit &emit) const {
        bool space = false;
        for (const Arc *arc = begin(config); arc != end(config); ++arc) {
            const bool glue = arc->kind == EV_ARC_GLUE;
            if (!glue && arc->kind != EV_ARC_BYTE && arc->kind != EV_ARC_RANGE)
                continue;
            if (config.mode == Mode::pending)
                space = space || !glue || loose;
            if (glue ? config.mode != Mode::spaced || loose : config.mode != Mode::pending)
                emit(*arc);
        }
        if (space)
            emit(space_);
    }

    // Where an arc of next() leads.
    Config after(const Config &config, const Arc &arc) const {
        if (&arc == &space_)
            return {config.node, config.stack, Mode::spaced};
        return {arc.target, config.stack, Mode::word};
    }

    // Whether an arc of next() reads a byte.
    static bool reads(const Arc &arc, uint8_t byte) {
        if (arc.kind == EV_ARC_RANGE)
            return low_byte(arc) <= byte && byte <= high_byte(arc);
        return low_byte(arc) == byte;
    }

    bool accepts(const Config &config) const {
        return config.stack == 0 && (config.mode == Mode::word || config.mode == Mode::pending) &&
               std::any_of(begin(config), end(config),
                           [](const Arc &arc) { return arc.kind == EV_ARC_ACCEPT; });
    }

    // A word may end here.
    bool ends_word(const Config &config) const {
        return config.mode == Mode::pending || accepts(config);
    }

    const Arc *begin(const Config &config) const { return automaton_.begin(config.node); }
    const Arc *end(const Config &config) const { return automaton_.end(config.node); }

  private:
    const Automaton &automaton_;
    const Arc space_{EV_ARC_BYTE, ' ', 0};
    KeySet seen_; // of close()
};

// For each node whether sentences that are not free go through it, in a network nobody calls.
std::vector<bool> nodes_of_fixed(const Automaton &automaton, size_t n_nodes,
                                 const std::vector<bool> &free) {
    std::vector<std::vector<uint32_t>> sources(n_nodes);
    std::vector<uint32_t> open;
    std::vector<bool> fixed(n_nodes);
    const auto mark = [&](uint32_t node) {
        if (!fixed[node]) {
            fixed[node] = true;
            open.push_back(node);
        }
    };
    for (uint32_t node = 0; node < n_nodes; ++node) {
        for (const Arc *arc = automaton.begin(node); arc != automaton.end(node); ++arc) {
            if (arc->kind == EV_ARC_ACCEPT) {
                if (arc->value >= free.size() || !free[arc->value])
                    mark(node);
            } else if (arc->kind != EV_ARC_RETURN) {
                sources[arc->target].push_back(node);
            }
        }
    }
    while (!open.empty()) {
        const uint32_t node = open.back();
        open.pop_back();
        for (const uint32_t source : sources[node])
            mark(source);
    }
    return fixed;
}

// A list of lists, one behind the other.
template <typename T> struct Rows {
    std::vector<uint32_t> first{0};
    std::vector<T> values;

    void close_row() { first.push_back(uint32_t(values.size())); }
    size_t size() const { return first.size() - 1; }
    const T *begin(size_t i) const { return values.data() + first[i]; }
    const T *end(size_t i) const { return values.data() + first[i + 1]; }
};

struct Edge {
    uint8_t byte;
    uint32_t target;

    bool operator==(const Edge &other) const {
        return byte == other.byte && target == other.target;
    }
};

// Which rows were added, by what is in them.
class RowIndex {
  public:
    // The number of a row that `same` says is equal, or -1.
    template <typename Same> int64_t find(uint64_t hash, const Same &same) const {
        const auto it = last_.find(hash);
        for (int64_t row = it == last_.end() ? -1 : it->second; row >= 0; row = before_[row]) {
            if (same(size_t(row)))
                return row;
        }
        return -1;
    }
    // Rows are added in the order of their numbers.
    void add(uint64_t hash) {
        const auto [it, added] = last_.try_emplace(hash, int64_t(before_.size()));
        before_.push_back(added ? -1 : it->second);
        it->second = int64_t(before_.size()) - 1;
    }

  private:
    std::unordered_map<uint64_t, int64_t> last_;
    std::vector<int64_t> before_; // the row before with this hash
};

uint64_t mixed(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15u;
    return hash ^ (hash >> 29);
}

// Makes the states, shortest sentences first.
class Builder {
  public:
    Builder(const Automaton &automaton, const std::vector<bool> &free, size_t effort)
        : walker_(automaton), free_(free), effort_(effort),
          fixed_(nodes_of_fixed(automaton, automaton.size(), free)) {}

    void run() {
        std::vector<Config> configs{{0, 0, Mode::start}};
        state(configs);
        for (size_t i = 0; i < configs_.size(); ++i) {
            if (visits_ <= effort_)
                expand(i);
            else
                complete_ = false;
            edges_.close_row();
        }
    }

    SentenceGraph smallest() const;

  private:
    // The state of these configurations, which are used up; -1 when no sentence goes through it.
    int64_t state(std::vector<Config> &configs);
    void expand(size_t state);
    bool fixed(const Config &config);
    std::vector<uint32_t> order() const;

    Walker walker_;
    const std::vector<bool> &free_;
    size_t effort_, visits_ = 0;
    bool complete_ = true;
    std::vector<bool> fixed_;            // by node
    std::vector<uint32_t> outermost_{0}; // return node of each call stack, as far as was asked for

    Rows<uint64_t> configs_; // of each state, keys in order
    RowIndex by_configs_;
    std::vector<uint32_t> accepts_of_; // of each state, a number in accepts_
    Rows<Edge> edges_;
    std::vector<std::vector<uint32_t>> accepts_{{}};
    std::map<std::vector<uint32_t>, uint32_t> accepts_numbers_{{{}, 0}};
};

bool Builder::fixed(const Config &config) {
    if (config.stack == 0)
        return fixed_[config.node];
    for (size_t stack = outermost_.size(); stack <= config.stack; ++stack) { // parents come first
        const uint32_t parent = walker_.stacks.parent(uint32_t(stack));
        outermost_.push_back(parent == 0 ? walker_.stacks.return_node(uint32_t(stack))
                                         : outermost_[parent]);
    }
    return fixed_[outermost_[config.stack]];
}

int64_t Builder::state(std::vector<Config> &configs) {
    walker_.close(configs, false);
    visits_ += configs.size();
    std::vector<uint32_t> accepts;
    bool any_fixed = false;
    size_t kept = 0;
    for (const Config &config : configs) {
        bool counts = false;
        walker_.next(config, false, [&](const Arc &) { counts = true; });
        if (walker_.accepts(config)) {
            counts = true;
            for (const Arc *arc = walker_.begin(config); arc != walker_.end(config); ++arc) {
                if (arc->kind == EV_ARC_ACCEPT)
                    accepts.push_back(arc->value);
            }
        }
        if (!counts)
            continue;
        any_fixed = any_fixed || fixed(config);
        configs[kept++] = config;
    }
    if (!any_fixed)
        return -1;
    configs.resize(kept);
    std::sort(configs.begin(), configs.end(),
              [](const Config &a, const Config &b) { return a.key() < b.key(); });
    uint64_t hash = 0;
    for (const Config &config : configs)
        hash = mixed(hash, config.key());
    const int64_t known = by_configs_.find(hash, [&](size_t row) {
        return std::equal(configs_.begin(row), configs_.end(row), configs.begin(), configs.end(),
                          [](uint64_t key, const Config &config) { return key == config.key(); });
    });
    if (known >= 0)
        return known;

    for (const Config &config : configs)
        configs_.values.push_back(config.key());
    configs_.close_row();
    by_configs_.add(hash);
    std::sort(accepts.begin(), accepts.end());
    accepts.erase(std::unique(accepts.begin(), accepts.end()), accepts.end());
    const bool all_free = std::all_of(accepts.begin(), accepts.end(), [&](uint32_t value) {
        return value < free_.size() && free_[value];
    });
    if (all_free)
        accepts.clear();
    const auto [it, added] = accepts_numbers_.try_emplace(accepts, uint32_t(accepts_.size()));
    if (added)
        accepts_.push_back(accepts);
    accepts_of_.push_back(it->second);
    return int64_t(configs_.size()) - 1;
}

void Builder::expand(size_t state) {
    std::vector<Config> configs;
    std::bitset<256> bytes; // that go on with a sentence which is not free
    for (const uint64_t *key = configs_.begin(state); key != configs_.end(state); ++key) {
        configs.push_back(config_of(*key));
        if (!fixed(configs.back()))
            continue;
        walker_.next(configs.back(), false, [&](const Arc &arc) {
            if (arc.kind != EV_ARC_RANGE)
                bytes.set(low_byte(arc));
        });
    }
    std::vector<std::pair<uint8_t, Config>> reached;
    for (const Config &config : configs) {
        walker_.next(config, false, [&](const Arc &arc) {
            const Config after = walker_.after(config, arc);
            for (uint32_t byte = low_byte(arc);
                 byte <= (arc.kind == EV_ARC_RANGE ? high_byte(arc) : low_byte(arc)); ++byte) {
                if (bytes[byte])
                    reached.emplace_back(uint8_t(byte), after);
            }
        });
    }
    std::stable_sort(reached.begin(), reached.end(),
                     [](const auto &a, const auto &b) { return a.first < b.first; });
    for (size_t i = 0; i < reached.size();) {
        const uint8_t byte = reached[i].first;
        configs.clear();
        for (; i < reached.size() && reached[i].first == byte; ++i)
            configs.push_back(reached[i].second);
        const int64_t target = this->state(configs);
        if (target >= 0)
            edges_.values.push_back({byte, uint32_t(target)});
    }
}

// The states, each before those it leads to.
std::vector<uint32_t> Builder::order() const {
    std::vector<uint32_t> sources(edges_.size()), order;
    for (const Edge &edge : edges_.values)
        ++sources[edge.target];
    if (sources[0] == 0)
        order.push_back(0); // all others have sources
    for (size_t i = 0; i < order.size(); ++i) {
        for (const Edge *edge = edges_.begin(order[i]); edge != edges_.end(order[i]); ++edge) {
            if (--sources[edge->target] == 0)
                order.push_back(edge->target);
        }
    }
    if (order.size() != sources.size())
        throw std::length_error("sentences of the grammar go round in circles");
    return order;
}

// States with the same rest of sentences become one; those without any are left out.
SentenceGraph Builder::smallest() const {
    SentenceGraph graph;
    graph.complete = complete_;
    Rows<Edge> merged; // last states first
    std::vector<uint32_t> accepts;
    RowIndex index;
    std::vector<int64_t> merged_of(edges_.size(), -1);
    const std::vector<uint32_t> states = edges_.size() > 0 ? order() : std::vector<uint32_t>{};
    for (auto state = states.rbegin(); state != states.rend(); ++state) {
        std::vector<Edge> edges;
        uint64_t hash = mixed(0, accepts_of_[*state]);
        for (const Edge *edge = edges_.begin(*state); edge != edges_.end(*state); ++edge) {
            if (merged_of[edge->target] < 0)
                continue;
            edges.push_back({edge->byte, uint32_t(merged_of[edge->target])});
            hash = mixed(hash, uint64_t(edge->byte) << 32 | edges.back().target);
        }
        if (edges.empty() && accepts_of_[*state] == 0)
            continue;
        const int64_t known = index.find(hash, [&](size_t row) {
            return accepts[row] == accepts_of_[*state] &&
                   std::equal(merged.begin(row), merged.end(row), edges.begin(), edges.end());
        });
        if (known < 0) {
            merged.values.insert(merged.values.end(), edges.begin(), edges.end());
            merged.close_row();
            index.add(hash);
            accepts.push_back(accepts_of_[*state]);
        }
        merged_of[*state] = known < 0 ? int64_t(merged.size()) - 1 : known;
    }
    // The start came last: nothing leads to it, so no other state has as long a rest.
    graph.first_edge.push_back(0);
    graph.first_accept.push_back(0);
    for (size_t row = merged.size(); row-- > 0;) {
        for (const Edge *edge = merged.begin(row); edge != merged.end(row); ++edge) {
            graph.bytes.push_back(edge->byte);
            graph.targets.push_back(uint32_t(merged.size() - 1 - edge->target));
        }
        graph.first_edge.push_back(uint32_t(graph.bytes.size()));
        const std::vector<uint32_t> &values = accepts_[accepts[row]];
        graph.accepts.insert(graph.accepts.end(), values.begin(), values.end());
        graph.first_accept.push_back(uint32_t(graph.accepts.size()));
    }
    if (merged.size() == 0) { // no sentence: a start that leads nowhere
        graph.first_edge.push_back(0);
        graph.first_accept.push_back(0);
    }
    return graph;
}

} // namespace

SentenceGraph sentence_graph(const Automaton &automaton, const std::vector<bool> &free,
                             size_t effort) {
    Builder builder(automaton, free, effort);
    builder.run();
    return builder.smallest();
}

// Configurations looked at for the words that can come next. Words of a grammar end long before;
// only tables that go round in circles inside of a word do not.
constexpr size_t max_ahead_work = 500'000;

Ahead look_ahead(const Automaton &automaton, const char *text, size_t length,
                 const std::vector<uint32_t> &calls, size_t most) {
    Walker walker(automaton);
    Ahead found;
    found.calls.resize(calls.size());
    std::vector<Config> kernel{{0, 0, Mode::start}}, configs = kernel, boundary = kernel;
    const auto read = [&](uint8_t byte) {
        kernel.clear();
        for (const Config &config : configs) {
            walker.next(config, true, [&](const Arc &arc) {
                if (Walker::reads(arc, byte))
                    kernel.push_back(walker.after(config, arc));
            });
        }
        configs = kernel;
    };
    const auto ends_word = [&] {
        return std::any_of(configs.begin(), configs.end(),
                           [&](const Config &config) { return walker.ends_word(config); });
    };
    walker.close(configs, true);
    for (size_t i = 0; i < length && !configs.empty(); ++i) {
        read(uint8_t(text[i]));
        walker.close(configs, true);
        if ((i + 1 == length || text[i + 1] == ' ') && ends_word()) {
            found.reached = i + 1;
            boundary = kernel;
        }
    }

    const auto enter = [&](const Config &config, const Arc &arc) {
        const auto call = std::lower_bound(calls.begin(), calls.end(), arc.value);
        if (config.mode == Mode::word || call == calls.end() || *call != arc.value)
            return true;
        found.calls[size_t(call - calls.begin())] = true;
        return false;
    };
    walker.close(boundary, false, enter);
    configs.clear();
    for (const Config &config : boundary) {
        if (config.mode == Mode::pending || config.mode == Mode::start)
            configs.push_back({config.node, config.stack, Mode::spaced});
    }

    // Depth first. Free text has no words that could be listed.
    struct Open {
        std::string word;
        std::vector<Config> configs;
    };
    std::vector<Open> open{{"", configs}};
    size_t work = 0;
    while (!open.empty() && !found.more) {
        Open now = std::move(open.back());
        open.pop_back();
        configs = std::move(now.configs);
        work += 1 + configs.size();
        if (work > max_ahead_work) { // tables that go round in circles inside of a word
            found.more = true;
            break;
        }
        if (!now.word.empty()) {
            walker.close(configs, false);
            if (ends_word()) {
                found.more = found.words.size() == most;
                if (!found.more)
                    found.words.push_back(now.word);
            }
        }
        if (now.word.size() == max_word_bytes)
            continue;
        std::map<uint8_t, std::vector<Config>> next;
        for (const Config &config : configs) {
            if (config.mode == Mode::pending)
                continue;
            walker.next(config, true, [&](const Arc &arc) {
                if (arc.kind != EV_ARC_RANGE)
                    next[low_byte(arc)].push_back(walker.after(config, arc));
            });
        }
        for (auto it = next.rbegin(); it != next.rend(); ++it)
            open.push_back({now.word + char(it->first), std::move(it->second)});
    }
    return found;
}

size_t count_choices(std::shared_ptr<const Automaton> automaton, const VocabTrie &trie,
                     const char *text, size_t length) {
    Dfa dfa(std::move(automaton));
    int32_t state = dfa.start();
    for (size_t i = 0; i < length && state != Dfa::dead; ++i)
        state = dfa.step(state, uint8_t(text[i]));
    if (state == Dfa::dead)
        return 0;
    size_t count = 0;
    std::vector<std::pair<const VocabTrie::Node *, int32_t>> open{{&trie.root(), state}};
    while (!open.empty()) {
        const auto [node, at] = open.back();
        open.pop_back();
        count += node->token >= 0;
        const VocabTrie::Node *children = trie.children(*node);
        for (uint16_t i = 0; i < node->n_children; ++i) {
            const int32_t next = dfa.step(at, children[i].byte);
            if (next != Dfa::dead)
                open.emplace_back(&children[i], next);
        }
    }
    return count;
}

} // namespace ev
