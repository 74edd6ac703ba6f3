// The C API without inference: files, grammars, the log, the voice detector.
#include "edgevoice.h"

#include "check.h"
#include "reference.h"

#include <cmath>
#include <cstring>
#include <limits>

namespace test {

namespace {

bool refuses_model(const std::string &path) {
    ev_model *model = nullptr;
    const ev_status status = ev_model_open(path.c_str(), &model);
    const bool good = status == EV_ERR_MODEL && model == nullptr && *ev_last_error() != 0;
    if (!good)
        fprintf(stderr, "  %s: status %d, '%s'\n", path.c_str(), status, ev_last_error());
    ev_model_free(model);
    return good;
}

void what_is_no_model_is_refused(const std::string &source) {
    CHECK(refuses_model(folder() + "/absent.bin"));
    CHECK(refuses_model(folder()));
    CHECK(refuses_model(""));
    CHECK(refuses_model("/dev/zero"));
    // Structure without weights, another kind of model, text.
    CHECK(refuses_model(source + "/models/for-tests-ggml-tiny.en.bin"));
    CHECK(refuses_model(source + "/models/for-tests-ggml-base.bin"));
    CHECK(refuses_model(source + "/models/for-tests-silero-v6.2.0-ggml.bin"));
    CHECK(refuses_model(source + "/LICENSE"));

    Random random(4);
    const std::string path = folder() + "/random.bin";
    for (int round = 0; round < 200; ++round) {
        std::string bytes(random.below(5000), '\0');
        for (char &byte : bytes)
            byte = char(random.next());
        if (round % 2 == 0)
            bytes.replace(0, 4, "lmgg"); // the right magic number
        write_file(path, bytes);
        CHECK(refuses_model(path));
    }
}

void what_the_module_says_of_itself() {
    CHECK(strlen(ev_whisper_version()) > 0);
    CHECK(strlen(ev_kernels()) > 0);
    CHECK(ev_language_id("en") == 0);
    CHECK(ev_language_id("xx") == -1);
    CHECK(ev_language_id("") == -1);
}

void match_writes_no_more_than_there_is_room_for() {
    Network network(2); // "a" with two labels and two blocks: 6 entries
    network.nodes.resize(4);
    network.word(0, "a", 2).arc(2, EV_ARC_LABEL, 8, 3).arc(3, EV_ARC_LABEL, 9, 1);
    network.arc(1, EV_ARC_ACCEPT, 1, 0).arc(1, EV_ARC_ACCEPT, 0, 0);
    const std::vector<uint32_t> arcs = network.arcs(), first = network.first_arc();
    ev_grammar *grammar = nullptr;
    CHECK(ev_grammar_open(arcs.data(), arcs.size() / 3, first.data(), 4, &grammar) == EV_OK);
    CHECK(*ev_last_error() == 0);

    size_t n = 99;
    CHECK(ev_grammar_match(grammar, "a", 1, nullptr, 0, &n) == EV_OK && n == 6);
    const int32_t labels[] = {8, 9, 1, 8, 9, 0};
    for (size_t capacity = 0; capacity <= 6; ++capacity) {
        std::vector<ev_label> out(capacity); // exact, so that the sanitizer sees one too many
        CHECK(ev_grammar_match(grammar, "a", 1, out.data(), capacity, &n) == EV_OK && n == 6);
        for (size_t i = 0; i < capacity; ++i) {
            CHECK(out[i].label == labels[i] && out[i].position == 1);
            CHECK(out[i].path == int32_t(i / 3) && out[i].accept == (i % 3 == 2));
        }
    }
    CHECK(ev_grammar_match(grammar, "", 0, nullptr, 0, &n) == EV_OK && n == 0);
    CHECK(ev_grammar_match(grammar, nullptr, 0, nullptr, 0, &n) == EV_OK && n == 0);
    CHECK(ev_grammar_match(grammar, "a\0b", 3, nullptr, 0, &n) == EV_OK && n == 0);
    ev_grammar_free(grammar);
}

void can_go_on_where_a_word_can_follow() {
    Network network(2); // "a b" and "a"
    network.nodes.resize(4);
    network.word(0, "a", 1).arc(1, EV_ARC_ACCEPT, 0, 0).arc(1, EV_ARC_SEPARATOR, 0, 2);
    network.word(2, "b", 3).arc(3, EV_ARC_ACCEPT, 0, 0);
    const std::vector<uint32_t> arcs = network.arcs(), first = network.first_arc();
    ev_grammar *grammar = nullptr;
    CHECK(ev_grammar_open(arcs.data(), arcs.size() / 3, first.data(), 4, &grammar) == EV_OK);
    const auto answer = [&](const char *text, size_t length) {
        int32_t can_go_on = -1;
        CHECK(ev_grammar_can_go_on(grammar, text, length, &can_go_on) == EV_OK);
        return can_go_on;
    };
    CHECK(answer(nullptr, 0) == 1);
    CHECK(answer("a", 1) == 1);
    CHECK(answer("a b", 3) == 0);
    CHECK(answer("a.", 2) == 0);
    CHECK(answer("c", 1) == 0);
    CHECK(answer("a\0b", 3) == 0);
    ev_grammar_free(grammar);
}

void bad_tables_are_refused_with_a_reason() {
    const uint32_t arcs[] = {EV_ARC_BYTE, 'a', 7}, first[] = {0, 1};
    ev_grammar *grammar = nullptr;
    CHECK(ev_grammar_open(arcs, 1, first, 1, &grammar) == EV_ERR_GRAMMAR);
    CHECK(strstr(ev_last_error(), "arc 0") != nullptr);
    CHECK(ev_grammar_open(nullptr, 0, first, 0, &grammar) == EV_ERR_GRAMMAR);
    CHECK(grammar == nullptr);

    const uint32_t endless[] = {EV_ARC_CALL, 0, 0, EV_ARC_BYTE, 'a', 0}, both[] = {0, 2};
    if (ev_grammar_open(endless, 2, both, 1, &grammar) == EV_OK) {
        size_t n = 0;
        CHECK(ev_grammar_match(grammar, "a", 1, nullptr, 0, &n) == EV_ERR_GRAMMAR);
        int32_t can_go_on = 0;
        CHECK(ev_grammar_can_go_on(grammar, "a", 1, &can_go_on) == EV_ERR_GRAMMAR);
    }
    CHECK(*ev_last_error() != 0);
    ev_grammar_free(grammar);
}

void handles_may_be_null_when_freed() {
    ev_model_free(nullptr);
    ev_grammar_free(nullptr);
    ev_session_free(nullptr);
    ev_vad_free(nullptr);
}

// ---- voice detector and log ----

std::string take_log(size_t capacity) {
    std::vector<char> buffer(capacity, 'x');
    const size_t n = ev_log_take(buffer.data(), capacity);
    CHECK(n < capacity && buffer[n] == 0 && strlen(buffer.data()) == n);
    return {buffer.data(), n};
}

void the_log_comes_in_whole_lines(const std::string &silero) {
    while (!take_log(1 << 17).empty()) {
    }
    CHECK(take_log(100).empty());
    ev_vad *vad = nullptr;
    CHECK(ev_vad_open(silero.c_str(), &vad) == EV_OK); // logs a line or more
    ev_vad_free(vad);
    CHECK(ev_log_take(nullptr, 0) == 0);
    for (const size_t tiny : {1, 2, 3}) {
        CHECK(take_log(tiny).empty()); // no line is that short
    }
    std::string text;
    for (std::string part; !(part = take_log(300)).empty();) {
        CHECK(part.back() == '\n');
        text += part;
    }
    CHECK(!text.empty());
    for (size_t line = 0; line < text.size(); line = text.find('\n', line) + 1) {
        CHECK(strchr("DIWE", text[line]) != nullptr && text[line + 1] == ' ');
    }

    for (int i = 0; i < 60; ++i) {
        CHECK(ev_vad_open((folder() + "/absent.bin").c_str(), &vad) == EV_ERR_MODEL);
        CHECK(ev_vad_open(silero.c_str(), &vad) == EV_OK);
        ev_vad_free(vad);
    }
    CHECK(take_log(1 << 17).size() <= 64 * 1024);
}

void the_voice_detector_takes_windows(const std::string &silero) {
    constexpr size_t window = 512;
    ev_vad *vad = nullptr;
    CHECK(ev_vad_open(silero.c_str(), &vad) == EV_OK);
    if (vad == nullptr)
        return;
    Random random(5);
    std::vector<float> noise(window);
    for (float &sample : noise)
        sample = random.uniform(-1, 1);
    float first = -1, probability = -1;
    CHECK(ev_vad_process(vad, noise.data(), window, &first) == EV_OK);
    CHECK(first >= 0 && first <= 1);
    for (const size_t n : {size_t(0), window - 1, window + 1}) {
        CHECK(ev_vad_process(vad, noise.data(), n, &probability) == EV_ERR_AUDIO);
    }
    CHECK(probability == -1);
    for (const float level : {0.0f, 1.0f, -1.0f, 1e30f}) {
        const std::vector<float> flat(window, level);
        CHECK(ev_vad_process(vad, flat.data(), window, &probability) == EV_OK);
    }
    // What was heard before, however strange, is forgotten; a new detector has heard nothing.
    const std::vector<float> bad(window, std::numeric_limits<float>::quiet_NaN());
    CHECK(ev_vad_process(vad, bad.data(), window, &probability) == EV_OK);
    ev_vad_reset(vad);
    CHECK(ev_vad_process(vad, noise.data(), window, &probability) == EV_OK);
    CHECK(probability == first);
    ev_vad_free(vad);
}

} // namespace

void test_api(const std::string &source) {
    const std::string silero = source + "/models/for-tests-silero-v6.2.0-ggml.bin";
    what_is_no_model_is_refused(source);
    what_the_module_says_of_itself();
    match_writes_no_more_than_there_is_room_for();
    can_go_on_where_a_word_can_follow();
    bad_tables_are_refused_with_a_reason();
    handles_may_be_null_when_freed();
    the_log_comes_in_whole_lines(silero);
    the_voice_detector_takes_windows(silero);
}

} // namespace test
