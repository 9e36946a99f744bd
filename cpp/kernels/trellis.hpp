// Choosing the bits of words whose entries are read from a trellis.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/precision.hpp"

namespace hmatrix {

// Rows that are encoded in words of a trellis of some precision. A word is read in visits: visit m is of the entry
// whose bits in the ring begin at m * bits, and its window holds its parallel bits, too. With e what the word leaves of
// a row's target, the square of the row vector owed + e * root is to be least. Where no column is present, the code is 0
// and nothing is owed.
struct Words {
    Precision precision;
    std::ptrdiff_t rows;
    const float* target;           // (rows, visits), in units of the scale
    const float* owed;             // (rows, visits), or null: nothing is owed, and root is the identity
    const float* root;             // (visits, visits), upper triangular, or null
    const std::uint8_t* present;   // (visits,)
    int tries;                     // states in which a word may begin, and therefore end, that are tried
};

// Writes the windows, (rows, visits).
using EncodeWords = void (*)(const Words& words, std::uint8_t* windows);

}  // namespace hmatrix
