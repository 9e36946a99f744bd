// AVX-512 with VNNI and VBMI.
#include "kernels/kernel_avx512.cpp"
