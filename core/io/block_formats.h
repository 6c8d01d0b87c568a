#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/tensor/dtype.h"

namespace volley {

// The block types of GGUF files: what a block's bytes mean. d and m are halves; q are unsigned integers of
// the type's bits; sums and products are rounded to f32 one by one, in the order written.
//
//   q4_0, q5_0   d, [5th bits], low nibbles   (q - 8) d, (q - 16) d
//   q4_1, q5_1   d, m, [5th bits], nibbles    q d + m
//   q8_0         d, 32 signed bytes           q d
//   q4_k, q5_k   d, m, 8 pairs (s, t) of 6 bits, [5th bits], nibbles    (d s) q - (m t), 32 values a pair
//   q6_k         nibbles, upper bits, 16 signed bytes s, d              (d s) (q - 32), 16 values an s
//
// Ref: ggml, docs/gguf.md for the types and src/ggml-quants.c for the values they stand for

// Decodes whole blocks of a block type into floats, `blocks.size()` / block bytes * block values of them.
void decode_blocks(DType type, std::span<const std::byte> blocks, float* out);

// True for the block types whose values are 32 small integers times one scale: q4_0, q5_0, q8_0.
bool has_integer_blocks(DType type);

// Splits whole blocks of such a type into the integers, 32 a block, and the scales as halves, one a block.
void split_blocks(DType type, std::span<const std::byte> blocks, int8_t* quants, uint16_t* scales);

// True for the block types whose values are 32 numbers of 4 bits times a scale plus an offset: q4_0, q4_1,
// q4_k.
bool has_four_bits(DType type);

// Splits whole blocks of such a type into the numbers, 32 a scale, and the scales and offsets as halves:
// value = q scale
// + offset. Exact for q4_1, and for q4_0 as long as 8 scales are a half; q4_k's products of two numbers are
// rounded to halves.
struct FourBitPlanes {
  uint8_t* quants = nullptr;
  uint16_t* scales = nullptr;
  uint16_t* offsets = nullptr;
};
void split_four_bits(DType type, std::span<const std::byte> blocks, const FourBitPlanes& out);

}  // namespace volley
