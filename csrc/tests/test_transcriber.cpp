// Transcription as upstream decodes it, on a synthetic model, and on a real one when
// EDGEVOICE_TEST_MODEL names it.
//
// In the synthetic model all weights are zero but the last bias of the decoder, which has a 1 in
// its first place: the first number of a token's embedding is then that token's logit, at every
// step and whatever the audio. Text, timestamps and the end are about as likely, so texts that are
// drawn at a temperature are of all kinds.
#include "edgevoice.h"

#include "check.h"
#include "exact.h"
#include "synthetic_model.h"

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace test {

namespace {

constexpr size_t second = 16000;
constexpr int32_t n_vocab = 51864, end_of_text = 50256, first_timestamp = 50363;

std::string synthetic_model() {
    Model model = tiny();
    model.first_words = {"!", " on", " off", "a", "b", "\xc3", "\xa9", " ", "-"};
    model.tensor("decoder.ln.bias").data[0] = std::string("\x00\x00\x80\x3f", 4); // 1
    Tensor &embedding = model.tensor("decoder.token_embedding.weight");
    const auto logit = [&](int32_t token, const char *value) {
        embedding.data[uint64_t(token) * 384 * 2] = std::string(value, 2);
    };
    for (int32_t token = 1; token < 9; ++token)
        logit(token, "\x80\x49"); // 11
    logit(end_of_text, "\x80\x49");
    for (int32_t i = 0; i < 40; ++i)
        logit(first_timestamp + 37 * i, "\x00\x4a"); // 12
    const std::string path = folder() + "/transcriber.bin";
    write_model(model, path);
    return path;
}

std::vector<float> noise(Random &random, size_t n, float loud) {
    std::vector<float> samples(n);
    for (float &sample : samples)
        sample = random.uniform(-loud, loud);
    return samples;
}

// What was given to on_segments, and what it answers.
struct Heard {
    std::vector<std::string> texts;
    size_t n_tokens = 0;
    int32_t percent = -1;
    int calls = 0, refuse_at = -1;
    int64_t last_cs = -1;
};

int32_t on_segments(void *of, int32_t percent, const ev_text_segment *segments, int32_t n) {
    Heard *heard = static_cast<Heard *>(of);
    CHECK(percent >= heard->percent && percent <= 100);
    heard->percent = percent;
    for (int32_t i = 0; i < n; ++i) {
        heard->texts.push_back(segments[i].text);
        for (int32_t j = 0; j < segments[i].n_tokens; ++j) {
            const ev_text_token &token = segments[i].tokens[j];
            CHECK(token.id >= 0 && token.id < n_vocab + 2 && token.bytes != nullptr);
            heard->n_tokens += std::strlen(token.bytes) > 0;
        }
    }
    return heard->calls++ == heard->refuse_at;
}

std::atomic<int> filtered{0};

int32_t on_logits(void *, const int32_t *, int32_t n_tokens, float *logits, int32_t n) {
    ++filtered;
    if (n_tokens % 5 == 4) { // nothing is left, or what is no number
        for (int32_t i = 0; i < n; ++i)
            logits[i] = i % 2 ? -INFINITY : NAN;
    }
    return 0;
}

ev_transcription usual() {
    ev_transcription o = {};
    o.threads = 1;
    o.beam = o.best_of = 1;
    o.entropy_threshold = 2.4f;
    o.log_probability_threshold = -1.0f;
    o.no_speech_threshold = 0.6f;
    o.length_penalty = -1.0f;
    o.max_context = 224;
    o.timestamps = 1;
    o.max_initial_timestamp_s = 1.0f;
    o.suppress_blank = 1;
    o.audio_ctx = 32;
    o.repetition_penalty = 1.0f;
    o.on_segments = on_segments;
    return o;
}

// "ab" | "ab" "-" ..., over characters of the synthetic vocabulary: ( ab | a é )+ with calls.
ev_grammar *grammar() {
    const uint32_t arcs[] = {
        EV_ARC_CALL,
        2,
        1, // 0: a pair, and then
        EV_ARC_ACCEPT,
        0,
        0,
        EV_ARC_EPSILON,
        0,
        0, // 1: the end, or another
        EV_ARC_RANGE,
        'a' | 'a' << 8,
        3, // 2
        EV_ARC_RANGE,
        'b' | 'b' << 8,
        4,
        EV_ARC_RANGE,
        0xc3 | 0xc3 << 8,
        5, // 3
        EV_ARC_RETURN,
        0,
        0, // 4
        EV_ARC_RANGE,
        0xa9 | 0xa9 << 8,
        4, // 5
    };
    const uint32_t first[] = {0, 1, 3, 4, 6, 7, 8};
    ev_grammar *made = nullptr;
    CHECK(ev_grammar_open(arcs, 8, first, 6, &made) == EV_OK);
    return made;
}

bool is_pairs(const std::string &text) {
    size_t at = 0;
    while (at < text.size()) {
        if (text.compare(at, 2, "ab") == 0)
            at += 2;
        else if (text.compare(at, 3, "a\xc3\xa9") == 0)
            at += 3;
        else
            return text.compare(at, std::string::npos, "a") == 0 ||
                   text.compare(at, std::string::npos, "a\xc3") == 0; // cut by max_tokens
    }
    return true;
}

ev_transcriber *opened(ev_model *model) {
    ev_transcriber *transcriber = nullptr;
    CHECK(ev_transcriber_open(model, &transcriber) == EV_OK);
    return transcriber;
}

void test_arguments(ev_model *model, const std::string &path) {
    ev_model *commands = nullptr;
    CHECK(ev_model_open(path.c_str(), &commands) == EV_OK);
    ev_transcriber *none = nullptr;
    CHECK(ev_transcriber_open(commands, &none) == EV_ERR_ARGUMENT && none == nullptr);
    ev_model_free(commands);
    ev_model *unknown = nullptr;
    CHECK(ev_model_open_for_transcription(path.c_str(), "huge", nullptr, 0, -1, &unknown) ==
          EV_ERR_MODEL);
    CHECK(ev_model_open_for_transcription(path.c_str(), "large-v3", nullptr, 0, -1, &unknown) ==
          EV_ERR_MODEL);
    for (const int32_t number : {-1, 4, 6}) {
        const int32_t heads[] = {0, 0, number, number};
        CHECK(ev_model_open_for_transcription(path.c_str(), nullptr, heads, 2, -1, &unknown) ==
              EV_ERR_MODEL);
    }
    const std::vector<int32_t> many(2 * (EV_MAX_ALIGNMENT_HEADS + 1));
    CHECK(ev_model_open_for_transcription(path.c_str(), nullptr, many.data(), many.size() / 2, -1,
                                          &unknown) == EV_ERR_ARGUMENT);
    for (const int32_t gpu : {-2, 1000}) {
        CHECK(ev_model_open_for_transcription(path.c_str(), nullptr, nullptr, 0, gpu, &unknown) ==
              EV_ERR_ARGUMENT);
        CHECK(ev_gpu(gpu) == nullptr);
    }
    CHECK(unknown == nullptr);

    Random random(1);
    ev_transcriber *transcriber = opened(model);
    const std::vector<float> audio = noise(random, second, 0.1f);
    ev_transcribed out = {};
    Heard heard;
    const auto run = [&](const ev_transcription &options, const std::vector<float> &samples) {
        heard = Heard();
        ev_transcription own = options;
        own.of = &heard;
        return ev_transcriber_run(transcriber, samples.data(), samples.size(), &own, nullptr, &out);
    };
    CHECK(run(usual(), audio) == EV_OK);
    CHECK(heard.percent == 100 && out.aborted == 0);
    CHECK(run(usual(), std::vector<float>(1599)) == EV_ERR_AUDIO);
    CHECK(run(usual(), std::vector<float>(second, NAN)) == EV_ERR_AUDIO);
    CHECK(run(usual(), std::vector<float>(second, 1e30f)) == EV_ERR_AUDIO);
    const auto wrong = [&](auto change) {
        ev_transcription options = usual();
        change(options);
        return run(options, audio) == EV_ERR_ARGUMENT;
    };
    using O = ev_transcription;
    CHECK(wrong([](O &o) { o.threads = 0; }) && wrong([](O &o) { o.threads = 65; }));
    CHECK(wrong([](O &o) { o.beam = 9; }) && wrong([](O &o) { o.best_of = 0; }));
    CHECK(wrong([](O &o) { o.temperature_step = 1e-9f; }));
    CHECK(wrong([](O &o) { o.temperature = NAN; }) && wrong([](O &o) { o.audio_ctx = 1501; }));
    CHECK(wrong([](O &o) { o.audio_ctx = -1; }) && wrong([](O &o) { o.max_context = -1; }));
    CHECK(wrong([](O &o) { o.translate = 1; }) && wrong([](O &o) { o.start_cs = 95; }));
    CHECK(wrong([](O &o) { o.start_cs = -1; }) && wrong([](O &o) { o.duration_cs = -5; }));
    static const int32_t no_token = n_vocab;
    CHECK(wrong([](O &o) { o.prompt = &no_token, o.n_prompt = 1; }));
    CHECK(wrong([](O &o) { o.suppress = &no_token, o.n_suppress = 1; }));
    CHECK(wrong([](O &o) { o.max_initial_timestamp_s = INFINITY; }));
    CHECK(wrong([](O &o) { o.hotwords = &no_token, o.n_hotwords = 1; }));
    static const int32_t words[224] = {};
    CHECK(wrong([](O &o) { o.hotwords = words, o.n_hotwords = 224; }));
    CHECK(wrong([](O &o) { o.hotwords = words, o.n_hotwords = 1, o.max_context = 1; }));
    CHECK(wrong([](O &o) { o.repetition_penalty = 0.0f; }) &&
          wrong([](O &o) { o.repetition_penalty = NAN; }));
    CHECK(wrong([](O &o) { o.n_finished = 1; }) && wrong([](O &o) {
              o.beam = 2;
              o.n_finished = 81;
          }));
    CHECK(wrong([](O &o) { o.no_repeat_ngram = -1; }) &&
          wrong([](O &o) { o.no_repeat_ngram = 225; }));
    CHECK(ev_transcriber_detect(transcriber, audio.data(), audio.size(), 1, nullptr, nullptr) ==
          EV_ERR_ARGUMENT);              // English only
    CHECK(run(usual(), audio) == EV_OK); // nothing of it stays
    ev_transcriber_free(transcriber);
}

void test_steps(ev_model *model) {
    Random random(2);
    ev_transcriber *transcriber = opened(model);
    const float *values = nullptr;
    size_t n = 0, width = 0;
    const int32_t tokens[] = {50257, 50362};
    CHECK(ev_transcriber_encode(transcriber, 0, 1, &values, &n, &width) == EV_ERR_ARGUMENT);
    CHECK(ev_transcriber_decode(transcriber, tokens, 2, 0, 1, &values) == EV_ERR_ARGUMENT);
    const std::vector<float> audio = noise(random, second, 0.1f);
    CHECK(ev_transcriber_mel(transcriber, audio.data(), audio.size(), 2, &values, &n) == EV_OK);
    CHECK(n == 3100);
    const std::vector<float> mel(values, values + 80 * 50);
    CHECK(ev_transcriber_set_mel(transcriber, mel.data(), 50) == EV_OK);
    CHECK(ev_transcriber_encode(transcriber, 50, 1, &values, &n, &width) == EV_ERR_ARGUMENT);
    CHECK(ev_transcriber_encode(transcriber, 0, 1, &values, &n, &width) == EV_OK);
    CHECK(n == 1500 && width == 384 && std::isfinite(values[n * width - 1]));
    CHECK(ev_transcriber_decode(transcriber, tokens, 2, 1, 1, &values) == EV_ERR_ARGUMENT);
    CHECK(ev_transcriber_decode(transcriber, tokens, 2, 0, 1, &values) == EV_OK);
    CHECK(values[1] == 11.0f && values[0] == 0.0f && values[n_vocab - 1] == 0.0f);
    CHECK(ev_transcriber_decode(transcriber, tokens + 1, 1, 2, 1, &values) == EV_OK);
    CHECK(ev_transcriber_decode(transcriber, tokens, 449, 0, 1, &values) == EV_ERR_ARGUMENT);
    CHECK(ev_transcriber_decode(transcriber, tokens, 1, 448, 1, &values) == EV_ERR_ARGUMENT);
    ev_transcriber_free(transcriber);
}

void test_grammar(ev_model *model) {
    Random random(3);
    ev_transcriber *transcriber = opened(model);
    const std::vector<float> audio = noise(random, 2 * second, 0.1f);
    ev_grammar *pairs = grammar();
    for (int i = 0; i < 6; ++i) {
        ev_transcription options = usual();
        Heard heard;
        options.of = &heard;
        options.timestamps = 0;
        options.temperature = 0.2f * float(i);
        options.beam = i % 2 ? 3 : 1;
        options.max_tokens = 20;
        options.grammar = pairs;
        ev_transcribed out = {};
        CHECK(ev_transcriber_run(transcriber, audio.data(), audio.size(), &options, nullptr,
                                 &out) == EV_OK);
        CHECK(!heard.texts.empty());
        for (const std::string &text : heard.texts)
            CHECK(is_pairs(text));
    }
    ev_grammar_free(pairs);
    ev_transcriber_free(transcriber);
}

// Random options, some of them wrong, and audio; ended at random places.
void fuzz(ev_model *model, Random &random, double seconds) {
    ev_transcriber *transcriber = opened(model);
    ev_grammar *pairs = grammar();
    const Timer timer(seconds);
    int runs = 0;
    while (timer.running()) {
        const std::vector<float> audio =
            noise(random, 1000 + random.below(random.one_in(8) ? 36 * second : 3 * second),
                  random.one_in(5) ? 0.0f : 0.3f);
        ev_transcription o = usual();
        Heard heard;
        heard.refuse_at = random.one_in(10) ? int(random.below(3)) : -1;
        o.of = &heard;
        std::vector<int32_t> prompt(random.one_in(3) ? random.below(300) : 0);
        for (int32_t &token : prompt)
            token = int32_t(random.below(n_vocab + (random.one_in(200) ? 1 : 0)));
        o.prompt = prompt.data();
        o.n_prompt = prompt.size();
        o.hotwords = prompt.data(); // more than there is room for is refused
        o.n_hotwords = random.one_in(3) ? random.below(uint32_t(prompt.size()) + 1) : 0;
        const int32_t suppressed[] = {int32_t(random.below(n_vocab)), 1, 2};
        o.suppress = suppressed;
        o.n_suppress = random.below(4);
        o.threads = random.one_in(4) ? 2 : 1;
        o.beam = 1 + int32_t(random.below(random.one_in(20) ? 10 : 3));
        o.best_of = 1 + int32_t(random.below(3));
        o.n_finished = random.one_in(3) ? int32_t(random.below(6)) : 0;
        o.temperature = random.one_in(2) ? 0.0f : random.uniform(0.0f, 1.02f);
        o.temperature_step = random.one_in(2) ? 0.0f : random.uniform(0.2f, 1.0f);
        o.carry_prompt = random.one_in(3);
        o.context = random.one_in(3);
        o.max_context = int32_t(random.below(225));
        o.start_cs = random.one_in(4) ? int32_t(random.below(150)) : 0;
        o.duration_cs = random.one_in(4) ? int32_t(random.below(4000)) : 0;
        o.timestamps = !random.one_in(3);
        o.single_segment = random.one_in(4);
        o.token_times = random.one_in(2);
        o.max_segment_length = random.one_in(3) ? int32_t(random.below(20)) : 0;
        o.split_on_word = random.one_in(2);
        o.max_tokens = int32_t(1 + random.below(30));
        o.audio_ctx = int32_t(1 + random.below(random.one_in(30) ? 1501 : 64));
        o.fit_window = random.one_in(4);
        o.max_initial_timestamp_s = random.one_in(3) ? 0.0f : random.uniform(0.0f, 30.5f);
        o.suppress_blank = random.one_in(2);
        o.suppress_non_speech = random.one_in(4);
        o.special_tokens = random.one_in(4);
        o.one_window = random.one_in(4);
        o.repetition_penalty = random.one_in(3) ? random.uniform(1.0f, 10.5f) : 1.0f;
        o.no_repeat_ngram = random.one_in(3) ? int32_t(random.below(6)) : 0;
        o.speaker_turns = random.one_in(4);
        o.grammar = random.one_in(4) ? pairs : nullptr;
        o.on_logits = random.one_in(4) ? on_logits : nullptr;
        o.timeout_ms = random.one_in(4) ? int32_t(1 + random.below(300)) : 0;
        ev_cancel *cancel = nullptr;
        CHECK(ev_cancel_new(&cancel) == EV_OK);
        std::thread other;
        if (random.one_in(4)) {
            const auto wait = std::chrono::microseconds(random.below(300'000));
            other = std::thread([=] {
                std::this_thread::sleep_for(wait);
                ev_cancel_set(cancel);
            });
        }
        ev_transcribed out = {};
        const ev_status status =
            ev_transcriber_run(transcriber, audio.data(), audio.size(), &o, cancel, &out);
        if (other.joinable())
            other.join();
        ev_cancel_free(cancel);
        if (status != EV_OK && status != EV_ERR_ARGUMENT && status != EV_ERR_AUDIO) {
            fprintf(stderr, "status %d: %s\n", int(status), ev_last_error());
            ++failures;
        }
        ++runs;
    }
    CHECK(runs > 0);
    ev_grammar_free(pairs);
    ev_transcriber_free(transcriber);
}

// Eight threads on four transcribers of one model, each of which two share by a lock, as Python's
// sessions do; meant for ThreadSanitizer.
void test_threads(ev_model *model) {
    ev_transcriber *transcribers[4];
    std::mutex locks[4];
    for (ev_transcriber *&each : transcribers)
        each = opened(model);
    std::vector<std::thread> threads;
    std::atomic<int> done{0};
    for (size_t i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            Random random(10 + i);
            for (int turn = 0; turn < 2; ++turn) {
                const std::vector<float> audio = noise(random, second, 0.1f);
                ev_transcription options = usual();
                Heard heard;
                options.of = &heard;
                options.threads = 1 + int32_t(i % 2);
                options.beam = 1 + int32_t(i % 3);
                options.max_tokens = 5;
                options.token_times = 1;
                options.on_logits = on_logits;
                ev_transcribed out = {};
                const std::lock_guard<std::mutex> lock(locks[i / 2]);
                done += ev_transcriber_run(transcribers[i / 2], audio.data(), audio.size(),
                                           &options, nullptr, &out) == EV_OK;
            }
        });
    }
    for (std::thread &thread : threads)
        thread.join();
    CHECK(done == 16);
    for (ev_transcriber *each : transcribers)
        ev_transcriber_free(each);
}

} // namespace

void test_transcriber() {
    const std::string path = synthetic_model();
    ev_model *model = nullptr;
    CHECK(ev_model_open_for_transcription(path.c_str(), nullptr, nullptr, 0, -1, &model) == EV_OK);
    if (model == nullptr)
        return;
    test_threads(model);
    test_arguments(model, path);
    test_steps(model);
    test_grammar(model);
    Random random(4);
    const char *wanted = getenv("EDGEVOICE_FUZZ_SECONDS");
    const double seconds = wanted != nullptr && *wanted != 0 ? atof(wanted) : 4.0;
    fuzz(model, random, seconds / 2);
    ev_model_free(model);
    ev_model *aligned = nullptr; // as fuzz() does, with word times by alignment
    const int32_t heads[] = {1, 0, 3, 5};
    CHECK(ev_model_open_for_transcription(path.c_str(), nullptr, heads, 2, -1, &aligned) == EV_OK);
    if (aligned != nullptr)
        fuzz(aligned, random, seconds / 2);
    ev_model_free(aligned);
}

} // namespace test
