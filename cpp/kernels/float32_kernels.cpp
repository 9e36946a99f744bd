// Products of float32, and what they do with one vector, for one instruction set.
#include "kernels/instruction_set.hpp"
#include "kernels/panel_kernels.hpp"
#include "kernels/transposed_kernels.hpp"
#include "kernels/vector_kernels.hpp"

namespace hmatrix::HMATRIX_SET {

constexpr Kernels<float> float32 = {forward<Float>, transposed<Float>};
constexpr VectorKernels vectors = {quantize<Float>, read<Float>};

}  // namespace hmatrix::HMATRIX_SET
