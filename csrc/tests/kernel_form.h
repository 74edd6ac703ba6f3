// The kernels in one form, so that a test can have two of them.
#pragma once

#include "half_matrix.h"
#include "kernels.h"

namespace test {

struct Kernels {
    void (*exp_nonpositive)(const float *x, float *out); // ev::lanes of each
    ev::LogSum (*log_sum_exp)(const float *values, size_t n);
    void (*multiply_half)(const uint16_t *weights, size_t width, const float *x, size_t n_columns,
                          float *out, size_t height, size_t first, size_t last);
};

// Those of the file that asks.
inline namespace EV_FORM {
inline Kernels kernels() {
    const auto exponentials = [](const float *x, float *out) {
        ev::store(out, ev::exp_nonpositive(ev::load(x)));
    };
    return {exponentials, ev::log_sum_exp, ev::multiply_half};
}
} // namespace EV_FORM

// One number after the other, whatever the processor has: scalar_kernels.cpp.
Kernels scalar_kernels();

} // namespace test
