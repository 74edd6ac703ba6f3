// Quantisation of a Whisper model file.
#pragma once

#include <string>

namespace ev {

// Reads the checked f16 ggml file `input` and writes `output` with its matrices in the ggml
// file type `file_type` (2 q4_0, 3 q4_1, 8 q5_0, 9 q5_1, 7 q8_0). As upstream's own tool
// (examples/quantize) it leaves vectors, convolutions and positional embeddings as they are.
// False: `error` says why in one sentence; a partial output may remain.
bool quantize(const char *input, const char *output, int file_type, std::string &error);

} // namespace ev
