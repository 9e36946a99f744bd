// Products of float32 with values that are looked up, for one instruction set.
#include "kernels/instruction_set.hpp"
#include "kernels/kernels.hpp"
#include "kernels/lookup_kernels.hpp"

namespace hmatrix::HMATRIX_SET {

// At compile time: code of this unit may not run when the library is loaded, on whatever processor that is.
constexpr LookedUp looked_up = all_looked_up<Float>();

}  // namespace hmatrix::HMATRIX_SET
