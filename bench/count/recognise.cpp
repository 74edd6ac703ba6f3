// Loads a model and recognises an utterance, one thread, between marks.
//
//   recognise MODEL INPUT     INPUT as boards.py writes it
//
// 0 - 1 the encoder, 1 - 2 the search with a grammar that it has not seen, 2 - 3 the same search
// again, as after other utterances. What was understood is printed, with the encoder's positions
// and the steps of the search.
#include "marks.h"
#include "search.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <vector>

namespace {

template <typename T> std::vector<T> read(std::ifstream &in) {
    uint64_t n = 0;
    in.read(reinterpret_cast<char *>(&n), sizeof n);
    std::vector<T> values(n);
    in.read(reinterpret_cast<char *>(values.data()), std::streamsize(n * sizeof(T)));
    if (!in) {
        fprintf(stderr, "the input is too short\n");
        exit(2);
    }
    return values;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: recognise MODEL INPUT\n");
        return 2;
    }
    std::ifstream in(argv[2], std::ios::binary);
    const auto arcs = read<uint32_t>(in), first_arc = read<uint32_t>(in);
    const auto mel = read<float>(in), given = read<float>(in);
    std::string error;
    const auto grammar = ev::Automaton::make(arcs.data(), arcs.size() / 3, first_arc.data(),
                                             first_arc.size() - 1, error);
    const auto model = ev::Model::load(argv[1]);
    if (!grammar || !model) {
        fprintf(stderr, "%s\n", grammar ? "the model cannot be loaded" : error.c_str());
        return 1;
    }
    ev::Search search(model, grammar);
    const ev::SearchOptions options = {int32_t(given.at(0)), int32_t(given.at(1)),
                                       int32_t(given.at(2)), given.at(3),
                                       given.at(4),          given.at(5)};
    std::atomic<bool> cancelled{false};
    const ev::Stop never = {&cancelled, false, {}};
    const auto prompt = model->prompt(0, "");
    ev::Decoder decoder(model, 1, options.max_tokens * options.beam + int32_t(prompt.size()));
    const auto text = search.has_both() ? ev::Dfa::Text::fixed : ev::Dfa::Text::any;
    const int32_t audio_ctx = int32_t(mel.size()) / model->info().n_mels / 2;
    ev::Found found;
    mark(0);
    if (!decoder.encode(mel.data(), audio_ctx))
        return 1;
    mark(1);
    for (int number : {2, 3}) {
        found = {};
        if (search.run(decoder, prompt, text, options, never, found) != EV_OK)
            return 1;
        mark(number);
    }
    printf("%d %d %s\n", audio_ctx, found.steps, found.sentences.at(0).text.c_str());
}
