// Products with runs whose values are looked up, over the vector type V of columns.hpp.
#pragma once

#include "kernels/looked_up.hpp"
#include "kernels/tile.hpp"
#include "kernels/transposed_kernels.hpp"

namespace hmatrix {
namespace {

// The words of a precision whose values are looked up, with or without parallel bits: four columns at a time.
template <class V, bool parallel>
struct Lookup {
    explicit Lookup(Precision precision)
        : table(codebook(precision)), columns(columns_per_word(precision)), bits(32 / columns) {}

    // Calls f(c, std::integral_constant<int, u>(), found) with what columns c to c + 3 stand for, as codes of int8, for
    // all columns of a run and what is left of four columns, with u by turns 0 and 1, or always 0 where there is one turn.
    template <int turns, int N, bool asks, class F>
    INLINED void each_four(Columns<V, N, asks>& words, std::ptrdiff_t length, F&& f) const {
        typename V::ireg w[N], own[N], found[N];
        const auto four = [&](std::ptrdiff_t c, auto u) INLINED {
            UNROLL for (int i = 0; i < N; ++i) {
                if constexpr (parallel) {
                    found[i] = table.of(V::joined(own[i], w[i]));
                    own[i] = V::rotated(own[i], parallel_width);
                } else {
                    found[i] = table.of(w[i]);
                }
                w[i] = V::rotated(w[i], bits);
            }
            f(c, u, found);
        };
        const int step = parallel ? 32 / parallel_width : columns;
        for (std::ptrdiff_t block = 0; block < length; block += columns) {
            words.words(w);
            // The parallel bits take the lowest places of a window.
            if constexpr (parallel) UNROLL for (int i = 0; i < N; ++i) w[i] = V::rotated(w[i], 32 - parallel_width);
            for (std::ptrdiff_t word = block; word < block + columns; word += step) {
                if constexpr (parallel) words.words(own);
                const std::ptrdiff_t end = std::min(word + step, length);
                if constexpr (turns > 1) {
                    for (std::ptrdiff_t c = word; c < end; c += 8) {
                        four(c, std::integral_constant<int, 0>());
                        four(c + 4, std::integral_constant<int, 1>());
                    }
                } else {
                    for (std::ptrdiff_t c = word; c < end; c += 4) four(c, std::integral_constant<int, 0>());
                }
            }
        }
    }

    // Calls f(c, std::integral_constant<int, j>(), found, turn) for the columns c of a run, where `found` has them in its
    // column j. The turn of the last columns, which take a loop, goes up to `turns`.
    template <int turns, int N, bool asks, class F>
    INLINED void each_column(Columns<V, N, asks>& words, std::ptrdiff_t length, F&& f) const {
        each_four<1>(words, length, [&](std::ptrdiff_t c, auto, auto& found) INLINED {
            if (c + 4 <= length) {
                unroll([&](auto j) INLINED { f(c + j, j, found, j); }, std::make_integer_sequence<int, 4>());
                return;
            }
            for (; c < length; c += turns)
                unroll(
                    [&](auto turn) INLINED {
                        if (c + turn < length) f(c + turn, std::integral_constant<int, 0>(), found, turn);
                        UNROLL for (int i = 0; i < N; ++i) found[i] = V::rotated(found[i], 8);
                    },
                    std::make_integer_sequence<int, turns>());
        });
    }

    static constexpr int parallel_width = parallel_bits(Precision::trellis3);  // of all that have parallel bits
    std::conditional_t<parallel, typename V::wide_table, typename V::table> table;
    int columns, bits;
};

// Adds runs to a tile, and returns the next one, or `end`.
template <class V, int N, int B>
struct LookupProduct {
    using Tile = hmatrix::Tile<V, N, B>;
    using T = typename V::value;

    static const Run* add(void* caller, const Run* run, const Run* end, const Source<const T>& source,
                          const Quantized& quantized, std::ptrdiff_t first) {
        auto& tile = *static_cast<Tile*>(caller);
        const bool parallel = parallel_bits(run->precision) > 0;
        if (run->segment < 0)
            return parallel ? add_floats<true>(tile, run, end, source, first)
                            : add_floats<false>(tile, run, end, source, first);
        return parallel ? add_codes<true>(tile, run, end, quantized, first)
                        : add_codes<false>(tile, run, end, quantized, first);
    }

private:
    template <bool parallel>
    static APART const Run* add_floats(Tile& tile, const Run* run, const Run* end, const Source<const T>& source,
                                       std::ptrdiff_t first) {
        return tile.add_decoded(run, end, source, first, [&](const Run& one, const T* const* x) INLINED {
            typename Tile::Sums sums;
            auto columns = tile.columns;
            const Lookup<V, parallel> lookup(one.precision);
            lookup.template each_column<std::min(Tile::U, 4)>(
                columns, one.length, [&](std::ptrdiff_t c, auto j, const auto& found, auto turn) INLINED {
                    Tile::template add_column<Precision::int8, j>(sums, found, x, c, turn);
                });
            tile.columns = columns;
            return sums;
        });
    }

    template <bool parallel>
    static APART const Run* add_codes(Tile& tile, const Run* run, const Run* end, const Quantized& quantized,
                                      std::ptrdiff_t first) {
        // The codes of the source are filled up with zeros, as words are.
        constexpr std::int32_t twice = twice_zero(Precision::int8);
        const auto each = [](auto& columns, const Run& one, const auto& four) INLINED {
            const Lookup<V, parallel> lookup(one.precision);
            lookup.template each_four<B == 1 ? 2 : Tile::U>(
                columns, one.length, [&](std::ptrdiff_t c, auto u, const auto& found) INLINED {
                    four(u, c, [&](typename V::ireg sum, int i, const typename V::iword& entries) INLINED {
                        return V::template dot<Precision::int8, 0>(sum, found[i], entries);
                    });
                });
        };
        return tile.template add_integers<false>(run, end, quantized, first, twice, each);
    }
};

// out += the transpose of a run's coefficients times x, whose scales are in it already.
template <class V, int N>
void add_transposed(void* columns, const void* x, const Run& run, float* out) {
    auto& next = *static_cast<TransposedColumns<V, N>*>(columns);
    const auto& entries = *static_cast<const TransposedEntries<V, N>*>(x);
    const auto add = [&](auto parallel) {
        const Lookup<V, parallel> lookup(run.precision);
        lookup.template each_column<1>(next, run.length, [&](std::ptrdiff_t c, auto j, const auto& found, auto) {
            out[c] += of_column<V, Precision::int8, j>(found, entries);
        });
    };
    parallel_bits(run.precision) > 0 ? add(std::true_type()) : add(std::false_type());
}

// All tiles of looked up values.
template <class V>
constexpr LookedUp all_looked_up() {
    static_assert(registers_of_one<V> <= LookedUp::registers && most_vectors<V> <= LookedUp::vectors);
    LookedUp all{};
    unroll(
        [&](auto i) {
            constexpr int N = i + 1, B = N <= registers_of_several<V> ? most_vectors<V> : 1;
            unroll(
                [&](auto b) { all.add[i][b] = LookupProduct<V, N, b + 1>::add; },
                std::make_integer_sequence<int, B>());
            if constexpr (N <= registers_of_several<V>) all.transposed[i] = add_transposed<V, N>;
        },
        std::make_integer_sequence<int, registers_of_one<V>>());
    return all;
}

}  // namespace
}  // namespace hmatrix
