// Sessions, on a synthetic model whose answers can be worked out by hand, and on a real one when
// EDGEVOICE_TEST_MODEL names it.
//
// In the synthetic model all weights are zero but these: the last bias of the decoder has a 1 in
// its first place, and the first number of a token's embedding is then that token's logit, at
// every step and whatever the audio. The model that ends is like it, but ends a text by itself
// after two tokens.
#include "edgevoice.h"

#include "check.h"
#include "reference.h"
#include "search.h"
#include "synthetic_model.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

namespace test {

namespace {

constexpr size_t second = 16000;
constexpr int32_t n_vocab = 51864, end_of_text = 50256;
constexpr char f32_1[] = "\x00\x00\x80\x3f", f32_100[] = "\x00\x00\xc8\x42"; // 1 and 100
constexpr char f16_1[] = "\x00\x3c";
constexpr char f16_4[] = "\x00\x44", f16_6[] = "\x00\x46", f16_8[] = "\x00\x48"; // 4, 6 and 8
// One thread: ggml's threads wait by spinning, which is slow on a machine with other work.
const ev_options usual = {1, 0, 4, 4, 0.0f, 0.25f, 0, nullptr};

std::string synthetic_model(bool nan) {
    Model model = tiny();
    model.first_words = {"!", " on", " off", " o", "n", " p", " q", " r", " s", " t"};
    model.tensor("decoder.ln.bias").data[0] =
        nan ? std::string("\x00\x00\xc0\x7f", 4) : std::string(f32_1, 4);
    Tensor &embedding = model.tensor("decoder.token_embedding.weight");
    const auto logit = [&](int32_t token, const char *value) {
        embedding.data[uint64_t(token) * 384 * 2] = std::string(value, 2);
    };
    logit(1, f16_8);
    logit(2, f16_6);
    logit(3, f16_4);
    logit(4, f16_4);
    logit(end_of_text, f16_8);
    const std::string path = folder() + "/synthetic.bin";
    write_model(model, path);
    return path;
}

// End-of-text has logit 0, and from the second token of a text on some 19: the second number of the
// positional embedding is 100 there, so large that it is nearly all of what the last layer sees.
std::string model_that_ends() {
    Model model = tiny();
    model.first_words = {"!", " on", " off"};
    model.tensor("decoder.ln.bias").data[0] = std::string(f32_1, 4);
    model.tensor("decoder.ln.weight").data[4] = std::string(f32_1, 4);
    Tensor &embedding = model.tensor("decoder.token_embedding.weight");
    embedding.data[384 * 2] = std::string(f16_8, 2);
    embedding.data[uint64_t(2) * 384 * 2] = std::string(f16_6, 2);
    embedding.data[(uint64_t(end_of_text) * 384 + 1) * 2] = std::string(f16_1, 2);
    for (uint64_t position = 3; position < 448; ++position) // 0 and 1 are the prompt
        model.tensor("decoder.positional_embedding").data[(position * 384 + 1) * 4] =
            std::string(f32_100, 4);
    const std::string path = folder() + "/ends.bin";
    write_model(model, path);
    return path;
}

constexpr size_t n_mels = 80;

size_t n_values(size_t n_samples) {
    size_t n_columns = 0;
    CHECK(ev_mel_columns(n_samples, &n_columns) == EV_OK);
    return n_mels * n_columns;
}

// The spectrogram of so much noise: its values are between -1 and 2.
std::vector<float> noise(size_t n_samples) {
    Random random(6);
    std::vector<float> mel(n_values(n_samples));
    for (float &value : mel)
        value = random.uniform(-1.0f, 2.0f);
    return mel;
}

// Frees what it holds.
struct Handles {
    ev_model *model = nullptr;
    ev_grammar *grammar = nullptr;
    ev_session *session = nullptr;

    Handles(const std::string &path, const Network &network, const ev_options &options) {
        CHECK(ev_model_open(path.c_str(), &model) == EV_OK);
        grammar = open(network);
        if (model == nullptr || grammar == nullptr) {
            fprintf(stderr, "%s: %s\n", path.c_str(), ev_last_error());
            exit(1);
        }
        CHECK(ev_session_open(model, grammar, &options, &session) == EV_OK);
    }
    ~Handles() {
        ev_model_free(model); // before the session: it keeps what it needs
        ev_grammar_free(grammar);
        ev_session_free(session);
    }
    Handles(const Handles &) = delete;
    Handles &operator=(const Handles &) = delete;

    static ev_grammar *open(const Network &network) {
        const std::vector<uint32_t> arcs = network.arcs(), first = network.first_arc();
        ev_grammar *grammar = nullptr;
        ev_grammar_open(arcs.data(), arcs.size() / 3, first.data(), network.nodes.size(), &grammar);
        return grammar;
    }
    // The answers of a synthetic model do not depend on the audio, so any spectrogram serves.
    ev_status recognise(size_t n_samples, ev_result &result) {
        return recognise(noise(n_samples), n_samples, result);
    }
    ev_status recognise(const std::vector<float> &mel, size_t n_samples, ev_result &result,
                        int32_t free_text = 1) {
        return ev_session_recognise(session, mel.data(), mel.size(), n_samples, free_text, &result);
    }
};

Network on_or_off() {
    Network network(2);
    network.word(0, "on", 1).word(0, "off", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    return network;
}

// Everything the vocabulary can spell, of any length.
Network anything() {
    Network network(2);
    network.arc(0, EV_ARC_EPSILON, 0, 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    for (uint32_t byte = 0; byte < 256; ++byte)
        network.arc(1, EV_ARC_BYTE, byte, 1);
    return network;
}

void options_are_checked(Handles &handles) {
    const auto refused = [&](const ev_options &options, const char *name) {
        ev_session *session = nullptr;
        const ev_status status =
            ev_session_open(handles.model, handles.grammar, &options, &session);
        const bool good = status == EV_ERR_ARGUMENT && session == nullptr &&
                          strstr(ev_last_error(), name) != nullptr;
        ev_session_free(session);
        return good;
    };
    for (const int32_t bad : {INT32_MIN, -1, 0, 1000, INT32_MAX}) {
        ev_options options = usual;
        options.threads = bad;
        CHECK(refused(options, "threads"));
        options = usual;
        options.beam = bad;
        CHECK(refused(options, "beam"));
        options = usual;
        options.n_best = bad;
        CHECK(refused(options, "n_best"));
    }
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float bad : {-0.1f, 1e9f, infinity, -infinity, std::nanf("")}) {
        ev_options options = usual;
        options.token_reward = bad;
        CHECK(refused(options, "token_reward"));
        options = usual;
        options.lm_weight = bad;
        CHECK(refused(options, "lm_weight"));
    }
    ev_options options = usual;
    options.timeout_ms = -1;
    CHECK(refused(options, "timeout_ms"));
}

void audio_is_checked(Handles &handles) {
    ev_result result;
    size_t n_columns = 0;
    std::vector<float> mel = noise(28 * second);
    for (const size_t bad : {size_t(0), 28 * second + 1, SIZE_MAX}) {
        CHECK(ev_mel_columns(bad, &n_columns) == EV_ERR_AUDIO);
        CHECK(handles.recognise(mel, bad, result) == EV_ERR_AUDIO);
    }
    CHECK(ev_session_recognise(handles.session, nullptr, 0, 1, 1, &result) == EV_ERR_ARGUMENT);
    CHECK(handles.recognise(mel, second, result) == EV_ERR_ARGUMENT); // of other audio
    for (const size_t n_samples : {size_t(1), second, 28 * second}) {
        CHECK(ev_mel_columns(n_samples, &n_columns) == EV_OK);
        CHECK(n_columns % 128 == 0 && n_columns > n_samples / 160 && n_columns <= 3000);
        mel.assign(n_mels * n_columns + 1, 0.0f);
        CHECK(handles.recognise(mel, n_samples, result) == EV_ERR_ARGUMENT);
        mel.resize(n_mels * n_columns - 1);
        CHECK(handles.recognise(mel, n_samples, result) == EV_ERR_ARGUMENT);
    }
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        for (const size_t at : {size_t(0), n_values(1) / 2, n_values(1) - 1}) {
            mel = noise(1);
            mel[at] = bad;
            CHECK(handles.recognise(mel, 1, result) == EV_ERR_AUDIO);
        }
    }
}

// No spectrogram has such values, but they are finite.
void absurd_values_end_in_a_result_or_an_error(Handles &handles) {
    for (const float value : {3e38f, -3e38f, 1e-42f}) {
        ev_result result;
        const ev_status status =
            handles.recognise(std::vector<float>(n_values(second), value), second, result);
        CHECK(status == EV_OK || status == EV_ERR_INFERENCE);
        CHECK(handles.recognise(second, result) == EV_OK);
    }
}

bool near(double seen, double wanted) { return std::fabs(seen - wanted) < 1e-3; }

// The winner's log-probability is that of the embedding: the whole chain of encoder, decoder and
// search.
void scores_are_those_of_the_model(Handles &handles) {
    const double log_sum =
        std::log(2 * std::exp(8.0) + std::exp(6.0) + 2 * std::exp(4.0) + double(n_vocab - 5));
    ev_result result;
    for (const size_t n_samples : {size_t(1), second / 10, second, 3 * second}) {
        CHECK(handles.recognise(n_samples, result) == EV_OK);
        CHECK(result.audio_ctx > 0 && result.audio_ctx <= 1500 && result.steps > 0);
        CHECK(near(result.no_speech_probability, std::exp(-log_sum)));
        CHECK(result.n_hypotheses == 2);
        if (result.n_hypotheses != 2)
            return;
        const ev_hypothesis &on = result.hypotheses[0], &off = result.hypotheses[1];
        CHECK(std::string(on.text) == "on" && std::string(off.text) == "off");
        CHECK(on.tokens == 2 && off.tokens == 2);
        CHECK(near(on.log_probability, 8 + 8 - 2 * log_sum));
        CHECK(result.n_tokens == 2 && result.tokens[0].end == 2 && result.tokens[1].end == 2);
        CHECK(near(result.tokens[0].log_probability, 8 - log_sum) &&
              near(result.tokens[0].best, 8 - log_sum));
        CHECK(off.score < on.score);
        CHECK(off.log_probability > 6 + 8 - 2 * log_sum && off.log_probability < 0); // upper bound
    }
    Network only_off(2);
    only_off.word(0, "off", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    ev_options options = usual;
    options.threads = 2;
    Handles unlikely(folder() + "/synthetic.bin", only_off, options);
    CHECK(unlikely.recognise(1, result) == EV_OK && result.n_hypotheses == 1);
    if (result.n_hypotheses != 1)
        return;
    CHECK(near(result.hypotheses[0].log_probability, 6 + 8 - 2 * log_sum));
    CHECK(result.n_tokens == 2 && result.tokens[1].end == 3);
    CHECK(near(result.tokens[0].log_probability - result.tokens[0].best, -2)); // behind "on"
    CHECK(near(result.tokens[1].log_probability - result.tokens[1].best, 0));
}

void grammars_may_be_replaced(Handles &handles) {
    ev_result result;
    const auto with = [&](const Network &network) {
        ev_grammar *grammar = Handles::open(network);
        if (grammar == nullptr)
            return EV_ERR_GRAMMAR;
        CHECK(ev_session_set_grammar(handles.session, grammar) == EV_OK);
        ev_grammar_free(grammar); // the session keeps what it needs
        return handles.recognise(1, result);
    };
    CHECK(with(Network(1)) == EV_OK && result.n_hypotheses == 0);
    Network unspeakable(2); // no token of the model begins like this
    unspeakable.word(0, "\x01", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    CHECK(with(unspeakable) == EV_OK && result.n_hypotheses == 0);
    Network endless(2);
    endless.arc(0, EV_ARC_CALL, 0, 1);
    CHECK(with(endless) == EV_ERR_GRAMMAR);
    Network deep(3); // fails in the middle of the search
    deep.word(0, "n", 1).arc(1, EV_ARC_CALL, 2, 0).arc(2, EV_ARC_CALL, 2, 2);
    CHECK(with(deep) == EV_ERR_GRAMMAR);
    CHECK(with(on_or_off()) == EV_OK && result.n_hypotheses == 2);
    CHECK(with(anything()) == EV_OK && result.n_hypotheses > 0);
    CHECK(with(on_or_off()) == EV_OK && result.n_hypotheses == 2);
}

// Free text: every token is allowed, so what comes out is what the model would write itself, until
// it repeats itself.
void free_text_is_free_and_ends(Handles &handles) {
    Network network(2);
    network.arc(0, EV_ARC_EPSILON, 0, 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    network.arc(1, EV_ARC_RANGE, 0x20 | 0x7e << 8, 1);
    ev_grammar *grammar = Handles::open(network);
    for (const char *context : {static_cast<const char *>(nullptr), "on off"}) {
        ev_options options = usual;
        options.lm_weight = 0.0f;
        options.context = context;
        ev_session *session = nullptr;
        CHECK(ev_session_open(handles.model, grammar, &options, &session) == EV_OK);
        const std::vector<float> mel = noise(20 * second);
        ev_result result;
        CHECK(ev_session_recognise(session, mel.data(), mel.size(), 20 * second, 1, &result) ==
              EV_OK);
        CHECK(result.n_hypotheses > 0);
        // " on" and end-of-text are the likeliest tokens, always, and " on" five times is a loop.
        for (int32_t i = 0; i < result.n_hypotheses; ++i)
            CHECK(strstr(result.hypotheses[i].text, "on on on on on") == nullptr);
        ev_session_free(session);
    }
    ev_grammar_free(grammar);
}

// The model's own choice: "on" and "on" again, whatever the grammar allows and the search found.
void transcription_is_greedy() {
    const std::string path = model_that_ends();
    const double log_sum = std::log(std::exp(8.0) + std::exp(6.0) + double(n_vocab - 2));
    Network on_on(4), only_off(2);
    on_on.word(0, "on", 1).arc(1, EV_ARC_SEPARATOR, 0, 2).word(2, "on", 3);
    on_on.arc(3, EV_ARC_ACCEPT, 0, 0);
    only_off.word(0, "off", 1).arc(1, EV_ARC_ACCEPT, 0, 0);
    // All of it, the first half of it, nothing of it, and no sentence at all is computed already.
    for (const Network &network : {on_on, on_or_off(), only_off, Network(1)}) {
        Handles handles(path, network, usual);
        ev_result result;
        ev_hypothesis written;
        CHECK(ev_session_transcribe(handles.session, &written) == EV_ERR_ARGUMENT);
        CHECK(handles.recognise(second, result) == EV_OK);
        CHECK(ev_session_transcribe(handles.session, &written) == EV_OK);
        CHECK(std::string(written.text) == "on on" && written.tokens == 3);
        CHECK(near(written.log_probability, 2 * (8 - log_sum)));
        CHECK(near(written.score, written.log_probability));
        CHECK(ev_session_transcribe(handles.session, &written) == EV_ERR_ARGUMENT); // once
        CHECK(*ev_last_error() != 0);
    }
}

// At the synthetic model the end is as likely as "on" at every place, so the likeliest text is
// none.
void transcription_follows_a_recognition(Handles &handles) {
    ev_result result;
    ev_hypothesis written;
    CHECK(handles.recognise(second, result) == EV_OK);
    CHECK(ev_session_transcribe(handles.session, &written) == EV_OK);
    CHECK(std::string(written.text).empty() && written.tokens == 1);

    CHECK(handles.recognise(1, result) == EV_OK); // then one that fails
    CHECK(handles.recognise({}, 0, result) == EV_ERR_AUDIO);
    CHECK(ev_session_transcribe(handles.session, &written) == EV_ERR_ARGUMENT);

    CHECK(handles.recognise(1, result) == EV_OK);
    ev_session_cancel(handles.session);
    CHECK(ev_session_transcribe(handles.session, &written) == EV_ERR_CANCELLED);
    CHECK(ev_session_transcribe(handles.session, &written) == EV_ERR_ARGUMENT);
    CHECK(handles.recognise(1, result) == EV_OK && result.n_hypotheses == 2);
    CHECK(ev_session_transcribe(handles.session, &written) == EV_OK);
}

// With a deadline that is over when the transcription begins, which no session can be given.
void transcription_has_a_deadline() {
    std::string error;
    const auto model = ev::Model::load(model_that_ends().c_str(), {}, error);
    const Network network = on_or_off();
    const auto automaton = network.automaton();
    CHECK(model != nullptr && automaton != nullptr);
    if (model == nullptr || automaton == nullptr)
        return;
    const std::vector<ev::Token> prompt = model->prompt(0, "");
    ev::Decoder decoder(model, 1, 100);
    ev::Search search(model, automaton);
    const std::vector<float> mel = noise(1);
    CHECK(!decoder.encode(mel.data(), 64, [](void *) { return true; }, nullptr));
    int operations = 0;
    const auto third = [](void *of) { return ++*static_cast<int *>(of) == 3; };
    CHECK(!decoder.encode(mel.data(), 64, third, &operations) && operations == 3);
    CHECK(decoder.encode(mel.data(), 64)); // nothing of that is left
    std::atomic<bool> cancelled{false};
    ev::Found found;
    ev::Found::Sentence written;
    const ev::Stop never{&cancelled, false, {}}, late{&cancelled, true, {}};
    const ev::SearchOptions options{4, 4, 18, 1.0f, 0.0f, 0.25f};
    CHECK(search.run(decoder, prompt, ev::Dfa::Text::any, options, late, found) == EV_ERR_DEADLINE);
    CHECK(search.run(decoder, prompt, ev::Dfa::Text::any, options, never, found) == EV_OK);
    CHECK(search.transcribe(decoder, prompt, 18, late, written) == EV_ERR_DEADLINE);
    CHECK(search.transcribe(decoder, prompt, 18, never, written) == EV_OK);
    CHECK(written.text == "on on");
}

// What follows a text is the same after the decoder has moved it: to other numbers, as others were
// forgotten, or to more memory.
void cells_move_with_what_they_hold(const char *path) {
    std::string error;
    const auto model = ev::Model::load(path, {}, error);
    CHECK(model != nullptr);
    if (model == nullptr)
        return;
    const std::vector<ev::Token> prompt = model->prompt(0, "");
    const std::vector<ev::Token> text = model->tokenize(" turn on the lights in the kitchen");
    constexpr int32_t rivals = 7;
    const std::vector<float> mel = noise(second);
    const auto after = [&](int32_t others, bool forget, std::vector<float> &again) {
        ev::Decoder decoder(model, 1, 2000);
        CHECK(decoder.encode(mel.data(), 64));
        std::vector<ev::Decoder::Input> inputs;
        for (const ev::Token token : prompt)
            inputs.push_back({token, int32_t(inputs.size()) - 1});
        CHECK(decoder.run(inputs, ev::Decoder::Audio::heard, ev::Decoder::Rows::all, {}));
        int32_t cell = int32_t(prompt.size()) - 1;
        for (const ev::Token token : text) {
            inputs.assign(size_t(others), {ev::Token(11), cell}); // "," in other sentences
            inputs.push_back({token, cell});
            CHECK(decoder.run(inputs, ev::Decoder::Audio::heard, ev::Decoder::Rows::some, {}));
            cell = decoder.next_cell() - 1;
            if (forget) {
                const std::vector<int32_t> numbers = decoder.keep_only({cell});
                CHECK(numbers[size_t(cell)] == decoder.next_cell() - 1);
                CHECK(others == 0 || numbers[size_t(cell) - 1] == -1);
                cell = numbers[size_t(cell)];
                CHECK(decoder.at(cell).token == token);
            }
        }
        CHECK(decoder.run({{end_of_text, cell}}, ev::Decoder::Audio::heard, ev::Decoder::Rows::all,
                          {}));
        const std::vector<float> row(decoder.logits(0), decoder.logits(0) + decoder.n_columns());
        CHECK(decoder.look_again({cell}, ev::Decoder::Audio::heard, ev::Decoder::Rows::all, {}));
        again.assign(decoder.logits(0), decoder.logits(0) + decoder.n_columns());
        return row;
    };
    const auto same = [](const std::vector<float> &a, const std::vector<float> &b) {
        float most = 0.0f;
        for (size_t i = 0; i < a.size(); ++i)
            most = std::max(most, std::abs(a[i] - b[i]));
        return a.size() == b.size() && most < 0.05f; // of logits of 10 and more, in half precision
    };
    std::vector<float> alone_again, again;
    const std::vector<float> alone = after(0, false, alone_again);
    CHECK(!same(alone, alone_again));
    CHECK(same(alone, after(rivals, true, again)) && same(alone_again, again));
    CHECK(same(alone, after(40, false, again)) && same(alone_again, again)); // more memory, often
    CHECK(same(alone, after(40, true, again)) && same(alone_again, again));
}

// Sentences of as many tokens as there may be, which share nothing: the most the decoder has to
// remember.
void long_sentences_fit(Handles &handles) {
    ev_options options = usual;
    options.beam = options.n_best = 5;
    Network network(2);
    const std::string tail(60, 'n');
    for (const char *head : {"p", "q", "r", "s", "t"})
        network.word(0, head + tail, 1);
    network.arc(1, EV_ARC_ACCEPT, 0, 0);
    ev_grammar *grammar = Handles::open(network);
    ev_session *session = nullptr;
    CHECK(ev_session_open(handles.model, grammar, &options, &session) == EV_OK);
    ev_grammar_free(grammar);
    const std::vector<float> mel = noise(6 * second); // 10 tokens in a second
    ev_result result;
    CHECK(ev_session_recognise(session, mel.data(), mel.size(), 6 * second, 1, &result) == EV_OK);
    CHECK(*ev_last_error() == 0);
    CHECK(result.steps > 55 && result.n_hypotheses > 0);
    ev_session_free(session);
}

// Free text is looked for at once, later and once, or not at all.
void free_text_can_wait() {
    Network network = on_or_off();
    const uint32_t letters = uint32_t(network.nodes.size());
    network.nodes.emplace_back();
    for (const uint32_t from : {0u, letters})
        network.arc(from, EV_ARC_RANGE, 'a' | 'z' << 8, letters);
    network.arc(letters, EV_ARC_ACCEPT, 1, 0);
    Handles handles(synthetic_model(false), network, usual);
    const std::vector<float> mel = noise(second);
    ev_result result;
    const auto later = [&] { return ev_session_recognise_free_text(handles.session, &result); };
    CHECK(later() == EV_ERR_ARGUMENT); // nothing was recognised
    CHECK(handles.recognise(mel, second, result) == EV_OK && result.without_free_text == 0);
    CHECK(later() == EV_ERR_ARGUMENT);
    CHECK(handles.recognise(mel, second, result, 0) == EV_OK && result.without_free_text == 1);
    CHECK(result.n_hypotheses == 2);
    CHECK(later() == EV_OK && result.without_free_text == 0 && result.n_hypotheses > 2);
    CHECK(later() == EV_ERR_ARGUMENT);

    ev_hypothesis written;
    CHECK(ev_session_transcribe(handles.session, &written) == EV_OK); // after both
    CHECK(handles.recognise(mel, second, result, 0) == EV_OK);
    CHECK(ev_session_transcribe(handles.session, &written) == EV_OK);
    CHECK(later() == EV_ERR_ARGUMENT);
    CHECK(handles.recognise(mel, second, result, 0) == EV_OK);
    ev_session_cancel(handles.session);
    CHECK(later() == EV_ERR_CANCELLED && later() == EV_ERR_ARGUMENT);
    CHECK(handles.recognise(mel, second, result, 0) == EV_OK);
    CHECK(ev_session_set_grammar(handles.session, handles.grammar) == EV_OK);
    CHECK(later() == EV_ERR_ARGUMENT); // of another grammar
    CHECK(handles.recognise({}, 0, result, 0) == EV_ERR_AUDIO && later() == EV_ERR_ARGUMENT);
}

void recognition_can_be_stopped(Handles &handles) {
    ev_result result;
    ev_session_cancel(handles.session); // nothing runs: the next recognition is not touched
    CHECK(handles.recognise(1, result) == EV_OK);

    std::atomic<bool> done{false};
    std::thread other([&] {
        while (!done)
            ev_session_cancel(handles.session);
    });
    CHECK(handles.recognise(second, result) == EV_ERR_CANCELLED);
    done = true;
    other.join();
    CHECK(handles.recognise(1, result) == EV_OK && result.n_hypotheses == 2);

    ev_options options = usual;
    options.timeout_ms = 1;
    ev_session *session = nullptr;
    CHECK(ev_session_open(handles.model, handles.grammar, &options, &session) == EV_OK);
    const std::vector<float> mel = noise(second);
    CHECK(ev_session_recognise(session, mel.data(), mel.size(), second, 1, &result) ==
          EV_ERR_DEADLINE);
    ev_session_free(session);
}

// The file's structure is sound, its numbers are not.
void a_model_of_nan_is_an_error() {
    Handles handles(synthetic_model(true), on_or_off(), usual);
    ev_result result;
    CHECK(handles.recognise(1, result) == EV_ERR_INFERENCE);
}

void a_real_model_survives(const std::string &path) {
    ev_options options = usual;
    options.threads = 2;
    options.beam = 8;
    options.n_best = 8;
    Handles handles(path, anything(), options);
    absurd_values_end_in_a_result_or_an_error(handles);
    for (const auto &mel : {noise(second), std::vector<float>(n_values(second), -1.0f)}) {
        ev_result result;
        CHECK(handles.recognise(mel, second, result) == EV_OK);
        CHECK(result.n_hypotheses >= 0 && result.n_hypotheses <= options.n_best);
        for (int32_t i = 0; i < result.n_hypotheses; ++i) {
            const ev_hypothesis &hypothesis = result.hypotheses[i];
            CHECK(std::isfinite(hypothesis.score) && hypothesis.log_probability <= 0);
            CHECK(i == 0 || result.hypotheses[i - 1].score >= hypothesis.score);
            CHECK(strlen(hypothesis.text) < 10000);
        }
        for (int32_t i = 0; i < result.n_tokens; ++i) {
            const ev_token &token = result.tokens[i];
            CHECK(token.log_probability <= token.best && token.best <= 0);
            CHECK(token.end >= (i > 0 ? result.tokens[i - 1].end : 0));
        }
        ev_hypothesis written;
        CHECK(ev_session_transcribe(handles.session, &written) == EV_OK);
        CHECK(written.tokens >= 1 && std::isfinite(written.log_probability));
        CHECK(written.log_probability <= 0 && strlen(written.text) < 10000);
    }
}

} // namespace

void test_session() {
    {
        Handles handles(synthetic_model(false), on_or_off(), usual);
        ev_model_info info;
        ev_model_info_get(handles.model, &info);
        CHECK(info.n_vocab == n_vocab && info.n_mels == int32_t(n_mels) &&
              info.n_audio_ctx == 1500 && info.n_text_ctx == 448);
        CHECK(info.n_audio_layer == 4 && info.file_type == 1 && info.multilingual == 0);
        options_are_checked(handles);
        audio_is_checked(handles);
        absurd_values_end_in_a_result_or_an_error(handles);
        scores_are_those_of_the_model(handles);
        recognition_can_be_stopped(handles);
        transcription_follows_a_recognition(handles);
        free_text_is_free_and_ends(handles);
        long_sentences_fit(handles);
        grammars_may_be_replaced(handles);
    }
    free_text_can_wait();
    transcription_is_greedy();
    transcription_has_a_deadline();
    a_model_of_nan_is_an_error();
    if (const char *path = getenv("EDGEVOICE_TEST_MODEL"); path != nullptr && *path != 0) {
        a_real_model_survives(path);
        cells_move_with_what_they_hold(path);
    }
}

} // namespace test
