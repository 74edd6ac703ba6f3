// C++ tests of csrc/, meant for AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer.
//
//   native_tests WHISPER_SOURCE      run by: python build_native.py --sanitize
//
// WHISPER_SOURCE is the whisper.cpp tree: its models/ folder holds headers for tests.
// EDGEVOICE_TEST_MODEL=FILE also recognises noise with a real model (a minute more);
// EDGEVOICE_TESTS="NAME ..." runs some parts alone; EDGEVOICE_FUZZ_SECONDS is of test_fuzz.cpp.
#include "check.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <unistd.h>

// Looked up by the sanitizers at start. Stop at the first finding; 3 GB, so that runaway memory
// ends the test and not the machine.
extern "C" const char *__asan_default_options();
extern "C" const char *__asan_default_options() {
    return "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:"
           "hard_rss_limit_mb=3000";
}
extern "C" const char *__ubsan_default_options();
extern "C" const char *__ubsan_default_options() { return "print_stacktrace=1:halt_on_error=1"; }

namespace test {

int failures = 0;

namespace {

struct TemporaryFolder {
    std::string path;

    TemporaryFolder() {
        const char *base = getenv("TMPDIR");
        path = std::string(base && *base ? base : "/tmp") + "/edgevoice-tests.XXXXXX";
        if (mkdtemp(path.data()) == nullptr) {
            perror("mkdtemp");
            exit(2);
        }
    }
    ~TemporaryFolder() {
        std::error_code ignored; // nothing to be done about it while the process ends
        std::filesystem::remove_all(path, ignored);
    }
};

} // namespace

const std::string &folder() {
    static const TemporaryFolder folder;
    return folder.path;
}

void write_file(const std::string &path, const std::string &bytes) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out << bytes;
    out.close();
    if (!out) {
        fprintf(stderr, "cannot write %s\n", path.c_str());
        exit(2);
    }
}

std::string read_file(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        fprintf(stderr, "cannot read %s\n", path.c_str());
        exit(2);
    }
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

} // namespace test

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: native_tests WHISPER_SOURCE\n");
        return 2;
    }
    // A test that hangs ends with SIGALRM; all of them take a minute or two.
    const char *fuzz_seconds = getenv("EDGEVOICE_FUZZ_SECONDS");
    alarm(900 + unsigned(fuzz_seconds != nullptr ? std::max(0, atoi(fuzz_seconds)) : 0));
    const std::string source = argv[1];
    const char *chosen = getenv("EDGEVOICE_TESTS");
    const std::string names = chosen != nullptr ? chosen : "";
    const auto run = [&names](const std::string &name, const auto &suite) {
        if (!names.empty() && (" " + names + " ").find(" " + name + " ") == std::string::npos)
            return;
        const auto start = std::chrono::steady_clock::now();
        const int before = test::failures;
        printf("%-12s", name.c_str());
        fflush(stdout);
        suite();
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        printf("%s (%.1f s)\n", test::failures == before ? "ok" : "FAILED", seconds.count());
        fflush(stdout);
    };
    run("kernels", test::test_kernels);
    run("vocab_trie", test::test_vocab_trie);
    run("automaton", test::test_automaton);
    run("nearest", test::test_nearest);
    run("sentences", test::test_sentences);
    run("model_file", test::test_model_file);
    run("quantize", test::test_quantize);
    run("api", [&] { test::test_api(source); });
    run("session", test::test_session);
    run("transcriber", test::test_transcriber);
    run("fuzz", [&] { test::test_fuzz(source); });
    if (test::failures != 0)
        fprintf(stderr, "%d checks failed\n", test::failures);
    return test::failures == 0 ? 0 : 1;
}
