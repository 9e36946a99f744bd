// A matrix in packed form: the panels of both stages, and the arrays that they view.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/panels.hpp"

namespace hmatrix {

struct Shape {
    std::int32_t rows;
    std::int32_t columns;
};

struct Stage {
    std::vector<Panel> panels;
    std::vector<Run> runs;
};

// Views of arrays that outlive the plan.
template <class T>
struct Packed {
    Shape shape;
    std::int32_t intermediate;  // entries of t
    const Word<T>* data;
    std::int64_t size;  // words of data
    Stage far;
    Stage near;
    std::vector<Segment> segments;  // of the source x followed by t; none with exact activations
    const std::int32_t* row_permutation;     // null: the identity
    const std::int32_t* column_permutation;  // null: the identity
};

}  // namespace hmatrix
