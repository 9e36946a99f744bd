// Precisions of coefficients: how many columns a word holds, and what their codes stand for.
#pragma once

#include <cstdint>

namespace hmatrix {

// The numbers are those of hmatrix.Precision.
enum class Precision : std::uint8_t {
    float64, float32, bfloat16, int8, int4, int2, int1, lloyd4, trellis4, trellis2, trellis1, trellis3, trellis4p
};
constexpr Precision last_precision = Precision::trellis4p;

constexpr bool is_integer(Precision p) { return p >= Precision::int8; }

// Whether values are looked up, by a window that begins with the entry's own bits: they are then codes of int8.
constexpr bool is_looked_up(Precision p) { return p >= Precision::lloyd4 && p <= last_precision; }

// Whether windows are longer than the entry's own bits.
constexpr bool is_trellis(Precision p) { return is_looked_up(p) && p != Precision::lloyd4; }

// Neighbouring columns in a word, or in a block of words.
constexpr int columns_per_word(Precision p) {
    constexpr int columns[] = {1, 1, 2, 4, 8, 16, 32, 8, 8, 16, 32, 32, 16};
    return columns[static_cast<int>(p)];
}

// Parallel bits of an entry, which no other entry's value depends on. Behind each word of the trellis lie those with
// these bits of its columns.
constexpr int parallel_bits(Precision p) { return p >= Precision::trellis3 ? 2 : 0; }
constexpr int parallel_words(Precision p) { return parallel_bits(p) * columns_per_word(p) / 32; }

// Twice the code that stands for zero; where values are looked up, of what is found.
constexpr int twice_zero(Precision p) {
    return p == Precision::int4 ? 16 : p == Precision::int2 ? 3 : p == Precision::int1 ? 1 : 256;
}

// Bits that choose a value, the parallel ones lowest, and how many values there are.
constexpr int window_bits(Precision p) { return parallel_bits(p) > 0 ? 7 : 6; }
constexpr int windows_of(Precision p) { return 1 << window_bits(p); }

// Values of windows, plus 128. hmatrix.codes.trellis says where the numbers come from. Windows of lloyd4 hold two bits
// of the next entry, which do not count.
constexpr int table_size = 64;
alignas(64) constexpr std::uint8_t lloyd4_bytes[table_size] = {
    1, 32, 53, 70, 84, 97, 110, 122, 134, 146, 159, 172, 186, 203, 224, 255,
    1, 32, 53, 70, 84, 97, 110, 122, 134, 146, 159, 172, 186, 203, 224, 255,
    1, 32, 53, 70, 84, 97, 110, 122, 134, 146, 159, 172, 186, 203, 224, 255,
    1, 32, 53, 70, 84, 97, 110, 122, 134, 146, 159, 172, 186, 203, 224, 255};
alignas(64) constexpr std::uint8_t trellis4_bytes[table_size] = {
    86, 131, 190, 101, 142, 231, 110, 151, 50, 118, 163, 74, 126, 175, 93, 137,
    199, 101, 146, 1, 114, 155, 65, 122, 167, 82, 131, 182, 95, 138, 217, 108,
    148, 39, 118, 161, 74, 125, 174, 89, 134, 191, 101, 142, 255, 110, 155, 57,
    119, 163, 81, 130, 182, 93, 138, 206, 105, 146, 25, 114, 155, 66, 125, 170};
alignas(64) constexpr std::uint8_t trellis2_bytes[table_size] = {
    153, 79, 122, 202, 87, 152, 29, 117, 180, 87, 132, 255, 108, 178, 59, 139,
    201, 117, 155, 75, 127, 199, 92, 154, 43, 124, 169, 94, 141, 35, 106, 181,
    75, 150, 221, 115, 162, 87, 132, 213, 102, 164, 57, 129, 181, 101, 139, 55,
    117, 197, 78, 148, 1, 124, 169, 76, 139, 227, 104, 169, 54, 134, 177, 103};
alignas(64) constexpr std::uint8_t trellis1_bytes[table_size] = {
    159, 64, 174, 75, 133, 255, 111, 200, 86, 178, 91, 171, 70, 162, 34, 142,
    232, 113, 184, 101, 175, 95, 155, 58, 148, 27, 127, 232, 89, 165, 99, 178,
    78, 157, 91, 167, 24, 129, 229, 108, 198, 101, 161, 81, 155, 72, 143, 24,
    114, 222, 94, 186, 85, 165, 78, 170, 56, 145, 1, 123, 181, 82, 192, 97};
alignas(64) constexpr std::uint8_t trellis3_bytes[2 * table_size] = {
    61, 174, 137, 107, 89, 208, 154, 123, 115, 80, 183, 145, 130, 100, 32, 161,
    149, 119, 85, 195, 168, 134, 105, 55, 218, 157, 128, 94, 71, 178, 142, 112,
    98, 24, 161, 129, 114, 77, 186, 143, 136, 107, 63, 170, 152, 122, 88, 211,
    178, 141, 112, 72, 1, 157, 127, 95, 85, 194, 149, 118, 102, 50, 166, 134,
    122, 90, 206, 154, 138, 107, 62, 171, 161, 129, 99, 255, 184, 144, 115, 78,
    45, 168, 134, 104, 86, 193, 149, 120, 113, 70, 179, 142, 127, 95, 232, 158,
    144, 114, 78, 185, 162, 128, 99, 38, 201, 151, 122, 88, 61, 171, 137, 107,
    95, 224, 156, 126, 111, 73, 176, 141, 133, 102, 48, 167, 149, 119, 82, 195};
alignas(64) constexpr std::uint8_t trellis4p_bytes[2 * table_size] = {
    42, 158, 130, 101, 68, 168, 136, 109, 82, 180, 143, 117, 92, 198, 150, 123,
    97, 255, 155, 127, 105, 57, 163, 133, 113, 76, 174, 139, 120, 87, 187, 147,
    123, 93, 209, 150, 130, 102, 34, 158, 136, 110, 65, 168, 143, 116, 81, 181,
    147, 120, 87, 193, 154, 127, 97, 234, 163, 133, 106, 53, 174, 139, 113, 74,
    182, 143, 117, 82, 203, 150, 123, 93, 22, 159, 129, 102, 63, 169, 136, 109,
    75, 175, 140, 113, 88, 191, 146, 120, 98, 222, 154, 126, 106, 47, 163, 133,
    109, 69, 169, 136, 117, 82, 180, 143, 123, 93, 199, 151, 129, 101, 1, 159,
    133, 106, 58, 164, 139, 113, 76, 174, 147, 120, 88, 188, 155, 126, 98, 214};

constexpr const std::uint8_t* codebook(Precision p) {
    return p == Precision::lloyd4      ? lloyd4_bytes
           : p == Precision::trellis4  ? trellis4_bytes
           : p == Precision::trellis4p ? trellis4p_bytes
           : p == Precision::trellis3  ? trellis3_bytes
           : p == Precision::trellis2  ? trellis2_bytes
                                       : trellis1_bytes;
}

}  // namespace hmatrix
