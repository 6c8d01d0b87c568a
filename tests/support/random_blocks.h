#pragma once

#include <random>
#include <string>

#include "core/tensor/dtype.h"

namespace volley::test {

// Random blocks of a block type whose halves are finite; they lie one byte off, so that nothing is aligned.
inline std::string random_blocks(DType type, int64_t values) {
  std::mt19937 generator(static_cast<unsigned>(type) + 1);
  const BlockExtent block = dtype_block(type);
  std::string bytes = "#";
  for (int64_t b = 0; b < values / block.values; ++b) {
    std::string one(static_cast<size_t>(block.bytes), '\0');
    for (char& byte : one) byte = static_cast<char>(generator() & 0xffu);
    // Bits 13 and 14 of a half clear: below 2^-7.
    one[1] = static_cast<char>(one[1] & 0x9f);
    one[3] = static_cast<char>(one[3] & 0x9f);
    one[one.size() - 1] = static_cast<char>(one[one.size() - 1] & 0x9f);
    bytes += one;
  }
  return bytes;
}

}  // namespace volley::test
