// Quantisation of a Whisper model file.
#pragma once

#include <string>

namespace ev {

// Reads the checked f16 or f32 ggml file `input` and writes `output` with its matrices in the ggml
// file type `file_type` (2 q4_0, 3 q4_1, 8 q5_0, 9 q5_1, 7 q8_0, 10 to 14 q2_k to q6_k). As
// upstream's own tool (examples/quantize) it leaves vectors, convolutions and positional embeddings
// as they are; unlike it, it makes f32 convolutions f16, without which whisper.cpp refuses the
// result, and refuses rows that do not divide into blocks, which upstream does not look at, and
// values that are not finite.
// False: `error` says why in one sentence; a partial output may remain.
bool quantize(const char *input, const char *output, int file_type, std::string &error);

} // namespace ev
