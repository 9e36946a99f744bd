// The vector types of the instruction set that a unit is compiled for: HMATRIX_SET names it.
#pragma once

#define HMATRIX_TEXT(name) #name
#define HMATRIX_HEADER(set) HMATRIX_TEXT(kernels/kernel_##set.hpp)
#define HMATRIX_HEADER_OF(set) HMATRIX_HEADER(set)
#include HMATRIX_HEADER_OF(HMATRIX_SET)
