// Rows with equal outputs: those that differ by less than the rounding of their sums. Of these the first row is the larger
// one, and all have the largest of their outputs, so that no last bit decides who wins.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "heads/progressive.hpp"

namespace hmatrix {

// The norm of a fine row, summed in the lanes of its products.
inline float norm_of_row(const Head& head, std::int32_t row) {
    const std::uint32_t* words = head.fine_words + std::int64_t{row} * head.fine_row_words();
    float lanes[block_columns] = {};
    const auto add = [&](int lane, float value) { lanes[lane] += value * value; };
    const auto as_float = [](std::uint32_t word) {
        float value;
        std::memcpy(&value, &word, sizeof value);
        return value;
    };
    for (std::int32_t column = 0; column < head.columns; column += block_columns) {
        if (head.fine == Precision::float32) {
            for (int k = 0; k < block_columns; ++k) add(k, as_float(words[k]));
        } else if (head.fine == Precision::bfloat16) {
            for (int k = 0; k < block_columns; ++k)
                add(k, as_float(k / strip_height % 2 == 0 ? words[k / 32 * strip_height + k % strip_height] << 16
                                                          : words[k / 32 * strip_height + k % strip_height] & 0xffff0000u));
        } else {
            for (int k = 0; k < block_columns; ++k)
                add(k, static_cast<float>(static_cast<int>(words[k / 4] >> (8 * (k % 4)) & 255u) - 128));
        }
        words += block_columns / columns_per_word(head.fine);
    }
    for (int k = 0; k < strip_height; ++k)
        lanes[k] = (lanes[k] + lanes[k + 16]) + (lanes[k + 32] + lanes[k + 48]);
    for (int half = strip_height / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k) lanes[k] += lanes[k + half];
    return std::sqrt(lanes[0]) * head.fine_scales[row];
}

// The refined outputs of one sample.
class Refined {
public:
    Refined(const Head& head, Workspace& work, std::int32_t count)
        : head_(head), work_(work), count_(count), twice_(2.0 * work.rounding * head.largest_norm) {}

    // Calls f(i) for the outputs that equal the i-th of the refined ones, which is the largest of them, itself included.
    template <class F>
    void each_equal(std::int32_t largest, F&& f) const {
        if (alone(work_.refined[largest], 1)) return f(largest);
        const double least = double{work_.refined[largest]} - off_by(largest);
        for (std::int32_t i = 0; i < count_; ++i)
            if (work_.refined[i] >= least - twice_ && work_.refined[i] + off_by(i) >= least) f(i);
    }

    // Sets the `top` largest outputs and their rows, the largest first, of equal ones the first row first.
    void largest(std::int32_t top, float* values, std::int64_t* rows) const {
        insert(top, values, rows);
        if (apart(top, values)) {
            for (std::int32_t k = 0; k < top; ++k) rows[k] = row(static_cast<std::int32_t>(rows[k]));
        } else {
            by_groups(top, values, rows);
        }
    }

private:
    std::int32_t row(std::int32_t i) const { return work_.row_at(head_, work_.chosen[i]); }

    double off_by(std::int32_t i) const { return double{work_.rounding * norm_of_row(head_, row(i))}; }

    // Whether no more than so many outputs can equal this one or are larger.
    bool alone(float output, std::int32_t most) const {
        const double least = output - twice_;
        return std::count_if(work_.refined.begin(), work_.refined.begin() + count_,
                             [&](float v) { return v >= least; }) <= most;
    }

    // Orders by outputs alone: nearly all rows are less than the last of the largest. Rows are numbers of refined ones yet.
    void insert(std::int32_t top, float* values, std::int64_t* rows) const {
        std::int32_t kept = 0;
        for (std::int32_t i = 0; i < count_; ++i) {
            const float v = work_.refined[i];
            const auto before = [&](std::int32_t j) {
                return v > values[j] || (v == values[j] && row(i) < row(static_cast<std::int32_t>(rows[j])));
            };
            if (kept == top && !before(top - 1)) continue;
            std::int32_t j = kept < top ? kept++ : top - 1;
            for (; j > 0 && before(j - 1); --j) values[j] = values[j - 1], rows[j] = rows[j - 1];
            values[j] = v, rows[j] = i;
        }
    }

    // Whether none of the largest outputs can equal another one. Those that are not finite are left in their order.
    bool apart(std::int32_t top, const float* values) const {
        for (std::int32_t k = 0; k < top; ++k)
            if (!std::isfinite(values[k])) return true;
        for (std::int32_t k = 1; k < top; ++k)
            if (double{values[k - 1]} - values[k] <= twice_) return false;
        return alone(values[top - 1], top);
    }

    // The largest outputs are finite.
    void by_groups(std::int32_t top, float* values, std::int64_t* rows) const {
        constexpr float infinity = std::numeric_limits<float>::infinity();
        std::vector<bool> taken(static_cast<std::size_t>(count_));
        std::vector<std::int32_t> group;
        for (std::int32_t k = 0; k < top;) {
            std::int32_t best = -1;
            for (std::int32_t i = 0; i < count_; ++i)
                if (!taken[i] && work_.refined[i] > (best < 0 ? -infinity : work_.refined[best])) best = i;
            group.clear();
            each_equal(best, [&](std::int32_t i) {
                if (!taken[i]) group.push_back(row(i)), taken[i] = true;
            });
            std::sort(group.begin(), group.end());
            for (auto next = group.begin(); next != group.end() && k < top; ++next, ++k)
                values[k] = work_.refined[best], rows[k] = *next;
        }
    }

    const Head& head_;
    const Workspace& work_;
    std::int32_t count_;
    double twice_;  // how far two outputs may be off together
};

}  // namespace hmatrix
