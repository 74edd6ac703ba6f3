// The automaton: match() and the DFA against each other and against reference.h.
#include "reference.h"

#include <algorithm>
#include <stdexcept>

namespace test {

namespace {

// The sentences of a network that have no free text.
Network without_free_text(Network network) {
    for (auto &arcs : network.nodes) {
        arcs.erase(std::remove_if(arcs.begin(), arcs.end(),
                                  [](const ev::Arc &arc) { return arc.kind == EV_ARC_RANGE; }),
                   arcs.end());
    }
    return network;
}

// All texts of up to `longest` of the letters: the readings, and what the DFA accepts, are those
// of the reference, and the DFA without free text is that of a network without. Without `ordered`,
// only which ACCEPT values there are counts: where bytes of words look like separators the order of
// the grammar says nothing.
bool agrees(const Network &network, const std::string &letters, size_t longest,
            bool ordered = true) {
    const auto automaton = network.automaton();
    if (automaton == nullptr)
        return false;
    ev::Dfa dfa(automaton), fixed(automaton, ev::Dfa::Text::fixed);
    ev::Dfa wanted_fixed(without_free_text(network).automaton());
    std::vector<std::string> texts{""};
    for (size_t i = 0; i < texts.size(); ++i) {
        const std::string text = texts[i];
        std::vector<Reading> wanted = reference_readings(network, text);
        std::vector<Reading> found = readings(*automaton, text);
        bool same = accepted(dfa, text) == !wanted.empty() &&
                    accepted(fixed, text) == accepted(wanted_fixed, text);
        if (ordered) {
            same = same && wanted == found;
        } else {
            const auto accepts = [](const std::vector<Reading> &all) {
                uint32_t mask = 0;
                for (const Reading &reading : all)
                    mask |= 1u << reading.accept;
                return mask;
            };
            same = same && accepts(wanted) == accepts(found);
        }
        if (!same) {
            fprintf(stderr, "%s; reference:%s; DFA %s\n", describe(network, text, found).c_str(),
                    describe(Network(0), text, wanted).c_str(),
                    accepted(dfa, text) ? "accepts" : "refuses");
            return false;
        }
        if (text.size() < longest) {
            for (const char letter : letters)
                texts.push_back(text + letter);
        }
    }
    return true;
}

bool reads(const Network &network, const std::string &text, const std::vector<Reading> &wanted) {
    const auto automaton = network.automaton();
    if (automaton == nullptr)
        return false;
    ev::Dfa dfa(automaton);
    const std::vector<Reading> found = readings(*automaton, text);
    const bool good = found == wanted && accepted(dfa, text) == !wanted.empty();
    if (!good)
        fprintf(stderr, "%s\n", describe(Network(0), text, found).c_str());
    return good;
}

void words_are_joined_by_separators() {
    Network network(4); // "ab cd"
    network.word(0, "ab", 1).arc(1, EV_ARC_SEPARATOR, 0, 2).word(2, "cd", 3);
    network.arc(3, EV_ARC_ACCEPT, 7, 0);
    const std::vector<Reading> yes{{7, {}}}, no;
    for (const char *text : {"ab cd", "ab-cd", "ab, cd", " ab cd", "AB Cd", "ab cd.", "ab cd?",
                             "ab cd!", " Ab, CD."}) {
        CHECK(reads(network, text, yes));
    }
    for (const char *text :
         {"", " ", "ab", "abcd", "ab  cd", "ab,cd", "ab , cd", "ab- cd", "ab c", "ab cd ", "ab cd,",
          "ab cd..", "  ab cd", "-ab cd", ".", "ab. cd", "ab cd. ", "ab cde", "xb cd"}) {
        CHECK(reads(network, text, no));
    }
    CHECK(reads(network, std::string("ab cd\0", 6), no));
    CHECK(agrees(network, "abcd -", 5));
}

void glue_may_leave_the_separator_out() {
    Network network(4); // "5%" or "5 %"
    network.word(0, "5", 1).arc(1, EV_ARC_SEPARATOR, 0, 2).arc(2, EV_ARC_GLUE, '%', 3);
    network.arc(3, EV_ARC_SEPARATOR, 0, 3).arc(3, EV_ARC_ACCEPT, 0, 0);
    for (const char *text : {"5%", "5 %", "5-%", "5, %", "5%."}) {
        CHECK(reads(network, text, {{0, {}}}));
    }
    for (const char *text : {"5", "5  %", "5,%", "5%%"})
        CHECK(reads(network, text, {}));
    CHECK(agrees(network, "5% -,.", 6));
}

void separators_at_the_edges_and_in_runs_count_nothing() {
    Network network(8);
    network.arc(0, EV_ARC_SEPARATOR, 0, 1).word(1, "a", 2);
    network.arc(2, EV_ARC_SEPARATOR, 0, 3).arc(3, EV_ARC_LABEL, 4, 4);
    network.arc(4, EV_ARC_SEPARATOR, 0, 5).word(5, "b", 6);
    network.arc(6, EV_ARC_SEPARATOR, 0, 7).arc(7, EV_ARC_ACCEPT, 1, 0);
    CHECK(reads(network, "a b", {{1, {{4, 2}}}}));
    CHECK(reads(network, " a, b!", {{1, {{4, 4}}}}));
    CHECK(agrees(network, "ab ,-.A", 5));
}

void bytes_are_bytes() {
    Network network(2);
    network.word(0, "\xc3\xa9\xff", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    CHECK(reads(network, "\xc3\xa9\xff", {{0, {}}}));
    CHECK(reads(network, "\xe3\xa9\xff", {})); // no case outside of ASCII
    Network upper(2);
    upper.word(0, "A", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    CHECK(reads(upper, "A", {})); // tables hold lower case; this one matches nothing
    Network zero(2);
    zero.arc(0, EV_ARC_BYTE, 0, 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    CHECK(reads(zero, std::string(1, '\0'), {{0, {}}}));
}

void calls_return_to_their_caller() {
    // 0 -call 4-> 1 -sep-> 2 -call 4-> 3 accepts; 4 reads "a" (label 0) or "b" (label 1).
    Network network(6);
    network.arc(0, EV_ARC_CALL, 4, 1).arc(1, EV_ARC_SEPARATOR, 0, 2).arc(2, EV_ARC_CALL, 4, 3);
    network.arc(3, EV_ARC_ACCEPT, 0, 0);
    for (uint32_t i = 0; i < 2; ++i) {
        network.nodes.emplace_back();
        const uint32_t middle = uint32_t(network.nodes.size() - 1);
        network.word(4, std::string(1, char('a' + i)), middle).arc(middle, EV_ARC_LABEL, i, 5);
    }
    network.arc(5, EV_ARC_RETURN, 0, 0);
    CHECK(reads(network, "a b", {{0, {{0, 1}, {1, 3}}}}));
    CHECK(reads(network, "b, a.", {{0, {{1, 1}, {0, 4}}}}));
    CHECK(reads(network, "a", {}));
    CHECK(agrees(network, "ab ,-.", 5));
}

void an_accept_inside_a_call_does_not_end_the_sentence() {
    Network network(4);
    network.arc(0, EV_ARC_CALL, 2, 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    network.word(2, "a", 3).arc(3, EV_ARC_ACCEPT, 1, 0);
    CHECK(reads(network, "a", {}));
    network.arc(3, EV_ARC_RETURN, 0, 0);
    CHECK(reads(network, "a", {{0, {}}}));
    CHECK(agrees(network, "a.", 3));
}

void each_accept_is_reported_once_in_the_order_of_the_grammar() {
    Network network(2);
    network.nodes.resize(5);
    network.word(0, "x", 2).arc(2, EV_ARC_LABEL, 20, 1);
    network.word(0, "x", 3).arc(3, EV_ARC_LABEL, 10, 1); // the same node, later: not reported
    network.word(0, "x", 4).arc(4, EV_ARC_LABEL, 30, 4).arc(4, EV_ARC_ACCEPT, 0, 0);
    network.arc(1, EV_ARC_ACCEPT, 5, 0).arc(1, EV_ARC_ACCEPT, 5, 0).arc(1, EV_ARC_ACCEPT, 3, 0);
    CHECK(reads(network, "x", {{5, {{20, 1}}}, {3, {{20, 1}}}, {0, {}}}));
    CHECK(agrees(network, "x ", 3));
}

// Both ways lead to node 2 without reading; the longer one stands first in the grammar.
void of_two_ways_the_first_in_the_grammar_wins() {
    Network network(4);
    network.arc(0, EV_ARC_LABEL, 1, 1).arc(0, EV_ARC_LABEL, 9, 2);
    network.arc(1, EV_ARC_EPSILON, 0, 2).word(2, "a", 3).arc(3, EV_ARC_ACCEPT, 0, 0);
    CHECK(reads(network, "a", {{0, {{1, 0}}}}));
    CHECK(agrees(network, "a ", 3));
}

void loops_without_bytes_end() {
    Network network(3);
    network.arc(0, EV_ARC_EPSILON, 0, 0).arc(0, EV_ARC_LABEL, 1, 1).arc(1, EV_ARC_EPSILON, 0, 0);
    network.arc(1, EV_ARC_SEPARATOR, 0, 1).word(1, "a", 2).arc(2, EV_ARC_LABEL, 2, 0);
    network.arc(2, EV_ARC_ACCEPT, 0, 0).arc(0, EV_ARC_ACCEPT, 1, 0);
    CHECK(agrees(network, "a -.", 6));
    Network nothing(1);
    nothing.arc(0, EV_ARC_EPSILON, 0, 0);
    CHECK(agrees(nothing, "a ", 2));
    CHECK(agrees(Network(1), "a ", 2));
}

// "add", a free text, "to" and "now": 3 reads the text, words of any letters.
Network shopping() {
    Network network(12);
    network.word(0, "add", 1).arc(1, EV_ARC_SEPARATOR, 0, 2).arc(2, EV_ARC_CALL, 3, 4);
    network.arc(3, EV_ARC_RANGE, 0x21 | 0x7E << 8, 5);
    network.arc(5, EV_ARC_EPSILON, 0, 6).arc(5, EV_ARC_RANGE, 0x21 | 0x7E << 8, 5);
    network.arc(5, EV_ARC_SEPARATOR, 0, 3).arc(6, EV_ARC_LABEL, 1, 7).arc(7, EV_ARC_RETURN, 0, 0);
    network.arc(4, EV_ARC_SEPARATOR, 0, 8).arc(4, EV_ARC_ACCEPT, 1, 0);
    network.word(8, "to", 9).arc(9, EV_ARC_SEPARATOR, 0, 10);
    return network.word(10, "now", 11).arc(11, EV_ARC_ACCEPT, 2, 0);
}

void free_text_is_as_short_as_the_sentence_allows() {
    const Network network = shopping();
    CHECK(reads(network, "add Milk to now", {{2, {{1, 8}}}}));
    CHECK(reads(network, "add milk to go to now.", {{2, {{1, 14}}}}));
    CHECK(reads(network, "add milk.", {{1, {{1, 8}}}}));     // the mark is not of the text
    CHECK(reads(network, "add 3.5, a-b", {{1, {{1, 12}}}})); // all else is
    CHECK(reads(network, "add to now", {{1, {{1, 10}}}}));   // never empty
    CHECK(reads(network, "add to to now", {{2, {{1, 6}}}}));
    for (const char *text : {"add", "add ", "add  x", "addx", "add x ", "add x\x7f", "add x\n"})
        CHECK(reads(network, text, {}));
    CHECK(agrees(network, "ad to", 6, false));
}

void fewer_free_texts_are_better() {
    Network network(6); // {a} or {a} "x" {a}; 4 reads letters and spaces as the text
    network.arc(0, EV_ARC_CALL, 4, 1).arc(1, EV_ARC_ACCEPT, 1, 0).word(1, "x", 2);
    network.arc(2, EV_ARC_CALL, 4, 3).arc(3, EV_ARC_ACCEPT, 2, 0);
    network.arc(4, EV_ARC_RANGE, 'a' | 'z' << 8, 5).arc(5, EV_ARC_RETURN, 0, 0);
    network.arc(5, EV_ARC_RANGE, 'a' | 'z' << 8, 5);
    CHECK(reads(network, "axb", {{1, {}}}));
    CHECK(reads(network, "aXb", {{2, {}}})); // a range has no upper case
    CHECK(agrees(network, "axbX", 5, false));
}

void ranges_are_ranges() {
    Network network(2);
    network.arc(0, EV_ARC_RANGE, 0x80 | 0xFF << 8, 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    network.arc(0, EV_ARC_RANGE, 'B' | 'B' << 8, 1).arc(0, EV_ARC_RANGE, 0, 1);
    const auto automaton = network.automaton();
    ev::Dfa dfa(automaton);
    for (int byte = 0; byte < 256; ++byte) {
        const bool inside = byte >= 0x80 || byte == 'B' || byte == 0;
        const std::string text(1, char(byte));
        CHECK(
            reads(network, text, inside ? std::vector<Reading>{{0, {}}} : std::vector<Reading>{}));
        CHECK(dfa.possible(dfa.start())[size_t(byte)] == (inside || byte == ' '));
    }
}

void words_may_be_skipped_at_a_separator() {
    Network network(7); // "a b"; 4 reads "x" and "b" to be skipped
    network.word(0, "a", 1).arc(1, EV_ARC_SEPARATOR, 4, 2).word(2, "b", 3);
    network.arc(2, EV_ARC_LABEL, 7, 2).arc(3, EV_ARC_SEPARATOR, 4, 3).arc(3, EV_ARC_ACCEPT, 0, 0);
    network.word(4, "x", 5).word(4, "b", 5).arc(5, EV_ARC_SEPARATOR, 0, 6);
    network.arc(6, EV_ARC_EPSILON, 0, 4).arc(6, EV_ARC_RETURN, 0, 0);
    for (const char *text : {"a b", "a x b", "a, x-x b.", "a b x", "a b b", "a x b x"})
        CHECK(reads(network, text, {{0, {}}}));
    for (const char *text : {"a xb", "ax b", "x a b", "a x", "a  b", "a b  x"})
        CHECK(reads(network, text, {}));
    CHECK(agrees(network, "abx ,", 6, false));
}

void skipping_is_the_last_resort() {
    Network network(4); // "a" (1) and "a x" (2), skipping "x"
    network.word(0, "a", 1).arc(1, EV_ARC_SEPARATOR, 3, 1).arc(1, EV_ARC_ACCEPT, 1, 0);
    network.arc(1, EV_ARC_SEPARATOR, 0, 2).nodes.resize(7);
    network.word(2, "x", 4).arc(4, EV_ARC_ACCEPT, 2, 0);
    network.word(3, "x", 5).arc(5, EV_ARC_RETURN, 0, 0);
    CHECK(reads(network, "a", {{1, {}}}));
    CHECK(reads(network, "a x", {{2, {}}}));
    CHECK(agrees(network, "ax ", 6, false));
}

// Where the search must not list the tokens; and few states however long the text.
void states_of_free_text_are_free_and_few() {
    const auto automaton = shopping().automaton();
    ev::Dfa dfa(automaton);
    int32_t state = dfa.start();
    std::string before;
    for (const char byte : std::string("add milk, to n")) {
        CHECK(dfa.free(state) == (before.size() >= 3));
        state = dfa.step(state, uint8_t(byte));
        before += byte;
    }
    CHECK(dfa.free(state));
    Random random(11);
    for (int i = 0; i < 100'000; ++i) {
        const int32_t next = dfa.step(state, uint8_t(random.pick("abnotw ,-.")));
        if (next != ev::Dfa::dead)
            state = next;
    }
    CHECK(dfa.bytes() < 100'000);
    dfa.clear();
    CHECK(dfa.bytes() < 100);

    Network plain(2);
    plain.word(0, "a", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    ev::Dfa other(plain.automaton());
    CHECK(!other.free(other.start()));
}

// What begins no sentence without free text is a dead end from its first letter.
void without_free_text_nothing_leads_nowhere() {
    Network network = shopping();
    ev::Dfa none(network.automaton(), ev::Dfa::Text::fixed);
    CHECK(!network.automaton()->has_both());
    CHECK(none.start() == ev::Dfa::dead);

    network.word(0, "go", 11);
    const auto automaton = network.automaton();
    CHECK(automaton->has_both());
    ev::Dfa fixed(automaton, ev::Dfa::Text::fixed);
    const int32_t start = fixed.start();
    CHECK(fixed.step(start, 'a') == ev::Dfa::dead); // "add ..."
    CHECK(fixed.step(start, 'g') != ev::Dfa::dead && !fixed.free(start));
    CHECK(!without_free_text(network).automaton()->has_both());
}

void random_networks_agree() {
    Random random(3);
    for (int round = 0; round < 50 && failures == 0; ++round) {
        const Network network = random_network(random, "ab%", false);
        bool costs = false; // readings with as much free text have no order in the reference
        for (const auto &arcs : network.nodes) {
            for (const ev::Arc &arc : arcs) {
                costs = costs || arc.kind == EV_ARC_RANGE ||
                        (arc.kind == EV_ARC_SEPARATOR && arc.value != 0);
            }
        }
        CHECK(agrees(network, "ab% ", 4, !costs));
        CHECK(agrees(random_network(random, "a ,-.", false), "aA ,-.", 4, false));
    }
}

// ---- tables that contradict themselves ----

bool refused(const std::vector<uint32_t> &arcs, const std::vector<uint32_t> &first_arc,
             size_t n_nodes) {
    std::string error;
    const auto automaton =
        ev::Automaton::make(arcs.data(), arcs.size() / 3, first_arc.data(), n_nodes, error);
    CHECK((automaton == nullptr) == !error.empty());
    return automaton == nullptr;
}

void contradictory_tables_are_refused() {
    const uint32_t byte = EV_ARC_BYTE, call = EV_ARC_CALL, accept = EV_ARC_ACCEPT;
    const std::vector<uint32_t> good{byte, 'a', 1, accept, 0, 0}, first{0, 1, 2};
    CHECK(!refused(good, first, 2));
    CHECK(!refused({}, {0, 0}, 1));
    CHECK(refused({}, {0}, 0));
    CHECK(refused(good, {0, 1, 1}, 2));                                 // an arc of nobody
    CHECK(refused(good, {1, 1, 2}, 2));                                 // likewise
    CHECK(refused(good, {0, 1, 3}, 2));                                 // more arcs than there are
    CHECK(refused(good, {0, 2, 1, 2}, 3));                              // decreases
    CHECK(refused(good, {0, UINT32_MAX, 2}, 2));                        // likewise
    CHECK(refused({byte, 'a', 2, accept, 0, 0}, first, 2));             // target is no node
    CHECK(refused({byte, 'a', UINT32_MAX, accept, 0, 0}, first, 2));    // likewise
    CHECK(refused({byte, 0x10000, 1, accept, 0, 0}, first, 2));         // no byte
    CHECK(refused({EV_ARC_GLUE, 0x10000, 1, accept, 0, 0}, first, 2));  // likewise
    CHECK(refused({EV_ARC_RANGE, 0x10000, 1, accept, 0, 0}, first, 2)); // likewise
    CHECK(refused({EV_ARC_RANGE, 2 | 1 << 8, 1, accept, 0, 0}, first, 2)); // runs backwards
    CHECK(refused({EV_ARC_SEPARATOR, 2, 1, accept, 0, 0}, first, 2));      // skips no network
    CHECK(refused({call, 2, 1, accept, 0, 0}, first, 2));                  // calls no node
    CHECK(refused({EV_ARC_KINDS, 0, 1, accept, 0, 0}, first, 2));          // no kind
    CHECK(refused({UINT32_MAX, 0, 1, accept, 0, 0}, first, 2));            // likewise
    CHECK(refused({EV_ARC_LABEL, 1u << 31, 1, accept, 0, 0}, first, 2));   // labels are int32_t
    CHECK(refused({byte, 'a', 1, accept, 1u << 31, 0}, first, 2));
}

// ---- networks that call without end ----

template <typename Body> bool too_much(Body body) {
    try {
        body();
        return false;
    } catch (const std::length_error &) {
        return true;
    }
}

// match() and the DFA both end with std::length_error, which the C API makes EV_ERR_GRAMMAR;
// match() need not follow what no byte can come of.
bool ends_cleanly(const Network &network, bool reads = false) {
    const auto automaton = network.automaton();
    if (automaton == nullptr)
        return true; // refused at once is as good
    ev::Dfa dfa(automaton);
    bool nothing = false;
    const bool ended = too_much([&] { nothing = automaton->match("a", 1).empty(); });
    return (ended || (nothing && !reads)) && too_much([&] { dfa.start(); });
}

void endless_calls_end_in_an_error() {
    Network self(2);
    self.arc(0, EV_ARC_CALL, 0, 1);
    CHECK(ends_cleanly(self));
    self.arc(0, EV_ARC_BYTE, 'a', 1);
    CHECK(ends_cleanly(self, true));

    Network mutual(3);
    mutual.arc(0, EV_ARC_CALL, 1, 2).arc(1, EV_ARC_EPSILON, 0, 0);
    CHECK(ends_cleanly(mutual));
    mutual.arc(0, EV_ARC_BYTE, 'a', 2);
    CHECK(ends_cleanly(mutual, true));

    Network forks(3); // each level doubles the number of stacks: 2^64 before the depth ends it
    forks.arc(0, EV_ARC_CALL, 0, 1).arc(0, EV_ARC_CALL, 0, 2);
    CHECK(ends_cleanly(forks));
    forks.arc(0, EV_ARC_BYTE, 'a', 1);
    CHECK(ends_cleanly(forks, true));

    // No recursion, but 30 rules that each name the next one twice: 2^30 stacks.
    Network laughs(0);
    for (uint32_t rule = 0; rule < 30; ++rule) {
        laughs.nodes.resize(3 * rule + 6);
        laughs.arc(3 * rule, EV_ARC_CALL, 3 * rule + 3, 3 * rule + 1);
        laughs.arc(3 * rule, EV_ARC_CALL, 3 * rule + 3, 3 * rule + 2);
        laughs.arc(3 * rule + 1, EV_ARC_RETURN, 0, 0).arc(3 * rule + 2, EV_ARC_RETURN, 0, 0);
    }
    laughs.word(90, "a", 91).arc(91, EV_ARC_RETURN, 0, 0);
    CHECK(ends_cleanly(laughs));

    Network right(3); // reads a byte before it calls itself: fails where the text is deep enough
    right.word(0, "a", 1).arc(1, EV_ARC_CALL, 0, 2).arc(1, EV_ARC_ACCEPT, 0, 0);
    right.arc(2, EV_ARC_RETURN, 0, 0);
    if (const auto automaton = right.automaton(); automaton != nullptr) {
        CHECK(reads(right, "a", {{0, {}}}));
        const std::string deep(100, 'a');
        ev::Dfa dfa(automaton);
        CHECK(too_much([&] { automaton->match(deep.data(), deep.size()); }));
        CHECK(too_much([&] { accepted(dfa, deep); }));
        CHECK(accepted(dfa, "a")); // usable after an error
    }
}

void sixty_four_levels_are_allowed() {
    const uint32_t levels = 64;
    Network network(0);
    for (uint32_t level = 0; level < levels; ++level) {
        network.nodes.resize(2 * level + 4);
        network.arc(2 * level, EV_ARC_CALL, 2 * level + 2, 2 * level + 1);
        if (level > 0)
            network.arc(2 * level + 1, EV_ARC_RETURN, 0, 0);
    }
    network.arc(1, EV_ARC_ACCEPT, 0, 0);
    network.word(2 * levels, "a", 2 * levels + 1).arc(2 * levels + 1, EV_ARC_RETURN, 0, 0);
    CHECK(reads(network, "a", {{0, {}}}));
    CHECK(reads(network, "aa", {}));
}

} // namespace

void test_automaton() {
    words_are_joined_by_separators();
    glue_may_leave_the_separator_out();
    separators_at_the_edges_and_in_runs_count_nothing();
    bytes_are_bytes();
    calls_return_to_their_caller();
    an_accept_inside_a_call_does_not_end_the_sentence();
    each_accept_is_reported_once_in_the_order_of_the_grammar();
    of_two_ways_the_first_in_the_grammar_wins();
    loops_without_bytes_end();
    free_text_is_as_short_as_the_sentence_allows();
    fewer_free_texts_are_better();
    ranges_are_ranges();
    states_of_free_text_are_free_and_few();
    without_free_text_nothing_leads_nowhere();
    words_may_be_skipped_at_a_separator();
    skipping_is_the_last_resort();
    random_networks_agree();
    contradictory_tables_are_refused();
    endless_calls_end_in_an_error();
    sixty_four_levels_are_allowed();
}

} // namespace test
