#include "core/io/block_formats.h"

#include <array>
#include <cstring>

#include "core/base/error.h"

namespace volley {
namespace {

constexpr int kSmall = 32;   // values of a plain block
constexpr int kLarge = 256;  // values of a "k" block

using Quants = std::array<int8_t, kSmall>;

uint8_t byte_at(const std::byte* bytes, int i) {
  return static_cast<uint8_t>(bytes[i]);
}

uint16_t half_bits(const std::byte* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return bits;
}

float half_at(const std::byte* bytes) {
  return f16_to_f32(half_bits(bytes));
}

// 32 numbers of 4 bits: the first 16 in the lower halves of the bytes.
void read_nibbles(const std::byte* bytes, Quants& quants) {
  for (int i = 0; i < kSmall / 2; ++i) {
    quants[i] = static_cast<int8_t>(byte_at(bytes, i) & 0x0f);
    quants[i + kSmall / 2] = static_cast<int8_t>(byte_at(bytes, i) >> 4);
  }
}

// The fifth bits of such numbers, value i's at bit i.
void add_fifth_bits(const std::byte* bytes, Quants& quants) {
  for (int i = 0; i < kSmall; ++i) {
    quants[i] = static_cast<int8_t>(quants[i] | ((byte_at(bytes, i / 8) >> (i % 8) & 1) << 4));
  }
}

void subtract(int offset, Quants& quants) {
  for (int8_t& q : quants) q = static_cast<int8_t>(q - offset);
}

// The integers of a block of q4_0, q5_0 or q8_0, which stand behind its scale.
void read_integers(DType type, const std::byte* block, Quants& quants) {
  if (type == DType::kQ8_0) {
    std::memcpy(quants.data(), block + 2, kSmall);
  } else if (type == DType::kQ4_0) {
    read_nibbles(block + 2, quants);
    subtract(8, quants);
  } else {
    read_nibbles(block + 6, quants);
    add_fifth_bits(block + 2, quants);
    subtract(16, quants);
  }
}

void decode_integer_block(DType type, const std::byte* block, float* out) {
  Quants quants;
  read_integers(type, block, quants);
  const float scale = half_at(block);
  for (int i = 0; i < kSmall; ++i) out[i] = static_cast<float>(quants[i]) * scale;
}

void decode_shifted_block(DType type, const std::byte* block, float* out) {
  Quants quants;
  read_nibbles(block + (type == DType::kQ5_1 ? 8 : 4), quants);
  if (type == DType::kQ5_1) add_fifth_bits(block + 4, quants);
  const float scale = half_at(block), minimum = half_at(block + 2);
  for (int i = 0; i < kSmall; ++i) out[i] = static_cast<float>(quants[i]) * scale + minimum;
}

struct ScaleAndMinimum {
  uint8_t scale;
  uint8_t minimum;
};

// Pair j of eight, six bits each, in 12 bytes: the first four scales and the first four minima lie in the
// lower six bits of bytes 0..3 and 4..7; the others have their lower four bits in bytes 8..11 and their upper
// two in what those left free.
ScaleAndMinimum pair_at(const std::byte* packed, int j) {
  if (j < 4) {
    return {static_cast<uint8_t>(byte_at(packed, j) & 0x3f),
            static_cast<uint8_t>(byte_at(packed, j + 4) & 0x3f)};
  }
  const uint8_t low = byte_at(packed, j + 4);
  return {static_cast<uint8_t>((low & 0x0f) | (byte_at(packed, j - 4) >> 6 << 4)),
          static_cast<uint8_t>((low >> 4) | (byte_at(packed, j) >> 6 << 4))};
}

// q4_k and q5_k. 64 values share 32 bytes of nibbles, the first 32 in the lower halves; byte i of the fifth
// bits holds one bit for value i of each group of 32.
void decode_paired_block(DType type, const std::byte* block, float* out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  const std::byte* pairs = block + 4;
  const std::byte* fifth = type == DType::kQ5_K ? block + 16 : nullptr;
  const std::byte* nibbles = block + (type == DType::kQ5_K ? 48 : 16);
  for (int group = 0; group < kLarge / 32; ++group) {
    const ScaleAndMinimum pair = pair_at(pairs, group);
    const float group_scale = scale * static_cast<float>(pair.scale);
    const float group_minimum = minimum * static_cast<float>(pair.minimum);
    for (int i = 0; i < 32; ++i) {
      int q = byte_at(nibbles, group / 2 * 32 + i) >> (group % 2 * 4) & 0x0f;
      if (fifth != nullptr) q |= (byte_at(fifth, i) >> group & 1) << 4;
      out[group * 32 + i] = group_scale * static_cast<float>(q) - group_minimum;
    }
  }
}

// A q4_k block as eight runs of 32 values, the first of which is run `first` of the planes.
void split_paired_block(const std::byte* block, int64_t first, const FourBitPlanes& out) {
  const float scale = half_at(block), minimum = half_at(block + 2);
  for (int group = 0; group < kLarge / kSmall; ++group) {
    const ScaleAndMinimum pair = pair_at(block + 4, group);
    out.scales[first + group] = f32_to_f16(scale * static_cast<float>(pair.scale));
    out.offsets[first + group] = f32_to_f16(-(minimum * static_cast<float>(pair.minimum)));
    uint8_t* quants = out.quants + (first + group) * kSmall;
    for (int i = 0; i < kSmall; ++i)
      quants[i] = byte_at(block + 16, group / 2 * 32 + i) >> (group % 2 * 4) & 0x0f;
  }
}

// Each half of 128 values has 64 bytes of nibbles and 32 bytes of upper bits: value i of group g of 32 has
// its nibble in byte 32 (g mod 2) + i, the lower half for g < 2, and its upper two bits at bit 2 g of byte i.
void decode_q6_k(const std::byte* block, float* out) {
  const std::byte* scales = block + 192;
  const float scale = half_at(block + 208);
  for (int group = 0; group < kLarge / 32; ++group) {
    const int half = group / 4, g = group % 4;
    const std::byte* nibbles = block + half * 64 + g % 2 * 32;
    const std::byte* upper = block + 128 + half * 32;
    for (int i = 0; i < 32; ++i) {
      const auto sixteenth = static_cast<int8_t>(scales[group * 2 + i / 16]);
      const int q = (byte_at(nibbles, i) >> (g / 2 * 4) & 0x0f) | (byte_at(upper, i) >> (g * 2) & 3) << 4;
      out[group * 32 + i] = scale * static_cast<float>(sixteenth) * static_cast<float>(q - 32);
    }
  }
}

}  // namespace

void decode_blocks(DType type, std::span<const std::byte> blocks, float* out) {
  VOLLEY_ASSERT(is_block_type(type));
  const BlockExtent extent = dtype_block(type);
  const auto count = static_cast<int64_t>(blocks.size()) / extent.bytes;
  for (int64_t b = 0; b < count; ++b) {
    const std::byte* block = blocks.data() + b * extent.bytes;
    float* values = out + b * extent.values;
    if (has_integer_blocks(type)) {
      decode_integer_block(type, block, values);
    } else if (type == DType::kQ4_1 || type == DType::kQ5_1) {
      decode_shifted_block(type, block, values);
    } else if (type == DType::kQ6_K) {
      decode_q6_k(block, values);
    } else {
      decode_paired_block(type, block, values);
    }
  }
}

bool has_integer_blocks(DType type) {
  return type == DType::kQ4_0 || type == DType::kQ5_0 || type == DType::kQ8_0;
}

void split_blocks(DType type, std::span<const std::byte> blocks, int8_t* quants, uint16_t* scales) {
  VOLLEY_ASSERT(has_integer_blocks(type));
  const BlockExtent extent = dtype_block(type);
  const auto count = static_cast<int64_t>(blocks.size()) / extent.bytes;
  for (int64_t b = 0; b < count; ++b) {
    const std::byte* block = blocks.data() + b * extent.bytes;
    Quants integers;
    read_integers(type, block, integers);
    std::memcpy(quants + b * kSmall, integers.data(), kSmall);
    scales[b] = half_bits(block);
  }
}

bool has_four_bits(DType type) {
  return type == DType::kQ4_0 || type == DType::kQ4_1 || type == DType::kQ4_K;
}

void split_four_bits(DType type, std::span<const std::byte> blocks, const FourBitPlanes& out) {
  VOLLEY_ASSERT(has_four_bits(type));
  const BlockExtent extent = dtype_block(type);
  const auto count = static_cast<int64_t>(blocks.size()) / extent.bytes;
  Quants quants;
  for (int64_t b = 0; b < count; ++b) {
    const std::byte* block = blocks.data() + b * extent.bytes;
    if (type == DType::kQ4_K) {
      split_paired_block(block, b * (kLarge / kSmall), out);
      continue;
    }
    read_nibbles(block + (type == DType::kQ4_1 ? 4 : 2), quants);
    std::memcpy(out.quants + b * kSmall, quants.data(), kSmall);
    out.scales[b] = half_bits(block);
    out.offsets[b] = type == DType::kQ4_1 ? half_bits(block + 2) : f32_to_f16(-8.0f * half_at(block));
  }
}

}  // namespace volley
