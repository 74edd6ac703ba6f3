// Random damage, the same at every run but for how far the time goes: tables, texts, model files.
// Nothing may crash, and match() and the DFA must not contradict each other.
//
// EDGEVOICE_FUZZ_SECONDS=N: how long all of it takes; default 16, half of it for the tables.
#include "edgevoice.h"

#include "check.h"
#include "model_file.h"
#include "reference.h"
#include "synthetic_model.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <stdexcept>

namespace test {

namespace {

constexpr double usual_seconds = 16.0;

double fuzz_seconds() {
    const char *wanted = getenv("EDGEVOICE_FUZZ_SECONDS");
    return wanted != nullptr && *wanted != 0 ? atof(wanted) : usual_seconds;
}

std::string random_text(Random &random, const std::string &letters) {
    std::string text(random.below(random.one_in(20) ? 300 : 9), '\0');
    for (char &byte : text)
        byte = random.one_in(30) ? char(random.next()) : random.pick(letters);
    return text;
}

// One number of the tables becomes another.
void damage(Random &random, std::vector<uint32_t> &table) {
    if (table.empty())
        return;
    const uint32_t values[] = {0, 1, 255, 256, UINT32_MAX, 1u << 31, random.below(12)};
    table[random.below(uint32_t(table.size()))] = values[random.below(7)];
}

void match_and_dfa_agree(const ev::Automaton &automaton, ev::Dfa &dfa, const std::string &text) {
    try {
        const bool matches = !readings(automaton, text).empty();
        CHECK(accepted(dfa, text) == matches);
        automaton.can_go_on(text.data(), text.size());
    } catch (const std::length_error &) {
        // Calls that never end; test_automaton.cpp has what is expected of them.
    }
}

// Free text as the compiler writes it, damaged: a RANGE that goes round in a network of its own,
// with a separator between two words, somewhere in a random network.
void add_free_text(Random &random, Network &network) {
    const uint32_t n = uint32_t(network.nodes.size()), text = n, inside = n + 1;
    network.nodes.resize(n + 2);
    const uint32_t low = random.below(128), high = low + random.below(256 - low);
    network.arc(text, EV_ARC_RANGE, low | high << 8, inside);
    network.arc(inside, EV_ARC_RANGE, low | high << 8, inside).arc(inside, EV_ARC_RETURN, 0, 0);
    network.arc(inside, EV_ARC_SEPARATOR, random.one_in(4) ? random.below(n) : 0, text);
    for (int i = 0; i < 2; ++i)
        network.arc(random.below(n), EV_ARC_CALL, text, random.below(n));
}

// What the grammar says of itself ends in a table or an error, whatever the grammar.
void describe_itself(Random &random, const ev_grammar *grammar, uint32_t n_nodes,
                     const std::string &text) {
    const std::vector<uint8_t> is_free{uint8_t(random.below(2)), uint8_t(random.below(2))};
    ev_sentences *sentences = nullptr;
    const ev_status made =
        ev_grammar_sentences(grammar, is_free.data(), is_free.size(), 5000, &sentences);
    CHECK((made == EV_OK) == (sentences != nullptr) && (made == EV_OK || made == EV_ERR_GRAMMAR));
    if (made == EV_OK) {
        ev_sentence_graph graph{};
        ev_sentences_get(sentences, &graph);
        for (size_t i = 0; i < graph.first_edge[graph.n_states]; ++i)
            CHECK(graph.targets[i] > 0 && graph.targets[i] < graph.n_states);
        ev_sentences_free(sentences);
    }
    const uint32_t calls[] = {random.below(n_nodes)};
    constexpr size_t most = 5;
    std::vector<char> words(most * 65);
    uint8_t called[1];
    ev_ahead ahead{};
    const ev_status looked = ev_grammar_ahead(grammar, text.data(), text.size(), calls, 1, most,
                                              words.data(), called, &ahead);
    CHECK(looked == EV_OK || looked == EV_ERR_GRAMMAR);
    CHECK(ahead.reached <= text.size() && ahead.size <= words.size());
}

// Any text at all, in any tables: it ends, with what it may end with.
void find_nearest(ev_nearest *nearest, const std::string &text, Random &random) {
    const ev_near *found = nullptr;
    int32_t n_found = 0, searched = 0, work = 0;
    const int32_t most = int32_t(random.below(1000)), n = 1 + int32_t(random.below(8));
    const ev_status status = ev_nearest_find(nearest, text.data(), text.size(), most, n, 2000,
                                             &found, &n_found, &searched, &work);
    CHECK(status == EV_OK || status == EV_ERR_GRAMMAR);
    for (int32_t i = 0; i < n_found; ++i)
        CHECK(found[i].cost <= most && (i == 0 || found[i].cost >= found[i - 1].cost));
}

void fuzz_tables(double seconds) {
    Random random(7);
    int texts_in_range = 0; // accepted ones in which a RANGE arc may have been passed
    const std::string letters = "ab% ,-.A";
    for (const Timer timer(seconds); timer.running();) {
        Network network = random_network(random, letters, random.one_in(4));
        const bool free = random.one_in(3);
        if (free)
            add_free_text(random, network);
        std::vector<uint32_t> arcs = network.arcs(), first = network.first_arc();
        if (random.one_in(2))
            damage(random, arcs);
        if (random.one_in(8))
            damage(random, first);
        ev_grammar *grammar = nullptr;
        const size_t n_nodes = network.nodes.size();
        const ev_status status =
            ev_grammar_open(arcs.data(), arcs.size() / 3, first.data(), n_nodes, &grammar);
        CHECK((status == EV_OK && grammar != nullptr) ||
              (status == EV_ERR_GRAMMAR && grammar == nullptr && *ev_last_error() != 0));
        std::string error;
        const auto automaton =
            ev::Automaton::make(arcs.data(), arcs.size() / 3, first.data(), n_nodes, error);
        CHECK((automaton != nullptr) == (grammar != nullptr));
        if (automaton == nullptr || grammar == nullptr)
            continue;

        const ev_language language{"aa", "a", "b", "ab", "a", "b", "b aa"};
        ev_nearest *nearest = nullptr;
        const ev_status opened = ev_nearest_open(grammar, &language, &nearest);
        CHECK((opened == EV_OK && nearest != nullptr) || opened == EV_ERR_GRAMMAR);
        ev::Dfa dfa(automaton);
        for (int i = 0; i < 40 && timer.running(); ++i) {
            const std::string text = random_text(random, letters);
            std::vector<ev_label> labels(random.below(4));
            size_t n = 0;
            const ev_status matched = ev_grammar_match(grammar, text.data(), text.size(),
                                                       labels.data(), labels.size(), &n);
            CHECK(matched == EV_OK || matched == EV_ERR_GRAMMAR);
            match_and_dfa_agree(*automaton, dfa, text);
            if (nearest != nullptr && random.one_in(8))
                find_nearest(nearest, text, random);
            texts_in_range += free && matched == EV_OK && n > 0;
        }
        ev_nearest_free(nearest);
        describe_itself(random, grammar, uint32_t(n_nodes), random_text(random, letters));
        ev_grammar_free(grammar);
    }
    CHECK(texts_in_range > 0); // else it would show nothing about free text
}

// Overwrites a few bytes of `path`, tries it, and puts `original` back.
class DamagedFile {
  public:
    DamagedFile(std::string path, std::string original)
        : path_(std::move(path)), original_(std::move(original)) {}

    void damage(Random &random, size_t most) {
        std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
        const size_t size = std::min(original_.size(), most);
        for (uint32_t i = 0; i <= random.below(3); ++i) {
            // Half of the damage to the 11 numbers of the header and the two of the mel filters.
            const size_t at = random.one_in(2) ? random.below(56) : random.below(uint32_t(size));
            const bool flip = random.one_in(2);
            const char byte =
                flip ? char(original_[at] ^ (1 << random.below(8))) : char(random.next());
            file.seekp(std::streamoff(at));
            file.put(byte);
            places_.push_back(at);
        }
    }

    void restore() {
        std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
        for (const size_t at : places_) {
            file.seekp(std::streamoff(at));
            file.put(original_[at]);
        }
        places_.clear();
    }

  private:
    std::string path_;
    std::string original_; // the beginning of it, at least
    std::vector<size_t> places_;
};

// A file that passes the check is loaded too: what passes must not crash whisper.cpp.
void fuzz_model_file(const std::string &path, size_t most, double seconds, Random &random) {
    DamagedFile file(path, read_file(path).substr(0, most));
    int opened = 0;
    for (const Timer timer(seconds); timer.running();) {
        file.damage(random, most);
        std::string error;
        const bool sound = ev_model_file_check(path.c_str(), error);
        CHECK(sound == error.empty());
        if (!sound || opened < 3) { // a load takes a second
            ev_model *model = nullptr;
            const ev_status status = ev_model_open(path.c_str(), &model);
            CHECK(status == EV_OK || status == EV_ERR_MODEL);
            CHECK((status == EV_OK) == (model != nullptr));
            opened += sound ? 1 : 0;
            ev_model_free(model);
        }
        file.restore();
    }
}

void fuzz_truncation(const std::string &bytes, Random &random) {
    const std::string path = folder() + "/truncated.bin";
    for (int round = 0; round < 60; ++round) {
        const size_t most = random.one_in(2) ? 100 : bytes.size();
        write_file(path, bytes.substr(0, random.below(uint32_t(most))));
        ev_model *model = nullptr;
        CHECK(ev_model_open(path.c_str(), &model) == EV_ERR_MODEL && model == nullptr);
    }
}

} // namespace

void test_fuzz(const std::string &source) {
    const double seconds = fuzz_seconds();
    fuzz_tables(seconds / 2);

    Random random(8);
    const std::string header = read_file(source + "/models/for-tests-ggml-tiny.en.bin");
    fuzz_truncation(header, random);
    const std::string copy = folder() + "/header.bin", synthetic = folder() + "/synthetic.bin";
    write_file(copy, header);
    fuzz_model_file(copy, header.size(), seconds / 4, random);

    // Header, filters, vocabulary and the first tensors' headers of a model that loads.
    Model model = tiny();
    model.tensors.erase(model.tensors.begin()); // large, and would fill the part that is damaged
    model.tensors.push_back(tiny().tensors.front());
    write_model(model, synthetic);
    fuzz_model_file(synthetic, 600'000, seconds / 4, random);
}

} // namespace test
