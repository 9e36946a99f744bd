// Vectors of 16 bytes as GCC and Clang have them on every machine.
#pragma once

#include <limits>

#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

template <class T>
struct Portable {
    using value = T;
    using part_type = int;
    static constexpr int width = 16 / sizeof(T), registers = 8, batch_registers = 2;
    static constexpr bool asks_ahead = false;
    static constexpr bool constants_fit = true;
    typedef T reg __attribute__((vector_size(16)));
    typedef std::uint32_t ireg __attribute__((vector_size(16)));
    typedef std::int32_t integers __attribute__((vector_size(16)));
    typedef std::int16_t halves __attribute__((vector_size(16)));
    // Entries 0 and 2, and entries 1 and 3, of four, as 16-bit integers.
    struct iword {
        halves even, odd;
    };
    static int part(int n) { return n; }
    static reg zero() { return reg{}; }
    static reg load(const T* p) { return loaded<reg>(p); }
    static reg load_part(const T* p, int n) { return loaded_part<reg>(p, n); }
    static reg load_values(const Word<T>* p) { return loaded<reg>(p); }
    static reg load_values_part(const Word<T>* p, int n) { return loaded_part<reg>(p, n); }
    static reg broadcast(const T* p) { return all(*p); }
    static reg fma(reg a, reg b, reg c) { return c + a * b; }
    // a * b + c, rounded once, on processors that have no such instruction, too: the sum in double is rounded to odd, which
    // rounding to float then cannot take for a tie (S. Boldo, G. Melquiond, doi:10.1109/TC.2007.70819).
    static reg fused(reg a, reg b, reg c) {
        for (int i = 0; i < width; ++i) {
            const double product = double{a[i]} * b[i], addend = c[i];  // the product is exact
            double sum = product + addend;
            const double part = sum - product, error = (product - (sum - part)) + (addend - part);
            std::int64_t bits;
            std::memcpy(&bits, &sum, sizeof bits);
            if (error != 0.0 && (bits & 1) == 0 && std::abs(sum) <= std::numeric_limits<double>::max()) {
                bits += (error > 0.0) == (sum > 0.0) ? 1 : -1;
                std::memcpy(&sum, &bits, sizeof sum);
            }
            c[i] = static_cast<T>(sum);
        }
        return c;
    }
    static reg add(reg a, reg b) { return a + b; }
    static reg mul(reg a, reg b) { return a * b; }
    static reg abs(reg a) {
        for (int i = 0; i < width; ++i) a[i] = std::abs(a[i]);
        return a;
    }
    static reg max(reg a, reg b) { return a < b ? b : a; }
    static T sum(reg a) {
        for (int half = width / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) a[i] += a[i + half];
        return a[0];
    }
    static T largest(reg a) {
        T most = a[0];
        for (int i = 1; i < width; ++i) most = std::max(most, a[i]);
        return most;
    }
    static unsigned at_least(reg a, reg b) {
        unsigned mask = 0;
        for (int i = 0; i < width; ++i) mask |= static_cast<unsigned>(a[i] >= b[i]) << i;
        return mask;
    }
    static void store(T* p, reg a) { std::memcpy(p, &a, sizeof a); }
    static void store_part(T* p, reg a, int n) {
        for (int i = 0; i < n; ++i) p[i] = a[i];
    }

    static ireg load_words(const std::uint32_t* p) { return loaded<ireg>(p); }
    static ireg load_words_part(const std::uint32_t* p, int n) { return loaded_part<ireg>(p, n); }
    static ireg zero_words() { return ireg{}; }
    static ireg add_words(ireg a, ireg b) { return a + b; }
    static std::int32_t sum_words(ireg a) {
        std::uint32_t s = 0;
        for (int i = 0; i < width; ++i) s += a[i];
        return static_cast<std::int32_t>(s);
    }
    static ireg round(reg a) {
        return each_word([&](int i) { return static_cast<std::uint32_t>(static_cast<std::int32_t>(std::nearbyint(a[i]))); });
    }
    static void store_bytes(std::int8_t* p, ireg a) {
        for (int i = 0; i < width; ++i) p[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(a[i]));
    }
    static iword broadcast_word(const std::int8_t* p) { return even_and_odd(ireg{} + word(p)); }
    static reg twice_less(ireg a, std::int32_t b) { return floats(a + a - static_cast<std::uint32_t>(b)); }
    template <Precision P, int K>
    static reg decode(ireg w) {
        if constexpr (P == Precision::bfloat16) {
            return (reg)(K == 0 ? w << 16 : w & 0xffff0000u);
        } else {
            constexpr int bits = 32 / columns_per_word(P);
            constexpr int shift = 8 * (K % 4) + bits * (K / 4);
            return floats(w >> shift & ((1u << bits) - 1)) - static_cast<T>(0.5) * twice_zero(P);
        }
    }
    template <Precision P, int K>
    static ireg dot(ireg sum, ireg w, const iword& x) {
        constexpr int bits = 32 / columns_per_word(P);
        return dot_of(sum, w >> bits * K, ((1u << bits) - 1) * 0x00010001u, x);
    }
    // Codes of a precision that is known when it runs: the first columns of a word, and moving on to those that follow.
    struct integer {
        explicit integer(Precision p)
            : bits(32 / columns_per_word(p)), mask((1u << bits) - 1), zero(static_cast<T>(0.5) * twice_zero(p)) {}
        template <int K>
        reg decode(ireg w) const {
            return floats(w >> 8 * K & mask) - zero;
        }
        ireg dot(ireg sum, ireg w, const iword& x) const {
            return dot_of(sum, w, mask * 0x00010001u, x);
        }
        ireg moved(ireg w) const { return w >> bits; }
        int bits;
        std::uint32_t mask;
        T zero;
    };
    // The bytes of a table that windows, the last six bits of each byte, stand for; of a wide one the last seven.
    template <std::uint32_t last>
    struct bytes_of_table {
        explicit bytes_of_table(const std::uint8_t* bytes) : bytes(bytes) {}
        ireg of(ireg w) const {
            typedef std::uint64_t pairs __attribute__((vector_size(16)));
            pairs found = (pairs)w;
            UNROLL for (int i = 0; i < 2; ++i) {
                const std::uint64_t windows = found[i];
                std::uint64_t pair = 0;
                UNROLL for (int b = 0; b < 64; b += 8) pair |= std::uint64_t{bytes[windows >> b & last]} << b;
                found[i] = pair;
            }
            return (ireg)found;
        }
        const std::uint8_t* bytes;
    };
    using table = bytes_of_table<table_size - 1>;
    using wide_table = bytes_of_table<2 * table_size - 1>;
    // Bytes whose last two bits are those of a, and the others those of b.
    static ireg joined(ireg a, ireg b) { return (a & 0x03030303u) | (b & ~0x03030303u); }
    // Without the last bits.
    template <int bits>
    static ireg moved(ireg w) {
        return w >> bits;
    }
    static ireg rotated(ireg w, int bits) { return w >> bits | w << (32 - bits); }
    // Codes of int8 with bytes of their own in each lane.
    static ireg dot_lanes(ireg sum, ireg w, const std::int8_t* x) {
        return dot_of(sum, w, 0x00ff00ffu, even_and_odd(each_word([&](int i) { return word(x + 4 * i); })));
    }

private:
    template <class Vector>
    static Vector loaded(const void* p) {
        Vector r;
        std::memcpy(&r, p, sizeof r);
        return r;
    }
    template <class Vector>
    static Vector loaded_part(const void* p, int n) {
        if (n == width) return loaded<Vector>(p);
        T some[width] = {};
        std::copy_n(static_cast<const T*>(p), n, some);
        return loaded<Vector>(some);
    }
    static std::uint32_t word(const std::int8_t* p) {
        const auto byte = [p](int i) { return std::uint32_t{static_cast<std::uint8_t>(p[i])} << (8 * i); };
        return byte(0) | byte(1) | byte(2) | byte(3);
    }
    static iword even_and_odd(ireg x) { return {(halves)(x << 8) >> 8, (halves)x >> 8}; }
    // Adds products of the bytes of w that a mask leaves of both halves of a word: they are below 2^15.
    static ireg dot_of(ireg sum, ireg w, std::uint32_t mask, const iword& x) {
        return sum + of_halves((halves)(w & mask) * x.even) + of_halves((halves)(w >> 8 & mask) * x.odd);
    }
    static ireg of_halves(halves a) { return (ireg)(((integers)a << 16 >> 16) + ((integers)a >> 16)); }
    static reg all(T value) { return reg{} + value; }
    // Words as signed integers, as floats.
    static reg floats(ireg w) { return __builtin_convertvector((integers)w, reg); }
    template <class F>
    static ireg each_word(F&& f) {
        ireg r;
        for (int i = 0; i < width; ++i) r[i] = f(i);
        return r;
    }
};

using Float = Portable<float>;
using Double = Portable<double>;

}  // namespace
}  // namespace hmatrix
