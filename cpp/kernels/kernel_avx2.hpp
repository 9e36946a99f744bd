// AVX2 with FMA: 16 registers of 8 floats or 4 doubles. Sums of integers go through 16-bit products,
// since the 8-bit ones of AVX2 saturate.
#pragma once

#include <immintrin.h>

#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

struct Float {
    using value = float;
    using reg = __m256;
    using ireg = __m256i;
    using part_type = __m256i;
    // Entries 0 and 2, and entries 1 and 3, of four, as 16-bit integers.
    struct iword {
        __m256i even, odd;
    };
    static constexpr int width = 8, registers = 12, batch_registers = 3;
    static constexpr bool asks_ahead = true;
    static constexpr bool constants_fit = false;
    static part_type part(int n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static reg zero() { return _mm256_setzero_ps(); }
    static reg load(const float* p) { return _mm256_loadu_ps(p); }
    static reg load_part(const float* p, part_type m) { return _mm256_maskload_ps(p, m); }
    static reg load_values(const std::uint32_t* p) { return _mm256_castsi256_ps(load_words(p)); }
    static reg load_values_part(const std::uint32_t* p, part_type m) {
        return _mm256_castsi256_ps(load_words_part(p, m));
    }
    static reg broadcast(const float* p) { return _mm256_broadcast_ss(p); }
    static reg fma(reg a, reg b, reg c) { return _mm256_fmadd_ps(a, b, c); }
    static reg fused(reg a, reg b, reg c) { return fma(a, b, c); }
    static reg add(reg a, reg b) { return _mm256_add_ps(a, b); }
    static reg mul(reg a, reg b) { return _mm256_mul_ps(a, b); }
    static reg abs(reg a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
    static reg max(reg a, reg b) { return _mm256_max_ps(a, b); }
    static float sum(reg a) {
        __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        s = _mm_add_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
    }
    static float largest(reg a) {
        __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        s = _mm_max_ps(s, _mm_movehl_ps(s, s));
        return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
    }
    static unsigned at_least(reg a, reg b) {
        return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ)));
    }
    static void store(float* p, reg a) { _mm256_storeu_ps(p, a); }
    static void store_part(float* p, reg a, part_type m) { _mm256_maskstore_ps(p, m, a); }

    static ireg load_words(const std::uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
    static ireg load_words_part(const std::uint32_t* p, part_type m) {
        return _mm256_maskload_epi32(reinterpret_cast<const int*>(p), m);
    }
    static ireg zero_words() { return _mm256_setzero_si256(); }
    static ireg add_words(ireg a, ireg b) { return _mm256_add_epi32(a, b); }
    static std::int32_t sum_words(ireg a) {
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
    }
    static ireg round(reg a) { return _mm256_cvtps_epi32(a); }
    static void store_bytes(std::int8_t* p, ireg a) {
        const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(halves, halves));
    }
    static iword broadcast_word(const std::int8_t* p) {
        std::int32_t word;
        std::memcpy(&word, p, 4);
        return even_and_odd(_mm256_set1_epi32(word));
    }
    static iword even_and_odd(__m256i x) {
        return {_mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), _mm256_srai_epi16(x, 8)};
    }
    static reg twice_less(ireg a, std::int32_t b) {
        return _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_add_epi32(a, a), _mm256_set1_epi32(b)));
    }
    template <Precision P, int K>
    static reg decode(ireg w) {
        if constexpr (P == Precision::bfloat16) {
            return _mm256_castsi256_ps(K == 0 ? _mm256_slli_epi32(w, 16)
                                              : _mm256_and_si256(w, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
        } else {
            constexpr int bits = 32 / columns_per_word(P);
            const ireg code = _mm256_and_si256(_mm256_srli_epi32(w, 8 * (K % 4) + bits * (K / 4)),
                                               _mm256_set1_epi32((1 << bits) - 1));
            return _mm256_sub_ps(_mm256_cvtepi32_ps(code), _mm256_set1_ps(0.5f * twice_zero(P)));
        }
    }
    template <Precision P, int K>
    static ireg dot(ireg sum, ireg w, const iword& x) {
        constexpr int bits = 32 / columns_per_word(P);
        const __m256i mask = _mm256_set1_epi16((1 << bits) - 1);
        const __m256i even = _mm256_and_si256(_mm256_srli_epi32(w, bits * K), mask);
        const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(w, bits * K + 8), mask);
        return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(even, x.even), _mm256_madd_epi16(odd, x.odd)));
    }
    // Codes of a precision that is known when it runs: the first columns of a word, and moving on to those that follow.
    struct integer {
        explicit integer(Precision p)
            : bits(_mm256_set1_epi32(32 / columns_per_word(p))),
              word_mask(_mm256_set1_epi32((1 << 32 / columns_per_word(p)) - 1)),
              half_mask(_mm256_set1_epi16(static_cast<short>((1 << 32 / columns_per_word(p)) - 1))),
              zero(_mm256_set1_ps(0.5f * static_cast<float>(twice_zero(p)))) {}
        template <int K>
        reg decode(ireg w) const {
            return _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(w, 8 * K), word_mask)), zero);
        }
        ireg dot(ireg sum, ireg w, const iword& x) const {
            const __m256i even = _mm256_and_si256(w, half_mask), odd = _mm256_and_si256(_mm256_srli_epi32(w, 8), half_mask);
            return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(even, x.even), _mm256_madd_epi16(odd, x.odd)));
        }
        ireg moved(ireg w) const { return _mm256_srlv_epi32(w, bits); }
        ireg bits, word_mask, half_mask;
        reg zero;
    };
    // The bytes of a table that windows, the last six bits of each byte, stand for; of a wide one the last seven.
    struct table {
        explicit table(const std::uint8_t* bytes) {
            for (int q = 0; q < 4; ++q)
                quarters[q] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes) + q));
        }
        ireg of(ireg w) const {
            const __m256i index = _mm256_and_si256(w, _mm256_set1_epi8(15));
            const auto quarter = [&](int q) { return _mm256_shuffle_epi8(quarters[q], index); };
            // Bits 4 and 5 say which quarter; a blend goes by the highest bit of each byte.
            const __m256i odd = _mm256_slli_epi32(w, 3), upper = _mm256_slli_epi32(w, 2);
            return _mm256_blendv_epi8(_mm256_blendv_epi8(quarter(0), quarter(1), odd),
                                      _mm256_blendv_epi8(quarter(2), quarter(3), odd), upper);
        }
        __m256i quarters[4];
    };
    struct wide_table {
        explicit wide_table(const std::uint8_t* bytes) : lower(bytes), upper(bytes + table_size) {}
        ireg of(ireg w) const { return _mm256_blendv_epi8(lower.of(w), upper.of(w), _mm256_slli_epi32(w, 1)); }
        table lower, upper;
    };
    // Bytes whose last two bits are those of a, and the others those of b.
    static ireg joined(ireg a, ireg b) {
        const __m256i two = _mm256_set1_epi8(3);
        return _mm256_or_si256(_mm256_and_si256(two, a), _mm256_andnot_si256(two, b));
    }
    // Without the last bits.
    template <int bits>
    static ireg moved(ireg w) {
        return _mm256_srli_epi32(w, bits);
    }
    static ireg rotated(ireg w, int bits) {
        return _mm256_or_si256(_mm256_srl_epi32(w, _mm_cvtsi32_si128(bits)), _mm256_sll_epi32(w, _mm_cvtsi32_si128(32 - bits)));
    }
    // Codes of int8 with bytes of their own in each lane.
    static ireg dot_lanes(ireg sum, ireg w, const std::int8_t* x) {
        return dot<Precision::int8, 0>(sum, w, even_and_odd(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x))));
    }
};

struct Double {
    using value = double;
    using reg = __m256d;
    using part_type = __m256i;
    static constexpr int width = 4, registers = 12, batch_registers = 3;
    static constexpr bool asks_ahead = true;
    static part_type part(int n) {
        return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
    }
    static reg zero() { return _mm256_setzero_pd(); }
    static reg load(const double* p) { return _mm256_loadu_pd(p); }
    static reg load_part(const double* p, part_type m) { return _mm256_maskload_pd(p, m); }
    static reg load_values(const double* p) { return load(p); }
    static reg load_values_part(const double* p, part_type m) { return load_part(p, m); }
    static reg broadcast(const double* p) { return _mm256_broadcast_sd(p); }
    static reg fma(reg a, reg b, reg c) { return _mm256_fmadd_pd(a, b, c); }
    static reg add(reg a, reg b) { return _mm256_add_pd(a, b); }
    static double sum(reg a) {
        const __m128d s = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
        return _mm_cvtsd_f64(_mm_add_sd(s, _mm_unpackhi_pd(s, s)));
    }
    static void store(double* p, reg a) { _mm256_storeu_pd(p, a); }
    static void store_part(double* p, reg a, part_type m) { _mm256_maskstore_pd(p, m, a); }
};

}  // namespace
}  // namespace hmatrix
