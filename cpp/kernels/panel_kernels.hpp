// The product with a panel, over the vector type V of columns.hpp.
#pragma once

#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

// Registers that the sums of one vector fill at most. These hide the latency of an fma.
constexpr int most_registers = 8;

// y[b, 0..rows) for B rows of the batch, where N registers hold `rows` entries. There are U sums of each
// entry, which take turns, to hide the latency of an fma.
template <class V, int N, int B, bool ahead>
class Tile {
    using T = typename V::value;
    using Reg = typename V::reg;
    static constexpr int U = std::max(1, most_registers / (N * B));

public:
    Tile(const Word<T>* words, std::ptrdiff_t height, int rows) : columns_(words, height, rows) {}

    // Adds some runs, and returns the next one, or `end`.
    const Run* add(const Run* run, const Run* end, const Source<const T>& source, const Quantized& quantized,
                   std::ptrdiff_t first) {
        if constexpr (std::is_same_v<T, double>) {
            return add_values(run, end, source, first);
        } else {
            switch (run->precision) {
                case Precision::bfloat16: return add_halves(run, end, source, first);
                case Precision::int8: return add_codes<Precision::int8>(run, end, source, quantized, first);
                case Precision::int4: return add_codes<Precision::int4>(run, end, source, quantized, first);
                case Precision::int2: return add_codes<Precision::int2>(run, end, source, quantized, first);
                case Precision::int1: return add_codes<Precision::int1>(run, end, source, quantized, first);
                case Precision::float64:
                case Precision::float32: return add_values(run, end, source, first);
                default:
                    return parallel_bits(run->precision) > 0 ? add_codes<parallel>(run, end, source, quantized, first)
                                                             : add_codes<looked_up>(run, end, source, quantized, first);
            }
        }
    }

    void store(Rows<T> y, std::ptrdiff_t first) {
        UNROLL for (int b = 0; b < B; ++b) {
            T* out = y.row(first + b);
            UNROLL for (int i = 0; i < N; ++i) {
                const Reg total = sum_.total(b, i);
                if (i < N - 1)
                    V::store(out + i * V::width, total);
                else
                    V::store_part(out + i * V::width, total, columns_.part());
            }
        }
    }

private:
    // What is a member may be changed by any store. Loops therefore work on copies, which stay in registers, from one
    // run to the next, too: the blocks of a panel may be narrow.
    struct Sums {
        Reg of[U][B][N];

        Sums() {
            UNROLL for (int u = 0; u < U; ++u)
                UNROLL for (int b = 0; b < B; ++b)
                    UNROLL for (int i = 0; i < N; ++i) of[u][b][i] = V::zero();
        }

        Reg total(int b, int i) const {
            Reg total = of[0][b][i];
            UNROLL for (int u = 1; u < U; ++u) total = V::add(total, of[u][b][i]);
            return total;
        }
    };

    struct Totals {
        Reg of[B][N];
    };

    // Stand for all precisions whose values are looked up, without parallel bits and with them.
    static constexpr Precision looked_up = Precision::lloyd4, parallel = Precision::trellis3;
    template <Precision P>
    using LookupOf = Lookup<V, (parallel_bits(P) > 0)>;

    // Whether the next run goes on with the registers of those before it. For several vectors there is more to do in each
    // run than between two, and there are so many sums that the compiler would keep them in memory.
    static bool follows(const Run* run, const Run* end, Precision precision) {
        return B == 1 && run != end && run->precision == precision;
    }

    // Where the vectors' entries that a run meets begin.
    struct Entries {
        const T* of[B];

        Entries(const Source<const T>& source, const Run& run, std::ptrdiff_t first) {
            const Rows<const T> rows = source.at(run.source);
            UNROLL for (int b = 0; b < B; ++b) of[b] = rows.row(first + b);
        }
    };

    const Run* add_values(const Run* run, const Run* end, const Source<const T>& source, std::ptrdiff_t first) {
        const Precision precision = run->precision;
        Columns<V, N, ahead> columns = columns_;
        Sums sums = sum_;
        do {
            const Entries x(source, *run, first);
            const auto column = [&](int u, std::ptrdiff_t c) INLINED {
                Reg a[N];
                columns.values(a);
                UNROLL for (int b = 0; b < B; ++b) {
                    const Reg entry = V::broadcast(x.of[b] + c);
                    UNROLL for (int i = 0; i < N; ++i) sums.of[u][b][i] = V::fma(a[i], entry, sums.of[u][b][i]);
                }
            };
            std::ptrdiff_t c = 0;
            for (; c + U <= run->length; c += U)
                UNROLL for (int u = 0; u < U; ++u) column(u, c + u);
            for (; c < run->length; ++c) column(0, c);
        } while (follows(++run, end, precision));
        columns_ = columns;
        sum_ = sums;
        return run;
    }

    const Run* add_halves(const Run* run, const Run* end, const Source<const T>& source, std::ptrdiff_t first) {
        do {
            const Entries x(source, *run, first);
            sum_ = with_decoded<Precision::bfloat16>(*run, x.of, sum_);
        } while (follows(++run, end, Precision::bfloat16));
        return run;
    }

    // The sums with those of codes that become floats, which meet the exact source.
    template <Precision P>
    Sums with_decoded(const Run& run, const T* const* x, Sums sums) {
        constexpr int K = columns_per_word(P);
        Columns<V, N, ahead> columns = columns_;
        // The entries from c on meet as many columns of a word. What fills up the last one meets none.
        const auto word = [&](std::ptrdiff_t c, auto count) INLINED {
            typename V::ireg w[N];
            columns.words(w);
            unroll(
                [&](auto k) {
                    if (k < count) add_column<P, k>(sums, w, x, c + k);
                },
                std::make_integer_sequence<int, K>());
        };
        std::ptrdiff_t c = 0;
        for (; c + K <= run.length; c += K) word(c, std::integral_constant<int, K>());
        if (c < run.length) word(c, static_cast<int>(run.length - c));
        columns_ = columns;
        return sums;
    }

    // The same where values are looked up.
    template <Precision P>
    Sums with_looked_up(const Run& run, const T* const* x, Sums sums) {
        Columns<V, N, ahead> columns = columns_;
        const LookupOf<P> lookup(run.precision);
        lookup.each_column(columns, run.length, [&](std::ptrdiff_t c, auto j, const auto& found) INLINED {
            add_column<Precision::int8, j>(sums, found, x, c);
        });
        columns_ = columns;
        return sums;
    }

    // Adds the products of a column of words with entry c of each vector.
    template <Precision P, int K, class Words>
    static inline INLINED void add_column(Sums& sums, const Words& w, const T* const* x, std::ptrdiff_t c) {
        constexpr int u = K % U;
        Reg a[N];
        UNROLL for (int i = 0; i < N; ++i) a[i] = V::template decode<P, K>(w[i]);
        UNROLL for (int b = 0; b < B; ++b) {
            const Reg entry = V::broadcast(x[b] + c);
            UNROLL for (int i = 0; i < N; ++i) sums.of[u][b][i] = V::fma(a[i], entry, sums.of[u][b][i]);
        }
    }

    template <Precision P>
    const Run* add_codes(const Run* run, const Run* end, const Source<const T>& source, const Quantized& quantized,
                         std::ptrdiff_t first) {
        return run->segment < 0 ? add_decoded<P>(run, end, source, first) : add_integers<P>(run, end, quantized, first);
    }

    template <Precision P>
    const Run* add_decoded(const Run* run, const Run* end, const Source<const T>& source, std::ptrdiff_t first) {
        const Precision precision = run->precision;
        do {
            if (run->begins) columns_.values(scales_);
            const Entries x(source, *run, first);
            Sums decoded;
            if constexpr (is_looked_up(P))
                decoded = with_looked_up<P>(*run, x.of, Sums());
            else
                decoded = with_decoded<P>(*run, x.of, Sums());
            Totals totals;
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) totals.of[b][i] = decoded.total(b, i);
            add_group(*run, totals);
        } while (follows(++run, end, precision));
        return run;
    }

    template <Precision P>
    const Run* add_integers(const Run* run, const Run* end, const Quantized& quantized, std::ptrdiff_t first) {
        const Precision precision = run->precision;
        Columns<V, N, ahead> columns = columns_;
        do {
            if (run->begins) columns.values(scales_);
            add_group(*run, of_integers<P>(columns, *run, quantized, first));
        } while (follows(++run, end, precision));
        columns_ = columns;
        return run;
    }

    // Adds what a run has of its group, and where that ends, the group.
    void add_group(const Run& run, Totals totals) {
        if (!run.begins)
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) totals.of[b][i] = V::add(group_.of[b][i], totals.of[b][i]);
        if (!run.ends) {
            group_ = totals;
            return;
        }
        UNROLL for (int b = 0; b < B; ++b)
            UNROLL for (int i = 0; i < N; ++i)
                sum_.of[0][b][i] = V::add(sum_.of[0][b][i], V::mul(totals.of[b][i], scales_[i]));
    }

    // Codes meet the codes of the source in sums of integers. No fma joins them, so that every instruction
    // set, and the reference in NumPy, gives the same bits.
    template <Precision P>
    static Totals of_integers(Columns<V, N, ahead>& columns, const Run& run, const Quantized& quantized,
                              std::ptrdiff_t first) {
        const std::int8_t* x[B];
        UNROLL for (int b = 0; b < B; ++b) x[b] = quantized.codes.row(first + b) + quantized.segments[run.segment].offset;
        typename V::ireg sums[U][B][N];
        UNROLL for (int u = 0; u < U; ++u)
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) sums[u][b][i] = V::zero_words();
        // Adds the products of four columns of words with the entries from c on.
        const auto four = [&](int u, std::ptrdiff_t c, const auto& product) INLINED {
            UNROLL for (int b = 0; b < B; ++b) {
                const typename V::iword entries = V::broadcast_word(x[b] + c);
                UNROLL for (int i = 0; i < N; ++i) sums[u][b][i] = product(sums[u][b][i], i, entries);
            }
        };
        // The codes of the source are filled up with zeros, as words are.
        if constexpr (is_looked_up(P)) {
            const LookupOf<P> lookup(run.precision);
            lookup.each_four(columns, run.length, [&](std::ptrdiff_t c, auto u, const auto& found) INLINED {
                four(u % U, c, [&](typename V::ireg sum, int i, const typename V::iword& entries) INLINED {
                    return V::template dot<Precision::int8, 0>(sum, found[i], entries);
                });
            });
        } else {
            constexpr int K = columns_per_word(P);
            const auto word = [&](int u, std::ptrdiff_t c) INLINED {
                typename V::ireg w[N];
                columns.words(w);
                unroll(
                    [&](auto k) {
                        four(u, c + 4 * k, [&](typename V::ireg sum, int i, const typename V::iword& entries) INLINED {
                            return V::template dot<P, k>(sum, w[i], entries);
                        });
                    },
                    std::make_integer_sequence<int, K / 4>());
            };
            const std::ptrdiff_t length = (run.length + K - 1) / K * K;
            std::ptrdiff_t c = 0;
            for (; c + U * K <= length; c += U * K)
                UNROLL for (int u = 0; u < U; ++u) word(u, c + u * K);
            for (; c < length; c += K) word(0, c);
        }
        Totals totals;
        UNROLL for (int b = 0; b < B; ++b) {
            const std::int32_t correction = twice_zero(P) * quantized.sums.row(first + b)[run.segment];
            const float step = 0.5f * quantized.steps.row(first + b)[run.segment];
            UNROLL for (int i = 0; i < N; ++i) {
                typename V::ireg total = sums[0][b][i];
                UNROLL for (int u = 1; u < U; ++u) total = V::add_words(total, sums[u][b][i]);
                // Twice the sum of (code - zero) x, an integer for int2 too.
                totals.of[b][i] = V::mul(V::twice_less(total, correction), V::broadcast(&step));
            }
        }
        return totals;
    }

    Columns<V, N, ahead> columns_;
    Sums sum_;
    Totals group_;  // of the runs of a group so far
    Reg scales_[N];
};

template <class V, int N, int B, bool ahead>
void forward_tile(const Word<typename V::value>* words, int rows, const Panel& panel, const Run* runs,
                  const Source<const typename V::value>& source, const Quantized& quantized,
                  Rows<typename V::value> y, std::ptrdiff_t first) {
    Tile<V, N, B, ahead> tile(words, panel.height, rows);
    for (const Run *run = runs + panel.first_run, *end = run + panel.run_count; run != end;)
        run = tile.add(run, end, source, quantized, first);
    tile.store(y, first);
}

template <class V>
void forward(const Word<typename V::value>* words, const Panel& panel, const Run* runs,
             const Source<const typename V::value>& source, const Quantized& quantized, Rows<typename V::value> y,
             std::ptrdiff_t batch) {
    constexpr int most = max_panel_height / V::width;
    if (batch == 1) {
        over_rows<V, std::min(most_registers, most)>(panel, [&](int row, int rows, auto n) {
            with_ahead<V>([&](auto ahead) {
                forward_tile<V, n, 1, ahead>(words + row, rows, panel, runs, source, quantized,
                                             {y.base + row, y.stride}, 0);
            });
        });
        return;
    }
    constexpr int N = std::min(V::batch_registers, most);
    constexpr int B = V::registers / N;
    const std::ptrdiff_t tiles = (batch + B - 1) / B;
    over_rows<V, N>(panel, [&](int row, int rows, auto n) {
        for (std::ptrdiff_t tile = 0; tile < tiles; ++tile) {
            const std::ptrdiff_t first = batch * tile / tiles;
            with_constant<B>(static_cast<int>(batch * (tile + 1) / tiles - first), [&](auto b) {
                // The words come from a cache near by, for all tiles but the first.
                forward_tile<V, n, b, false>(words + row, rows, panel, runs, source, quantized,
                                             {y.base + row, y.stride}, first);
            });
        }
    });
}

}  // namespace
}  // namespace hmatrix
