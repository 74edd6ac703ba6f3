// Structural check of a Whisper model file, done before whisper.cpp is allowed to load it.
//
// whisper.cpp trusts its model file: a cut vocabulary, a wrong count or an unknown type ends the
// process (GGML_ASSERT, map::at) or reads outside of memory. This check reads the same bytes in
// the same order, keeps nothing of them, and accepts only what the pinned version can load and run.
#pragma once

#include <string>

// Reads the model file at `path` without loading it.
//
// Accepts ggml files (magic "ggml", little-endian) of the published Whisper sizes tiny, base,
// small, medium and large, with all decoder layers or the 2 or 4 of distilled and turbo models,
// with weights in f16, q4_0, q4_1, q5_0, q5_1, q8_0 or q2_k to q6_k, every expected tensor present
// exactly once with its exact shape and type, and nothing behind the last. All-f32 files are
// refused, unless they are only to be quantised (`may_be_f32`): whisper.cpp aborts on their
// convolutions. Values of weights are not looked at.
//
// Returns true when the file is sound; `error` is then empty. Otherwise false, and `error` holds
// one sentence with the value seen (and without the path, which the caller knows). Throws nothing.
// Memory is bounded by a few hundred kB, whatever the file says. The file must not change between
// this check and the load.
bool ev_model_file_check(const char *path, std::string &error, bool may_be_f32 = false) noexcept;
