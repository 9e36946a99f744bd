// The checks of a plan.
#pragma once

#include "plan.hpp"

namespace hmatrix {

// Throws std::invalid_argument if anything in `packed` reaches outside its array; gives the segments their
// places among the codes of the quantised source, and returns how many bytes those take.
template <class T>
std::int64_t check(Packed<T>& packed);

}  // namespace hmatrix
