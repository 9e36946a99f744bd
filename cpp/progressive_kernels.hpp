// The product with a progressive head, over the vector type V of panel_kernels.hpp. Everything but the refined
// outputs is rounded alike by all instruction sets: sums of floats are made in 16 lanes, and without fma.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "progressive.hpp"
#include "vector_kernels.hpp"

namespace hmatrix {
namespace {

// y = rows of the strips times codes, for G strips at once.
template <class V, int G>
void multiply_strips(const std::uint32_t* words, std::int32_t row_words, const std::int8_t* codes, float half_step,
                     std::int32_t sum, const float* scales, const float* bias, float* y) {
    constexpr int parts = strip_height / V::width;
    const std::ptrdiff_t strip = std::ptrdiff_t{row_words} * strip_height;
    typename V::ireg total[G * parts];
    for (auto& t : total) t = V::zero_words();
    for (std::int32_t w = 0; w < row_words; ++w) {
        const auto x = V::broadcast_word(codes + 4 * w);
        for (int g = 0; g < G; ++g)
            for (int p = 0; p < parts; ++p)
                total[g * parts + p] = V::template dot<Precision::int8, 0>(
                    total[g * parts + p], V::load_words(words + g * strip + w * strip_height + p * V::width), x);
    }
    const auto step = V::broadcast(&half_step);
    for (int i = 0; i < G * parts; ++i) {
        const auto value = V::mul(V::twice_less(total[i], 2 * 128 * sum), step);
        V::store(y + i * V::width, V::add(V::mul(value, V::load(scales + i * V::width)), V::load(bias + i * V::width)));
    }
}

template <class V>
void multiply_all(const std::uint32_t* words, std::int32_t rows, std::int32_t row_words, const std::int8_t* codes,
                  float step, std::int32_t sum, const float* scales, const float* bias, float* y) {
    constexpr int G = 8 * V::width / strip_height;
    const std::int32_t strips = padded_to(rows, strip_height) / strip_height;
    const auto run = [&](std::int32_t s, auto kernel) {
        kernel(words + std::ptrdiff_t{s} * row_words * strip_height, row_words, codes, 0.5f * step, sum,
               scales + s * strip_height, bias + s * strip_height, y + s * strip_height);
    };
    std::int32_t s = 0;
    for (; s + G <= strips; s += G) run(s, multiply_strips<V, G>);
    for (; s < strips; ++s) run(s, multiply_strips<V, 1>);
}

// The sum of weights * a^2 (or of a^2), over whole strips and in 16 lanes.
template <class V, bool weighted>
float sum_of_squares(const float* a, const float* weights, std::int32_t length) {
    constexpr int parts = strip_height / V::width;
    typename V::reg total[parts];
    for (auto& t : total) t = V::zero();
    for (std::int32_t i = 0; i < length; i += strip_height)
        for (int p = 0; p < parts; ++p) {
            const auto v = V::load(a + i + p * V::width);
            auto square = V::mul(v, v);
            if constexpr (weighted) square = V::mul(square, V::load(weights + i + p * V::width));
            total[p] = V::add(total[p], square);
        }
    float lanes[strip_height];
    for (int p = 0; p < parts; ++p) V::store(lanes + p * V::width, total[p]);
    for (int half = strip_height / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

template <class V>
float largest_of(const float* a, std::int32_t length) {
    auto most = V::load(a);
    for (std::int32_t i = V::width; i < length; i += V::width) most = V::max(most, V::load(a + i));
    return V::largest(most);
}

template <class V>
std::int32_t count_at_least(const float* a, std::int32_t length, float threshold) {
    const auto t = V::broadcast(&threshold);
    std::int32_t count = 0;
    for (std::int32_t i = 0; i < length; i += V::width) count += __builtin_popcount(V::at_least(V::load(a + i), t));
    return count;
}

// Appends the rows whose entry is at least `low` but not `high`, the first first, until there are `most`.
template <class V>
std::int32_t collect(const float* a, std::int32_t rows, float low, float high, std::int32_t most, std::int32_t* chosen,
                     std::int32_t count) {
    const auto least = V::broadcast(&low), end = V::broadcast(&high);
    for (std::int32_t i = 0; i < rows; i += V::width) {
        const auto v = V::load(a + i);
        unsigned mask = V::at_least(v, least);
        if (mask == 0) continue;
        for (mask &= ~V::at_least(v, end); mask != 0; mask &= mask - 1) {
            const std::int32_t row = i + __builtin_ctz(mask);
            if (count == most || row >= rows) return count;
            chosen[count++] = row;
        }
    }
    return count;
}

constexpr int bisections = 12;
constexpr float infinity = std::numeric_limits<float>::infinity();

// Chooses `wanted` rows with nearly the largest entries, where at least so many entries are at least `low`:
// bisects for a threshold that no more than `wanted` entries reach, and fills up with the first rows below it.
template <class V>
std::int32_t choose(const float* a, std::int32_t rows, float low, std::int32_t wanted, std::int32_t* chosen) {
    const std::int32_t length = padded_to(rows, strip_height);
    float high = std::nextafter(largest_of<V>(a, length), infinity);
    for (int i = 0; i < bisections; ++i) {
        const float middle = 0.5f * low + 0.5f * high;
        const std::int32_t count = count_at_least<V>(a, length, middle);
        (count > wanted ? low : high) = middle;
        if (count == wanted) break;
    }
    const std::int32_t count = collect<V>(a, rows, high, infinity, wanted, chosen, 0);
    return collect<V>(a, rows, low, high, wanted, chosen, count);
}

// Chooses the `wanted` rows with nearly the largest entries of all.
template <class V>
std::int32_t choose_largest(const float* a, std::int32_t rows, std::int32_t wanted, std::int32_t* chosen) {
    const std::int32_t length = padded_to(rows, strip_height);
    const float most = largest_of<V>(a, length);
    if (wanted == 1) return collect<V>(a, rows, most, infinity, 1, chosen, 0);
    float step = std::max(std::abs(most), 1e-30f) / 64;
    while (count_at_least<V>(a, length, most - step) < wanted) step *= 2;
    return choose<V>(a, rows, most - step, wanted, chosen);
}

// One fine row times x, whose columns are filled up to whole blocks.
template <class V, Precision P>
float multiply_row(const std::uint32_t* words, const float* x, std::int32_t blocks) {
    constexpr int parts = strip_height / V::width, per_word = columns_per_word(P), groups = 4 / per_word;
    typename V::reg total[4][parts];
    for (auto& lane : total)
        for (auto& t : lane) t = V::zero();
    for (std::int32_t b = 0; b < blocks; ++b, x += block_columns, words += groups * strip_height) {
        const auto add = [&](int quarter, int p, const typename V::reg& value) {
            total[quarter][p] = V::fma(value, V::load(x + quarter * strip_height + p * V::width), total[quarter][p]);
        };
        for (int g = 0; g < groups; ++g)
            for (int p = 0; p < parts; ++p) {
                const std::uint32_t* place = words + g * strip_height + p * V::width;
                if constexpr (P == Precision::float32) {
                    add(g, p, V::load_values(place));
                } else {
                    const auto word = V::load_words(place);
                    add(g * per_word, p, V::template decode<P, 0>(word));
                    add(g * per_word + 1, p, V::template decode<P, 1>(word));
                    if constexpr (P == Precision::int8) {
                        add(2, p, V::template decode<P, 2>(word));
                        add(3, p, V::template decode<P, 3>(word));
                    }
                }
            }
    }
    auto sum = V::zero();
    for (int p = 0; p < parts; ++p) sum = V::add(sum, V::add(V::add(total[0][p], total[1][p]), V::add(total[2][p], total[3][p])));
    return V::sum(sum);
}

// Words of a row that are fetched ahead; what is behind them the processor sees coming.
constexpr std::int64_t farthest_prefetch = 1024;

template <class V, Precision P>
void refine_rows(const Head& head, const float* x, Workspace& work, std::int32_t begin, std::int32_t end) {
    const std::int64_t row_words = head.fine_row_words();
    const std::int32_t blocks = padded_to(head.columns, block_columns) / block_columns;
    for (std::int32_t i = begin; i < end; ++i) {
        // The rows lie anywhere; the next one is fetched while this one is multiplied.
        if (i + 1 < end)
            for (std::int64_t w = 0; w < row_words && w < farthest_prefetch; w += 16)
                __builtin_prefetch(head.fine_words + work.chosen[i + 1] * row_words + w);
        const std::int32_t row = work.chosen[i];
        const float product = multiply_row<V, P>(head.fine_words + row * row_words, x, blocks);
        work.refined[i] = product * head.fine_scales[row] + head.bias[row];
    }
}

template <class V>
std::int32_t refine_head(const Head& head, const float* x, std::int32_t top, Workspace& work) {
    float step = 0, inner_step = 0;
    std::int32_t sum = 0, inner_sum = 0;
    const std::int32_t padded_columns = padded_to(head.columns, block_columns);
    const std::int32_t padded_rank = padded_to(head.rank, strip_height), padded_rows = padded_to(head.rows, strip_height);
    quantize<V>(x, head.columns, work.codes.data(), &step, &sum);
    if (!(step >= 0.0f)) {
        std::fill_n(work.coarse.begin(), head.rows, std::numeric_limits<float>::quiet_NaN());
        return 0;
    }
    if (padded_columns != head.columns) {
        std::copy(x, x + head.columns, work.x.begin());
        std::fill(work.x.begin() + head.columns, work.x.begin() + padded_columns, 0.0f);
        x = work.x.data();
    }
    float* t = work.t.data();
    multiply_all<V>(head.basis, head.rank, (head.columns + 3) / 4, work.codes.data(), step, sum, head.basis_scales,
                    head.zeros, t);
    quantize<V>(t, padded_rank, work.inner_codes.data(), &inner_step, &inner_sum);
    float* coarse = work.coarse.data();
    multiply_all<V>(head.factor, head.rows, padded_rank / 4, work.inner_codes.data(), inner_step, inner_sum,
                    head.factor_scales, head.bias, coarse);

    const Bound& bound = head.bound;
    const float square = sum_of_squares<V, false>(x, nullptr, padded_columns);
    const float known =
        std::max(std::sqrt(sum_of_squares<V, true>(t, head.basis_weights, padded_rank)) - bound.quantised * step, 0.0f);
    // Inputs that quantisation takes for zero are in no subspace; of inputs whose square overflows all is outside.
    constexpr float huge = 1e37f, tiny = 1e-37f;
    const float norm = square < huge ? std::sqrt(square) : std::numeric_limits<float>::max();
    const float outside = square < huge ? std::sqrt(std::max(square * 1.0001f - known * known, tiny)) : norm;
    const float margin = bound.scale * outside;
    const float noise = bound.quantised * step + bound.relative * norm + bound.inner * inner_step;
    float* upper = work.upper.data();
    const auto of_remainder = V::broadcast(&margin), of_reach = V::broadcast(&noise);
    for (std::int32_t i = 0; i < padded_rows; i += V::width)
        V::store(upper + i, V::add(V::load(coarse + i), V::add(V::mul(of_remainder, V::load(head.remainder + i)),
                                                               V::mul(of_reach, V::load(head.reach + i)))));

    const auto refine = [&](std::int32_t begin, std::int32_t end) {
        if (head.fine == Precision::float32)
            refine_rows<V, Precision::float32>(head, x, work, begin, end);
        else if (head.fine == Precision::bfloat16)
            refine_rows<V, Precision::bfloat16>(head, x, work, begin, end);
        else
            refine_rows<V, Precision::int8>(head, x, work, begin, end);
    };
    std::int32_t* chosen = work.chosen.data();
    const std::int32_t first = choose_largest<V>(coarse, head.rows, top, chosen);
    refine(0, first);
    const float least = *std::min_element(work.refined.begin(), work.refined.begin() + first);
    const float threshold = least - (bound.rounding * norm + bound.offset);
    // The first ones are done.
    for (std::int32_t i = 0; i < first; ++i) upper[chosen[i]] = -infinity;
    const std::int32_t room = std::max(head.most - first, 0);
    const std::int32_t candidates = count_at_least<V>(upper, padded_rows, threshold);
    std::int32_t more = 0;
    if (candidates <= room) {
        more = collect<V>(upper, head.rows, threshold, infinity, room, chosen + first, 0);
    } else if (room > 0) {
        // Too many can win: those with the largest coarse outputs are the likeliest.
        std::copy(coarse, coarse + padded_rows, upper);
        for (std::int32_t i = 0; i < first; ++i) upper[chosen[i]] = -infinity;
        more = choose_largest<V>(upper, head.rows, room, chosen + first);
    }
    refine(first, first + more);
    return first + more;
}

}  // namespace
}  // namespace hmatrix
