// AVX-512 with VNNI and VBMI.
#pragma once

#include "kernels/kernel_avx512.hpp"
