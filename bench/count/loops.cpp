// The loops of kernels.h and half_matrix.h, between marks: boards.py says how long they are. Built
// twice, with vectors and without.
#include "half_matrix.h"
#include "kernels.h"
#include "marks.h"

#include <cstdlib>
#include <vector>

// N times four instructions, to see whether the counter counts.
static void known(long n) {
    __asm__ volatile("1: ldr q0, [sp]\n fmla v1.4s, v2.4s, v3.s[1]\n subs %0, %0, #1\n b.ne 1b"
                     : "+r"(n)
                     :
                     : "v0", "v1", "cc");
}

int main(int, char **argv) {
    const size_t values = size_t(atol(argv[1])), height = size_t(atol(argv[2])),
                 width = size_t(atol(argv[3])), columns = size_t(atol(argv[4]));
    std::vector<float> x(values), y(columns * width, 0.5f), out(columns * height);
    for (size_t i = 0; i < values; ++i)
        x[i] = std::sin(float(i));
    const std::vector<uint16_t> weights(height * width, 0x3c00); // 1.0
    // Once before, for what is done at a first call.
    volatile float result = ev::log_sum_exp(x.data(), values).log;
    known(1);
    mark(0);
    known(1'000'000);
    mark(1);
    known(3'000'000);
    mark(2);
    result = ev::log_sum_exp(x.data(), values).log;
    mark(3);
    ev::multiply_half(weights.data(), width, y.data(), columns, out.data(), height, 0, height);
    mark(4);
    result = out[0];
    (void)result;
}
