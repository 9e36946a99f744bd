// 64-bit Arm with dot products: 32 registers of 4 floats or 2 doubles.
#pragma once

#include <arm_neon.h>

#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

struct Float {
    using value = float;
    using reg = float32x4_t;
    using ireg = uint32x4_t;
    using iword = int8x16_t;
    using part_type = int;
    static constexpr int width = 4, registers = 16, batch_registers = 4;
    static constexpr bool asks_ahead = false;
    static constexpr bool constants_fit = true;
    static int part(int n) { return n; }
    static reg zero() { return vdupq_n_f32(0); }
    static reg load(const float* p) { return vld1q_f32(p); }
    static reg load_part(const float* p, int n) {
        float r[4] = {};
        std::copy(p, p + n, r);
        return vld1q_f32(r);
    }
    static reg load_values(const std::uint32_t* p) { return vreinterpretq_f32_u32(load_words(p)); }
    static reg load_values_part(const std::uint32_t* p, int n) { return vreinterpretq_f32_u32(load_words_part(p, n)); }
    static reg broadcast(const float* p) { return vld1q_dup_f32(p); }
    static reg fma(reg a, reg b, reg c) { return vfmaq_f32(c, a, b); }
    static reg fused(reg a, reg b, reg c) { return fma(a, b, c); }
    static reg add(reg a, reg b) { return vaddq_f32(a, b); }
    static reg mul(reg a, reg b) { return vmulq_f32(a, b); }
    static reg abs(reg a) { return vabsq_f32(a); }
    static reg max(reg a, reg b) { return vmaxq_f32(a, b); }
    static float sum(reg a) {
        const float32x2_t s = vadd_f32(vget_low_f32(a), vget_high_f32(a));
        return vget_lane_f32(s, 0) + vget_lane_f32(s, 1);
    }
    static float largest(reg a) { return vmaxvq_f32(a); }
    static unsigned at_least(reg a, reg b) {
        const std::uint32_t bits[4] = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32(vcgeq_f32(a, b), vld1q_u32(bits)));
    }
    static void store(float* p, reg a) { vst1q_f32(p, a); }
    static void store_part(float* p, reg a, int n) {
        float r[4];
        vst1q_f32(r, a);
        std::copy(r, r + n, p);
    }

    static ireg load_words(const std::uint32_t* p) { return vld1q_u32(p); }
    static ireg load_words_part(const std::uint32_t* p, int n) {
        std::uint32_t r[4] = {};
        std::copy(p, p + n, r);
        return vld1q_u32(r);
    }
    static ireg zero_words() { return vdupq_n_u32(0); }
    static ireg add_words(ireg a, ireg b) { return vaddq_u32(a, b); }
    static std::int32_t sum_words(ireg a) { return static_cast<std::int32_t>(vaddvq_u32(a)); }
    static ireg round(reg a) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(a)); }
    static void store_bytes(std::int8_t* p, ireg a) {
        const int16x4_t halves = vmovn_s32(vreinterpretq_s32_u32(a));
        const int8x8_t bytes = vmovn_s16(vcombine_s16(halves, halves));
        const std::uint32_t word = vget_lane_u32(vreinterpret_u32_s8(bytes), 0);
        std::memcpy(p, &word, 4);
    }
    static iword broadcast_word(const std::int8_t* p) {
        std::uint32_t word;
        std::memcpy(&word, p, 4);
        return vreinterpretq_s8_u32(vdupq_n_u32(word));
    }
    static reg twice_less(ireg a, std::int32_t b) {
        return vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(vaddq_u32(a, a)), vdupq_n_s32(b)));
    }
    template <Precision P, int K>
    static reg decode(ireg w) {
        if constexpr (P == Precision::bfloat16) {
            return vreinterpretq_f32_u32(K == 0 ? vshlq_n_u32(w, 16) : vandq_u32(w, vdupq_n_u32(0xffff0000u)));
        } else {
            constexpr int bits = 32 / columns_per_word(P);
            constexpr int shift = 8 * (K % 4) + bits * (K / 4);
            ireg code = w;
            if constexpr (shift > 0) code = vshrq_n_u32(w, shift);
            code = vandq_u32(code, vdupq_n_u32((1u << bits) - 1));
            return vsubq_f32(vcvtq_f32_u32(code), vdupq_n_f32(0.5f * twice_zero(P)));
        }
    }
    // Only signed bytes have a dot product here. Codes of int8 are 128 too large for one; what that leaves
    // out, 128 times the sum of x, is added.
    template <Precision P, int K>
    static ireg dot(ireg sum, ireg w, iword x) {
        constexpr int bits = 32 / columns_per_word(P);
        int32x4_t s = vreinterpretq_s32_u32(sum);
        if constexpr (bits == 8) {
            const int8x16_t codes = vreinterpretq_s8_u32(veorq_u32(w, vdupq_n_u32(0x80808080u)));
            s = vdotq_s32(s, codes, x);
            // 128 = 2 * 64, as 128 itself is no signed byte.
            const int8x16_t half = vdupq_n_s8(64);
            s = vdotq_s32(vdotq_s32(s, half, x), half, x);
        } else {
            if constexpr (K > 0) w = vshrq_n_u32(w, bits * K);
            const int8x16_t codes = vandq_s8(vreinterpretq_s8_u32(w), vdupq_n_s8((1 << bits) - 1));
            s = vdotq_s32(s, codes, x);
        }
        return vreinterpretq_u32_s32(s);
    }
    // Codes of a precision that is known when it runs: the first columns of a word, and moving on to those that follow.
    // Dot products are of those below eight bits only.
    struct integer {
        explicit integer(Precision p)
            : bits(vdupq_n_s32(-(32 / columns_per_word(p)))),
              word_mask(vdupq_n_u32((1u << 32 / columns_per_word(p)) - 1)),
              byte_mask(vdupq_n_s8(static_cast<std::int8_t>((1 << 32 / columns_per_word(p)) - 1))),
              zero(vdupq_n_f32(0.5f * static_cast<float>(twice_zero(p)))) {}
        template <int K>
        reg decode(ireg w) const {
            if constexpr (K > 0) w = vshrq_n_u32(w, 8 * K);
            return vsubq_f32(vcvtq_f32_u32(vandq_u32(w, word_mask)), zero);
        }
        ireg dot(ireg sum, ireg w, iword x) const {
            const int8x16_t codes = vandq_s8(vreinterpretq_s8_u32(w), byte_mask);
            return vreinterpretq_u32_s32(vdotq_s32(vreinterpretq_s32_u32(sum), codes, x));
        }
        ireg moved(ireg w) const { return vshlq_u32(w, bits); }
        int32x4_t bits;
        ireg word_mask;
        int8x16_t byte_mask;
        reg zero;
    };
    // The bytes of a table that windows, the last six bits of each byte, stand for; of a wide one the last seven.
    struct table {
        explicit table(const std::uint8_t* bytes) : all(vld1q_u8_x4(bytes)) {}
        ireg of(ireg w) const {
            return vreinterpretq_u32_u8(vqtbl4q_u8(all, vandq_u8(vreinterpretq_u8_u32(w), vdupq_n_u8(table_size - 1))));
        }
        uint8x16x4_t all;
    };
    struct wide_table {
        explicit wide_table(const std::uint8_t* bytes) : lower(vld1q_u8_x4(bytes)), upper(vld1q_u8_x4(bytes + table_size)) {}
        ireg of(ireg w) const {
            // What an index beyond a table finds is left as it is.
            const uint8x16_t index = vandq_u8(vreinterpretq_u8_u32(w), vdupq_n_u8(2 * table_size - 1));
            const uint8x16_t above = vsubq_u8(index, vdupq_n_u8(table_size));
            return vreinterpretq_u32_u8(vqtbx4q_u8(vqtbl4q_u8(lower, index), upper, above));
        }
        uint8x16x4_t lower, upper;
    };
    // Bytes whose last two bits are those of a, and the others those of b.
    static ireg joined(ireg a, ireg b) { return vbslq_u32(vdupq_n_u32(0x03030303), a, b); }
    // Without the last bits.
    template <int bits>
    static ireg moved(ireg w) {
        return vshrq_n_u32(w, bits);
    }
    static ireg rotated(ireg w, int bits) {
        return vorrq_u32(vshlq_u32(w, vdupq_n_s32(-bits)), vshlq_u32(w, vdupq_n_s32(32 - bits)));
    }
    // Codes of int8 with bytes of their own in each lane.
    static ireg dot_lanes(ireg sum, ireg w, const std::int8_t* x) {
        return dot<Precision::int8, 0>(sum, w, vld1q_s8(x));
    }
};

struct Double {
    using value = double;
    using reg = float64x2_t;
    using part_type = int;
    static constexpr int width = 2, registers = 16, batch_registers = 4;
    static constexpr bool asks_ahead = false;
    static int part(int n) { return n; }
    static reg zero() { return vdupq_n_f64(0); }
    static reg load(const double* p) { return vld1q_f64(p); }
    static reg load_part(const double* p, int n) {
        double r[2] = {};
        std::copy(p, p + n, r);
        return vld1q_f64(r);
    }
    static reg load_values(const double* p) { return load(p); }
    static reg load_values_part(const double* p, int n) { return load_part(p, n); }
    static reg broadcast(const double* p) { return vld1q_dup_f64(p); }
    static reg fma(reg a, reg b, reg c) { return vfmaq_f64(c, a, b); }
    static reg add(reg a, reg b) { return vaddq_f64(a, b); }
    static double sum(reg a) { return vaddvq_f64(a); }
    static void store(double* p, reg a) { vst1q_f64(p, a); }
    static void store_part(double* p, reg a, int n) {
        double r[2];
        vst1q_f64(r, a);
        std::copy(r, r + n, p);
    }
};

}  // namespace
}  // namespace hmatrix
