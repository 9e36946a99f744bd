// The products with one panel, one set of functions for each instruction set.
#pragma once

#include <string>
#include <vector>

#include "packed.hpp"

namespace hmatrix {

template <class T>
struct Kernels {
    // y[b, 0..height) = panel * source[b], for all b of the batch.
    void (*forward)(const T* data, const Panel& panel, const Run* runs, const Source<const T>& source,
                    Rows<T> y, std::ptrdiff_t batch);
    // target[b] += panel^T * x[b, 0..height), for all b of the batch.
    void (*transposed)(const T* data, const Panel& panel, const Run* runs, Rows<const T> x,
                       const Source<T>& target, std::ptrdiff_t batch);
};

struct InstructionSet {
    const char* name;
    bool (*supported)();
    Kernels<float> float32;
    Kernels<double> float64;
};

// One for each kernel_*.cpp that this architecture has.
extern const InstructionSet portable;
#if defined(__x86_64__)
extern const InstructionSet avx2;
extern const InstructionSet avx512;
#endif

// The instruction sets that this machine can run, the best first.
std::vector<const InstructionSet*> available();

// Throws std::invalid_argument for a name that is not available.
const InstructionSet& find(const std::string& name);

}  // namespace hmatrix
