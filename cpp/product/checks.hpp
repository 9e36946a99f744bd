// The checks of what comes from outside.
#pragma once

#include <stdexcept>

#include "product/plan.hpp"

namespace hmatrix {

inline void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

// Throws std::invalid_argument if anything in `packed` reaches outside its array; gives the segments their
// places among the codes of the quantised source, and returns how many bytes those take.
template <class T>
std::int64_t check(Packed<T>& packed);

}  // namespace hmatrix
