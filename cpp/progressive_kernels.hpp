// The product with a progressive head, over the vector type V of panel_kernels.hpp. Everything but the refined
// outputs is rounded alike by all instruction sets: sums of floats are made in 16 lanes, and without fma.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "selection_kernels.hpp"
#include "vector_kernels.hpp"

namespace hmatrix {
namespace {

// y = rows of the strips times codes, for G strips at once. Where these are few, more sums take turns.
template <class V, Precision P, int G, int turns>
void multiply_strips(const std::uint32_t* words, std::int32_t row_words, const std::int8_t* codes, float half_step,
                     std::int32_t sum, const float* scales, const float* bias, float* y) {
    constexpr int parts = strip_height / V::width, K = columns_per_word(P);
    const std::ptrdiff_t strip = std::ptrdiff_t{row_words} * strip_height;
    typename V::ireg total[turns][G * parts];
    for (auto& turn : total)
        for (auto& t : turn) t = V::zero_words();
    const auto add = [&](int turn, std::int32_t w) {
        typename V::iword x[K / 4];
        for (int k = 0; k < K / 4; ++k) x[k] = V::broadcast_word(codes + K * w + 4 * k);
        for (int g = 0; g < G; ++g)
            for (int p = 0; p < parts; ++p) {
                auto& sum = total[turn][g * parts + p];
                const auto word = V::load_words(words + g * strip + w * strip_height + p * V::width);
                unroll([&](auto k) { sum = V::template dot<P, k>(sum, word, x[k]); },
                       std::make_integer_sequence<int, K / 4>());
            }
    };
    std::int32_t w = 0;
    for (; w + turns <= row_words; w += turns)
        for (int turn = 0; turn < turns; ++turn) add(turn, w + turn);
    for (; w < row_words; ++w) add(0, w);
    const auto step = V::broadcast(&half_step);
    for (int i = 0; i < G * parts; ++i) {
        for (int turn = 1; turn < turns; ++turn) total[0][i] = V::add_words(total[0][i], total[turn][i]);
        const auto value = V::mul(V::twice_less(total[0][i], twice_zero(P) * sum), step);
        V::store(y + i * V::width, V::add(V::mul(value, V::load(scales + i * V::width)), V::load(bias + i * V::width)));
    }
}

template <class V, Precision P>
void multiply_all_of(const std::uint32_t* words, std::int32_t rows, std::int32_t columns, const std::int8_t* codes,
                     float step, std::int32_t sum, const float* scales, const float* bias, float* y) {
    constexpr int G = 8 * V::width / strip_height;
    const std::int32_t strips = padded_to(rows, strip_height) / strip_height,
                       row_words = padded_to(columns, columns_per_word(P)) / columns_per_word(P);
    std::int32_t s = 0;
    const auto run = [&](std::int32_t group, auto kernel) {
        for (; s + group <= strips; s += group)
            kernel(words + std::ptrdiff_t{s} * row_words * strip_height, row_words, codes, 0.5f * step, sum,
                   scales + s * strip_height, bias + s * strip_height, y + s * strip_height);
    };
    run(G, multiply_strips<V, P, G, 1>);
    if constexpr (G >= 8) run(4, multiply_strips<V, P, 4, 2>);
    if constexpr (G >= 4) run(2, multiply_strips<V, P, 2, G / 2>);
    run(1, multiply_strips<V, P, 1, G>);
}

template <class V>
void multiply_all(Precision precision, const std::uint32_t* words, std::int32_t rows, std::int32_t columns,
                  const std::int8_t* codes, float step, std::int32_t sum, const float* scales, const float* bias,
                  float* y) {
    const auto multiply = precision == Precision::int4 ? multiply_all_of<V, Precision::int4>
                                                       : multiply_all_of<V, Precision::int8>;
    multiply(words, rows, columns, codes, step, sum, scales, bias, y);
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

// What is known of an input besides its codes.
struct Input {
    float step, norm, outside;
    float inner_step;
    std::int32_t inner_sum;
    std::int32_t sum, rest_sum;
};

// One fine row of floats times x, whose columns are filled up to whole blocks.
template <class V, Precision P>
float multiply_row(const std::uint32_t* words, const float* x, std::int32_t blocks) {
    constexpr int parts = strip_height / V::width, groups = 4 / columns_per_word(P);
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
                    add(2 * g, p, V::template decode<P, 0>(word));
                    add(2 * g + 1, p, V::template decode<P, 1>(word));
                }
            }
    }
    auto sum = V::zero();
    for (int p = 0; p < parts; ++p) sum = V::add(sum, V::add(V::add(total[0][p], total[1][p]), V::add(total[2][p], total[3][p])));
    return V::sum(sum);
}

// One fine row of codes times x = step * (codes + rest / rest_steps).
template <class V>
float multiply_codes(const std::uint32_t* words, const Workspace& work, const Input& input, std::int32_t blocks) {
    constexpr int parts = strip_height / V::width;
    typename V::ireg high[parts], low[parts];
    for (int p = 0; p < parts; ++p) high[p] = low[p] = V::zero_words();
    const std::int8_t *codes = work.codes.data(), *rest = work.rest.data();
    for (std::int32_t b = 0; b < blocks; ++b)
        for (int p = 0; p < parts; ++p) {
            const std::int32_t at = b * strip_height + p * V::width;
            const auto word = V::load_words(words + at);
            high[p] = V::dot_lanes(high[p], word, codes + 4 * at);
            low[p] = V::dot_lanes(low[p], word, rest + 4 * at);
        }
    for (int p = 1; p < parts; ++p) high[0] = V::add_words(high[0], high[p]), low[0] = V::add_words(low[0], low[p]);
    const double total = double{rest_steps} * (V::sum_words(high[0]) - 128 * input.sum) +
                         (V::sum_words(low[0]) - 128 * input.rest_sum);
    return static_cast<float>(total * (double{input.step} / rest_steps));
}

// Codes of x, and what they leave, in parts of their step.
template <class V>
void quantize_twice(const float* x, std::int32_t length, Workspace& work, Input& input) {
    const float factor = input.step > 0.0f ? 1.0f / input.step : 0.0f, minus_half = -0.5f, steps = rest_steps;
    const auto by_step = V::broadcast(&factor), less = V::broadcast(&minus_half), parts = V::broadcast(&steps);
    auto sum = V::zero_words(), rest_sum = V::zero_words();
    for (std::int32_t i = 0; i < length; i += V::width) {
        const auto scaled = V::mul(V::load(x + i), by_step);
        const auto code = V::round(scaled);
        const auto left = V::add(scaled, V::mul(V::twice_less(code, 0), less));
        const auto rest = V::round(V::mul(left, parts));
        sum = V::add_words(sum, code), rest_sum = V::add_words(rest_sum, rest);
        V::store_bytes(work.codes.data() + i, code);
        V::store_bytes(work.rest.data() + i, rest);
    }
    input.sum = V::sum_words(sum), input.rest_sum = V::sum_words(rest_sum);
}

// Rows that are fetched ahead, and words of each; what is behind them the processor sees coming.
constexpr std::int32_t rows_ahead = 2;
constexpr std::int64_t farthest_prefetch = 1024;

// The rows from `begin` to `end` of those that are chosen.
template <class V, Precision P>
void refine_rows(const Head& head, const float* x, const Input& input, Workspace& work, std::int32_t begin,
                 std::int32_t end) {
    const std::int64_t row_words = head.fine_row_words();
    const std::int32_t blocks = padded_to(head.columns, block_columns) / block_columns;
    const auto words_of = [&](std::int32_t i) {
        return head.fine_words + std::int64_t{work.row_at(head, work.chosen[i])} * row_words;
    };
    // The rows lie anywhere; those that follow are fetched while this one is multiplied.
    const auto fetch = [&](std::int32_t i) {
        if (i >= end) return;
        const std::uint32_t* words = words_of(i);
        for (std::int64_t w = 0; w < row_words && w < farthest_prefetch; w += 16) __builtin_prefetch(words + w);
    };
    for (std::int32_t i = begin; i < begin + rows_ahead; ++i) fetch(i);
    for (std::int32_t i = begin; i < end; ++i) {
        fetch(i + rows_ahead);
        const std::int32_t row = work.row_at(head, work.chosen[i]);
        const std::uint32_t* words = words_of(i);
        float product;
        if constexpr (P == Precision::int8)
            product = multiply_codes<V>(words, work, input, blocks);
        else
            product = multiply_row<V, P>(words, x, blocks);
        work.refined[i] = product * head.fine_scales[row] + head.places.bias[work.place_at(head, work.chosen[i])];
    }
}

// What rows' outputs may be at most, by their coarse ones.
template <class V>
void bound_outputs(const Level& level, const Input& input, std::int32_t first, std::int32_t length, const float* coarse,
                   float* upper) {
    const Bound& bound = level.bound;
    const float margin = bound.scale * input.outside + bound.constant;
    const float noise = bound.quantised * input.step + bound.relative * input.norm + bound.inner * input.inner_step;
    const auto of_remainder = V::broadcast(&margin), of_reach = V::broadcast(&noise);
    for (std::int32_t i = 0; i < length; i += V::width)
        V::store(upper + i, V::add(V::load(coarse + i), V::add(V::mul(of_remainder, V::load(level.remainder + first + i)),
                                                               V::mul(of_reach, V::load(level.reach + first + i)))));
}

// Coarse outputs of some strips of a level, and what their rows' outputs may be at most.
template <class V>
void look_at(const Head& head, const Level& level, const Input& input, const Workspace& work, std::int32_t begin,
             std::int32_t end, float* coarse, float* upper) {
    const std::int32_t rank = padded_to(head.rank, strip_height), first = begin * strip_height,
                       length = (end - begin) * strip_height;
    const std::ptrdiff_t row_words = rank / columns_per_word(head.coarse);
    multiply_all<V>(head.coarse, level.factor + first * row_words, length, rank, work.inner_codes.data(),
                    input.inner_step, input.inner_sum, level.scales + first, level.bias + first, coarse);
    bound_outputs<V>(level, input, first, length, coarse, upper);
}

// Looks at all rows, whose products with the coarse matrix are there already. Returns whether none of them overflows
// downwards or is NaN: such a row would never be refined.
template <class V>
bool look_at_products(const Head& head, const Input& input, std::int32_t length, float* coarse, float* upper) {
    for (std::int32_t i = 0; i < length; i += V::width)
        V::store(coarse + i, V::add(V::load(coarse + i), V::load(head.places.bias + i)));
    bound_outputs<V>(head.places, input, 0, length, coarse, upper);
    return count_at_least<V>(coarse, length, std::numeric_limits<float>::lowest()) == head.rows;
}

// Looks into clusters; `length` outputs are there already.
template <class V>
std::int32_t open_clusters(const Head& head, const Input& input, Workspace& work, std::int32_t from, std::int32_t length) {
    for (std::int32_t i = from; i < work.opened_count; ++i) {
        const std::int32_t begin = head.starts[work.opened[i]], end = head.starts[work.opened[i] + 1];
        look_at<V>(head, head.places, input, work, begin, end, work.coarse.data() + length, work.upper.data() + length);
        for (std::int32_t strip = begin; strip < end; ++strip, length += strip_height)
            work.strips[length / strip_height] = strip;
    }
    return length;
}

// Looks into the clusters with nearly the largest outputs, of at least `top` rows. Returns how many outputs are there.
template <class V>
std::int32_t open_first(const Head& head, const Input& input, Workspace& work, std::int32_t top) {
    const std::int32_t clusters = head.clusters.rows;
    look_at<V>(head, head.clusters, input, work, 0, padded_to(clusters, strip_height) / strip_height,
               work.cluster_outputs.data(), work.cluster_upper.data());
    std::int32_t rows = 0;
    for (std::int32_t wanted = head.probes; rows < top; wanted = std::min(2 * wanted, clusters)) {
        work.opened_count = choose_largest<V>(work.cluster_outputs.data(), clusters, wanted, work.opened.data());
        if (work.opened_count < wanted) return 0;
        rows = 0;
        for (std::int32_t i = 0; i < wanted; ++i) rows += head.counts[work.opened[i]];
    }
    return open_clusters<V>(head, input, work, 0, 0);
}

// Looks into those of the other clusters that can have an output of at least `threshold`.
template <class V>
std::int32_t open_more(const Head& head, const Input& input, Workspace& work, float threshold, std::int32_t length) {
    const std::int32_t from = work.opened_count;
    for (std::int32_t i = 0; i < from; ++i) work.cluster_upper[work.opened[i]] = -infinity;
    work.opened_count = collect<V>(work.cluster_upper.data(), head.clusters.rows, threshold, infinity,
                                   head.clusters.rows, work.opened.data(), from);
    return open_clusters<V>(head, input, work, from, length);
}

template <class V>
Input take_in(const Head& head, const float* x, Workspace& work) {
    Input input{};
    std::int32_t sum = 0;
    const std::int32_t padded_columns = padded_to(head.columns, block_columns),
                       padded_rank = padded_to(head.rank, strip_height);
    quantize<V>(x, head.columns, work.codes.data(), &input.step, &sum);
    if (!(input.step >= 0.0f)) return input;
    float* t = work.t.data();
    if (head.rank > 0) {
        multiply_all<V>(head.coarse, head.basis, head.rank, head.columns, work.codes.data(), input.step, sum,
                        head.basis_scales, head.zeros, t);
        quantize<V>(t, padded_rank, work.inner_codes.data(), &input.inner_step, &input.inner_sum);
    }
    if (padded_columns != head.columns) {
        std::copy(x, x + head.columns, work.x.begin());
        std::fill(work.x.begin() + head.columns, work.x.begin() + padded_columns, 0.0f);
        x = work.x.data();
    }
    if (head.fine == Precision::int8) quantize_twice<V>(x, padded_columns, work, input);
    const float square = sum_of_squares<V, false>(x, nullptr, padded_columns);
    const float known = std::max(std::sqrt(sum_of_squares<V, true>(t, head.basis_weights, padded_rank)) -
                                     head.places.bound.quantised * input.step,
                                 0.0f);
    // Inputs that quantisation takes for zero are in no subspace; of inputs whose square overflows all is outside.
    constexpr float huge = 1e37f, tiny = 1e-37f;
    input.norm = square < huge ? std::sqrt(square) : std::numeric_limits<float>::max();
    input.outside = square < huge ? std::sqrt(std::max(square * 1.0001f - known * known, tiny)) : input.norm;
    return input;
}

template <class V>
std::int32_t refine_head(const Head& head, const float* x, std::int32_t top, Workspace& work) {
    work.opened_count = 0;
    const Input input = take_in<V>(head, x, work);
    if (!(input.step >= 0.0f)) return 0;
    if (head.columns % block_columns != 0) x = work.x.data();
    float *coarse = work.coarse.data(), *upper = work.upper.data();
    const bool clustered = head.clusters.rows > 0;
    std::int32_t length = padded_to(head.rows, strip_height);
    if (clustered)
        length = open_first<V>(head, input, work, top);
    else if (head.matrix)
        length = look_at_products<V>(head, input, length, coarse, upper) ? length : 0;
    else
        look_at<V>(head, head.places, input, work, 0, length / strip_height, coarse, upper);
    if (length == 0) return 0;

    const auto refine = [&](std::int32_t begin, std::int32_t end) {
        if (head.fine == Precision::float32)
            refine_rows<V, Precision::float32>(head, x, input, work, begin, end);
        else if (head.fine == Precision::bfloat16)
            refine_rows<V, Precision::bfloat16>(head, x, input, work, begin, end);
        else
            refine_rows<V, Precision::int8>(head, x, input, work, begin, end);
    };
    std::int32_t* chosen = work.chosen.data();
    const std::int32_t first = work.drop_filling(head, 0, choose_largest<V>(coarse, length, top, chosen));
    if (first < top) return 0;
    refine(0, first);
    const float least = *std::min_element(work.refined.begin(), work.refined.begin() + first);
    const float threshold = least - (head.places.bound.rounding * input.norm + head.places.bound.offset);
    if (clustered) length = open_more<V>(head, input, work, threshold, length);
    // The first ones are done.
    for (std::int32_t i = 0; i < first; ++i) upper[chosen[i]] = -infinity;
    const std::int32_t room = std::max(head.most - first, 0);
    const std::int32_t candidates = count_at_least<V>(upper, length, threshold);
    std::int32_t more = 0;
    if (candidates <= room) {
        more = collect<V>(upper, length, threshold, infinity, room, chosen + first, 0);
    } else if (room > 0) {
        // Too many can win: those with the largest coarse outputs are the likeliest.
        std::copy(coarse, coarse + length, upper);
        for (std::int32_t i = 0; i < first; ++i) upper[chosen[i]] = -infinity;
        more = choose_largest<V>(upper, length, room, chosen + first);
    }
    const std::int32_t count = work.drop_filling(head, first, first + more);
    if (count > first) refine(first, count);
    for (std::int32_t i = 0; i < count; ++i) chosen[i] = work.row_at(head, chosen[i]);
    return count;
}

}  // namespace
}  // namespace hmatrix
