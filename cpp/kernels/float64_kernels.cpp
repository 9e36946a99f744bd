// Products of float64, for one instruction set.
#include "kernels/instruction_set.hpp"
#include "kernels/panel_kernels.hpp"
#include "kernels/transposed_kernels.hpp"

namespace hmatrix::HMATRIX_SET {

constexpr Kernels<double> float64 = {forward<Double>, transposed<Double>};

}  // namespace hmatrix::HMATRIX_SET
