// Refines the rows of a progressive head, for one instruction set.
#include "heads/progressive_kernels.hpp"
#include "kernels/instruction_set.hpp"

namespace hmatrix::HMATRIX_SET {

std::int32_t refine(const Head& head, const float* x, std::int32_t top, Workspace& work) {
    return refine_head<Float>(head, x, top, work);
}

}  // namespace hmatrix::HMATRIX_SET
