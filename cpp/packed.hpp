// The packed form as the kernels see it: panels, stored column by column, whose columns meet
// contiguous runs of a source vector. src/hmatrix/schedule.py says what the two stages are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace hmatrix {

constexpr int max_panel_height = 64;

struct Run {
    std::int32_t source;  // first entry of the source vector
    std::int32_t length;
};

struct Panel {
    std::int64_t offset;  // where its entries begin in the data
    std::int64_t size;    // how many entries it has
    std::int32_t target;  // first entry of the target vector
    std::int32_t height;
    std::int32_t first_run;
    std::int32_t run_count;
};

struct Stage {
    std::vector<Panel> panels;
    std::vector<Run> runs;
};

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

}  // namespace hmatrix
