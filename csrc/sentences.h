// All sentences of a grammar in one table, to count them and to find those with two meanings; and
// how a text goes on that only begins one.
//
// Text is plain here: lower case, one space between two words, no punctuation after them.
#pragma once

#include "automaton.h"
#include "vocab_trie.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ev {

// A deterministic automaton without cycles over bytes, the smallest there is. State 0 is the
// start; edges lead to states with higher numbers.
struct SentenceGraph {
    bool complete = true;               // false: the effort did not suffice, sentences are missing
    std::vector<uint32_t> first_edge;   // edges of state i: first_edge[i] up to first_edge[i + 1]
    std::vector<uint8_t> bytes;         // of each edge, ascending within a state
    std::vector<uint32_t> targets;      // of each edge
    std::vector<uint32_t> first_accept; // likewise for `accepts`
    std::vector<uint32_t> accepts;      // ACCEPT values of sentences that end here, ascending

    size_t n_states() const { return first_edge.size() - 1; }
};

// The sentences of an automaton that end with an ACCEPT value which is not `free` (values past the
// end of `free` are not); values that are, too, are noted where such a sentence has them. Words to
// skip are left out. Sentences are found in the order of their length, until `effort`
// configurations were looked at.
//
// Throws std::length_error when sentences go round in circles, or calls nest too deeply.
SentenceGraph sentence_graph(const Automaton &automaton, const std::vector<bool> &free,
                             size_t effort);

// What can follow the part of a text that begins a sentence.
struct Ahead {
    size_t reached = 0;             // bytes of text, whole words, that begin a sentence
    std::vector<std::string> words; // in byte order
    std::vector<bool> calls;        // which of `calls` can be run
    bool more = false;              // there are more words than wanted
};

// `calls`: first nodes of networks, ascending, which are named in place of the words they begin
// with. At most `most` words, of at most max_word_bytes.
constexpr size_t max_word_bytes = 64;
Ahead look_ahead(const Automaton &automaton, const char *text, size_t length,
                 const std::vector<uint32_t> &calls, size_t most);

// How many tokens of a vocabulary the decoder may go on with after a text; 0 when it begins no
// sentence. Here any text is allowed, not only plain one.
size_t count_choices(std::shared_ptr<const Automaton> automaton, const VocabTrie &trie,
                     const char *text, size_t length);

} // namespace ev
