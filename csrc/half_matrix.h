// A matrix of half-precision numbers times a few columns of float: what a decoder step consists of.
//
// ggml's product takes four rows at a time in blocks for many columns. With two to eight columns it
// waits for memory: rows of 768 bytes, four at once, are streams too short for the processor to
// fetch ahead. Here two rows stand side by side, later ones are asked for in time, each weight is
// widened once for four columns, and the columns stay in single precision. Steps of tiny.en take
// 0.55 to 0.7 of the time (x86-64 with AVX2, one thread).
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
#define EV_HALF_MATRIX 1
#elif defined(__aarch64__)
#include <arm_neon.h>
#define EV_HALF_MATRIX 1
#else
#define EV_HALF_MATRIX 0 // no vectors of float: ggml's own product is taken
#endif

namespace ev {

#if EV_HALF_MATRIX

namespace half_matrix {

// Eight floats.
#if defined(__aarch64__)
struct Vec {
    float32x4_t low, high;
};
inline Vec zero() { return {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)}; }
inline Vec load(const float *p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
inline Vec widen(const uint16_t *p) {
    const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(p));
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}
inline Vec add_product(Vec a, Vec b, Vec sum) {
    return {vfmaq_f32(sum.low, a.low, b.low), vfmaq_f32(sum.high, a.high, b.high)};
}
inline float total(Vec v) { return vaddvq_f32(vaddq_f32(v.low, v.high)); }
#else
using Vec = __m256;
inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec load(const float *p) {
    Vec value = _mm256_loadu_ps(p);
    // Kept in a register: gcc would load it again for each row.
    __asm__("" : "+x"(value));
    return value;
}
inline Vec widen(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
inline Vec add_product(Vec a, Vec b, Vec sum) { return _mm256_fmadd_ps(a, b, sum); }
inline float total(Vec v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#endif

constexpr size_t lanes = 8;

// `rows` rows from `weights` on against `columns` columns from `x` on.
template <size_t rows, size_t columns>
void tile(const uint16_t *weights, size_t width, const float *x, float *out, size_t height) {
    // Four rows on is 3 kB with tiny and 6 kB with small: soon needed, and not yet too much.
    const uint16_t *soon = weights + 4 * width;
    Vec sums[rows][columns];
    for (auto &row : sums) {
        for (Vec &sum : row)
            sum = zero();
    }
    for (size_t k = 0; k < width; k += lanes) {
        if (k % 32 == 0) { // a cache line
            for (size_t r = 0; r < rows; ++r)
                __builtin_prefetch(soon + r * width + k);
        }
        Vec wide[rows];
        for (size_t r = 0; r < rows; ++r)
            wide[r] = widen(weights + r * width + k);
        for (size_t c = 0; c < columns; ++c) {
            const Vec value = load(x + c * width + k);
            for (size_t r = 0; r < rows; ++r)
                sums[r][c] = add_product(wide[r], value, sums[r][c]);
        }
    }
    for (size_t c = 0; c < columns; ++c) {
        for (size_t r = 0; r < rows; ++r)
            out[c * height + r] = total(sums[r][c]);
    }
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

#endif

} // namespace ev
