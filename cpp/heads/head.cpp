// Takes over the arrays of a progressive head.
#include <algorithm>
#include <limits>

#include "product/checks.hpp"
#include "heads/progressive.hpp"

namespace hmatrix {

CheckedHead::CheckedHead(const HeadArrays& arrays) {
    const auto& [sizes, bounds, words, floats, order, starts, matrix] = arrays;
    require(sizes.size() == 10 && bounds.size() == 2 && words.size() == 4 && floats.size() == 11,
            "a head has 10 sizes, 2 bounds, 4 arrays of words and 11 of floats");
    const std::int32_t clusters = sizes[6];
    head_.rows = sizes[0], head_.columns = sizes[1], head_.rank = sizes[2], head_.top = sizes[3];
    head_.most = sizes[4], head_.fine = static_cast<Precision>(sizes[5]), head_.probes = sizes[7];
    head_.coarse = static_cast<Precision>(sizes[8]), head_.first = sizes[9];
    require(head_.rows >= 1 && head_.columns >= 1 && head_.columns <= max_head_columns && head_.rank >= 0 &&
                head_.rank <= head_.columns && head_.top >= 1 && head_.top <= head_.first && head_.first <= head_.most &&
                head_.most <= head_.rows &&
                sizes[5] >= 1 && sizes[5] <= 3 && clusters >= 0 && clusters <= head_.rows &&
                head_.probes >= (clusters > 0) && head_.probes <= clusters &&
                (head_.coarse == Precision::int8 || head_.coarse == Precision::int4),
            "sizes of a head are out of range");
    require(matrix == nullptr || (matrix->shape().rows == head_.rows && matrix->shape().columns == head_.columns &&
                                  head_.rank == 0 && clusters == 0),
            "a coarse matrix needs the shape of the head, and neither factors nor clusters beside it");
    head_.matrix = matrix;
    if (clusters > 0) arrange(arrays, clusters);
    const std::size_t rank = padded_to(head_.rank, strip_height);
    const std::int32_t per_word = columns_per_word(head_.coarse);
    require(words[0].size == rank * static_cast<std::size_t>(padded_to(head_.columns, per_word) / per_word) &&
                floats[0].size == rank &&
                floats[1].size == rank && words[3].size == static_cast<std::size_t>(head_.rows * head_.fine_row_words()) &&
                floats[10].size == static_cast<std::size_t>(head_.rows),
            "arrays of a head have the wrong length");
    zeros_.resize(rank);
    head_.basis = words[0].data, head_.zeros = zeros_.data();
    head_.basis_scales = floats[0].data, head_.basis_weights = floats[1].data;
    head_.places = level(arrays, clusters > 0 ? starts.data[clusters] * strip_height : head_.rows, 0);
    head_.clusters = level(arrays, clusters, 1);
    head_.fine_words = words[3].data, head_.fine_scales = floats[10].data;
    // Each of the lanes adds so many products, which are then added in six steps; and some for the product and the bias.
    const std::int32_t steps = padded_to(head_.columns, block_columns) / block_columns + 8;
    head_.rounding = static_cast<float>(steps) * 0.5f * std::numeric_limits<float>::epsilon();
    for (std::int32_t place = 0; place < head_.places.rows; ++place)
        head_.largest_norm = std::max(head_.largest_norm, head_.places.remainder[place] + head_.places.reach[place]);
}

void CheckedHead::arrange(const HeadArrays& arrays, std::int32_t clusters) {
    const auto &order = arrays.order, &starts = arrays.starts;
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

Level CheckedHead::level(const HeadArrays& arrays, std::int32_t rows, std::size_t which) const {
    const std::size_t height = padded_to(rows, strip_height), rank = padded_to(head_.rank, strip_height);
    const auto& bound = arrays.bounds[which];
    const auto& factor = arrays.words[1 + which];
    require(bound.size() == 7, "a bound has 7 numbers");
    require(factor.size == height * (rank / columns_per_word(head_.coarse)), "words of a level have the wrong length");
    const View<float>* floats = arrays.floats.data() + 2 + 4 * which;
    for (std::size_t i = 0; i < 4; ++i) require(floats[i].size == height, "an array of a level has the wrong length");
    return {rows,           {bound[0], bound[1], bound[2], bound[3], bound[4], bound[5], bound[6]},
            factor.data,    floats[0].data, floats[1].data, floats[2].data, floats[3].data};
}

}  // namespace hmatrix
