// Products with the coarse factors of a progressive head, over the vector type V of columns.hpp: strips of rows in integer
// codes meet a quantised vector. Without fma, so that all instruction sets round alike.
#pragma once

#include "heads/progressive.hpp"
#include "kernels/columns.hpp"

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

}  // namespace
}  // namespace hmatrix
