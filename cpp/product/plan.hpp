// A matrix in packed form with all that its product needs, checked once when it is made.
#pragma once

#include <atomic>
#include <optional>

#include "kernels/kernels.hpp"
#include "product/packed.hpp"
#include "product/threads.hpp"

namespace hmatrix {

// Makes a stage from the tables of src/hmatrix/packed/panels.py: offsets (panels,), panels (panels, 4), runs (runs, 4).
// Throws std::invalid_argument for flags that are unknown; all else is checked by the plan.
Stage make_stage(const std::int64_t* offsets, const std::int32_t* panels, std::size_t panel_count,
                 const std::int32_t* runs, std::size_t run_count);

template <class T>
class Plan {
public:
    // Throws std::invalid_argument if a panel, a run, a segment or a permutation reaches outside its array.
    Plan(const InstructionSet& set, Packed<T> packed);

    Shape shape() const { return packed_.shape; }

    // Words of all coefficients and scales.
    std::int64_t words() const { return packed_.size; }

    // y (batch, rows) = x (batch, columns) A^T, both contiguous, by at most so many threads.
    void multiply(const T* x, T* y, std::ptrdiff_t batch, int threads = get_num_threads()) const;
    // y (batch, columns) = x (batch, rows) A, both contiguous.
    void multiply_transposed(const T* x, T* y, std::ptrdiff_t batch) const;
    // y (count, columns) = the rows of A at some positions, in tree order, which are in range.
    void rows(const std::int32_t* positions, T* y, std::ptrdiff_t count) const;

private:
    void run_stage(const Stage& stage, const Source<const T>& source, const Quantized& quantized, Rows<T> y,
                   std::ptrdiff_t batch, int most_threads, bool backwards) const;
    void quantize(const Source<const T>& source, const Quantized& quantized, bool of_t, std::ptrdiff_t batch) const;

    Packed<T> packed_;
    const InstructionSet* set_;
    const Kernels<T>* kernels_;
    std::int64_t codes_ = 0;  // bytes of the quantised source
    // Products go forth and back over the panels in turn, so that each meets first what the last one left in the cache.
    // Only speed depends on it: threads may share it without agreeing on whose turn it is.
    mutable std::atomic<bool> backwards_{false};
};

extern template class Plan<float>;
extern template class Plan<double>;

}  // namespace hmatrix
