// The product with a progressive head, over the vector type V of panel_kernels.hpp. Everything is rounded alike by all
// instruction sets: sums of floats are made in 16 lanes without fma, or in 64 with steps that round once.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "heads/fine_kernels.hpp"
#include "heads/selection_kernels.hpp"
#include "heads/strip_kernels.hpp"
#include "kernels/vector_kernels.hpp"

namespace hmatrix {
namespace {

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
    return sum_of_lanes<V>(total);
}

// Upper bounds of rows' outputs, by their coarse ones.
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

// Looks into the clusters with nearly the largest outputs, of at least `least` rows. Returns how many outputs are there.
template <class V>
std::int32_t open_first(const Head& head, const Input& input, Workspace& work, std::int32_t least) {
    const std::int32_t clusters = head.clusters.rows;
    look_at<V>(head, head.clusters, input, work, 0, padded_to(clusters, strip_height) / strip_height,
               work.cluster_outputs.data(), work.cluster_upper.data());
    std::int32_t rows = 0;
    for (std::int32_t wanted = head.probes; rows < least; wanted = std::min(2 * wanted, clusters)) {
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
    // Outputs that may overflow are never equal.
    work.rounding = square < huge ? head.rounding * input.norm : 0.0f;
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
    const std::int32_t wanted = std::max(top, head.first);
    std::int32_t length = padded_to(head.rows, strip_height);
    if (clustered)
        length = open_first<V>(head, input, work, wanted);
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
    const std::int32_t first = work.drop_filling(head, 0, choose_largest<V>(coarse, length, wanted, chosen));
    if (first < wanted) return 0;
    refine(0, first);
    const float slack = head.places.bound.rounding * input.norm + head.places.bound.offset +
                        2.0f * (work.rounding * head.largest_norm);
    const float threshold = nth_largest(work.refined.data(), first, top, work.sorted.data()) - slack;
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
    return count;
}

}  // namespace
}  // namespace hmatrix
