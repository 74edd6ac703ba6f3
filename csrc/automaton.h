// The grammar as a recursive transition network over bytes, and its lazy determinisation.
//
// A network is compiled once from sentence templates (grammar.py) and stays linear in the size of
// the grammar: a list used by forty templates exists once and is *called*. A configuration is
// (node, call stack, mode); a DFA state is a set of configurations, made when first reached.
// The mode is the surface layer: where the text stands between two words, so that
// "twelve ounce", "Twelve-ounce" and "twelve, ounce" are one sentence of the grammar.
#pragma once

#include "edgevoice.h"
#include "key_set.h"

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace ev {

struct Arc {
    uint32_t kind;
    uint32_t value;
    uint32_t target;
};

// Position in the surface text. Order matters to nobody.
enum class Mode : uint8_t {
    start,   // nothing written yet; separators are dropped
    word,    // inside a word
    pending, // a separator is due before the next byte
    spaced,  // the separator has been written
    comma,   // "," has been written, " " must follow
    end,     // final punctuation has been written
};

// What a table of the library takes for a number and what it is looked up by: the two, a pointer,
// the allocator's own share, and a place among the buckets.
constexpr size_t in_table = 48;

// A set of return nodes, innermost first, as one number: 0 is the empty stack.
class CallStacks {
  public:
    uint32_t push(uint32_t stack, uint32_t return_node);
    uint32_t parent(uint32_t stack) const { return frames_[stack].parent; }
    uint32_t return_node(uint32_t stack) const { return frames_[stack].return_node; }
    uint32_t depth(uint32_t stack) const { return frames_[stack].depth; }
    size_t size() const { return frames_.size(); }
    // Of memory, reckoned.
    size_t bytes() const { return frames_.size() * (sizeof(Frame) + in_table); }
    void clear();

  private:
    struct Frame {
        uint32_t return_node, parent, depth;
    };
    std::vector<Frame> frames_{{0, 0, 0}};
    std::unordered_map<uint64_t, uint32_t, BothHalves> known_;
};

struct Config {
    uint32_t node;
    uint32_t stack;
    Mode mode;

    // Nodes and stacks are both bounded below 2^28 (checked), so this is unique.
    uint64_t key() const {
        return (uint64_t(stack) << 36) | (uint64_t(node) << 8) | uint64_t(mode);
    }
};

// The immutable network.
class Automaton {
  public:
    // Returns null and sets `error` when the tables contradict themselves.
    static std::shared_ptr<const Automaton> make(const uint32_t *arcs, size_t n_arcs,
                                                 const uint32_t *first_arc, size_t n_nodes,
                                                 std::string &error);

    size_t size() const { return first_.size() - 1; } // nodes
    const Arc *begin(uint32_t node) const { return arcs_.data() + first_[node]; }
    const Arc *end(uint32_t node) const { return arcs_.data() + first_[node + 1]; }

    // Whether free text stands at a node: it has a RANGE arc.
    bool free(uint32_t node) const { return free_[node]; }
    // Whether a node comes to an end, that of a sentence or a return, without free text.
    bool closes(uint32_t node) const { return closes_[node]; }
    // Whether the grammar has sentences without free text and others.
    bool has_both() const { return closes(0) && has_free_text_; }

    // What can come next at a node, through calls, too.
    struct Next {
        std::bitset<256> bytes;
        bool returns = false; // without a byte
        bool accepts = false; // likewise
    };
    const Next &next(uint32_t node) const { return next_[node]; }

    // Readings of `text`; see ev_grammar_match. Thread-safe. Throws std::length_error when the
    // text has more readings in progress than any sane grammar needs.
    std::vector<ev_label> match(const char *text, size_t length) const;

    // Whether words can follow `text`; see ev_grammar_can_go_on. Thread-safe. Throws as match().
    bool can_go_on(const char *text, size_t length) const;

  private:
    std::vector<Arc> arcs_;
    std::vector<uint32_t> first_;
    std::vector<bool> free_;
    std::vector<bool> closes_;
    bool has_free_text_ = false;
    std::vector<Next> next_;

    void find_next();
    void find_closes();
    Next next_of(uint32_t node) const; // by those of the nodes it leads to
};

// Lazily built DFA; owned by one session.
class Dfa {
  public:
    static constexpr int32_t dead = -1;

    // Of all sentences, or of those without free text.
    enum class Text { any, fixed };

    explicit Dfa(std::shared_ptr<const Automaton> automaton, Text text = Text::any);

    int32_t start();
    int32_t step(int32_t state, uint8_t byte);
    bool accepting(int32_t state) const { return states_[state].accepting; }
    // Bytes with a successor.
    const std::bitset<256> &possible(int32_t state) const { return states_[state].possible; }
    // Free text may go on here, at once or after a separator: nearly the whole vocabulary is
    // allowed, so try single tokens in place of listing them.
    bool free(int32_t state) const { return states_[state].free; }
    // What is kept and clear() frees, in bytes, reckoned.
    size_t bytes() const { return bytes_ + stacks_.bytes(); }
    // Forgets all states. Numbers handed out before are void.
    void clear();

  private:
    struct State {
        std::vector<Config> configs;
        std::bitset<256> possible;
        std::vector<std::pair<uint8_t, int32_t>> next; // filled on demand
        std::vector<int32_t> table; // in place of `next` where many bytes are known: free text
        bool accepting = false;
        bool free = false;
    };

    static constexpr int32_t unknown = -2;
    static constexpr size_t many = 16; // looked through faster than a table is fetched

    int32_t known(const State &state, uint8_t byte) const;
    void remember(State &state, uint8_t byte, int32_t next);
    int32_t intern(std::vector<Config> &&configs);
    void close(std::vector<Config> &configs);

    bool leads_on(const Config &to, const Arc &arc) const;

    std::shared_ptr<const Automaton> automaton_;
    Text text_;
    CallStacks stacks_;
    KeySet seen_; // of close()
    std::vector<State> states_;
    std::unordered_map<uint64_t, std::vector<int32_t>> by_hash_;
    int32_t start_ = dead;
    size_t bytes_ = 0; // of states
};

} // namespace ev
