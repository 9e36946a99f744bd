// Rounding to evenly spaced values, each column making up for those before it.
#pragma once

#include <cstddef>

namespace hmatrix {

// Rows of a few columns. With e what the values leave of a row's target, the square of owed + e * root is to be small.
struct Evenly {
    std::ptrdiff_t rows, columns;
    const float* target;  // (rows, columns), in units of the scale
    const float* owed;    // (rows, columns)
    const float* root;    // (columns, columns), upper triangular
    float lowest, highest, zero;  // codes; a value is a code less zero
};

// Writes the values (rows, columns): of each column the nearest to what makes up for all before it.
void round_evenly(const Evenly& evenly, float* values);

}  // namespace hmatrix
