// Small loops over long float arrays, written so that the compiler vectorises them for whatever
// machine it builds for.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace ev {

// exp(x) for x <= 0 within 2e-7 relative error; 0 below -87; NaN for NaN. Cody-Waite reduction to
// [-ln2/2, ln2/2] and a degree-6 Taylor polynomial there.
inline float exp_nonpositive(float x) {
    x = std::max(x, -87.0f);
    const float n = std::floor(x * 1.44269504f + 0.5f);
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    // NaN has no integer; it stays NaN through p.
    const int32_t bits = (int32_t(n == n ? n : 0.0f) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

struct LogSum {
    float max; // largest value
    float log; // log of the sum of exp of all values
};

// n >= 1 finite values.
inline LogSum log_sum_exp(const float *values, size_t n) {
    constexpr size_t lanes =
        16; // independent sums, so that the loop vectorises without -ffast-math
    float max_lane[lanes], sum_lane[lanes] = {};
    std::fill(max_lane, max_lane + lanes, values[0]);
    const size_t whole = n / lanes * lanes;
    for (size_t i = 0; i < whole; i += lanes) {
        for (size_t j = 0; j < lanes; ++j)
            max_lane[j] = std::max(max_lane[j], values[i + j]);
    }
    float max = *std::max_element(max_lane, max_lane + lanes);
    for (size_t i = whole; i < n; ++i)
        max = std::max(max, values[i]);
    for (size_t i = 0; i < whole; i += lanes) {
        for (size_t j = 0; j < lanes; ++j)
            sum_lane[j] += exp_nonpositive(values[i + j] - max);
    }
    double sum = 0.0;
    for (const float lane : sum_lane)
        sum += lane;
    for (size_t i = whole; i < n; ++i)
        sum += exp_nonpositive(values[i] - max);
    return {max, max + float(std::log(sum))};
}

} // namespace ev
