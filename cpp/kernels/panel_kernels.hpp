// The product with a panel, over the vector type V of columns.hpp.
#pragma once

#include "kernels/looked_up.hpp"
#include "kernels/tile.hpp"

namespace hmatrix {
namespace {

// Adds runs to a tile, and returns the next one, or `end`.
template <class V, int N, int B>
struct PanelProduct {
    using Tile = hmatrix::Tile<V, N, B>;
    using T = typename V::value;
    using Reg = typename V::reg;
    using Sums = typename Tile::Sums;
    static constexpr int U = Tile::U;

    static const Run* add(Tile& tile, const LookedUp& looked_up, const Run* run, const Run* end,
                          const Source<const T>& source, const Quantized& quantized, std::ptrdiff_t first) {
        // For several vectors there is more to do in each run than between two.
        if (B > 1) end = run + 1;
        if constexpr (std::is_same_v<T, double>) {
            return add_values(tile, run, end, source, first);
        } else {
            switch (run->precision) {
                case Precision::bfloat16: return add_halves(tile, run, end, source, first);
                case Precision::int8: return add_codes<Precision::int8>(tile, run, end, source, quantized, first);
                case Precision::int4: return add_codes<Precision::int4>(tile, run, end, source, quantized, first);
                case Precision::int2: return add_codes<Precision::int2>(tile, run, end, source, quantized, first);
                case Precision::int1: return add_codes<Precision::int1>(tile, run, end, source, quantized, first);
                case Precision::float64:
                case Precision::float32: return add_values(tile, run, end, source, first);
                default: return looked_up.add[N - 1][B - 1](&tile, run, end, source, quantized, first);
            }
        }
    }

private:
    // For one vector, each of int4, int2 and int1 has loops of its own. For several, decoding is the smaller part: int2
    // stands for int1, too, where codes meet codes. Where there are registers for constants, also for the exact source.
    static constexpr bool together = B > 1;
    template <Precision P, bool exact>
    static constexpr Precision standing_for =
        together && P == Precision::int1 && (!exact || V::constants_fit) ? Precision::int2 : P;

    static APART const Run* add_values(Tile& tile, const Run* run, const Run* end, const Source<const T>& source,
                                 std::ptrdiff_t first) {
        const Precision precision = run->precision;
        auto columns = tile.columns;
        Sums sums = tile.sum;
        do {
            const typename Tile::Entries x(source, *run, first);
            const auto column = [&](int u, std::ptrdiff_t c) INLINED {
                Reg a[N];
                columns.values(a);
                Tile::add_values_of(sums, a, x.of, c, u);
            };
            std::ptrdiff_t c = 0;
            for (; c + U <= run->length; c += U)
                UNROLL for (int u = 0; u < U; ++u) column(u, c + u);
            for (; c < run->length; ++c) column(0, c);
        } while (Tile::follows(++run, end, precision));
        tile.columns = columns;
        tile.sum = sums;
        return run;
    }

    static APART const Run* add_halves(Tile& tile, const Run* run, const Run* end, const Source<const T>& source,
                                 std::ptrdiff_t first) {
        do {
            const typename Tile::Entries x(source, *run, first);
            tile.sum = with_decoded<Precision::bfloat16>(tile, *run, x.of, tile.sum);
        } while (Tile::follows(++run, end, Precision::bfloat16));
        return run;
    }

    // The sums with those of codes that become floats, which meet the exact source.
    template <Precision P>
    static inline INLINED Sums with_decoded(Tile& tile, const Run& run, const T* const* x, Sums sums) {
        constexpr int K = columns_per_word(P);
        auto columns = tile.columns;
        std::ptrdiff_t c = 0;
        for (; c + K <= run.length; c += K) {
            typename V::ireg w[N];
            columns.words(w);
            unroll([&](auto k) INLINED { Tile::template add_column<P, k>(sums, w, x, c + k, k); },
                   std::make_integer_sequence<int, K>());
        }
        if constexpr (K == 2) {
            if (c < run.length) {
                typename V::ireg w[N];
                columns.words(w);
                Tile::template add_column<P, 0>(sums, w, x, c, std::integral_constant<int, 0>());
            }
        }
        tile.columns = columns;
        if constexpr (K > 2) {
            sums.settle_all();
            if (c < run.length) {
                if constexpr (B == 1)
                    add_rest<P>(tile, run, x, c, sums);
                else
                    return with_rest<P>(tile, run, x, c, sums);
            }
        }
        return sums;
    }

    // The same for integer codes of any precision: four columns of a word, after which its bits move on.
    static inline INLINED Sums with_integers(Tile& tile, const Run& run, const T* const* x, Sums sums) {
        const int K = columns_per_word(run.precision);
        const typename V::integer integer(run.precision);
        auto columns = tile.columns;
        for (std::ptrdiff_t c = 0; c < run.length;) {
            typename V::ireg w[N];
            columns.words(w);
            const auto column = [&](auto k) INLINED {
                Reg a[N];
                UNROLL for (int i = 0; i < N; ++i) a[i] = integer.template decode<k>(w[i]);
                Tile::add_values_of(sums, a, x, c + k, k % U);
            };
            const std::ptrdiff_t end = std::min<std::ptrdiff_t>(c + K, run.length);
            for (; c + 4 <= end; c += 4) {
                unroll(column, std::make_integer_sequence<int, 4>());
                UNROLL for (int i = 0; i < N; ++i) w[i] = integer.moved(w[i]);
            }
            // What fills up the last word meets no entries.
            unroll(
                [&](auto k) INLINED {
                    if (c + k < end) column(k);
                },
                std::make_integer_sequence<int, 3>());
            c = end;
        }
        tile.columns = columns;
        return sums;
    }

    // Adds the columns from c on, which do not fill their word. These are few, so they take a loop, in which their bits move
    // to where those of the first columns are.
    template <Precision P>
    static inline INLINED void add_rest(Tile& tile, const Run& run, const T* const* x, std::ptrdiff_t c, Sums& sums) {
        constexpr int K = columns_per_word(P), turns = std::max(4, U);
        typename V::ireg w[N];
        tile.columns.words(w);
        const auto columns = [&](auto whole) INLINED {
            unroll(
                [&](auto k) INLINED {
                    if (whole || c + k < run.length) Tile::template add_column<P, k % 4>(sums, w, x, c + k, k);
                    if constexpr (k % 4 == 3) UNROLL for (int i = 0; i < N; ++i) w[i] = V::template moved<32 / K>(w[i]);
                },
                std::make_integer_sequence<int, turns>());
        };
        if constexpr (B == 1 && K > turns)
            for (; c + turns <= run.length; c += turns) columns(std::true_type());
        for (; c < run.length; c += turns) columns(std::false_type());
    }

    // For several vectors this stands apart, as it would cost the loops above registers.
    template <Precision P>
    static APART Sums with_rest(Tile& tile, const Run& run, const T* const* x, std::ptrdiff_t c, Sums sums) {
        add_rest<P>(tile, run, x, c, sums);
        return sums;
    }

    template <Precision P>
    static const Run* add_codes(Tile& tile, const Run* run, const Run* end, const Source<const T>& source,
                                const Quantized& quantized, std::ptrdiff_t first) {
        if (run->segment < 0) return add_floats<standing_for<P, true>>(tile, run, end, source, first);
        // For several vectors the runs are short for what a call costs.
        if constexpr (B == 1)
            return add_products_apart<P>(tile, run, end, quantized, first);
        else
            return add_products<standing_for<P, false>>(tile, run, end, quantized, first);
    }

    template <Precision P>
    static APART const Run* add_floats(Tile& tile, const Run* run, const Run* end, const Source<const T>& source,
                                       std::ptrdiff_t first) {
        return tile.add_decoded(run, end, source, first, [&](const Run& one, const T* const* x) INLINED {
            if constexpr (together && V::constants_fit && P != Precision::int8)
                return with_integers(tile, one, x, Sums());
            else
                return with_decoded<P>(tile, one, x, Sums());
        });
    }

    // The codes of the source are filled up with zeros, as words are.
    template <Precision P>
    static inline INLINED const Run* add_products(Tile& tile, const Run* run, const Run* end, const Quantized& quantized,
                                                  std::ptrdiff_t first) {
        constexpr bool shared = together && P == Precision::int2;
        const auto each = [](auto& columns, const Run& one, const auto& four) INLINED {
            if constexpr (shared)
                each_product(columns, one, four);
            else
                each_product_of<P>(columns, one, four);
        };
        return tile.template add_integers<true>(run, end, quantized, first, twice_zero(shared ? run->precision : P), each);
    }

    template <Precision P>
    static APART const Run* add_products_apart(Tile& tile, const Run* run, const Run* end, const Quantized& quantized,
                                               std::ptrdiff_t first) {
        return add_products<P>(tile, run, end, quantized, first);
    }

    // Calls four for the columns of codes of int2 and int1.
    template <class Words, class Four>
    static inline INLINED void each_product(Words& columns, const Run& run, const Four& four) {
        const int K = columns_per_word(run.precision);
        const typename V::integer integer(run.precision);
        for (std::ptrdiff_t c = 0; c < run.length; c += K) {
            typename V::ireg w[N];
            columns.words(w);
            const auto next = [&](int k, std::ptrdiff_t at) INLINED {
                four(k, at, [&](typename V::ireg sum, int i, const typename V::iword& entries) INLINED {
                    return integer.dot(sum, w[i], entries);
                });
                UNROLL for (int i = 0; i < N; ++i) w[i] = integer.moved(w[i]);
            };
            for (std::ptrdiff_t at = c; at < c + K; at += 8) {
                next(0, at);
                next(1, at + 4);
            }
        }
    }

    // Calls four for the columns of codes of one precision. Words are unrolled: each has a sum for each of its dot products,
    // as far as there are so many.
    template <Precision P, class Words, class Four>
    static inline INLINED void each_product_of(Words& columns, const Run& run, const Four& four) {
        constexpr int K = columns_per_word(P), dots = K / 4, several = std::max(1, U / dots);
        const auto word = [&](int k, std::ptrdiff_t c) INLINED {
            typename V::ireg w[N];
            columns.words(w);
            unroll(
                [&](auto j) INLINED {
                    four(k * dots + j, c + 4 * j,
                         [&](typename V::ireg sum, int i, const typename V::iword& entries) INLINED {
                             return V::template dot<P, j>(sum, w[i], entries);
                         });
                },
                std::make_integer_sequence<int, dots>());
        };
        const std::ptrdiff_t length = (run.length + K - 1) / K * K;
        std::ptrdiff_t c = 0;
        if constexpr (several > 1)
            for (; c + several * K <= length; c += several * K)
                UNROLL for (int k = 0; k < several; ++k) word(k, c + k * K);
        for (; c < length; c += K) word(0, c);
    }
};

template <class V, int N, int B>
APART void forward_tile(const LookedUp& looked_up, const Word<typename V::value>* words, int rows, const Panel& panel,
                  const Run* runs, const Source<const typename V::value>& source, const Quantized& quantized,
                  Rows<typename V::value> y, std::ptrdiff_t first) {
    Tile<V, N, B> tile(words, panel.height, rows);
    for (const Run *run = runs + panel.first_run, *end = run + panel.run_count; run != end;)
        run = PanelProduct<V, N, B>::add(tile, looked_up, run, end, source, quantized, first);
    tile.store(y, first);
}

template <class V>
void forward(const LookedUp& looked_up, const Word<typename V::value>* words, const Panel& panel, const Run* runs,
             const Source<const typename V::value>& source, const Quantized& quantized, Rows<typename V::value> y,
             std::ptrdiff_t batch) {
    if (batch == 1) {
        over_rows<V, registers_of_one<V>>(panel, [&](int row, int rows, auto n) {
            forward_tile<V, n, 1>(looked_up, words + row, rows, panel, runs, source, quantized,
                                  {y.base + row, y.stride}, 0);
        });
        return;
    }
    constexpr int B = most_vectors<V>;
    const std::ptrdiff_t tiles = (batch + B - 1) / B;
    over_rows<V, registers_of_several<V>>(panel, [&](int row, int rows, auto n) {
        for (std::ptrdiff_t tile = 0; tile < tiles; ++tile) {
            const std::ptrdiff_t first = batch * tile / tiles;
            with_constant<B>(static_cast<int>(batch * (tile + 1) / tiles - first), [&](auto b) {
                forward_tile<V, n, b>(looked_up, words + row, rows, panel, runs, source, quantized,
                                      {y.base + row, y.stride}, first);
            });
        }
    });
}

}  // namespace
}  // namespace hmatrix
