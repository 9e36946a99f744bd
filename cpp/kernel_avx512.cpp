// AVX-512: 32 registers of 16 floats or 8 doubles; masks for the rows that do not fill one.
#include <immintrin.h>

#include "kernels.hpp"
#include "panel_kernels.hpp"

namespace hmatrix {
namespace {

struct Float {
    using value = float;
    using reg = __m512;
    static constexpr int width = 16, registers = 24, batch_registers = 4;
    static __mmask16 part(int n) { return static_cast<__mmask16>((1u << n) - 1); }
    static reg zero() { return _mm512_setzero_ps(); }
    static reg load(const float* p) { return _mm512_loadu_ps(p); }
    static reg load_part(const float* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
    static reg broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static reg fma(reg a, reg b, reg c) { return _mm512_fmadd_ps(a, b, c); }
    static reg add(reg a, reg b) { return _mm512_add_ps(a, b); }
    static float sum(reg a) { return _mm512_reduce_add_ps(a); }
    static void store(float* p, reg a) { _mm512_storeu_ps(p, a); }
    static void store_part(float* p, reg a, __mmask16 m) { _mm512_mask_storeu_ps(p, m, a); }
};

struct Double {
    using value = double;
    using reg = __m512d;
    static constexpr int width = 8, registers = 24, batch_registers = 4;
    static __mmask8 part(int n) { return static_cast<__mmask8>((1u << n) - 1); }
    static reg zero() { return _mm512_setzero_pd(); }
    static reg load(const double* p) { return _mm512_loadu_pd(p); }
    static reg load_part(const double* p, __mmask8 m) { return _mm512_maskz_loadu_pd(m, p); }
    static reg broadcast(const double* p) { return _mm512_set1_pd(*p); }
    static reg fma(reg a, reg b, reg c) { return _mm512_fmadd_pd(a, b, c); }
    static reg add(reg a, reg b) { return _mm512_add_pd(a, b); }
    static double sum(reg a) { return _mm512_reduce_add_pd(a); }
    static void store(double* p, reg a) { _mm512_storeu_pd(p, a); }
    static void store_part(double* p, reg a, __mmask8 m) { _mm512_mask_storeu_pd(p, m, a); }
};

bool supported() { return __builtin_cpu_supports("avx512f"); }

}  // namespace

const InstructionSet avx512 = {
    "avx512", supported, {forward<Float>, transposed<Float>}, {forward<Double>, transposed<Double>}};

}  // namespace hmatrix
