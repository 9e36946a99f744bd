// AVX-512 with VNNI and VBMI.
#include "kernel_avx512.cpp"
