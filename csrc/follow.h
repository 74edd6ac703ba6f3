// The steps through a network that read no byte: one definition for all who walk it.
#pragma once

#include "automaton.h"

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace ev {

// Deeper nesting than rules within rules within lists ever reach; stops runaway tables.
constexpr uint32_t max_call_depth = 64;
// Rules that fork when they call each other double the stacks at each level. This many
// configurations of one state take 16 MB and a fraction of a second.
constexpr size_t max_state_configs = 1'000'000;

inline uint8_t low_byte(const Arc &arc) { return uint8_t(arc.value & 0xFF); }
inline uint8_t high_byte(const Arc &arc) { return uint8_t(arc.value >> 8); }

// Successors of a configuration without reading a byte: calls `emit(Config, const Arc &)`, twice
// for a separator at which words may be skipped. What `enter(node)` refuses is not called.
template <typename Emit, typename Enter>
void follow(const Automaton &automaton, CallStacks &stacks, const Config &config, Emit emit,
            Enter enter) {
    if (config.mode == Mode::end || config.mode == Mode::comma)
        return;
    const auto call = [&](Config &next, const Arc &arc) {
        if (stacks.depth(config.stack) >= max_call_depth) {
            throw std::length_error("the grammar nests rules and lists deeper than 64 levels");
        }
        next.stack = stacks.push(config.stack, arc.target);
        next.node = arc.value;
    };
    for (const Arc *arc = automaton.begin(config.node); arc != automaton.end(config.node); ++arc) {
        Config next{arc->target, config.stack, config.mode};
        switch (arc->kind) {
        case EV_ARC_EPSILON:
        case EV_ARC_LABEL:
            break;
        case EV_ARC_SEPARATOR:
            if (config.mode == Mode::word)
                next.mode = Mode::pending;
            if (arc->value != 0) {
                emit(next, *arc);
                if (!enter(arc->value))
                    continue;
                call(next, *arc);
            }
            break;
        case EV_ARC_CALL:
            if (!enter(arc->value))
                continue;
            call(next, *arc);
            break;
        case EV_ARC_RETURN:
            if (config.stack == 0)
                continue;
            next.node = stacks.return_node(config.stack);
            next.stack = stacks.parent(config.stack);
            break;
        default:
            continue;
        }
        emit(next, *arc);
    }
}

template <typename Emit>
void follow(const Automaton &automaton, CallStacks &stacks, const Config &config, Emit emit) {
    follow(automaton, stacks, config, emit, [](uint32_t) { return true; });
}

// Whether a step of follow() is into words that may be skipped.
inline bool skips(const Config &from, const Config &to, const Arc &arc) {
    return arc.kind == EV_ARC_SEPARATOR && to.stack != from.stack;
}

} // namespace ev
