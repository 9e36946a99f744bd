// AVX2 with FMA: 16 registers of 8 floats or 4 doubles.
#include <immintrin.h>

#include "kernels.hpp"
#include "panel_kernels.hpp"

namespace hmatrix {
namespace {

struct Float {
    using value = float;
    using reg = __m256;
    static constexpr int width = 8, registers = 12, batch_registers = 3;
    static __m256i part(int n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static reg zero() { return _mm256_setzero_ps(); }
    static reg load(const float* p) { return _mm256_loadu_ps(p); }
    static reg load_part(const float* p, __m256i m) { return _mm256_maskload_ps(p, m); }
    static reg broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static reg fma(reg a, reg b, reg c) { return _mm256_fmadd_ps(a, b, c); }
    static reg add(reg a, reg b) { return _mm256_add_ps(a, b); }
    static float sum(reg a) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
    }
    static void store(float* p, reg a) { _mm256_storeu_ps(p, a); }
    static void store_part(float* p, reg a, __m256i m) { _mm256_maskstore_ps(p, m, a); }
};

struct Double {
    using value = double;
    using reg = __m256d;
    static constexpr int width = 4, registers = 12, batch_registers = 3;
    static __m256i part(int n) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3)); }
    static reg zero() { return _mm256_setzero_pd(); }
    static reg load(const double* p) { return _mm256_loadu_pd(p); }
    static reg load_part(const double* p, __m256i m) { return _mm256_maskload_pd(p, m); }
    static reg broadcast(const double* p) { return _mm256_broadcast_sd(p); }
    static reg fma(reg a, reg b, reg c) { return _mm256_fmadd_pd(a, b, c); }
    static reg add(reg a, reg b) { return _mm256_add_pd(a, b); }
    static double sum(reg a) {
        const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
        return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
    }
    static void store(double* p, reg a) { _mm256_storeu_pd(p, a); }
    static void store_part(double* p, reg a, __m256i m) { _mm256_maskstore_pd(p, m, a); }
};

bool supported() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

}  // namespace

const InstructionSet avx2 = {
    "avx2", supported, {forward<Float>, transposed<Float>}, {forward<Double>, transposed<Double>}};

}  // namespace hmatrix
