// Small loops over long float arrays.
#pragma once

#include "vectors.h"

#include <algorithm>
#include <cmath>

namespace ev {

struct LogSum {
    float max; // largest value
    float log; // log of the sum of exp of all values
};

inline namespace EV_FORM {

// exp(x) for x <= 0 within 2.5e-7 relative error; 0 below -87; NaN for NaN. Cody-Waite reduction to
// [-ln2/2, ln2/2], and there 1 + r + r^2 q(r) with the q of degree 3 whose largest relative error
// is least, 1.05e-7.
inline Vec exp_nonpositive(Vec x) {
    x = larger(all(-87.0f), x);
    // Added to 1.5 * 2^23 a number is rounded to a whole one, which then is in the lowest bits.
    const Vec magic = all(12582912.0f);
    const Vec shifted = add_product(x, all(1.44269504f), magic), n = sub(shifted, magic);
    const Vec r = add_product(n, all(2.12194440e-4f), add_product(n, all(-0.693359375f), x));
    Vec q = add_product(all(0.0083125f), r, all(0.04189033f));
    q = add_product(q, r, all(0.16667115f));
    q = add_product(q, r, all(0.4999923f));
    const Vec p = add(add_product(q, mul(r, r), r), all(1.0f));
    return mul(p, power_of_two(shifted)); // a product, so that NaN stays NaN
}

// n >= 1 finite values.
inline LogSum log_sum_exp(const float *values, size_t n) {
    // Two at a time: no sum waits for the one before.
    constexpr size_t step = 2 * lanes;
    const size_t whole = n / step * step;
    // What is left over, filled up with a value that the largest may be; of the sum it is no part.
    float rest[step];
    const size_t n_rest = n - whole;
    std::fill(rest, rest + step, values[n - 1]);
    std::copy(values + whole, values + n, rest);

    Vec max_low = load(rest), max_high = load(rest + lanes);
    for (size_t i = 0; i < whole; i += step) {
        max_low = larger(max_low, load(values + i));
        max_high = larger(max_high, load(values + i + lanes));
    }
    float lane[lanes];
    store(lane, larger(max_low, max_high));
    const float max = *std::max_element(lane, lane + lanes);

    Vec low = all(0.0f), high = all(0.0f);
    const Vec most = all(max);
    for (size_t i = 0; i < whole; i += step) {
        low = add(low, exp_nonpositive(sub(load(values + i), most)));
        high = add(high, exp_nonpositive(sub(load(values + i + lanes), most)));
    }
    double sum = 0.0;
    store(lane, low);
    for (const float part : lane)
        sum += part;
    store(lane, high);
    for (const float part : lane)
        sum += part;
    for (size_t i = 0; i < n_rest; i += lanes) {
        store(lane, exp_nonpositive(sub(load(rest + i), most)));
        for (size_t j = i; j < std::min(i + lanes, n_rest); ++j)
            sum += lane[j - i];
    }
    return {max, max + float(std::log(sum))};
}

} // namespace EV_FORM
} // namespace ev
