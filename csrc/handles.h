// What handles of the C interface hold that more than one file of it takes.
#pragma once

#include "automaton.h"
#include "whisper_core.h"

#include <memory>

struct ev_model {
    std::shared_ptr<const ev::Model> shared;
};

struct ev_grammar {
    std::shared_ptr<const ev::Automaton> shared;
};

struct ev_vad {
    std::unique_ptr<ev::Vad> vad;
};
