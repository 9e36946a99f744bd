// The encoder of words of a trellis, for one instruction set.
#include "kernels/trellis_kernels.hpp"

#include "kernels/kernels.hpp"

namespace hmatrix::HMATRIX_SET {

void encode_words(const Words& words, std::uint8_t* windows) { encode(words, windows); }

}  // namespace hmatrix::HMATRIX_SET
