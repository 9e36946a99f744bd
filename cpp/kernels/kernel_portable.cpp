// Standard C++ only, in loops over a few entries that any compiler can vectorise.
#define UNROLL
#include <cstdint>
#include <limits>

#include "kernels/kernels.hpp"
#include "kernels/panel_kernels.hpp"
#include "heads/progressive_kernels.hpp"
#include "kernels/transposed_kernels.hpp"
#include "kernels/trellis_kernels.hpp"
#include "kernels/vector_kernels.hpp"

namespace hmatrix {
namespace {

template <class T>
struct Portable {
    using value = T;
    using part_type = int;
    static constexpr int width = 16 / sizeof(T), registers = 8, batch_registers = 2;
    static constexpr bool asks_ahead = false;
    struct reg {
        T v[width];
    };
    struct ireg {
        std::uint32_t v[width];
    };
    struct iword {
        std::int8_t v[4];
    };
    static int part(int n) { return n; }
    static reg zero() { return reg{}; }
    static reg load(const T* p) { return load_part(p, width); }
    static reg load_part(const T* p, int n) {
        reg r{};
        std::copy(p, p + n, r.v);
        return r;
    }
    static reg load_values(const Word<T>* p) { return load_values_part(p, width); }
    static reg load_values_part(const Word<T>* p, int n) {
        reg r{};
        std::memcpy(r.v, p, static_cast<std::size_t>(n) * sizeof(T));
        return r;
    }
    static reg broadcast(const T* p) {
        return each([p](int) { return *p; });
    }
    static reg fma(const reg& a, const reg& b, const reg& c) {
        return each([&](int i) { return c.v[i] + a.v[i] * b.v[i]; });
    }
    // a * b + c, rounded once, on processors that have no such instruction, too: the sum in double is rounded to odd, which
    // rounding to float then cannot take for a tie (S. Boldo, G. Melquiond, doi:10.1109/TC.2007.70819).
    static reg fused(const reg& a, const reg& b, const reg& c) {
        return each([&](int i) {
            const double product = double{a.v[i]} * b.v[i], addend = c.v[i];  // the product is exact
            double sum = product + addend;
            const double part = sum - product, error = (product - (sum - part)) + (addend - part);
            std::int64_t bits;
            std::memcpy(&bits, &sum, sizeof bits);
            if (error != 0.0 && (bits & 1) == 0 && std::abs(sum) <= std::numeric_limits<double>::max()) {
                bits += (error > 0.0) == (sum > 0.0) ? 1 : -1;
                std::memcpy(&sum, &bits, sizeof sum);
            }
            return static_cast<T>(sum);
        });
    }
    static reg add(const reg& a, const reg& b) {
        return each([&](int i) { return a.v[i] + b.v[i]; });
    }
    static reg mul(const reg& a, const reg& b) {
        return each([&](int i) { return a.v[i] * b.v[i]; });
    }
    static reg abs(const reg& a) {
        return each([&](int i) { return std::abs(a.v[i]); });
    }
    static reg max(const reg& a, const reg& b) {
        return each([&](int i) { return std::max(a.v[i], b.v[i]); });
    }
    static T sum(reg a) {
        for (int half = width / 2; half > 0; half /= 2)
            for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
        return a.v[0];
    }
    static T largest(const reg& a) { return *std::max_element(a.v, a.v + width); }
    static unsigned at_least(const reg& a, const reg& b) {
        unsigned mask = 0;
        for (int i = 0; i < width; ++i) mask |= static_cast<unsigned>(a.v[i] >= b.v[i]) << i;
        return mask;
    }
    static void store(T* p, const reg& a) { store_part(p, a, width); }
    static void store_part(T* p, const reg& a, int n) { std::copy(a.v, a.v + n, p); }

    static ireg load_words(const std::uint32_t* p) { return load_words_part(p, width); }
    static ireg load_words_part(const std::uint32_t* p, int n) {
        ireg r{};
        std::copy(p, p + n, r.v);
        return r;
    }
    static ireg zero_words() { return ireg{}; }
    static ireg add_words(const ireg& a, const ireg& b) {
        return each_word([&](int i) { return a.v[i] + b.v[i]; });
    }
    static std::int32_t sum_words(const ireg& a) {
        std::uint32_t s = 0;
        for (int i = 0; i < width; ++i) s += a.v[i];
        return static_cast<std::int32_t>(s);
    }
    static ireg round(const reg& a) {
        return each_word([&](int i) { return static_cast<std::uint32_t>(static_cast<std::int32_t>(std::nearbyint(a.v[i]))); });
    }
    static void store_bytes(std::int8_t* p, const ireg& a) {
        for (int i = 0; i < width; ++i) p[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(a.v[i]));
    }
    static iword broadcast_word(const std::int8_t* p) { return {{p[0], p[1], p[2], p[3]}}; }
    static reg twice_less(const ireg& a, std::int32_t b) {
        return each([&](int i) { return static_cast<T>(2 * static_cast<std::int32_t>(a.v[i]) - b); });
    }
    template <Precision P, int K>
    static reg decode(const ireg& w) {
        if constexpr (P == Precision::bfloat16) {
            const ireg bits = each_word([&](int i) { return K == 0 ? w.v[i] << 16 : w.v[i] & 0xffff0000u; });
            reg r;
            std::memcpy(r.v, bits.v, sizeof r);
            return r;
        } else {
            constexpr int bits = 32 / columns_per_word(P);
            constexpr int shift = 8 * (K % 4) + bits * (K / 4);
            return each([&](int i) {
                return static_cast<T>((w.v[i] >> shift) & ((1u << bits) - 1)) - static_cast<T>(0.5) * twice_zero(P);
            });
        }
    }
    template <Precision P, int K>
    static ireg dot(const ireg& sum, const ireg& w, const iword& x) {
        constexpr int bits = 32 / columns_per_word(P);
        return each_word([&](int i) {
            std::int32_t s = static_cast<std::int32_t>(sum.v[i]);
            for (int b = 0; b < 4; ++b)
                s += static_cast<std::int32_t>((w.v[i] >> (8 * b + bits * K)) & ((1u << bits) - 1)) * x.v[b];
            return static_cast<std::uint32_t>(s);
        });
    }
    // The bytes of a table that windows, the last six bits of each byte, stand for; of a wide one the last seven.
    template <std::uint32_t last>
    struct bytes_of_table {
        explicit bytes_of_table(const std::uint8_t* bytes) : bytes(bytes) {}
        ireg of(const ireg& w) const {
            return each_word([&](int i) {
                std::uint32_t found = 0;
                for (int b = 0; b < 32; b += 8) found |= std::uint32_t{bytes[w.v[i] >> b & last]} << b;
                return found;
            });
        }
        const std::uint8_t* bytes;
    };
    using table = bytes_of_table<table_size - 1>;
    using wide_table = bytes_of_table<2 * table_size - 1>;
    // Bytes whose last two bits are those of a, and the others those of b.
    static ireg joined(const ireg& a, const ireg& b) {
        return each_word([&](int i) { return (a.v[i] & 0x03030303u) | (b.v[i] & ~0x03030303u); });
    }
    static ireg rotated(const ireg& w, int bits) {
        return each_word([&](int i) { return w.v[i] >> bits | w.v[i] << (32 - bits); });
    }
    // Codes of int8 with bytes of their own in each lane.
    static ireg dot_lanes(const ireg& sum, const ireg& w, const std::int8_t* x) {
        return each_word([&](int i) {
            std::int32_t s = static_cast<std::int32_t>(sum.v[i]);
            for (int byte = 0; byte < 4; ++byte)
                s += static_cast<std::int32_t>((w.v[i] >> (8 * byte)) & 255u) * x[4 * i + byte];
            return static_cast<std::uint32_t>(s);
        });
    }

private:
    template <class F>
    static reg each(F&& f) {
        reg r;
        for (int i = 0; i < width; ++i) r.v[i] = static_cast<T>(f(i));
        return r;
    }
    template <class F>
    static ireg each_word(F&& f) {
        ireg r;
        for (int i = 0; i < width; ++i) r.v[i] = f(i);
        return r;
    }
};

bool supported() { return true; }

}  // namespace

const InstructionSet portable = {"portable",
                                 supported,
                                 {forward<Portable<float>>, transposed<Portable<float>>},
                                 {forward<Portable<double>>, transposed<Portable<double>>},
                                 quantize<Portable<float>>,
                                 read<Portable<float>>,
                                 refine_head<Portable<float>>,
                                 encode_words};

}  // namespace hmatrix
