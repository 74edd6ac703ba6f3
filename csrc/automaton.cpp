#include "automaton.h"

#include "follow.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <stdexcept>
#include <unordered_set>

namespace ev {

namespace {

// 28 bits each, see Config::key.
constexpr size_t max_nodes = size_t(1) << 28;
// A text with this many simultaneous readings comes from a grammar that is wrong, not rich.
constexpr size_t max_match_items = 1'000'000;
// Labels passed on the way, those of readings that came to nothing included: 100 MB.
constexpr size_t max_match_labels = 8'000'000;

uint8_t fold(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte + ('a' - 'A') : byte; }

bool is_final_punctuation(uint8_t byte) { return byte == '.' || byte == '?' || byte == '!'; }

bool accepts(const Automaton &automaton, const Config &config) {
    if (config.stack != 0)
        return false;
    for (const Arc *arc = automaton.begin(config.node); arc != automaton.end(config.node); ++arc) {
        if (arc->kind == EV_ARC_ACCEPT)
            return true;
    }
    return false;
}

bool can_end(const Automaton &automaton, const Config &config) {
    return (config.mode == Mode::word || config.mode == Mode::pending ||
            config.mode == Mode::end) &&
           accepts(automaton, config);
}

// Where one byte leads from one configuration: calls `emit(Config, const Arc &)` for each successor
// before closure. The single definition of the surface layer, used by the DFA and by match().
template <typename Emit>
void advance(const Automaton &automaton, const Config &config, uint8_t byte, Emit emit) {
    static constexpr Arc written{EV_ARC_SEPARATOR, 0, 0}; // separators and final punctuation
    const Mode mode = config.mode;
    const auto move = [&](Mode to) { emit(Config{config.node, config.stack, to}, written); };
    if (mode == Mode::start && byte == ' ')
        move(Mode::spaced);
    if (mode == Mode::pending && (byte == ' ' || byte == '-'))
        move(Mode::spaced);
    if (mode == Mode::pending && byte == ',')
        move(Mode::comma);
    if (mode == Mode::comma && byte == ' ')
        move(Mode::spaced);
    if ((mode == Mode::word || mode == Mode::pending) && is_final_punctuation(byte) &&
        accepts(automaton, config)) {
        move(Mode::end);
    }
    if (mode == Mode::comma || mode == Mode::end)
        return;
    const uint8_t folded = fold(byte);
    for (const Arc *arc = automaton.begin(config.node); arc != automaton.end(config.node); ++arc) {
        bool matches = false;
        if (arc->kind == EV_ARC_GLUE || (arc->kind == EV_ARC_BYTE && mode != Mode::pending)) {
            matches = low_byte(*arc) == folded || (high_byte(*arc) != 0 && high_byte(*arc) == byte);
        } else if (arc->kind == EV_ARC_RANGE && mode != Mode::pending) {
            matches = low_byte(*arc) <= byte && byte <= high_byte(*arc);
        }
        if (matches)
            emit(Config{arc->target, config.stack, Mode::word}, *arc);
    }
}

} // namespace

uint32_t CallStacks::push(uint32_t stack, uint32_t return_node) {
    const uint64_t key = (uint64_t(stack) << 32) | return_node;
    const auto [it, added] = known_.try_emplace(key, uint32_t(frames_.size()));
    if (added) {
        if (frames_.size() >= max_nodes)
            throw std::length_error("too many call stacks");
        frames_.push_back({return_node, stack, frames_[stack].depth + 1});
    }
    return it->second;
}

void CallStacks::clear() {
    frames_.resize(1);
    known_.clear();
}

std::shared_ptr<const Automaton> Automaton::make(const uint32_t *arcs, size_t n_arcs,
                                                 const uint32_t *first_arc, size_t n_nodes,
                                                 std::string &error) {
    if (n_nodes == 0 || n_nodes >= max_nodes || n_arcs >= UINT32_MAX) {
        error = "a grammar needs 1 to 2^28 nodes, got " + std::to_string(n_nodes);
        return nullptr;
    }
    if (first_arc[0] != 0 || first_arc[n_nodes] != n_arcs) {
        error = "first_arc must run from 0 to the number of arcs";
        return nullptr;
    }
    for (size_t i = 0; i < n_nodes; ++i) {
        if (first_arc[i] > first_arc[i + 1]) {
            error = "first_arc must not decrease (node " + std::to_string(i) + ")";
            return nullptr;
        }
    }
    auto automaton = std::make_shared<Automaton>();
    automaton->first_.assign(first_arc, first_arc + n_nodes + 1);
    automaton->arcs_.resize(n_arcs);
    for (size_t i = 0; i < n_arcs; ++i) {
        const Arc arc{arcs[3 * i], arcs[3 * i + 1], arcs[3 * i + 2]};
        const bool range = arc.kind == EV_ARC_RANGE;
        const bool byte = arc.kind == EV_ARC_BYTE || arc.kind == EV_ARC_GLUE || range;
        if (arc.kind >= EV_ARC_KINDS || arc.target >= n_nodes || (byte && arc.value > 0xFFFF) ||
            (range && low_byte(arc) > high_byte(arc)) ||
            ((arc.kind == EV_ARC_CALL || arc.kind == EV_ARC_SEPARATOR) && arc.value >= n_nodes) ||
            arc.value > INT32_MAX) {
            error = "arc " + std::to_string(i) + " is out of range";
            return nullptr;
        }
        automaton->arcs_[i] = arc;
    }
    automaton->free_.resize(n_nodes);
    for (size_t i = 0; i < n_nodes; ++i) {
        automaton->free_[i] =
            std::any_of(automaton->begin(uint32_t(i)), automaton->end(uint32_t(i)),
                        [](const Arc &arc) { return arc.kind == EV_ARC_RANGE; });
        automaton->has_free_text_ = automaton->has_free_text_ || automaton->free_[i];
    }
    automaton->find_next();
    automaton->find_closes();
    return automaton;
}

Automaton::Next Automaton::next_of(uint32_t node) const {
    Next found;
    const auto add = [&](uint32_t other) {
        found.bytes |= next_[other].bytes;
        found.accepts |= next_[other].accepts;
        found.returns |= next_[other].returns;
    };
    const auto call = [&](uint32_t callee, uint32_t target) {
        found.bytes |= next_[callee].bytes;
        if (next_[callee].returns)
            add(target);
    };
    for (const Arc *arc = begin(node); arc != end(node); ++arc) {
        switch (arc->kind) {
        case EV_ARC_BYTE:
        case EV_ARC_GLUE:
            found.bytes.set(low_byte(*arc));
            if (high_byte(*arc) != 0)
                found.bytes.set(high_byte(*arc));
            break;
        case EV_ARC_RANGE:
            for (uint32_t byte = low_byte(*arc); byte <= high_byte(*arc); ++byte)
                found.bytes.set(byte);
            break;
        case EV_ARC_EPSILON:
        case EV_ARC_LABEL:
            add(arc->target);
            break;
        case EV_ARC_SEPARATOR:
            add(arc->target);
            if (arc->value != 0)
                call(arc->value, arc->target);
            break;
        case EV_ARC_CALL:
            call(arc->value, arc->target);
            break;
        case EV_ARC_RETURN:
            found.returns = true;
            break;
        case EV_ARC_ACCEPT:
            found.accepts = true;
            break;
        default:
            break;
        }
    }
    return found;
}

namespace {

bool calls(const Arc &arc) {
    return arc.kind == EV_ARC_CALL || (arc.kind == EV_ARC_SEPARATOR && arc.value != 0);
}

// Whether an arc reads nothing and has a target.
bool is_silent(const Arc &arc) {
    return arc.kind == EV_ARC_EPSILON || arc.kind == EV_ARC_LABEL || arc.kind == EV_ARC_SEPARATOR ||
           arc.kind == EV_ARC_CALL;
}

// Finds what follows from node to node: calls `update(node)`, which says whether the node changed,
// until none does. Who calls a node or leads to it by an arc that `passes` looks again when it
// changes.
template <typename Passes, typename Update>
void settle(const Automaton &automaton, Passes passes, Update update) {
    const size_t n_nodes = automaton.size();
    std::vector<uint32_t> first(n_nodes + 1), sources;
    const auto each_edge = [&](const auto &visit) {
        for (uint32_t node = 0; node < n_nodes; ++node) {
            for (const Arc *arc = automaton.begin(node); arc != automaton.end(node); ++arc) {
                if (calls(*arc))
                    visit(arc->value, node);
                if (passes(*arc))
                    visit(arc->target, node);
            }
        }
    };
    each_edge([&](uint32_t to, uint32_t) { ++first[to + 1]; });
    for (size_t i = 0; i < n_nodes; ++i)
        first[i + 1] += first[i];
    sources.resize(first[n_nodes]);
    std::vector<uint32_t> filled(first.begin(), first.end() - 1);
    each_edge([&](uint32_t to, uint32_t from) { sources[filled[to]++] = from; });

    std::vector<uint32_t> waiting(n_nodes);
    std::iota(waiting.begin(), waiting.end(), 0);
    std::vector<bool> waits(n_nodes, true);
    while (!waiting.empty()) { // last nodes first: most lead to later ones
        const uint32_t node = waiting.back();
        waiting.pop_back();
        waits[node] = false;
        if (!update(node))
            continue;
        for (uint32_t i = first[node]; i < first[node + 1]; ++i) {
            if (!waits[sources[i]]) {
                waits[sources[i]] = true;
                waiting.push_back(sources[i]);
            }
        }
    }
}

} // namespace

void Automaton::find_next() {
    next_.resize(size());
    settle(*this, is_silent, [&](uint32_t node) {
        const Next found = next_of(node);
        Next &known = next_[node];
        if (found.bytes == known.bytes && found.returns == known.returns &&
            found.accepts == known.accepts) {
            return false;
        }
        known = found;
        return true;
    });
}

void Automaton::find_closes() {
    closes_.resize(size());
    const auto passes = [](const Arc &arc) {
        return is_silent(arc) || arc.kind == EV_ARC_BYTE || arc.kind == EV_ARC_GLUE;
    };
    settle(*this, passes, [&](uint32_t node) {
        if (closes_[node])
            return false;
        closes_[node] = std::any_of(begin(node), end(node), [&](const Arc &arc) {
            return arc.kind == EV_ARC_RETURN || arc.kind == EV_ARC_ACCEPT ||
                   (passes(arc) && closes_[arc.target] &&
                    (arc.kind != EV_ARC_CALL || closes_[arc.value]));
        });
        return bool(closes_[node]);
    });
}

namespace {

// What of a text can be read next from a position on: up to the first byte that is no separator.
struct Upcoming {
    std::bitset<256> bytes;
    bool end = false; // it may end here

    Upcoming(const char *text, size_t length, size_t position) {
        for (; position < length; ++position) {
            const uint8_t byte = uint8_t(text[position]);
            bytes.set(byte);
            bytes.set(fold(byte));
            end = end || is_final_punctuation(byte);
            if (byte != ' ' && byte != '-' && byte != ',')
                return;
        }
        end = true;
    }
};

} // namespace

std::vector<ev_label> Automaton::match(const char *text, size_t length) const {
    // Breadth-first over positions; within one, cheapest first and depth-first, so that of two ways
    // into the same configuration the one with less free text and fewer skipped words wins, and of
    // two with as much the one the grammar names first.
    constexpr uint64_t one_skip = 1, one_byte = uint64_t(1) << 20, one_text = uint64_t(1) << 44;
    if (length >= one_byte) // a free text costs more than all its bytes, and a byte than all skips
        return {};
    struct Item {
        Config config;
        uint64_t cost;
        int32_t passed; // the last label on the way, -1: none
    };
    struct Passed {
        int32_t parent, label, position;
    };
    CallStacks stacks;
    std::vector<Passed> passed;
    KeySet seen;
    std::vector<Item> stack, current;
    std::map<uint64_t, std::vector<Item>> roots; // by cost; within one in the order they came

    // Whether a configuration can read what comes next, or end with it. Most cannot: all other
    // commands, values and skip words.
    const auto goes_on = [&](const Config &config, const Upcoming &ahead) {
        uint32_t node = config.node;
        for (uint32_t stack = config.stack;; stack = stacks.parent(stack)) {
            const Next &here = next(node);
            if ((here.bytes & ahead.bytes).any() || (ahead.end && here.accepts && stack == 0))
                return true;
            if (!here.returns || stack == 0)
                return false;
            node = stacks.return_node(stack);
        }
    };

    // Fills `current` with all that `roots` lead to without a byte, and empties these.
    const auto close = [&](int32_t position) {
        const Upcoming ahead(text, length, size_t(position));
        seen.clear();
        current.clear();
        while (!roots.empty()) {
            // What costs more has its turn later, what costs nothing goes on the stack: these are
            // all of their cost, last one first.
            std::vector<Item> now = std::move(roots.begin()->second);
            roots.erase(roots.begin());
            stack.assign(now.rbegin(), now.rend());
            while (!stack.empty()) {
                const Item item = stack.back();
                stack.pop_back();
                if (!seen.insert(item.config.key()))
                    continue;
                if (seen.size() > max_match_items || passed.size() > max_match_labels) {
                    throw std::length_error("this text has too many readings in the grammar");
                }
                current.push_back(item);
                const size_t mark = stack.size();
                const auto reach = [&](const Config &next, const Arc &arc) {
                    if (seen.contains(next.key()) || !goes_on(next, ahead))
                        return;
                    Item reached{next, item.cost, item.passed};
                    if (arc.kind == EV_ARC_LABEL) {
                        reached.passed = int32_t(passed.size());
                        passed.push_back({item.passed, int32_t(arc.value), position});
                    }
                    if (arc.kind == EV_ARC_CALL && free(arc.value))
                        reached.cost += one_text;
                    if (skips(item.config, next, arc))
                        reached.cost += one_skip;
                    if (reached.cost > item.cost) {
                        roots[reached.cost].push_back(reached);
                        return;
                    }
                    stack.push_back(reached);
                };
                // Most of what could be called reads nothing of this: no stack is made for it.
                follow(*this, stacks, item.config, reach, [&](uint32_t node) {
                    const Next &callee = next(node);
                    return callee.returns || (callee.bytes & ahead.bytes).any();
                });
                std::reverse(stack.begin() + int64_t(mark), stack.end());
            }
        }
    };

    roots[0].push_back({{0, 0, Mode::start}, 0, -1});
    close(0);
    for (size_t i = 0; i < length; ++i) {
        for (const Item &item : current) {
            advance(*this, item.config, uint8_t(text[i]), [&](const Config &next, const Arc &arc) {
                const uint64_t cost = item.cost + (arc.kind == EV_ARC_RANGE ? one_byte : 0);
                roots[cost].push_back({next, cost, item.passed});
            });
        }
        close(int32_t(i + 1));
        if (current.empty())
            return {};
    }

    std::vector<ev_label> labels;
    std::vector<ev_label> reversed;
    std::unordered_set<uint32_t> accepted;
    uint64_t least = 0;
    int32_t path = 0;
    for (const Item &item : current) { // cheapest first
        if (!can_end(*this, item.config))
            continue;
        if (path > 0 && item.cost > least)
            break;
        for (const Arc *arc = begin(item.config.node); arc != end(item.config.node); ++arc) {
            if (arc->kind != EV_ARC_ACCEPT || !accepted.insert(arc->value).second)
                continue;
            reversed.assign(1, {path, int32_t(arc->value), int32_t(length), 1});
            for (int32_t at = item.passed; at >= 0; at = passed[at].parent)
                reversed.push_back({path, passed[at].label, passed[at].position, 0});
            labels.insert(labels.end(), reversed.rbegin(), reversed.rend());
            least = item.cost;
            ++path;
        }
    }
    return labels;
}

bool Automaton::can_go_on(const char *text, size_t length) const {
    CallStacks stacks;
    KeySet seen;
    std::vector<Config> configs{{0, 0, Mode::start}}, next;
    const auto reach = [&](const Config &config) {
        if (!seen.insert(config.key()))
            return;
        if (seen.size() > max_match_items)
            throw std::length_error("this text has too many readings in the grammar");
        next.push_back(config);
    };
    const auto close = [&](bool skip_words) {
        for (size_t i = 0; i < next.size(); ++i) {
            const Config config = next[i];
            follow(*this, stacks, config, [&](const Config &reached, const Arc &arc) {
                if (skip_words || !skips(config, reached, arc))
                    reach(reached);
            });
        }
        configs.swap(next);
        next.clear();
    };
    reach(configs[0]);
    close(length > 0);
    for (size_t i = 0; i < length && !configs.empty(); ++i) {
        seen.clear();
        for (const Config &config : configs) {
            advance(*this, config, uint8_t(text[i]),
                    [&](const Config &reached, const Arc &) { reach(reached); });
        }
        close(i + 1 < length);
    }
    // A word that goes on inside ("light" of "lights") is no pause, so only one that would begin
    // counts.
    return std::any_of(configs.begin(), configs.end(), [&](const Config &config) {
        return (config.mode == Mode::pending || config.mode == Mode::start) &&
               std::any_of(begin(config.node), end(config.node), [](const Arc &arc) {
                   return arc.kind == EV_ARC_BYTE || arc.kind == EV_ARC_GLUE ||
                          arc.kind == EV_ARC_RANGE;
               });
    });
}

Dfa::Dfa(std::shared_ptr<const Automaton> automaton, Text text)
    : automaton_(std::move(automaton)), text_(text) {}

// Whether a step belongs to the sentences that are wanted. Of what is called, the way back was
// looked at when it was called.
bool Dfa::leads_on(const Config &to, const Arc &arc) const {
    return text_ == Text::any || arc.kind == EV_ARC_RETURN ||
           (arc.kind != EV_ARC_RANGE && automaton_->closes(to.node) &&
            (!calls(arc) || automaton_->closes(arc.target)));
}

void Dfa::clear() {
    states_.clear();
    by_hash_.clear();
    stacks_.clear();
    start_ = dead;
    bytes_ = 0;
}

void Dfa::close(std::vector<Config> &configs) {
    seen_.clear();
    for (const Config &config : configs)
        seen_.insert(config.key());
    for (size_t i = 0; i < configs.size(); ++i) {
        const Config config = configs[i];
        follow(*automaton_, stacks_, config, [&](const Config &next, const Arc &arc) {
            if (!leads_on(next, arc) || !seen_.insert(next.key()))
                return;
            if (configs.size() >= max_state_configs) {
                throw std::length_error("rules and lists of the grammar call each other too often");
            }
            configs.push_back(next);
        });
    }
    // Only configurations that can read a byte or end the sentence tell states apart.
    const auto idle = [&](const Config &config) {
        if (config.mode == Mode::end || config.mode == Mode::comma)
            return false;
        for (const Arc *arc = automaton_->begin(config.node); arc != automaton_->end(config.node);
             ++arc) {
            if (arc->kind == EV_ARC_BYTE || arc->kind == EV_ARC_GLUE || arc->kind == EV_ARC_RANGE ||
                (arc->kind == EV_ARC_ACCEPT && config.stack == 0)) {
                return false;
            }
        }
        return true;
    };
    configs.erase(std::remove_if(configs.begin(), configs.end(), idle), configs.end());
}

int32_t Dfa::intern(std::vector<Config> &&configs) {
    close(configs);
    if (configs.empty())
        return dead;
    std::sort(configs.begin(), configs.end(),
              [](const Config &a, const Config &b) { return a.key() < b.key(); });
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    for (const Config &config : configs)
        hash = (hash ^ config.key()) * 0x100000001b3u;

    std::vector<int32_t> &bucket = by_hash_[hash];
    for (const int32_t id : bucket) {
        const std::vector<Config> &other = states_[id].configs;
        if (std::equal(other.begin(), other.end(), configs.begin(), configs.end(),
                       [](const Config &a, const Config &b) { return a.key() == b.key(); })) {
            return id;
        }
    }

    State state;
    for (const Config &config : configs) {
        state.accepting = state.accepting || can_end(*automaton_, config);
        state.free = state.free || (text_ == Text::any && config.mode != Mode::end &&
                                    automaton_->free(config.node));
        switch (config.mode) {
        case Mode::start:
            state.possible.set(' ');
            break;
        case Mode::pending:
            state.possible.set(' ').set('-').set(',');
            [[fallthrough]];
        case Mode::word:
            if (accepts(*automaton_, config))
                state.possible.set('.').set('?').set('!');
            break;
        case Mode::comma:
            state.possible.set(' ');
            break;
        case Mode::end:
            break;
        case Mode::spaced:
            break;
        }
        if (config.mode == Mode::comma || config.mode == Mode::end)
            continue;
        for (const Arc *arc = automaton_->begin(config.node); arc != automaton_->end(config.node);
             ++arc) {
            const bool pending = config.mode == Mode::pending;
            if (arc->kind == EV_ARC_RANGE && !pending && text_ == Text::any) {
                for (uint32_t byte = low_byte(*arc); byte <= high_byte(*arc); ++byte)
                    state.possible.set(byte);
            }
            if (arc->kind != EV_ARC_GLUE && (arc->kind != EV_ARC_BYTE || pending))
                continue;
            const uint8_t low = low_byte(*arc);
            state.possible.set(low);
            if (low >= 'a' && low <= 'z')
                state.possible.set(low - 'a' + 'A');
            if (high_byte(*arc) != 0)
                state.possible.set(high_byte(*arc));
        }
    }
    configs.shrink_to_fit();
    bytes_ += sizeof(State) + configs.size() * sizeof(Config) + in_table + sizeof(int32_t);
    state.configs = std::move(configs);
    states_.push_back(std::move(state));
    bucket.push_back(int32_t(states_.size() - 1));
    return bucket.back();
}

int32_t Dfa::start() {
    if (start_ == dead)
        start_ = text_ == Text::any || automaton_->closes(0) ? intern({Config{0, 0, Mode::start}})
                                                             : dead;
    return start_;
}

int32_t Dfa::known(const State &state, uint8_t byte) const {
    if (!state.table.empty())
        return state.table[byte];
    for (const auto &[other, next] : state.next) {
        if (other == byte)
            return next;
    }
    return unknown;
}

void Dfa::remember(State &state, uint8_t byte, int32_t next) {
    if (state.table.empty() && state.next.size() < many) {
        bytes_ -= state.next.capacity() * sizeof state.next[0];
        state.next.emplace_back(byte, next);
        bytes_ += state.next.capacity() * sizeof state.next[0];
        return;
    }
    if (state.table.empty()) {
        state.table.assign(256, unknown);
        bytes_ += state.table.size() * sizeof state.table[0];
        bytes_ -= state.next.capacity() * sizeof state.next[0];
        for (const auto &[other, known] : state.next)
            state.table[other] = known;
        state.next = {};
    }
    state.table[byte] = next;
}

int32_t Dfa::step(int32_t state, uint8_t byte) {
    if (!states_[state].possible[byte])
        return dead;
    if (const int32_t next = known(states_[state], byte); next != unknown)
        return next;
    std::vector<Config> successors;
    for (const Config &config : states_[state].configs) {
        advance(*automaton_, config, byte, [&](const Config &next, const Arc &arc) {
            if (leads_on(next, arc))
                successors.push_back(next);
        });
    }
    // Different configurations may reach the same one.
    std::sort(successors.begin(), successors.end(),
              [](const Config &a, const Config &b) { return a.key() < b.key(); });
    successors.erase(
        std::unique(successors.begin(), successors.end(),
                    [](const Config &a, const Config &b) { return a.key() == b.key(); }),
        successors.end());
    const int32_t next = intern(std::move(successors));
    remember(states_[state], byte, next);
    return next;
}

} // namespace ev
