#include "exact.h"

#include "follow.h"

#include <algorithm>
#include <set>

namespace ev {

namespace {
constexpr int32_t unknown = -2;
}

ExactDfa::ExactDfa(std::shared_ptr<const Automaton> automaton) : automaton_(std::move(automaton)) {}

void ExactDfa::clear() {
    states_.clear();
    known_.clear();
    stacks_.clear();
}

int32_t ExactDfa::start() { return intern({{0, 0}}); }

int32_t ExactDfa::step(int32_t state, uint8_t byte) {
    if (const int32_t next = states_[size_t(state)].next[byte]; next != unknown)
        return next;
    std::vector<Place> places;
    for (const Place &place : states_[size_t(state)].places) {
        for (const Arc *arc = automaton_->begin(place.first); arc != automaton_->end(place.first);
             ++arc) {
            if (arc->kind == EV_ARC_RANGE && byte >= low_byte(*arc) && byte <= high_byte(*arc))
                places.emplace_back(arc->target, place.second);
        }
    }
    const int32_t next = intern(std::move(places));
    states_[size_t(state)].next[byte] = next;
    return next;
}

int32_t ExactDfa::intern(std::vector<Place> &&places) {
    if (places.empty())
        return dead;
    std::set<Place> seen(places.begin(), places.end());
    places.assign(seen.begin(), seen.end());
    for (size_t i = 0; i < places.size(); ++i) {
        const Config config{places[i].first, places[i].second, Mode::spaced};
        follow(*automaton_, stacks_, config, [&](const Config &next, const Arc &) {
            if (!seen.emplace(next.node, next.stack).second)
                return;
            if (places.size() >= max_state_configs)
                throw std::length_error("rules of the grammar call each other too often");
            places.emplace_back(next.node, next.stack);
        });
    }
    State state;
    state.next.fill(unknown);
    // Only places that read a byte or end the text tell states apart.
    const auto idle = [&](const Place &place) {
        bool reads = false;
        for (const Arc *arc = automaton_->begin(place.first); arc != automaton_->end(place.first);
             ++arc) {
            const bool ends = arc->kind == EV_ARC_ACCEPT && place.second == 0;
            state.accepting = state.accepting || ends;
            reads = reads || ends || arc->kind == EV_ARC_RANGE;
        }
        return !reads;
    };
    places.erase(std::remove_if(places.begin(), places.end(), idle), places.end());
    if (places.empty())
        return dead;
    std::sort(places.begin(), places.end());
    const auto [found, is_new] = known_.emplace(places, int32_t(states_.size()));
    if (is_new) {
        state.places = std::move(places);
        states_.push_back(std::move(state));
    }
    return found->second;
}

} // namespace ev
