// The packed form as the kernels see it: panels, stored as columns of words, whose columns meet
// contiguous runs of a source vector. src/hmatrix/packed/panels.py says what the two stages are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "kernels/precision.hpp"

namespace hmatrix {

constexpr int max_panel_height = 64;

// Coefficients of type T are stored in these.
template <class T>
using Word = std::conditional_t<std::is_same_v<T, double>, double, std::uint32_t>;

struct Run {
    std::int32_t source;   // first entry of the source vector
    std::int32_t length;   // entries
    std::int32_t segment;  // of the quantised source, or -1
    Precision precision;
    bool begins;  // a column of scales stands in front
    bool ends;    // the group of columns with those scales ends here

    std::int64_t words() const {
        const int per_word = columns_per_word(precision);
        return (length + std::int64_t{per_word} - 1) / per_word * (1 + parallel_words(precision)) + begins;
    }
};

struct Panel {
    std::int64_t offset;  // where its words begin in the data
    std::int32_t target;  // first entry of the target vector
    std::int32_t height;
    std::int32_t first_run;
    std::int32_t run_count;
};

// A part of the source that is quantised with a scale of its own.
struct Segment {
    std::int32_t source;
    std::int32_t length;
    std::int64_t offset;  // of its codes among those of all segments; they are filled up with zeros
};

// A word of int1 meets 32 codes: what stands beyond the end must be zeros, as no code of int1 is zero.
constexpr std::int64_t segment_padding = 32;

// Rows of a batch: row b begins at base + b * stride.
template <class T>
struct Rows {
    T* base;
    std::ptrdiff_t stride;

    T* row(std::ptrdiff_t b) const { return base + b * stride; }
};

// The source of a stage: entries below `size` lie in x, all others in t.
template <class T>
struct Source {
    Rows<T> x;
    Rows<T> t;
    std::int32_t size;

    Rows<T> at(std::int32_t entry) const {
        const Rows<T>& rows = entry < size ? x : t;
        return {rows.base + (entry < size ? entry : entry - size), rows.stride};
    }
};

// The quantised source: codes of all segments, and for each segment its step and the sum of its codes.
struct Quantized {
    Rows<std::int8_t> codes;
    Rows<float> steps;
    Rows<std::int32_t> sums;
    const Segment* segments;
};

}  // namespace hmatrix
