// The table of all sentences, and what comes next in one, against lists written out by hand and
// against reference.h.
#include "sentences.h"

#include "reference.h"

#include <functional>
#include <map>
#include <set>
#include <stdexcept>

namespace test {

namespace {

using Sentences = std::map<std::string, std::vector<uint32_t>>; // text, ACCEPT values

// Every sentence of a graph, which must have the promised form.
Sentences listed(const ev::SentenceGraph &graph) {
    CHECK(graph.first_accept.size() == graph.first_edge.size());
    std::set<std::vector<uint32_t>> rows;
    for (size_t state = 0; state < graph.n_states(); ++state) {
        std::vector<uint32_t> row;
        for (uint32_t at = graph.first_accept[state]; at < graph.first_accept[state + 1]; ++at)
            row.push_back(graph.accepts[at]);
        row.push_back(UINT32_MAX);
        for (uint32_t at = graph.first_edge[state]; at < graph.first_edge[state + 1]; ++at) {
            CHECK(graph.targets[at] > state && graph.targets[at] < graph.n_states());
            CHECK(at == graph.first_edge[state] || graph.bytes[at - 1] < graph.bytes[at]);
            row.insert(row.end(), {graph.bytes[at], graph.targets[at]});
        }
        CHECK(row.size() > 1 || graph.n_states() == 1); // every state leads to a sentence
        CHECK(rows.insert(row).second);                 // and no two are the same
    }
    Sentences found;
    const std::function<void(uint32_t, const std::string &)> visit = [&](uint32_t state,
                                                                         const std::string &text) {
        const auto first = graph.accepts.begin() + graph.first_accept[state];
        const auto last = graph.accepts.begin() + graph.first_accept[state + 1];
        if (first != last)
            found[text] = {first, last};
        for (uint32_t at = graph.first_edge[state]; at < graph.first_edge[state + 1]; ++at)
            visit(graph.targets[at], text + char(graph.bytes[at]));
    };
    visit(0, "");
    return found;
}

Sentences sentences(const Network &network, const std::vector<bool> &free = {}) {
    const ev::SentenceGraph graph = ev::sentence_graph(*network.automaton(), free, SIZE_MAX);
    CHECK(graph.complete);
    return listed(graph);
}

// "turn on", "turn off" (1) and "turn on" (2) by two calls of one network, "on" (3).
Network lamps() {
    Network network(9);
    network.word(0, "turn", 1).arc(1, EV_ARC_SEPARATOR, 0, 2).arc(2, EV_ARC_CALL, 6, 3);
    network.arc(3, EV_ARC_ACCEPT, 1, 0);
    network.word(0, "turn", 4).arc(4, EV_ARC_SEPARATOR, 0, 5).word(5, "on", 8);
    network.arc(8, EV_ARC_ACCEPT, 2, 0).arc(0, EV_ARC_CALL, 6, 3);
    network.word(6, "on", 7).word(6, "off", 7).arc(7, EV_ARC_RETURN, 0, 0);
    return network;
}

void sentences_are_counted_once_with_all_their_values() {
    CHECK(sentences(lamps()) ==
          Sentences({{"turn on", {1, 2}}, {"turn off", {1}}, {"on", {1}}, {"off", {1}}}));
    Network none(2); // ends nowhere
    none.word(0, "a", 1);
    CHECK(sentences(none).empty());
    CHECK(sentences(Network(1)).empty());
    Network silence(1); // the empty text is no sentence
    silence.arc(0, EV_ARC_ACCEPT, 0, 0);
    CHECK(sentences(silence).empty());
}

void signs_are_written_without_a_space() {
    Network network(4);
    network.word(0, "5", 1).arc(1, EV_ARC_SEPARATOR, 0, 2).arc(2, EV_ARC_GLUE, '%', 3);
    network.word(2, "x", 3).arc(3, EV_ARC_SEPARATOR, 0, 3).arc(3, EV_ARC_ACCEPT, 0, 0);
    CHECK(sentences(network) == Sentences({{"5%", {0}}, {"5 x", {0}}}));
}

void cases_of_a_letter_count_once() {
    Network network(2);
    network.arc(0, EV_ARC_BYTE, 0xA9 | 0x89 << 8, 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    CHECK(sentences(network) == Sentences({{"\xA9", {0}}}));
}

void words_to_skip_are_left_out() {
    Network network(5);
    network.word(0, "a", 1).arc(1, EV_ARC_SEPARATOR, 3, 2).word(2, "b", 4);
    network.arc(4, EV_ARC_ACCEPT, 0, 0).nodes.resize(10);
    network.word(3, "x", 9).arc(9, EV_ARC_RETURN, 0, 0);
    CHECK(sentences(network) == Sentences({{"a b", {0}}}));
}

// "add {free}" (1) beside "add a", "add b c" (0) and "b" (2).
void free_text_is_noted_where_it_takes_a_sentence() {
    Network network(12);
    network.word(0, "add", 1).arc(1, EV_ARC_SEPARATOR, 0, 2).arc(2, EV_ARC_CALL, 3, 4);
    network.arc(4, EV_ARC_ACCEPT, 1, 0);
    network.arc(3, EV_ARC_RANGE, 'a' | 'z' << 8, 5).arc(5, EV_ARC_RANGE, 'a' | 'z' << 8, 5);
    network.arc(5, EV_ARC_SEPARATOR, 0, 3).arc(5, EV_ARC_RETURN, 0, 0);
    network.word(0, "add", 6).arc(6, EV_ARC_SEPARATOR, 0, 7).word(7, "a", 10).word(7, "b", 8);
    network.arc(8, EV_ARC_SEPARATOR, 0, 9).word(9, "c", 10).arc(10, EV_ARC_ACCEPT, 0, 0);
    network.word(0, "b", 11).arc(11, EV_ARC_ACCEPT, 2, 0);
    CHECK(sentences(network, {false, true}) ==
          Sentences({{"add a", {0, 1}}, {"add b c", {0, 1}}, {"b", {2}}}));
    CHECK(sentences(network, {true, true, true}).empty());
}

// A network whose arcs lead onwards, so that there is an end to its sentences. It calls another
// one, "a" or "b a", that all of them may.
Network without_circles(Random &random) {
    const uint32_t n = 3 + random.below(4), called = n, letter = n + 1;
    Network network(n + 2);
    for (uint32_t node = 0; node + 1 < n; ++node) {
        for (uint32_t arcs = 1 + random.below(3); arcs > 0; --arcs) {
            const uint32_t to = node + 1 + random.below(n - 1 - node);
            switch (random.below(6)) {
            case 0:
                network.arc(node, EV_ARC_EPSILON, 0, to);
                break;
            case 1:
                network.arc(node, EV_ARC_SEPARATOR, 0, to);
                break;
            case 2:
                network.arc(node, EV_ARC_CALL, called, to);
                break;
            case 3:
                network.arc(node, EV_ARC_ACCEPT, random.below(3), 0);
                break;
            default:
                network.arc(node, EV_ARC_BYTE, uint8_t(random.pick("ab")), to);
            }
        }
    }
    network.arc(n - 1, EV_ARC_ACCEPT, random.below(3), 0);
    network.arc(called, EV_ARC_BYTE, 'b', letter).arc(called, EV_ARC_BYTE, 'a', letter + 1);
    network.nodes.resize(n + 4);
    network.arc(letter, EV_ARC_SEPARATOR, 0, letter + 2)
        .arc(letter + 2, EV_ARC_BYTE, 'a', letter + 1);
    network.arc(letter + 1, EV_ARC_RETURN, 0, 0);
    return network;
}

void random_networks_have_the_sentences_of_the_reference() {
    Random random(5);
    size_t in_all = 0;
    for (int round = 0; round < 200 && failures == 0; ++round) {
        const Network network = without_circles(random);
        const Sentences found = sentences(network);
        Sentences wanted;
        std::vector<std::string> texts{""};
        for (size_t i = 0; i < texts.size(); ++i) {
            const std::string text = texts[i];
            std::set<uint32_t> accepts;
            for (const Reading &reading : reference_readings(network, text))
                accepts.insert(reading.accept);
            if (!accepts.empty() && text[0] != ' ')
                wanted[text] = {accepts.begin(), accepts.end()};
            if (text.size() < 6) {
                for (const char letter : std::string("ab "))
                    texts.push_back(text + letter);
            }
        }
        Sentences short_ones;
        for (const auto &[text, accepts] : found) {
            if (text.size() <= 6)
                short_ones[text] = accepts;
        }
        CHECK(short_ones == wanted);
        in_all += wanted.size();
    }
    CHECK(in_all > 400);
}

template <typename Body> bool too_much(Body body) {
    try {
        body();
        return false;
    } catch (const std::length_error &) {
        return true;
    }
}

void what_has_no_end_is_refused() {
    Network circle(2); // a, aa, aaa, ...
    circle.word(0, "a", 1).word(1, "a", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    CHECK(too_much([&] { sentences(circle); }));
    Network calls(2);
    calls.arc(0, EV_ARC_CALL, 0, 1);
    CHECK(too_much([&] { sentences(calls); }));
}

void little_effort_finds_short_sentences() {
    const ev::SentenceGraph nothing = ev::sentence_graph(*lamps().automaton(), {}, 0);
    CHECK(!nothing.complete && listed(nothing).empty());
    Sentences before;
    for (size_t effort = 1; effort < 60; ++effort) {
        const ev::SentenceGraph graph = ev::sentence_graph(*lamps().automaton(), {}, effort);
        const Sentences found = listed(graph);
        CHECK(found.size() >= before.size() && (!graph.complete || found.size() == 4));
        CHECK(found.empty() || found.count("on") == 1);
        before = found;
    }
    CHECK(before.size() == 4);
}

void check_ahead(const std::string &text, const std::vector<uint32_t> &calls, size_t most,
                 const std::string &reached, const std::vector<std::string> &words,
                 const std::vector<bool> &called, bool more) {
    const Network network = lamps();
    const ev::Ahead found =
        ev::look_ahead(*network.automaton(), text.data(), text.size(), calls, most);
    CHECK(text.substr(0, found.reached) == reached);
    CHECK(found.words == words);
    CHECK(found.calls == called);
    CHECK(found.more == more);
}

void what_comes_next_is_words_and_names() {
    check_ahead("", {}, 9, "", {"off", "on", "turn"}, {}, false);
    check_ahead("", {}, 2, "", {"off", "on"}, {}, true);
    check_ahead("", {}, 3, "", {"off", "on", "turn"}, {}, false);
    check_ahead("turn", {}, 9, "turn", {"off", "on"}, {}, false);
    check_ahead("turn", {6}, 9, "turn", {"on"}, {true}, false); // the word of the second sentence
    check_ahead("turn", {5, 7}, 9, "turn", {"off", "on"}, {false, false}, false);
    check_ahead("turn on", {}, 9, "turn on", {}, {}, false);
    for (const char *text : {"turn o", "turn onn", "turn of", "turn xyz on", "turn ", "turn  on"})
        check_ahead(text, {}, 9, "turn", {"off", "on"}, {}, false);
    check_ahead("tur", {}, 9, "", {"off", "on", "turn"}, {}, false);
    check_ahead("xx", {6}, 9, "", {"turn"}, {true}, false);
}

void long_words_are_left_out() {
    Network network(2);
    network.word(0, std::string(ev::max_word_bytes + 1, 'a'), 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    network.word(0, std::string(ev::max_word_bytes, 'b'), 1);
    const ev::Ahead found = ev::look_ahead(*network.automaton(), "", 0, {}, 9);
    CHECK(found.words == std::vector<std::string>{std::string(ev::max_word_bytes, 'b')});
}

void choices_are_tokens_that_do_not_leave_the_grammar() {
    const ev::VocabTrie trie(
        {"", "t", " turn", "Turn", " on", "on", " o", " of", "f", "x", ".", "n"});
    const auto choices = [&](const std::string &text) {
        return ev::count_choices(lamps().automaton(), trie, text.data(), text.size());
    };
    CHECK(choices("") == 7);       // "t", " turn", "Turn", "on" and " on", " o", " of"
    CHECK(choices("turn") == 3);   // " on", " o", " of"
    CHECK(choices("turn o") == 2); // "f", "n"
    CHECK(choices("Turn on") == 1);
    CHECK(choices("turn x") == 0);
}

void longest_token() {
    const ev::VocabTrie trie({"a", "b", "ab", "abcd", "", "\xff"});
    using Longest = std::pair<int32_t, size_t>;
    CHECK((trie.longest("") == Longest{-1, 0}));
    CHECK((trie.longest("ax") == Longest{0, 1}));
    CHECK((trie.longest("abc") == Longest{2, 2})); // "abcd" is not all there
    CHECK((trie.longest("abcde") == Longest{3, 4}));
    CHECK((trie.longest("ca") == Longest{-1, 0}));
    CHECK((trie.longest("\xff\xff") == Longest{5, 1}));
}

void fewest_tokens() {
    const ev::VocabTrie trie({"a", "b", "ab", "abc", "cd", "d", "bcd"});
    for (const auto &[text, wanted] : std::map<std::string, int32_t>{{"", 0},
                                                                     {"a", 1},
                                                                     {"ab", 1},
                                                                     {"abcd", 2},
                                                                     {"abd", 2},
                                                                     {"aabcdd", 4},
                                                                     {"c", -1},
                                                                     {"ax", -1}})
        CHECK(trie.fewest(text) == wanted);
}

} // namespace

void test_sentences() {
    sentences_are_counted_once_with_all_their_values();
    signs_are_written_without_a_space();
    cases_of_a_letter_count_once();
    words_to_skip_are_left_out();
    free_text_is_noted_where_it_takes_a_sentence();
    random_networks_have_the_sentences_of_the_reference();
    what_has_no_end_is_refused();
    little_effort_finds_short_sentences();
    what_comes_next_is_words_and_names();
    long_words_are_left_out();
    choices_are_tokens_that_do_not_leave_the_grammar();
    fewest_tokens();
    longest_token();
}

} // namespace test
