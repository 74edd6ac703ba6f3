// What all C++ tests share: a check that counts, random numbers with a seed, a folder, a clock.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>

namespace test {

extern int failures;

// A failed check is reported and counted; the test goes on.
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #condition);          \
            ++test::failures;                                                                      \
        }                                                                                          \
    } while (0)

// xorshift64*: the same numbers on every machine, so that a failure can be seen again.
class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed) {} // seed: not 0

    uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545f4914f6cdd1du;
    }
    uint32_t below(uint32_t n) { return uint32_t((next() >> 32) % n); }
    bool one_in(uint32_t n) { return below(n) == 0; }
    float uniform(float low, float high) {
        return low + (high - low) * (float(next() >> 40) * 0x1p-24f);
    }
    char pick(const std::string &letters) { return letters[below(uint32_t(letters.size()))]; }

  private:
    uint64_t state_;
};

// Bounds loops that could go on for ever.
class Timer {
  public:
    explicit Timer(double seconds)
        : end_(std::chrono::steady_clock::now() +
               std::chrono::microseconds(int64_t(seconds * 1e6))) {}
    bool running() const { return std::chrono::steady_clock::now() < end_; }

  private:
    std::chrono::steady_clock::time_point end_;
};

// A folder that exists until the process ends normally.
const std::string &folder();

void write_file(const std::string &path, const std::string &bytes);
std::string read_file(const std::string &path); // ends the process when it cannot be read

// One for each test file. `source` is the whisper.cpp tree.
void test_kernels();
void test_vocab_trie();
void test_automaton();
void test_nearest();
void test_sentences();
void test_model_file();
void test_quantize();
void test_api(const std::string &source);
void test_session();
void test_transcriber();
void test_fuzz(const std::string &source);

} // namespace test
