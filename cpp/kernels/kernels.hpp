// The products with one panel, one set of functions for each instruction set.
#pragma once

#include <string>
#include <vector>

#include "kernels/looked_up.hpp"
#include "kernels/panels.hpp"
#include "kernels/trellis.hpp"

namespace hmatrix {

template <class T>
struct Kernels {
    // y[b, 0..height) = panel * source[b], for all b of the batch; `words` is where the panel begins.
    void (*forward)(const LookedUp& looked_up, const Word<T>* words, const Panel& panel, const Run* runs,
                    const Source<const T>& source, const Quantized& quantized, Rows<T> y, std::ptrdiff_t batch);
    // target[b] += panel^T * x[b, 0..height), for all b of the batch.
    void (*transposed)(const LookedUp& looked_up, const Word<T>* words, const Panel& panel, const Run* runs, Rows<const T> x,
                       const Source<T>& target, std::ptrdiff_t batch);
};

// What is done with one vector.
struct VectorKernels {
    // Codes of x, filled up with zeros to a multiple of segment_padding, their step and their sum.
    void (*quantize)(const float* x, std::int32_t length, std::int8_t* codes, float* step, std::int32_t* sum);
    // The sum of some words, which has to read them all: the speed that no product can exceed.
    std::uint32_t (*read)(const std::uint32_t* words, std::size_t count);
};

struct InstructionSet {
    const char* name;
    bool (*supported)();
    const Kernels<float>& float32;
    const LookedUp& looked_up;  // what its float32 calls
    const Kernels<double>& float64;
    const VectorKernels& vectors;
    EncodeWords encode_words;
};

// Calls f(set) for each kernel_*.hpp that this architecture has. The units *_kernels.cpp are compiled once for each of
// them: what they define lies in a namespace with the name of the set.
#if defined(__x86_64__)
#define HMATRIX_SETS(f) f(portable) f(avx2) f(avx512)
#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
#define HMATRIX_NEON
#define HMATRIX_SETS(f) f(portable) f(neon)
#else
#define HMATRIX_SETS(f) f(portable)
#endif

#define HMATRIX_KERNELS(set)                                      \
    namespace set {                                               \
    extern const Kernels<float> float32;                          \
    extern const LookedUp looked_up;                              \
    extern const Kernels<double> float64;                         \
    extern const VectorKernels vectors;                           \
    void encode_words(const Words& words, std::uint8_t* windows); \
    }
HMATRIX_SETS(HMATRIX_KERNELS)
#if defined(__x86_64__)
namespace avx512vbmi {
extern const LookedUp looked_up;  // all else is that of avx512
}
#endif

// Whether a product of one vector asks for its words ahead. They are one stream, which AMD's processors fetch
// best on their own (1.3 MB from the third-level cache of a Zen 4: 99 GB/s, and 81 when asked); Intel's
// prefetching starts anew with each of the short pieces in which the stream is read.
extern const bool prefetch_pays;

// The instruction sets that this machine can run, the best first.
std::vector<const InstructionSet*> available();

// Throws std::invalid_argument for a name that is not available.
const InstructionSet& find(const std::string& name);

}  // namespace hmatrix
