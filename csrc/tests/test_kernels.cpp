// The vector loops of kernels.h and half_matrix.h against long double arithmetic, and against the
// same without vectors.
#include "check.h"
#include "kernel_form.h"

#include <limits>
#include <vector>

namespace test {

namespace {

constexpr size_t lengths[] = {1, 15, 16, 17, 31, 32, 33, 51864, 51866};

long double reference(const std::vector<float> &values) {
    const long double max = *std::max_element(values.begin(), values.end());
    long double sum = 0.0L;
    for (const float value : values)
        sum += std::exp((long double)value - max);
    return max + std::log(sum);
}

// Within two units in the last place; NaN is as good as NaN. With gcc 12 the forms give the same
// bits, AVX2 and NEON too; another compiler may round a product before it is added.
bool same(float a, float b) {
    const float size = std::fabs(a);
    return a == b || (a != a && b != b) ||
           std::fabs(a - b) <= 2.0f * (std::nextafter(size, INFINITY) - size);
}

ev::LogSum log_sum_exp(const std::vector<float> &values) {
    const ev::LogSum sum = kernels().log_sum_exp(values.data(), values.size());
    const ev::LogSum scalar = scalar_kernels().log_sum_exp(values.data(), values.size());
    CHECK(same(sum.log, scalar.log));
    return sum;
}

float exp_nonpositive(float x) {
    float in[ev::lanes], out[ev::lanes], scalar[ev::lanes];
    std::fill(in, in + ev::lanes, x);
    kernels().exp_nonpositive(in, out);
    scalar_kernels().exp_nonpositive(in, scalar);
    for (size_t i = 0; i < ev::lanes; ++i)
        CHECK(same(out[i], scalar[i]) && same(out[i], out[0]));
    return out[0];
}

// True when the result is within 2e-6 nats of the exact one, besides its own rounding to float.
bool exact(const std::vector<float> &values) {
    const ev::LogSum sum = log_sum_exp(values);
    const long double wanted = reference(values);
    const long double rounding = std::fabs(wanted) * std::numeric_limits<float>::epsilon();
    const bool good = sum.max == *std::max_element(values.begin(), values.end()) &&
                      std::fabs(sum.log - wanted) <= 2e-6L + rounding;
    if (!good) {
        fprintf(stderr, "  n %zu: got max %.9g log %.9g, expected log %.9Lg\n", values.size(),
                double(sum.max), double(sum.log), wanted);
    }
    return good;
}

void exp_is_close() {
    double worst = 0.0;
    for (float x = -87.0f; x <= 0.0f; x += 0.00037f) {
        const double wanted = std::exp(double(x));
        worst = std::max(worst, std::fabs(exp_nonpositive(x) - wanted) / wanted);
    }
    CHECK(worst < 2.5e-7);
    CHECK(exp_nonpositive(0.0f) == 1.0f);
    CHECK(exp_nonpositive(-0.0f) == 1.0f);
    for (const float low : {-87.5f, -1e4f, -3e38f, -std::numeric_limits<float>::infinity()}) {
        CHECK(exp_nonpositive(low) >= 0.0f && exp_nonpositive(low) < 1e-37f);
    }
}

void log_sum_is_close() {
    Random random(1);
    for (const size_t n : lengths) {
        for (const float spread : {0.0f, 1e-3f, 1.0f, 30.0f, 200.0f}) {
            std::vector<float> values(n);
            for (float &value : values)
                value = random.uniform(-spread, spread);
            CHECK(exact(values));
        }
    }
}

void the_largest_counts_wherever_it_stands() {
    for (const size_t n : lengths) {
        for (const size_t at : {size_t(0), n / 2, n - 1}) {
            std::vector<float> values(n, -1000.0f);
            values[at] = 12.5f;
            CHECK(exact(values));
        }
    }
}

void extreme_values_neither_overflow_nor_vanish() {
    for (const size_t n : lengths) {
        CHECK(exact(std::vector<float>(n, 1e30f)));
        CHECK(exact(std::vector<float>(n, -1e30f)));
        CHECK(exact(std::vector<float>(n, -0.0f)));
        CHECK(exact(std::vector<float>(n, std::numeric_limits<float>::min())));
        std::vector<float> mixed(n, -std::numeric_limits<float>::max());
        mixed[n / 2] = std::numeric_limits<float>::max(); // the difference is -infinity in float
        CHECK(exact(mixed));
    }
}

// What is not finite must show in the sum, because the search relies on that to refuse it.
void what_is_not_finite_shows() {
    const float infinity = std::numeric_limits<float>::infinity();
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), infinity}) {
        for (const size_t n : lengths) {
            for (const size_t at : {size_t(0), n / 2, n - 1}) {
                std::vector<float> values(n, 1.0f);
                values[at] = bad;
                CHECK(!std::isfinite(log_sum_exp(values).log));
            }
        }
    }
}

// Half-precision numbers of all magnitudes and signs, subnormal ones, too, but none that is not
// finite.
uint16_t half(uint32_t i) {
    const uint16_t bits = uint16_t(i * 2654435761u >> 16);
    return (bits & 0x7c00) == 0x7c00 ? uint16_t(bits & 0x83ff) : bits;
}

long double value_of(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const long double size = exponent ? std::ldexp(1024.0L + fraction, exponent - 25)
                                      : std::ldexp((long double)fraction, -24);
    return half & 0x8000 ? -size : size;
}

// Every shape that takes another way: odd numbers of rows, one to nine columns, parts of the rows.
void products_are_close() {
    constexpr size_t width = 40;
    for (const size_t height : {1, 2, 3, 8, 9}) {
        for (size_t n_columns = 1; n_columns <= 9; ++n_columns) {
            // Exactly as long as needed: the sanitizer sees what is read behind the end.
            std::vector<uint16_t> weights(height * width);
            std::vector<float> x(n_columns * width), out(n_columns * height, NAN);
            for (size_t i = 0; i < weights.size(); ++i)
                weights[i] = half(uint32_t(i + height));
            for (size_t i = 0; i < x.size(); ++i)
                x[i] = std::sin(float(i)) * float(n_columns);
            std::vector<float> scalar(out);
            const auto multiply = [&](const Kernels &form, float *to, size_t first, size_t last) {
                form.multiply_half(weights.data(), width, x.data(), n_columns, to, height, first,
                                   last);
            };
            const size_t cut = height / 2;
            multiply(kernels(), out.data(), 0, cut);
            multiply(kernels(), out.data(), cut, height);
            multiply(scalar_kernels(), scalar.data(), 0, height);
            for (size_t c = 0; c < n_columns; ++c) {
                for (size_t r = 0; r < height; ++r) {
                    long double wanted = 0.0L, size = 0.0L;
                    for (size_t k = 0; k < width; ++k) {
                        const long double term =
                            value_of(weights[r * width + k]) * (long double)x[c * width + k];
                        wanted += term;
                        size += std::fabs(term);
                    }
                    const float ours = out[c * height + r], other = scalar[c * height + r];
                    CHECK(std::fabs(ours - wanted) <= size * 1e-6L);
                    CHECK(std::fabs(ours - other) <= size * std::numeric_limits<float>::epsilon());
                }
            }
        }
    }
}

} // namespace

void test_kernels() {
    exp_is_close();
    log_sum_is_close();
    the_largest_counts_wherever_it_stands();
    extreme_values_neither_overflow_nor_vanish();
    what_is_not_finite_shows();
    products_are_close();
}

} // namespace test
