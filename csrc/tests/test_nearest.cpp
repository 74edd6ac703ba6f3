// The search for the nearest sentences: what it finds is of the grammar, in order, and bounded.
// tests/test_nearest.py compares the costs with a reference.
#include "nearest.h"
#include "reference.h"

#include <set>
#include <stdexcept>

namespace test {

namespace {

constexpr int32_t plenty = 1'000'000;

const ev::Language english{
    "two five fifteen", "the to", "the uh", "bp dt aeiou", "eh", "t", "f ph"};

// "turn (on|off) [the] lamp", "set phone lamp to (five|5)"
std::shared_ptr<const ev::Automaton> lamps() {
    Network network(13);
    network.word(0, "turn", 1).arc(1, EV_ARC_SEPARATOR, 0, 2);
    network.word(2, "on", 3).word(2, "off", 3).arc(3, EV_ARC_SEPARATOR, 0, 4);
    network.word(4, "the", 5).arc(5, EV_ARC_SEPARATOR, 0, 6).arc(4, EV_ARC_EPSILON, 0, 6);
    network.word(6, "lamp", 7).arc(7, EV_ARC_ACCEPT, 0, 0);
    network.word(0, "set", 8).arc(8, EV_ARC_SEPARATOR, 0, 9).word(9, "phone", 10);
    network.arc(10, EV_ARC_SEPARATOR, 0, 11).word(11, "lamp", 12);
    const uint32_t to = uint32_t(network.nodes.size());
    network.nodes.resize(to + 4);
    network.arc(12, EV_ARC_SEPARATOR, 0, to).word(to, "to", to + 1);
    network.arc(to + 1, EV_ARC_SEPARATOR, 0, to + 2);
    network.word(to + 2, "five", to + 3).word(to + 2, "5", to + 3);
    network.arc(to + 3, EV_ARC_ACCEPT, 1, 0);
    return network.automaton();
}

std::string best(ev::Nearest &nearest, const std::string &text) {
    const auto found = nearest.find(text, 1000, 1, plenty);
    if (found.sentences.empty())
        return "";
    return found.sentences[0].text + " " + std::to_string(found.sentences[0].cost);
}

void words_are_put_right() {
    ev::Nearest nearest(*lamps(), english);
    CHECK(best(nearest, "Turn on the lamp") == "Turn on the lamp 0");
    CHECK(best(nearest, "turn on the lamb") == "turn on the lamp 50");
    CHECK(best(nearest, "turn on teh lamp") == "turn on the lamp 50");
    CHECK(best(nearest, "turn on the la mp") == "turn on the lamp 25");
    CHECK(best(nearest, "turn on thelamp") == "turn on the lamp 25");
    CHECK(best(nearest, "turn on uh lamp") == "turn on lamp 50");
    CHECK(best(nearest, "set fone lamp 5") == "set phone lamp to 5 150"); // f for ph at the begin
    CHECK(best(nearest, "turn on the banana") == "turn on the lamp 300");
}

void what_is_known_and_numbers_stay() {
    ev::Nearest nearest(*lamps(), english);
    CHECK(nearest.find("turn the lamp", 299, 9, plenty).sentences.empty()); // on or off?
    for (const auto &sentence : nearest.find("turn on the lamp", 299, 9, plenty).sentences)
        CHECK(sentence.text.find(" on ") != std::string::npos);
    CHECK(best(nearest, "set phone lamp to fivf").empty()); // a number is right or wrong
    CHECK(best(nearest, "set phone lamp to fifteen").empty());
    CHECK(nearest.find("set phone lamp to", 899, 9, plenty).sentences.empty());
    CHECK(best(nearest, "set phone lamp to 55").empty());
}

void other_texts_find_nothing() {
    ev::Nearest nearest(*lamps(), english);
    for (const char *text : {"", " ", "turn\x01on", "on\xff\xfe"})
        CHECK(nearest.find(text, 200, 9, plenty).sentences.empty());
    std::string longest;
    for (size_t i = 0; i <= ev::Nearest::max_words; ++i)
        longest += "lamp ";
    CHECK(nearest.find(longest, 1000, 9, plenty).sentences.empty());
    CHECK(nearest.find(std::string(100'000, 'x'), 200, 9, plenty).sentences.empty());
    CHECK(nearest.find("turn on", -1, 9, plenty).sentences.empty());
    ev::Nearest empty(*Network(1).automaton(), english);
    CHECK(empty.find("turn on", 1000, 9, plenty).sentences.empty());
}

void work_is_bounded() {
    ev::Nearest nearest(*lamps(), english);
    int32_t searched = 0;
    for (const int32_t work : {0, 1, 30, 300, 3000}) {
        const auto found = nearest.find("tirn the the lamb of", 1200, 64, work);
        CHECK(found.work <= work + 2000); // one step more at most
        CHECK(found.searched >= searched);
        searched = found.searched;
    }
}

void random_networks_have_their_sentences_found() {
    Random random(11);
    const std::string letters = "abph";
    int sentences = 0, texts = 0;
    for (int round = 0; round < 300; ++round) {
        const Network network = random_network(random, letters, random.one_in(4));
        bool free = false; // its sentences are not those of the network, but with a word for a byte
        for (const auto &node : network.nodes) {
            for (const ev::Arc &arc : node)
                free = free || arc.kind == EV_ARC_RANGE;
        }
        const auto automaton = network.automaton();
        if (automaton == nullptr)
            continue;
        try {
            ev::Nearest nearest(*automaton, english);
            ev::Dfa dfa(automaton);
            for (int i = 0; i < 10; ++i) {
                std::string text;
                for (uint32_t n = random.below(12); n > 0; --n)
                    text += random.one_in(4) ? ' ' : random.pick(letters);
                const auto found = nearest.find(text, 700, 8, 3000);
                std::set<std::string> seen;
                int32_t cost = 0;
                for (const auto &sentence : found.sentences) {
                    CHECK(free || accepted(dfa, sentence.text));
                    CHECK(sentence.cost >= cost && sentence.cost <= 700);
                    CHECK(seen.insert(sentence.text).second);
                    cost = sentence.cost;
                    ++sentences;
                }
                std::string tidy; // as the search reads it
                for (const char byte : text) {
                    if (byte != ' ' || (!tidy.empty() && tidy.back() != ' '))
                        tidy += byte;
                }
                if (!tidy.empty() && tidy.back() == ' ')
                    tidy.pop_back();
                if (!free && accepted(dfa, tidy)) {
                    CHECK(!found.sentences.empty() && found.sentences[0].cost == 0 &&
                          found.sentences[0].text == tidy);
                    ++texts;
                }
            }
        } catch (const std::length_error &) {
            // Calls that never end.
        }
    }
    CHECK(sentences > 300 && texts > 10); // else it would show nothing
}

} // namespace

void test_nearest() {
    words_are_put_right();
    what_is_known_and_numbers_stay();
    other_texts_find_nothing();
    work_is_bounded();
    random_networks_have_their_sentences_found();
}

} // namespace test
