// Operations on one vector: quantising it, and reading it. Over the vector type V of columns.hpp.
#pragma once

#include <cstring>
#include <limits>

#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

template <class V, bool ahead>
std::uint32_t read_words(const std::uint32_t* words, std::size_t count) {
    constexpr std::size_t sums = 8, step = sums * V::width;
    typename V::ireg total[sums];
    for (auto& sum : total) sum = V::zero_words();
    std::size_t i = 0;
    for (; i + step <= count; i += step) {
        if constexpr (ahead) prefetch<step * sizeof(std::uint32_t)>(words + i);
        for (std::size_t k = 0; k < sums; ++k) total[k] = V::add_words(total[k], V::load_words(words + i + k * V::width));
    }
    for (std::size_t k = 1; k < sums; ++k) total[0] = V::add_words(total[0], total[k]);
    std::uint32_t sum = static_cast<std::uint32_t>(V::sum_words(total[0]));
    for (; i < count; ++i) sum += words[i];
    return sum;
}

template <class V>
std::uint32_t read(const std::uint32_t* words, std::size_t count) {
    return with_ahead<V>([&](auto ahead) { return read_words<V, ahead>(words, count); });
}

// Below the first the largest magnitude counts as zero: its step would have fewer digits than codes have. Below the
// second 127 over it might not be finite: numbers are multiplied by the power of two first.
constexpr float least_largest = 0x1p-134f, plain_largest = 1e-36f, raising = 0x1p64f;

template <class V>
void quantize(const float* x, std::int32_t length, std::int8_t* codes, float* step, std::int32_t* sum) {
    using Reg = typename V::reg;
    const auto load = [&](std::int32_t i) {
        return i + V::width <= length ? V::load(x + i) : V::load_part(x + i, V::part(length - i));
    };
    Reg largest = V::zero(), wrong = V::zero();
    for (std::int32_t i = 0; i < length; i += V::width) {
        const Reg a = load(i);
        largest = V::max(largest, V::abs(a));
        wrong = V::fma(a, V::zero(), wrong);  // NaN where a is not finite
    }
    const float most = V::largest(largest);
    const bool finite = V::at_least(wrong, V::zero()) == (1u << V::width) - 1;
    *step = !finite ? std::numeric_limits<float>::quiet_NaN() : most < least_largest ? 0.0f : most / 127.0f;
    *sum = 0;
    const std::int32_t padded = (length + segment_padding - 1) / segment_padding * segment_padding;
    if (!(*step > 0.0f)) {
        std::memset(codes, 0, static_cast<std::size_t>(padded));
        return;
    }
    const float up = most < plain_largest ? raising : 1.0f, factor = 127.0f / (most * up);
    const Reg by_power = V::broadcast(&up), by_factor = V::broadcast(&factor);
    typename V::ireg total = V::zero_words();
    const auto round_all = [&](const auto& loaded) {
        for (std::int32_t i = 0; i < padded; i += V::width) {
            const typename V::ireg rounded = i < length ? V::round(V::mul(loaded(i), by_factor)) : V::zero_words();
            total = V::add_words(total, rounded);
            V::store_bytes(codes + i, rounded);
        }
    };
    if (most < plain_largest)
        round_all([&](std::int32_t i) { return V::mul(load(i), by_power); });
    else
        round_all(load);
    *sum = V::sum_words(total);
}

}  // namespace
}  // namespace hmatrix
