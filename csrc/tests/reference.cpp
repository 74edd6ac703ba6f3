#include "reference.h"

#include <algorithm>
#include <array>
#include <map>
#include <stdexcept>
#include <tuple>

namespace test {

Network &Network::word(uint32_t from, const std::string &word, uint32_t to) {
    for (size_t i = 0; i < word.size(); ++i) {
        const bool last = i + 1 == word.size();
        const uint32_t next = last ? to : uint32_t(nodes.size());
        if (!last)
            nodes.emplace_back();
        arc(from, EV_ARC_BYTE, uint8_t(word[i]), next);
        from = next;
    }
    return *this;
}

std::vector<uint32_t> Network::arcs() const {
    std::vector<uint32_t> table;
    for (const auto &node : nodes) {
        for (const ev::Arc &arc : node) {
            table.insert(table.end(), {arc.kind, arc.value, arc.target});
        }
    }
    return table;
}

std::vector<uint32_t> Network::first_arc() const {
    std::vector<uint32_t> table{0};
    for (const auto &node : nodes)
        table.push_back(table.back() + uint32_t(node.size()));
    return table;
}

std::shared_ptr<const ev::Automaton> Network::automaton() const {
    const std::vector<uint32_t> triples = arcs(), first = first_arc();
    std::string error;
    return ev::Automaton::make(triples.data(), triples.size() / 3, first.data(), nodes.size(),
                               error);
}

namespace {

constexpr size_t max_call_depth = 64; // as automaton.cpp has it

class Reference {
  public:
    Reference(const Network &network, const std::string &text) : network_(network), text_(text) {}

    // Free texts, the bytes in them, places with skipped words.
    using Cost = std::array<size_t, 3>;

    // `at` bytes of the text are read, the last of them a byte of a word. `gap`: a separator was
    // passed since then.
    void visit(uint32_t node, std::vector<uint32_t> stack, bool gap, size_t at, Cost cost) {
        const auto [known, added] = seen_.try_emplace({node, stack, gap, at}, cost);
        if (!added && known->second <= cost)
            return;
        known->second = cost;
        for (const ev::Arc &arc : network_.nodes[node]) {
            if (arc.kind == EV_ARC_ACCEPT)
                accept(arc, stack, at, cost);
            if (arc.kind != EV_ARC_BYTE && arc.kind != EV_ARC_GLUE && arc.kind != EV_ARC_RANGE)
                continue;
            for (const std::string &between : separators(arc, gap, at)) {
                read(arc, stack, at, between, cost);
            }
        }
        for (const ev::Arc &arc : network_.nodes[node])
            pass(arc, stack, gap, at, cost);
    }

    std::vector<Reading> cheapest() const {
        Cost least{SIZE_MAX, SIZE_MAX, SIZE_MAX};
        for (const auto &[reading, cost] : found_)
            least = std::min(least, cost);
        std::vector<Reading> best;
        for (const auto &[reading, cost] : found_) {
            if (cost == least)
                best.push_back(reading);
        }
        return best;
    }

  private:
    struct Label {
        int32_t value;
        size_t at;
        bool in_gap; // its place is after the separator, once that is known
    };

    static std::vector<std::string> separators(const ev::Arc &arc, bool gap, size_t at) {
        if (at == 0)
            return {"", " "};
        if (!gap)
            return {""};
        if (arc.kind == EV_ARC_GLUE)
            return {"", " ", "-", ", "};
        return {" ", "-", ", "};
    }

    static bool matches(const ev::Arc &arc, uint8_t byte) {
        if (arc.kind == EV_ARC_RANGE)
            return (arc.value & 0xFF) <= byte && byte <= arc.value >> 8;
        return (byte >= 'A' && byte <= 'Z' ? byte - 'A' + 'a' : byte) == int(arc.value);
    }

    void read(const ev::Arc &arc, const std::vector<uint32_t> &stack, size_t at,
              const std::string &between, Cost cost) {
        const size_t byte = at + between.size();
        if (byte >= text_.size() || text_.compare(at, between.size(), between) != 0)
            return;
        if (!matches(arc, uint8_t(text_[byte])))
            return;
        cost[1] += arc.kind == EV_ARC_RANGE;
        const std::vector<Label> before = labels_;
        for (Label &label : labels_) {
            if (label.in_gap)
                label.at += between.size();
            label.in_gap = false;
        }
        visit(arc.target, stack, false, byte + 1, cost);
        labels_ = before;
    }

    void accept(const ev::Arc &arc, const std::vector<uint32_t> &stack, size_t at, Cost cost) {
        const std::string rest = text_.substr(at);
        const bool ended = rest.empty() || rest == "." || rest == "?" || rest == "!";
        if (!ended || at == 0 || !stack.empty())
            return;
        Reading reading{arc.value, {}};
        for (const Label &label : labels_)
            reading.labels.push_back({label.value, label.at});
        for (auto &[known, known_cost] : found_) {
            if (known.accept != arc.value)
                continue;
            if (cost < known_cost) {
                known = std::move(reading);
                known_cost = cost;
            }
            return;
        }
        found_.emplace_back(std::move(reading), cost);
    }

    void pass(const ev::Arc &arc, std::vector<uint32_t> stack, bool gap, size_t at, Cost cost) {
        switch (arc.kind) {
        case EV_ARC_EPSILON:
            return visit(arc.target, std::move(stack), gap, at, cost);
        case EV_ARC_LABEL:
            labels_.push_back({int32_t(arc.value), at, gap || at == 0});
            visit(arc.target, std::move(stack), gap, at, cost);
            labels_.pop_back();
            return;
        case EV_ARC_SEPARATOR:
            visit(arc.target, stack, at > 0, at, cost);
            if (arc.value == 0)
                return;
            if (stack.size() >= max_call_depth)
                throw std::length_error("deep");
            stack.push_back(arc.target);
            ++cost[2];
            return visit(arc.value, std::move(stack), at > 0, at, cost);
        case EV_ARC_CALL:
            if (stack.size() >= max_call_depth)
                throw std::length_error("deep");
            stack.push_back(arc.target);
            for (const ev::Arc &inside : network_.nodes[arc.value]) {
                if (inside.kind == EV_ARC_RANGE) {
                    ++cost[0];
                    break;
                }
            }
            return visit(arc.value, std::move(stack), gap, at, cost);
        case EV_ARC_RETURN:
            if (stack.empty())
                return;
            {
                const uint32_t back = stack.back();
                stack.pop_back();
                return visit(back, std::move(stack), gap, at, cost);
            }
        default:
            return;
        }
    }

    const Network &network_;
    const std::string &text_;
    std::vector<Label> labels_;
    std::map<std::tuple<uint32_t, std::vector<uint32_t>, bool, size_t>, Cost> seen_;
    std::vector<std::pair<Reading, Cost>> found_;
};

} // namespace

std::vector<Reading> reference_readings(const Network &network, const std::string &text) {
    Reference reference(network, text);
    reference.visit(0, {}, false, 0, {});
    return reference.cheapest();
}

std::vector<Reading> readings(const ev::Automaton &automaton, const std::string &text) {
    std::vector<Reading> found;
    Reading reading{};
    int32_t path = 0, position = 0;
    for (const ev_label &label : automaton.match(text.data(), text.size())) {
        CHECK(label.path == path);
        CHECK(label.position >= position && label.position <= int32_t(text.size()));
        position = label.position;
        if (label.accept == 0) {
            reading.labels.push_back({label.label, label.position});
            continue;
        }
        CHECK(label.accept == 1 && label.position == int32_t(text.size()));
        reading.accept = uint32_t(label.label);
        found.push_back(reading);
        reading = {};
        position = 0;
        ++path;
    }
    CHECK(reading.labels.empty()); // every path ends with its ACCEPT
    return found;
}

bool accepted(ev::Dfa &dfa, const std::string &text) {
    int32_t state = dfa.start();
    for (const char byte : text) {
        if (state == ev::Dfa::dead)
            return false;
        const int32_t next = dfa.step(state, uint8_t(byte));
        CHECK(next == ev::Dfa::dead || dfa.possible(state)[uint8_t(byte)]);
        state = next;
    }
    return state != ev::Dfa::dead && dfa.accepting(state);
}

std::string describe(const Network &network, const std::string &text,
                     const std::vector<Reading> &readings) {
    static const char *const kinds[] = {"byte",   "glue",  "eps",    "sep",  "call",
                                        "return", "label", "accept", "range"};
    std::string out;
    for (size_t node = 0; node < network.nodes.size(); ++node) {
        for (const ev::Arc &arc : network.nodes[node]) {
            out += "  " + std::to_string(node) + " " + kinds[arc.kind] + " " +
                   std::to_string(arc.value) + " -> " + std::to_string(arc.target) + "\n";
        }
    }
    out += "  '" + text + "':";
    for (const Reading &reading : readings) {
        out += " " + std::to_string(reading.accept) + "(";
        for (const auto &[label, position] : reading.labels) {
            out += " " + std::to_string(label) + "@" + std::to_string(position);
        }
        out += " )";
    }
    return out;
}

Network random_network(Random &random, const std::string &letters, bool wild) {
    const uint32_t n = 2 + random.below(6);
    Network network(n);
    const uint32_t arcs = n + random.below(2 * n);
    for (uint32_t i = 0; i < arcs; ++i) {
        const uint32_t from = random.below(n), to = random.below(n);
        // Bytes twice as often: the sentences should not all be empty.
        const uint32_t kind = random.below(EV_ARC_KINDS + 2) % EV_ARC_KINDS;
        uint32_t value = random.below(3);
        if (kind == EV_ARC_BYTE || kind == EV_ARC_GLUE)
            value = uint8_t(random.pick(letters));
        if (kind == EV_ARC_RANGE) {
            const uint8_t one = uint8_t(random.pick(letters)), two = uint8_t(random.pick(letters));
            value = std::min(one, two) | uint32_t(std::max(one, two)) << 8;
        }
        if (kind == EV_ARC_CALL) {
            // Tame calls lead to the last node, which reads a byte and returns.
            value = wild ? random.below(n) : n - 1;
        }
        if (kind == EV_ARC_SEPARATOR)
            value = wild ? random.below(n) : random.one_in(2) ? n - 1 : 0;
        if ((kind == EV_ARC_CALL || kind == EV_ARC_SEPARATOR) && !wild && from == n - 1)
            continue;
        network.nodes[from].push_back({kind, value, to});
    }
    network.arc(n - 2, EV_ARC_ACCEPT, random.below(3), 0);
    if (!wild) {
        network.nodes[n - 1].clear();
        if (random.one_in(2)) // free text: any of the letters
            network.arc(n - 1, EV_ARC_RANGE, 0x20 | 0x7F << 8, uint32_t(network.nodes.size()));
    }
    network.arc(n - 1, EV_ARC_BYTE, uint8_t(random.pick(letters)), uint32_t(network.nodes.size()));
    network.nodes.emplace_back();
    network.nodes.back().push_back({EV_ARC_RETURN, 0, 0});
    return network;
}

} // namespace test
