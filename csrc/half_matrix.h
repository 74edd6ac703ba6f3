// A matrix of half-precision numbers times a few columns of float: what a decoder step consists of.
//
// ggml's product takes four rows at a time in blocks for many columns. With two to eight columns it
// waits for memory: rows of 768 bytes, four at once, are streams too short for the processor to
// fetch ahead. Here two rows stand side by side, later ones are asked for in time, each weight is
// widened once for four columns, and the columns stay in single precision. Steps of tiny.en take
// 0.55 to 0.7 of the time (x86-64 with AVX2, one thread).
#pragma once

#include "vectors.h"

namespace ev {
inline namespace EV_FORM {
namespace half_matrix {

// `rows` rows from `weights` on against `columns` columns from `x` on.
template <size_t rows, size_t columns>
void tile(const uint16_t *weights, size_t width, const float *x, float *out, size_t height) {
    // Four rows on is 3 kB with tiny and 6 kB with small: soon needed, and not yet too much.
    const uint16_t *soon = weights + 4 * width;
    // All loops over it are unrolled: gcc keeps an array in memory that is indexed in a loop.
    Vec sums[rows * columns];
#pragma GCC unroll 8
    for (size_t i = 0; i < rows * columns; ++i)
        sums[i] = all(0.0f);
    for (size_t k = 0; k < width; k += lanes) {
        if (k % 32 == 0) { // a cache line
            for (size_t r = 0; r < rows; ++r)
                __builtin_prefetch(soon + r * width + k);
        }
        Vec wide[rows];
#pragma GCC unroll 8
        for (size_t r = 0; r < rows; ++r)
            wide[r] = widen(weights + r * width + k);
#pragma GCC unroll 8
        for (size_t c = 0; c < columns; ++c) {
            const Vec value = load(x + c * width + k);
#pragma GCC unroll 8
            for (size_t r = 0; r < rows; ++r)
                sums[c * rows + r] = add_product(wide[r], value, sums[c * rows + r]);
        }
    }
#pragma GCC unroll 8
    for (size_t i = 0; i < rows * columns; ++i)
        out[i / rows * height + i % rows] = total(sums[i]);
}

template <size_t rows>
void all_columns(const uint16_t *weights, size_t width, const float *x, size_t n_columns,
                 float *out, size_t height) {
    size_t c = 0;
    for (; c + 4 <= n_columns; c += 4)
        tile<rows, 4>(weights, width, x + c * width, out + c * height, height);
    x += c * width;
    out += c * height;
    switch (n_columns - c) {
    case 1:
        return tile<rows, 1>(weights, width, x, out, height);
    case 2:
        return tile<rows, 2>(weights, width, x, out, height);
    case 3:
        return tile<rows, 3>(weights, width, x, out, height);
    default:
        return;
    }
}

} // namespace half_matrix

// Rows [first, last) of the product: out[c * height + r] = sum over k of weights[r][k] * x[c][k].
// `weights` has `height` rows of `width` IEEE half-precision numbers, `x` n_columns rows of `width`
// floats, both without gaps; width is a multiple of 8.
inline void multiply_half(const uint16_t *weights, size_t width, const float *x, size_t n_columns,
                          float *out, size_t height, size_t first, size_t last) {
    size_t r = first;
    for (; r + 2 <= last; r += 2)
        half_matrix::all_columns<2>(weights + r * width, width, x, n_columns, out + r, height);
    if (r < last)
        half_matrix::all_columns<1>(weights + r * width, width, x, n_columns, out + r, height);
}

} // namespace EV_FORM
} // namespace ev
