// A part of a panel's product: the sums of some registers of rows for some vectors. Over the vector type V of columns.hpp.
#pragma once

#include "kernels/columns.hpp"

namespace hmatrix {
namespace {

// y[b, 0..rows) for B rows of the batch, where N registers hold `rows` entries. There are U sums of each
// entry, which take turns, to hide the latency of an fma.
template <class V, int N, int B>
struct Tile {
    using T = typename V::value;
    using Reg = typename V::reg;
    // The words of several vectors come from a cache near by, for all tiles but the first.
    using Words = Columns<V, N, V::asks_ahead && B == 1>;
    static constexpr int U = std::max(1, most_registers / (N * B));

    Tile(const Word<T>* words, std::ptrdiff_t height, int rows) : columns(words, height, rows) {}

    void store(Rows<T> y, std::ptrdiff_t first) {
        UNROLL for (int b = 0; b < B; ++b) {
            T* out = y.row(first + b);
            UNROLL for (int i = 0; i < N; ++i) {
                const Reg total = sum.total(b, i);
                if (i < N - 1)
                    V::store(out + i * V::width, total);
                else
                    V::store_part(out + i * V::width, total, columns.part());
            }
        }
    }

    // What is a member may be changed by any store. Loops therefore work on copies, which stay in registers, from one
    // run to the next, too: the blocks of a panel may be narrow.
    struct Sums {
        Reg of[U][B][N];

        Sums() {
            UNROLL for (int u = 0; u < U; ++u)
                UNROLL for (int b = 0; b < B; ++b)
                    UNROLL for (int i = 0; i < N; ++i) of[u][b][i] = V::zero();
        }

        void settle_all() {
            UNROLL for (int u = 0; u < U; ++u)
                UNROLL for (int b = 0; b < B; ++b)
                    UNROLL for (int i = 0; i < N; ++i) settle(of[u][b][i]);
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

    // Whether the next run goes on with the registers of those before it.
    static bool follows(const Run* run, const Run* end, Precision precision) {
        return run != end && run->precision == precision;
    }

    // Where the vectors' entries that a run meets begin.
    struct Entries {
        const T* of[B];

        Entries(const Source<const T>& source, const Run& run, std::ptrdiff_t first) {
            const Rows<const T> rows = source.at(run.source);
            UNROLL for (int b = 0; b < B; ++b) of[b] = rows.row(first + b);
        }
    };

    // Adds the products of column K of words with entry c of each vector, to sum k by turns.
    template <Precision P, int K, class Bits, class Turn>
    static inline INLINED void add_column(Sums& sums, const Bits (&w)[N], const T* const* x, std::ptrdiff_t c, Turn turn) {
        Reg a[N];
        UNROLL for (int i = 0; i < N; ++i) a[i] = V::template decode<P, K>(w[i]);
        add_values_of(sums, a, x, c, turn % U);
    }

    // Adds the products of a column of values, to sum u.
    static inline INLINED void add_values_of(Sums& sums, const Reg (&a)[N], const T* const* x, std::ptrdiff_t c, int u) {
        UNROLL for (int b = 0; b < B; ++b) {
            const Reg entry = V::broadcast(x[b] + c);
            UNROLL for (int i = 0; i < N; ++i) sums.of[u][b][i] = V::fma(a[i], entry, sums.of[u][b][i]);
        }
    }

    // Adds runs whose codes become floats, which meet the exact source: decoded(run, x) are the sums of one.
    template <class Decoded>
    inline INLINED const Run* add_decoded(const Run* run, const Run* end, const Source<const T>& source,
                                          std::ptrdiff_t first, Decoded&& decoded) {
        const Precision precision = run->precision;
        do {
            if (run->begins) columns.values(scales);
            const Entries x(source, *run, first);
            Sums sums = decoded(*run, x.of);
            sums.settle_all();
            Totals totals;
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) totals.of[b][i] = sums.total(b, i);
            add_group(*run, totals);
        } while (follows(++run, end, precision));
        return run;
    }

    // Adds runs whose codes meet the codes of the source in sums of integers: add_products(columns, run, four) calls
    // four(k, c, product) for each four columns of codes. No fma joins the sums, so that every instruction set, and the
    // reference in NumPy, gives the same bits. `twice` is the code that stands for zero, twice. Beside values that are looked
    // up the sums do not fit into the registers: these are not `settled`.
    template <bool settled, class AddProducts>
    inline INLINED const Run* add_integers(const Run* run, const Run* end, const Quantized& quantized,
                                           std::ptrdiff_t first, std::int32_t twice, AddProducts&& add_products) {
        const Precision precision = run->precision;
        Words next = columns;
        do {
            if (run->begins) next.values(scales);
            add_group(*run, of_integers<settled>(next, *run, quantized, first, twice, add_products));
        } while (follows(++run, end, precision));
        columns = next;
        return run;
    }

    template <bool settled, class AddProducts>
    static inline INLINED Totals of_integers(Words& columns, const Run& run, const Quantized& quantized,
                                             std::ptrdiff_t first, std::int32_t twice, AddProducts&& add_products) {
        const std::int8_t* x[B];
        UNROLL for (int b = 0; b < B; ++b) x[b] = quantized.codes.row(first + b) + quantized.segments[run.segment].offset;
        typename V::ireg sums[U][B][N];
        UNROLL for (int u = 0; u < U; ++u)
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) sums[u][b][i] = V::zero_words();
        // Adds the products of four columns of words with the entries from c on, to sum k by turns.
        add_products(columns, run, [&](int k, std::ptrdiff_t c, const auto& product) INLINED {
            const int u = k % U;
            UNROLL for (int b = 0; b < B; ++b) {
                const typename V::iword entries = V::broadcast_word(x[b] + c);
                UNROLL for (int i = 0; i < N; ++i) sums[u][b][i] = product(sums[u][b][i], i, entries);
            }
        });
        if constexpr (settled)
            UNROLL for (int u = 0; u < U; ++u)
                UNROLL for (int b = 0; b < B; ++b)
                    UNROLL for (int i = 0; i < N; ++i) settle(sums[u][b][i]);
        Totals totals;
        UNROLL for (int b = 0; b < B; ++b) {
            const std::int32_t correction = twice * quantized.sums.row(first + b)[run.segment];
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

    // Adds what a run has of its group, and where that ends, the group.
    void add_group(const Run& run, Totals totals) {
        if (!run.begins)
            UNROLL for (int b = 0; b < B; ++b)
                UNROLL for (int i = 0; i < N; ++i) totals.of[b][i] = V::add(group.of[b][i], totals.of[b][i]);
        if (!run.ends) {
            group = totals;
            return;
        }
        UNROLL for (int b = 0; b < B; ++b)
            UNROLL for (int i = 0; i < N; ++i)
                sum.of[0][b][i] = V::add(sum.of[0][b][i], V::mul(totals.of[b][i], scales[i]));
    }

    Words columns;
    Sums sum;
    Totals group;  // of the runs of a group so far
    Reg scales[N];
};

}  // namespace
}  // namespace hmatrix
