// A network over bytes as it is, without the surface layer of automaton.h: for grammars that say
// each space and mark themselves (GBNF).
#pragma once

#include "automaton.h"

#include <map>

namespace ev {

// Lazily built; owned by one transcriber. RANGE, EPSILON, CALL, RETURN and ACCEPT arcs only.
class ExactDfa {
  public:
    static constexpr int32_t dead = -1;

    explicit ExactDfa(std::shared_ptr<const Automaton> automaton);

    // As those of Dfa. Throw std::length_error where rules call each other too deep.
    int32_t start();
    int32_t step(int32_t state, uint8_t byte);
    bool accepting(int32_t state) const { return states_[size_t(state)].accepting; }
    size_t size() const { return states_.size() + stacks_.size(); }
    void clear();

  private:
    // Node and stack, in one number.
    using Place = std::pair<uint32_t, uint32_t>;

    struct State {
        std::vector<Place> places;
        std::array<int32_t, 256> next;
        bool accepting = false;
    };

    int32_t intern(std::vector<Place> &&places);

    std::shared_ptr<const Automaton> automaton_;
    CallStacks stacks_;
    std::vector<State> states_;
    std::map<std::vector<Place>, int32_t> known_;
};

} // namespace ev
