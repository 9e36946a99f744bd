// Products with runs whose values are looked up. They are units of their own, since AVX-512 with VBMI differs in these
// alone from AVX-512. Tiles, columns and registers come from the unit that calls them, which has the same types.
#pragma once

#include "kernels/panels.hpp"

namespace hmatrix {

struct LookedUp {
    static constexpr int registers = 8, vectors = 6;  // of a tile, at most

    // Adds some runs to a tile of so many registers (less one) and vectors (less one), and returns the next one, or `end`.
    const Run* (*add[registers][vectors])(void* tile, const Run* run, const Run* end, const Source<const float>& source,
                                          const Quantized& quantized, std::ptrdiff_t first);
    // out += the transpose of a run's coefficients times so many registers (less one) of x, whose scales are in it already.
    void (*transposed[registers])(void* columns, const void* x, const Run& run, float* out);
};

}  // namespace hmatrix
