// Products with the fine rows of a progressive head, over the vector type V of columns.hpp: one row after the other, those
// that follow being fetched meanwhile. Sums are made in 64 lanes by steps that round
// once, so that all instruction sets give the same bits, and equal rows equal outputs.
#pragma once

#include "heads/progressive.hpp"
#include "kernels/columns.hpp"
#include "kernels/vector_kernels.hpp"

namespace hmatrix {
namespace {

// Facts about an input besides its codes.
struct Input {
    float step, norm, outside;
    float inner_step;
    std::int32_t inner_sum;
    std::int32_t sum, rest_sum;
};

// Adds the second half of 16 lanes to the first until one is left.
template <class V>
float sum_of_lanes(typename V::reg (&lanes)[strip_height / V::width]) {
    for (int half = strip_height / V::width / 2; half > 0; half /= 2)
        for (int p = 0; p < half; ++p) lanes[p] = V::add(lanes[p], lanes[p + half]);
    return V::sum(lanes[0]);
}

// One fine row of floats times x, whose columns are filled up to whole blocks.
template <class V, Precision P>
float multiply_row(const std::uint32_t* words, const float* x, std::int32_t blocks) {
    constexpr int parts = strip_height / V::width, groups = 4 / columns_per_word(P);
    typename V::reg total[4][parts];
    for (auto& lane : total)
        for (auto& t : lane) t = V::zero();
    for (std::int32_t b = 0; b < blocks; ++b, x += block_columns, words += groups * strip_height) {
        const auto add = [&](int quarter, int p, const typename V::reg& value) {
            total[quarter][p] = V::fused(value, V::load(x + quarter * strip_height + p * V::width), total[quarter][p]);
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
    for (int p = 0; p < parts; ++p)
        total[0][p] = V::add(V::add(total[0][p], total[1][p]), V::add(total[2][p], total[3][p]));
    return sum_of_lanes<V>(total[0]);
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
    const float up = input.step < plain_largest / 127 ? raising : 1.0f;
    const float factor = input.step > 0.0f ? 1.0f / (input.step * up) : 0.0f, minus_half = -0.5f, steps = rest_steps;
    const auto by_power = V::broadcast(&up), by_step = V::broadcast(&factor);
    const auto less = V::broadcast(&minus_half), parts = V::broadcast(&steps);
    auto sum = V::zero_words(), rest_sum = V::zero_words();
    for (std::int32_t i = 0; i < length; i += V::width) {
        const auto scaled = V::mul(V::mul(V::load(x + i), by_power), by_step);
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

}  // namespace
}  // namespace hmatrix
