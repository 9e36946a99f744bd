// Takes over the arrays of a progressive head.
#include "heads/head.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "product/checks.hpp"

namespace hmatrix {

namespace {

// Numbers by their names: a record of numbers of one type, which come in the order of its fields.
template <class Record, class T>
Record named(const View<T>& numbers, const char* message) {
    static_assert(std::is_trivially_copyable_v<Record> && sizeof(Record) % sizeof(T) == 0);
    require(numbers.size == sizeof(Record) / sizeof(T), message);
    Record record;
    std::memcpy(&record, numbers.data, sizeof record);
    return record;
}

void check(const HeadSizes& sizes) {
    require(sizes.rows >= 1 && sizes.columns >= 1 && sizes.columns <= max_head_columns && sizes.rank >= 0 &&
                sizes.rank <= sizes.columns && sizes.top >= 1 && sizes.top <= sizes.first && sizes.first <= sizes.most &&
                sizes.most <= sizes.rows && sizes.fine >= static_cast<std::int32_t>(Precision::float32) &&
                sizes.fine <= static_cast<std::int32_t>(Precision::int8) && sizes.clusters >= 0 &&
                sizes.clusters <= sizes.rows && sizes.probes >= (sizes.clusters > 0) && sizes.probes <= sizes.clusters &&
                (sizes.coarse == static_cast<std::int32_t>(Precision::int8) ||
                 sizes.coarse == static_cast<std::int32_t>(Precision::int4)),
            "sizes of a head are out of range");
}

struct LevelArrays {
    const View<float>& bound;
    const View<std::uint32_t>& factor;
    const View<float>&scales, &bias, &remainder, &reach;
};

Level level(const HeadSizes& sizes, std::int32_t rows, const LevelArrays& arrays) {
    const std::size_t height = padded_to(rows, strip_height), rank = padded_to(sizes.rank, strip_height);
    const std::size_t per_word = columns_per_word(static_cast<Precision>(sizes.coarse));
    require(arrays.factor.size == height * (rank / per_word), "words of a level have the wrong length");
    for (const View<float>* floats : {&arrays.scales, &arrays.bias, &arrays.remainder, &arrays.reach})
        require(floats->size == height, "an array of a level has the wrong length");
    return {rows,
            named<Bound>(arrays.bound, "a bound has 7 numbers"),
            arrays.factor.data,
            arrays.scales.data,
            arrays.bias.data,
            arrays.remainder.data,
            arrays.reach.data};
}

}  // namespace

CheckedHead::CheckedHead(const HeadArrays& arrays) {
    const auto sizes = named<HeadSizes>(arrays.sizes, "a head has 10 sizes");
    check(sizes);
    const Plan<float>* matrix = arrays.matrix;
    require(matrix == nullptr || (matrix->shape().rows == sizes.rows && matrix->shape().columns == sizes.columns &&
                                  sizes.rank == 0 && sizes.clusters == 0),
            "a coarse matrix needs the shape of the head, and neither factors nor clusters beside it");
    head_.rows = sizes.rows, head_.columns = sizes.columns, head_.rank = sizes.rank;
    head_.top = sizes.top, head_.first = sizes.first, head_.most = sizes.most, head_.probes = sizes.probes;
    head_.fine = static_cast<Precision>(sizes.fine), head_.coarse = static_cast<Precision>(sizes.coarse);
    head_.matrix = matrix;
    if (sizes.clusters > 0) arrange(arrays.order, arrays.starts, sizes.clusters);
    const std::size_t rank = padded_to(head_.rank, strip_height);
    const std::int32_t per_word = columns_per_word(head_.coarse);
    require(arrays.basis.size == rank * static_cast<std::size_t>(padded_to(head_.columns, per_word) / per_word) &&
                arrays.basis_scales.size == rank && arrays.weights.size == rank &&
                arrays.fine.size == static_cast<std::size_t>(head_.rows * head_.fine_row_words()) &&
                arrays.fine_scales.size == static_cast<std::size_t>(head_.rows),
            "arrays of a head have the wrong length");
    zeros_.resize(rank);
    head_.basis = arrays.basis.data, head_.zeros = zeros_.data();
    head_.basis_scales = arrays.basis_scales.data, head_.basis_weights = arrays.weights.data;
    head_.places = level(sizes, sizes.clusters > 0 ? arrays.starts.data[sizes.clusters] * strip_height : sizes.rows,
                         {arrays.limits, arrays.factor, arrays.factor_scales, arrays.bias, arrays.remainder, arrays.reach});
    head_.clusters = level(sizes, sizes.clusters,
                           {arrays.cluster_limits, arrays.cluster_factor, arrays.cluster_scales, arrays.cluster_bias,
                            arrays.cluster_remainder, arrays.cluster_reach});
    head_.fine_words = arrays.fine.data, head_.fine_scales = arrays.fine_scales.data;
    // Each of the lanes adds so many products, which are then added in six steps; and some for the product and the bias.
    const std::int32_t steps = padded_to(head_.columns, block_columns) / block_columns + 8;
    head_.rounding = static_cast<float>(steps) * 0.5f * std::numeric_limits<float>::epsilon();
    for (std::int32_t place = 0; place < head_.places.rows; ++place)
        head_.largest_norm = std::max(head_.largest_norm, head_.places.remainder[place] + head_.places.reach[place]);
}

void CheckedHead::arrange(const View<std::int32_t>& order, const View<std::int32_t>& starts, std::int32_t clusters) {
    require(starts.size == static_cast<std::size_t>(clusters) + 1 && starts.data[0] == 0,
            "clusters do not begin with the first strip");
    std::int32_t rows = 0;
    for (std::int32_t c = 0; c < clusters; ++c) {
        const std::int32_t begin = starts.data[c], end = starts.data[c + 1];
        require(end > begin && static_cast<std::size_t>(end) <= order.size / strip_height,
                "clusters do not follow each other");
        std::int32_t count = 0;
        for (std::int32_t place = begin * strip_height; place < end * strip_height; ++place) {
            require(order.data[place] >= -1 && order.data[place] < head_.rows, "a cluster has a row that is not there");
            count += order.data[place] >= 0;
        }
        rows += count;
        counts_.push_back(count);
    }
    require(rows == head_.rows && order.size == static_cast<std::size_t>(starts.data[clusters]) * strip_height,
            "clusters do not cover the rows");
    head_.order = order.data, head_.starts = starts.data, head_.counts = counts_.data();
}

}  // namespace hmatrix
