// A progressive head as the kernels see it: a coarse product, with factors or with any matrix in packed form, gives
// every output roughly, and only the rows that can still be among the largest are multiplied exactly. Where there are
// clusters of rows, those that cannot hold such a row are not even looked into. src/hmatrix/heads/packed_head.py says what its arrays
// are, and src/hmatrix/heads/reference.py is the same in NumPy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/precision.hpp"

namespace hmatrix {

template <class T>
class Plan;
struct InstructionSet;

// Rows of the coarse factors are stored in strips of so many, one word of four columns after the other.
constexpr std::int32_t strip_height = 16;
// Columns of the fine rows are stored in blocks of so many: codes in their order, floats in words of 16 lanes, whose
// parts are 16 columns apart.
constexpr std::int32_t block_columns = 64;

// Sums of products of codes stay within 32 bits, even twice.
constexpr std::int32_t max_head_columns = 1 << 15;

// Where rows are codes, x is quantised to codes, and what these leave to so many parts of their step.
constexpr int rest_steps = 254;

constexpr std::int32_t padded_to(std::int32_t size, std::int32_t unit) { return (size + unit - 1) / unit * unit; }

// Largest distance of a fine output from its coarse one: (scale * |x outside| + constant) * remainder + noise * reach,
// where noise = quantised * step of x + relative * |x| + inner * step of t; and rounding errors of refined outputs.
struct Bound {
    float scale, quantised, relative, inner, rounding, offset, constant;
};

// Coarse outputs: those of rows, or one for each cluster of rows. All arrays are filled up to whole strips.
struct Level {
    std::int32_t rows;
    Bound bound;
    const std::uint32_t* factor;  // U
    const float* scales;
    const float* bias;  // -inf where there is no row
    const float* remainder;
    const float* reach;
};

struct Head {
    std::int32_t rows, columns, rank;
    std::int32_t top;          // outputs that are to be the fine ones
    std::int32_t first, most;  // rows that are refined first, and at most
    Precision fine, coarse;
    const std::uint32_t* basis;  // of V^T, strips of words
    const float* basis_scales;   // these and the next have an entry for each row, filled up to whole strips
    const float* basis_weights;  // the squared norm of the part of x in the subspace is at least sum(weights * t^2)
    const float* zeros;
    Level places;                     // the rows, or where there are clusters, the rows of one after another
    Level clusters;                   // of all rows of a cluster; none, where its rows are 0
    std::int32_t probes;              // clusters that are looked into first
    const std::int32_t* order;        // the row at each place, or -1; null without clusters
    const std::int32_t* starts;       // the first strip of each cluster, and the end
    const std::int32_t* counts;       // rows of each cluster
    const std::uint32_t* fine_words;  // row by row
    const float* fine_scales;         // one for each row
    const Plan<float>* matrix;        // what gives the coarse outputs in the place of factors, whose rank is 0; or null
    float rounding;                   // how far a refined output is off by rounding at most, relative to norms of x and row
    float largest_norm;               // of a row, at most: its remainder and its reach

    std::int64_t fine_row_words() const { return padded_to(columns, block_columns) / columns_per_word(fine); }
};

// Buffers of a product with a head. Each thread has one, which grows.
struct Workspace {
    void fit(const Head& head);

    // Where the i-th of the outputs that are looked at stands, and its row: -1 for what fills up a cluster.
    std::int32_t place_at(const Head& head, std::int32_t i) const {
        return head.order ? strips[i / strip_height] * strip_height + i % strip_height : i;
    }
    std::int32_t row_at(const Head& head, std::int32_t i) const {
        const std::int32_t place = place_at(head, i);
        return head.order ? head.order[place] : place < head.rows ? place : -1;
    }

    // Drops what is no row from the chosen ones behind `begin`, which is there where outputs overflow. Returns their end.
    std::int32_t drop_filling(const Head& head, std::int32_t begin, std::int32_t end);

    std::vector<std::int8_t> codes, rest;  // of x, and what they leave
    std::vector<float> x;                  // filled up with zeros to whole blocks
    std::vector<float> t;                  // V^T x
    std::vector<std::int8_t> inner_codes;  // of t
    std::vector<float> cluster_outputs, cluster_upper;
    std::vector<std::int32_t> opened;      // clusters that are looked into, in the order in which they are
    std::int32_t opened_count;
    std::vector<float> coarse, upper;      // outputs, and what they may be at most, of the strips that are looked at
    std::vector<std::int32_t> strips;      // which these are; not set without clusters
    std::vector<std::int32_t> chosen;      // which of these are refined, in the order in which they are
    std::vector<float> refined, sorted;    // their outputs, and room for ordering them
    float rounding;                        // how far refined outputs are off by rounding, relative to norms of the rows
};

// Fills the workspace: coarse (where there is a matrix, its product is there already, filled up with zeros), chosen and
// refined, at least `top` rows. Returns how many rows are refined: none where x is not finite, or so large that outputs
// are not.
using Refine = std::int32_t (*)(const Head& head, const float* x, std::int32_t top, Workspace& work);

Refine refine_of(const InstructionSet& set);

// y[b] = all outputs of x[b]: refined ones, where those that equal the largest are as large, and coarse ones that are less.
void head_outputs(Refine refine, const Head& head, const float* x, float* y, std::ptrdiff_t batch);

// The `top` largest refined outputs of x[b] and their rows, the largest first, of equal ones (ties.hpp) the first row first.
// Where x is not finite these are NaN, and the first rows. Counts, if any, get the number of refined rows.
void head_largest(Refine refine, const Head& head, const float* x, std::int32_t top, float* values,
                  std::int64_t* indices, std::int64_t* counts, std::ptrdiff_t batch);

}  // namespace hmatrix
