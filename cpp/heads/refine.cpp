#include "heads/progressive.hpp"
#include "kernels/kernels.hpp"

namespace hmatrix {

#define HMATRIX_REFINE(set)                                                                                \
    namespace set {                                                                                        \
    std::int32_t refine(const Head& head, const float* x, std::int32_t top, Workspace& work);              \
    }
HMATRIX_SETS(HMATRIX_REFINE)

Refine refine_of(const InstructionSet& set) {
#define HMATRIX_CHOOSE(name) \
    if (&set.vectors == &name::vectors) return name::refine;
    HMATRIX_SETS(HMATRIX_CHOOSE)
    return nullptr;
}

}  // namespace hmatrix
