// Choosing rows with large outputs, by comparisons and a bisection for a threshold: outputs are not sorted.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "heads/progressive.hpp"
#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

template <class V>
float largest_of(const float* a, std::int32_t length) {
    auto most = V::load(a);
    for (std::int32_t i = V::width; i < length; i += V::width) most = V::max(most, V::load(a + i));
    return V::largest(most);
}

// The n-th largest of some numbers; `room` is for n. Safe where some are NaN, which no order of the library is.
inline float nth_largest(const float* a, std::int32_t length, std::int32_t n, float* room) {
    std::int32_t kept = 0;
    for (std::int32_t i = 0; i < length; ++i) {
        if (kept == n && !(a[i] > room[n - 1])) continue;
        std::int32_t j = kept < n ? kept++ : n - 1;
        for (; j > 0 && a[i] > room[j - 1]; --j) room[j] = room[j - 1];
        room[j] = a[i];
    }
    return room[n - 1];
}

// The n-th largest of the largest entries of 16 lanes: at least n entries of all are as large.
template <class V>
float nth_largest_lane(const float* a, std::int32_t length, std::int32_t n) {
    constexpr int parts = strip_height / V::width;
    typename V::reg most[parts];
    UNROLL for (int p = 0; p < parts; ++p) most[p] = V::load(a + p * V::width);
    for (std::int32_t i = strip_height; i < length; i += strip_height)
        UNROLL for (int p = 0; p < parts; ++p) most[p] = V::max(most[p], V::load(a + i + p * V::width));
    float lanes[strip_height], room[strip_height];
    UNROLL for (int p = 0; p < parts; ++p) V::store(lanes + p * V::width, most[p]);
    return nth_largest(lanes, strip_height, n, room);
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

// Chooses the `wanted` rows with nearly the largest entries of all; none if there are not so many finite ones.
template <class V>
std::int32_t choose_largest(const float* a, std::int32_t rows, std::int32_t wanted, std::int32_t* chosen) {
    const std::int32_t length = padded_to(rows, strip_height);
    const float most = largest_of<V>(a, length);
    if (!(std::abs(most) < infinity)) return 0;
    if (wanted == 1) return collect<V>(a, rows, most, infinity, 1, chosen, 0);
    if (wanted <= strip_height) {
        const float low = nth_largest_lane<V>(a, length, wanted);
        if (std::abs(low) < infinity) return choose<V>(a, rows, low, wanted, chosen);
    }
    float step = std::max(std::abs(most), 1e-30f) / 64;
    while (count_at_least<V>(a, length, most - step) < wanted)
        if (!((step *= 2) < infinity)) return 0;
    return choose<V>(a, rows, most - step, wanted, chosen);
}

}  // namespace
}  // namespace hmatrix
