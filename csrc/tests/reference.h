// Grammar tables made by hand, and a slow reference for what csrc/automaton.cpp says about them.
#pragma once

#include "automaton.h"
#include "check.h"

#include <string>
#include <utility>
#include <vector>

namespace test {

// A network under construction: the arcs of each node, in order.
struct Network {
    std::vector<std::vector<ev::Arc>> nodes;

    explicit Network(size_t n_nodes) : nodes(n_nodes) {}

    Network &arc(uint32_t from, ev_arc kind, uint32_t value, uint32_t to) {
        nodes[from].push_back({uint32_t(kind), value, to});
        return *this;
    }
    // The bytes of `word` from one node to another, over new nodes.
    Network &word(uint32_t from, const std::string &word, uint32_t to);

    // The tables that ev_grammar_open takes.
    std::vector<uint32_t> arcs() const;
    std::vector<uint32_t> first_arc() const;
    // Null when refused.
    std::shared_ptr<const ev::Automaton> automaton() const;
};

struct Reading {
    uint32_t accept;
    std::vector<std::pair<int32_t, int32_t>> labels; // label, bytes of text before it

    bool operator==(const Reading &other) const {
        return accept == other.accept && labels == other.labels;
    }
};

// The first reading for each ACCEPT value, in the order of the grammar: at a node, arcs that read
// or accept come before those that do not, otherwise first things first. Written as a search for
// paths whose words and separators spell the text; shares no code with the automaton.
// Only the readings with least free text are kept: fewest free texts, then fewest bytes in
// them, then fewest places where words are skipped.
//
// Throws std::length_error when calls nest deeper than the automaton allows.
std::vector<Reading> reference_readings(const Network &network, const std::string &text);

// Readings as ev::Automaton::match reports them. Counts a failure when the form is wrong.
std::vector<Reading> readings(const ev::Automaton &automaton, const std::string &text);

// Whether the DFA ends in an accepting state.
bool accepted(ev::Dfa &dfa, const std::string &text);

// The same to somebody who reads a failure.
std::string describe(const Network &network, const std::string &text,
                     const std::vector<Reading> &readings);

// A network of random arcs. `wild` ones may call themselves, nest and loop as they like.
Network random_network(Random &random, const std::string &letters, bool wild);

} // namespace test
