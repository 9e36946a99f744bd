// AVX-512 with VNNI: 32 registers of 16 floats or 8 doubles; masks for the rows that do not fill one.
// kernel_avx512vbmi.hpp is the same, compiled for machines that look up 64 bytes at once.
#pragma once

#include <immintrin.h>

#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

struct Float {
    using value = float;
    using reg = __m512;
    using ireg = __m512i;
    using iword = __m512i;
    using part_type = __mmask16;
    static constexpr int width = 16, registers = 24, batch_registers = 4;
    static constexpr bool asks_ahead = true;
    static constexpr bool constants_fit = true;
    static part_type part(int n) { return static_cast<part_type>((1u << n) - 1); }
    static reg zero() { return _mm512_setzero_ps(); }
    static reg load(const float* p) { return _mm512_loadu_ps(p); }
    static reg load_part(const float* p, part_type m) { return _mm512_maskz_loadu_ps(m, p); }
    static reg load_values(const std::uint32_t* p) { return _mm512_loadu_ps(p); }
    static reg load_values_part(const std::uint32_t* p, part_type m) { return _mm512_maskz_loadu_ps(m, p); }
    static reg broadcast(const float* p) { return _mm512_set1_ps(*p); }
    static reg fma(reg a, reg b, reg c) { return _mm512_fmadd_ps(a, b, c); }
    static reg fused(reg a, reg b, reg c) { return fma(a, b, c); }
    static reg add(reg a, reg b) { return _mm512_add_ps(a, b); }
    static reg mul(reg a, reg b) { return _mm512_mul_ps(a, b); }
    static reg abs(reg a) { return _mm512_abs_ps(a); }
    static reg max(reg a, reg b) { return _mm512_max_ps(a, b); }
    static float sum(reg a) {
        const __m256 upper = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
        const __m256 e = _mm256_add_ps(_mm512_castps512_ps256(a), upper);
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
    }
    static float largest(reg a) { return _mm512_reduce_max_ps(a); }
    // A bit for each entry of a that is at least that of b; none where either is NaN.
    static unsigned at_least(reg a, reg b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
    static void store(float* p, reg a) { _mm512_storeu_ps(p, a); }
    static void store_part(float* p, reg a, part_type m) { _mm512_mask_storeu_ps(p, m, a); }

    static ireg load_words(const std::uint32_t* p) { return _mm512_loadu_si512(p); }
    static ireg load_words_part(const std::uint32_t* p, part_type m) { return _mm512_maskz_loadu_epi32(m, p); }
    static ireg zero_words() { return _mm512_setzero_si512(); }
    static ireg add_words(ireg a, ireg b) { return _mm512_add_epi32(a, b); }
    static std::int32_t sum_words(ireg a) { return _mm512_reduce_add_epi32(a); }
    static ireg round(reg a) { return _mm512_cvtps_epi32(a); }
    static void store_bytes(std::int8_t* p, ireg a) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
    }
    static iword broadcast_word(const std::int8_t* p) {
        std::int32_t word;
        std::memcpy(&word, p, 4);
        return _mm512_set1_epi32(word);
    }
    static reg twice_less(ireg a, std::int32_t b) {
        return _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_add_epi32(a, a), _mm512_set1_epi32(b)));
    }
    template <Precision P, int K>
    static reg decode(ireg w) {
        if constexpr (P == Precision::bfloat16) {
            return _mm512_castsi512_ps(K == 0 ? _mm512_slli_epi32(w, 16)
                                              : _mm512_and_si512(w, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
        } else {
            // The bits of a code, put at the end of those of 2^22, are the float 2^22 + code.
            constexpr int bits = 32 / columns_per_word(P), shift = 8 * (K % 4) + bits * (K / 4) - 1;
            constexpr float base = 4194304.0f;
            const ireg moved = shift < 0 ? _mm512_slli_epi32(w, 1) : _mm512_srli_epi32(w, std::max(shift, 0));
            constexpr int and_or = 0xea;
            const ireg code = _mm512_ternarylogic_epi32(moved, _mm512_set1_epi32(((1 << bits) - 1) << 1),
                                                        _mm512_castps_si512(_mm512_set1_ps(base)), and_or);
            return _mm512_sub_ps(_mm512_castsi512_ps(code), _mm512_set1_ps(base + 0.5f * twice_zero(P)));
        }
    }
    template <Precision P, int K>
    static ireg dot(ireg sum, ireg w, iword x) {
        constexpr int bits = 32 / columns_per_word(P);
        if constexpr (K > 0) w = _mm512_srli_epi32(w, bits * K);
        if constexpr (bits < 8) w = _mm512_and_si512(w, _mm512_set1_epi8((1 << bits) - 1));
        return _mm512_dpbusd_epi32(sum, w, x);
    }
    // Codes of a precision that is known when it runs: the first columns of a word, and moving on to those that follow.
    struct integer {
        static constexpr float base = 4194304.0f;
        explicit integer(Precision p)
            : bits(_mm512_set1_epi32(32 / columns_per_word(p))),
              word_mask(_mm512_set1_epi32(((1 << 32 / columns_per_word(p)) - 1) << 1)),
              byte_mask(_mm512_set1_epi8(static_cast<char>((1 << 32 / columns_per_word(p)) - 1))),
              zero(_mm512_set1_ps(base + 0.5f * static_cast<float>(twice_zero(p)))) {}
        template <int K>
        reg decode(ireg w) const {
            constexpr int shift = 8 * K - 1, and_or = 0xea;
            const ireg moved = shift < 0 ? _mm512_slli_epi32(w, 1) : _mm512_srli_epi32(w, std::max(shift, 0));
            const ireg code = _mm512_ternarylogic_epi32(moved, word_mask, _mm512_castps_si512(_mm512_set1_ps(base)), and_or);
            return _mm512_sub_ps(_mm512_castsi512_ps(code), zero);
        }
        ireg dot(ireg sum, ireg w, iword x) const { return _mm512_dpbusd_epi32(sum, _mm512_and_si512(w, byte_mask), x); }
        ireg moved(ireg w) const { return _mm512_srlv_epi32(w, bits); }
        ireg bits, word_mask, byte_mask;
        reg zero;
    };
    // The bytes of a table that windows, the last six bits of each byte, stand for; of a wide one the last seven.
#ifdef __AVX512VBMI__
    struct table {
        explicit table(const std::uint8_t* bytes) : all(_mm512_load_si512(bytes)) {}
        ireg of(ireg w) const { return _mm512_permutexvar_epi8(w, all); }
        __m512i all;
    };
    struct wide_table {
        explicit wide_table(const std::uint8_t* bytes)
            : lower(_mm512_load_si512(bytes)), upper(_mm512_load_si512(bytes + table_size)) {}
        ireg of(ireg w) const { return _mm512_permutex2var_epi8(lower, w, upper); }
        __m512i lower, upper;
    };
#else
    struct table {
        explicit table(const std::uint8_t* bytes) {
            for (int q = 0; q < 4; ++q)
                quarters[q] = _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes) + q));
        }
        ireg of(ireg w) const {
            const ireg index = _mm512_and_si512(w, _mm512_set1_epi8(15));
            const auto quarter = [&](int q) { return _mm512_shuffle_epi8(quarters[q], index); };
            const __mmask64 odd = _mm512_test_epi8_mask(w, _mm512_set1_epi8(16));
            const __mmask64 upper = _mm512_test_epi8_mask(w, _mm512_set1_epi8(32));
            return _mm512_mask_blend_epi8(upper, _mm512_mask_blend_epi8(odd, quarter(0), quarter(1)),
                                          _mm512_mask_blend_epi8(odd, quarter(2), quarter(3)));
        }
        __m512i quarters[4];
    };
    struct wide_table {
        explicit wide_table(const std::uint8_t* bytes) : lower(bytes), upper(bytes + table_size) {}
        ireg of(ireg w) const {
            const __mmask64 above = _mm512_test_epi8_mask(w, _mm512_set1_epi8(64));
            return _mm512_mask_blend_epi8(above, lower.of(w), upper.of(w));
        }
        table lower, upper;
    };
#endif
    // Bytes whose last two bits are those of a, and the others those of b.
    static ireg joined(ireg a, ireg b) {
        constexpr int a_or_b = 0xca;
        return _mm512_ternarylogic_epi32(_mm512_set1_epi8(3), a, b, a_or_b);
    }
    // Without the last bits.
    template <int bits>
    static ireg moved(ireg w) {
        return _mm512_srli_epi32(w, bits);
    }
    static ireg rotated(ireg w, int bits) { return _mm512_rorv_epi32(w, _mm512_set1_epi32(bits)); }
    // Codes of int8 with bytes of their own in each lane.
    static ireg dot_lanes(ireg sum, ireg w, const std::int8_t* x) {
        return _mm512_dpbusd_epi32(sum, w, _mm512_loadu_si512(x));
    }
};

struct Double {
    using value = double;
    using reg = __m512d;
    using part_type = __mmask8;
    static constexpr int width = 8, registers = 24, batch_registers = 4;
    static constexpr bool asks_ahead = true;
    static part_type part(int n) { return static_cast<part_type>((1u << n) - 1); }
    static reg zero() { return _mm512_setzero_pd(); }
    static reg load(const double* p) { return _mm512_loadu_pd(p); }
    static reg load_part(const double* p, part_type m) { return _mm512_maskz_loadu_pd(m, p); }
    static reg load_values(const double* p) { return load(p); }
    static reg load_values_part(const double* p, part_type m) { return load_part(p, m); }
    static reg broadcast(const double* p) { return _mm512_set1_pd(*p); }
    static reg fma(reg a, reg b, reg c) { return _mm512_fmadd_pd(a, b, c); }
    static reg add(reg a, reg b) { return _mm512_add_pd(a, b); }
    static double sum(reg a) { return _mm512_reduce_add_pd(a); }
    static void store(double* p, reg a) { _mm512_storeu_pd(p, a); }
    static void store_part(double* p, reg a, part_type m) { _mm512_mask_storeu_pd(p, m, a); }
};

}  // namespace
}  // namespace hmatrix
