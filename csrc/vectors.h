// Eight floats, in the form that the processor compiled for has them: NEON, AVX2, or one after the
// other (scalar: all other processors, and where EV_SCALAR is defined). What is written with them
// stands in a namespace named after the form, so that a test may have two of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(EV_SCALAR)
#define EV_FORM scalar
#elif defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>
#define EV_FORM avx2
#elif defined(__aarch64__)
#include <arm_neon.h>
#define EV_FORM neon
#else
#define EV_SCALAR
#define EV_FORM scalar
#endif

namespace ev {
inline namespace EV_FORM {

constexpr size_t lanes = 8;

#if defined(EV_SCALAR)

struct Vec {
    float lane[lanes];
};
template <typename Function> Vec each(const Function &function) {
    Vec out;
    for (size_t i = 0; i < lanes; ++i)
        out.lane[i] = function(i);
    return out;
}
// IEEE half precision, finite.
inline float widen_one(uint16_t half) {
    // As the bits of a float it is 2^112 times smaller, subnormal numbers, too.
    const uint32_t bits = uint32_t(half & 0x7fff) << 13;
    float size;
    std::memcpy(&size, &bits, sizeof size);
    size *= 0x1p112f;
    return half & 0x8000 ? -size : size;
}
inline Vec all(float x) {
    return each([&](size_t) { return x; });
}
inline Vec load(const float *p) {
    return each([&](size_t i) { return p[i]; });
}
inline Vec widen(const uint16_t *p) {
    return each([&](size_t i) { return widen_one(p[i]); });
}
inline void store(float *p, Vec v) { std::memcpy(p, v.lane, sizeof v.lane); }
inline Vec sub(Vec a, Vec b) {
    return each([&](size_t i) { return a.lane[i] - b.lane[i]; });
}
inline Vec add(Vec a, Vec b) {
    return each([&](size_t i) { return a.lane[i] + b.lane[i]; });
}
inline Vec mul(Vec a, Vec b) {
    return each([&](size_t i) { return a.lane[i] * b.lane[i]; });
}
inline Vec add_product(Vec a, Vec b, Vec sum) {
    return each([&](size_t i) { return sum.lane[i] + a.lane[i] * b.lane[i]; });
}
inline Vec larger(Vec low, Vec x) {
    return each([&](size_t i) { return low.lane[i] > x.lane[i] ? low.lane[i] : x.lane[i]; });
}
inline Vec power_of_two(Vec n) {
    return each([&](size_t i) {
        uint32_t bits;
        std::memcpy(&bits, &n.lane[i], sizeof bits);
        bits = (bits << 23) + 0x3f800000u;
        float power;
        std::memcpy(&power, &bits, sizeof power);
        return power;
    });
}
inline float total(Vec v) {
    const float *x = v.lane;
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

#elif defined(__aarch64__)

struct Vec {
    float32x4_t low, high;
};
inline Vec all(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x)}; }
inline Vec load(const float *p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
inline Vec widen(const uint16_t *p) {
    const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(p));
    return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}
inline void store(float *p, Vec v) {
    vst1q_f32(p, v.low);
    vst1q_f32(p + 4, v.high);
}
inline Vec sub(Vec a, Vec b) { return {vsubq_f32(a.low, b.low), vsubq_f32(a.high, b.high)}; }
inline Vec add(Vec a, Vec b) { return {vaddq_f32(a.low, b.low), vaddq_f32(a.high, b.high)}; }
inline Vec mul(Vec a, Vec b) { return {vmulq_f32(a.low, b.low), vmulq_f32(a.high, b.high)}; }
inline Vec add_product(Vec a, Vec b, Vec sum) {
    return {vfmaq_f32(sum.low, a.low, b.low), vfmaq_f32(sum.high, a.high, b.high)};
}
inline Vec larger(Vec low, Vec x) {
    return {vmaxq_f32(low.low, x.low), vmaxq_f32(low.high, x.high)};
}
inline float32x4_t power_of_two(float32x4_t n) {
    return vreinterpretq_f32_u32(
        vaddq_u32(vshlq_n_u32(vreinterpretq_u32_f32(n), 23), vdupq_n_u32(0x3f800000u)));
}
inline Vec power_of_two(Vec n) { return {power_of_two(n.low), power_of_two(n.high)}; }
inline float total(Vec v) {
    const float32x4_t four = vaddq_f32(v.low, v.high);
    return vaddv_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)));
}

#else

using Vec = __m256;
inline Vec all(float x) { return _mm256_set1_ps(x); }
inline Vec load(const float *p) {
    Vec value = _mm256_loadu_ps(p);
    // Kept in a register: gcc would load it again for each row.
    __asm__("" : "+x"(value));
    return value;
}
inline Vec widen(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
inline void store(float *p, Vec v) { _mm256_storeu_ps(p, v); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec add_product(Vec a, Vec b, Vec sum) { return _mm256_fmadd_ps(a, b, sum); }
inline Vec larger(Vec low, Vec x) { return _mm256_max_ps(low, x); } // NaN: the second
inline Vec power_of_two(Vec n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(n), 23),
                                                _mm256_set1_epi32(0x3f800000)));
}
inline float total(Vec v) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

#endif

} // namespace EV_FORM
} // namespace ev
