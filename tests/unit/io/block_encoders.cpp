#include "tests/unit/io/block_encoders.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <stdexcept>

#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

constexpr size_t kSmall = 32, kLarge = 256;

using Block = std::span<const float>;

float half(float value) {
  return f16_to_f32(f32_to_f16(value));
}

std::string raw_half(float value) {
  return raw(f32_to_f16(value));
}

float greatest_magnitude(Block block) {
  float greatest = 0.0f;
  for (const float value : block) greatest = std::max(greatest, std::fabs(value));
  return greatest;
}

int nearest(float value, float step, int least, int most) {
  const long rounded = step == 0.0f ? 0 : std::lround(value / step);
  return static_cast<int>(std::clamp<long>(rounded, least, most));
}

// 32 numbers: the lowest four bits in 16 bytes, and the fifth bits as a word.
std::string nibbles_of(const std::array<int, kSmall>& numbers) {
  std::string bytes;
  for (size_t i = 0; i < 16; ++i) bytes += static_cast<char>((numbers[i] & 15) | (numbers[i + 16] & 15) << 4);
  return bytes;
}

std::string fifth_bits_of(const std::array<int, kSmall>& numbers) {
  uint32_t word = 0;
  for (size_t i = 0; i < kSmall; ++i) word |= static_cast<uint32_t>(numbers[i] >> 4 & 1) << i;
  return raw(word);
}

std::string q4_1_block(float scale, float offset, const std::array<int, kSmall>& numbers) {
  return raw_half(scale) + raw_half(offset) + nibbles_of(numbers);
}

std::string q8_0_block(float scale, const std::array<int, kSmall>& numbers) {
  std::string bytes = raw_half(scale);
  for (const int number : numbers) bytes += static_cast<char>(number);
  return bytes;
}

// The rule by which other blocks become q8_0: scale = greatest magnitude / 127 as a half, numbers to the
// nearest, ties to even. Values are multiplied with the scale's inverse, which in rare cases is another
// number than a division gives.
std::string rounded_to_q8_0(Block values) {
  const float scale = half(greatest_magnitude(values) / 127.0f);
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  std::array<int, kSmall> numbers{};
  for (size_t i = 0; i < kSmall; ++i)
    numbers[i] = static_cast<int>(std::clamp(std::nearbyint(values[i] * inverse), -127.0f, 127.0f));
  return q8_0_block(scale, numbers);
}

// q4_0, q5_0, q8_0: d q, stored as q + offset where bits are few.
void encode_integers(int bits, Block block, EncodedMatrix& out) {
  const int most = (1 << (bits - 1)) - 1, offset = most + 1;
  const float scale = half(greatest_magnitude(block) / static_cast<float>(most));
  std::array<int, kSmall> numbers{}, stored{};
  for (size_t i = 0; i < kSmall; ++i) {
    numbers[i] = nearest(block[i], scale, -most - 1, most);
    stored[i] = numbers[i] + offset;
    out.values.push_back(static_cast<float>(numbers[i]) * scale);
  }
  out.kept_type = bits == 4 ? DType::kQ4_1 : DType::kQ8_0;
  out.kept += bits == 4 ? q4_1_block(scale, -8.0f * scale, stored) : q8_0_block(scale, numbers);
  if (bits == 8) {
    out.bytes += q8_0_block(scale, numbers);
  } else {
    out.bytes += raw_half(scale) + (bits == 5 ? fifth_bits_of(stored) : "") + nibbles_of(stored);
  }
}

// q4_1, q5_1: d q + m.
void encode_offsets(int bits, Block block, EncodedMatrix& out) {
  const int most = (1 << bits) - 1;
  const auto [least, greatest] = std::ranges::minmax(block);
  const float scale = half((greatest - least) / static_cast<float>(most)), offset = half(least);
  std::array<int, kSmall> numbers{};
  for (size_t i = 0; i < kSmall; ++i) {
    numbers[i] = nearest(block[i] - offset, scale, 0, most);
    out.values.push_back(static_cast<float>(numbers[i]) * scale + offset);
  }
  out.bytes +=
      raw_half(scale) + raw_half(offset) + (bits == 5 ? fifth_bits_of(numbers) : "") + nibbles_of(numbers);
  out.kept_type = bits == 4 ? DType::kQ4_1 : DType::kQ8_0;
  out.kept +=
      bits == 4 ? q4_1_block(scale, offset, numbers) : rounded_to_q8_0(std::span(out.values).last(kSmall));
}

// q4_k, q5_k: (d s) q - (m t), a pair (s, t) of six bits for each of eight groups of 32.
void encode_pairs(int bits, Block block, EncodedMatrix& out) {
  constexpr size_t kGroups = 8;
  const int most = (1 << bits) - 1;
  std::array<float, kGroups> steps, minima;
  for (size_t g = 0; g < kGroups; ++g) {
    const auto [least, greatest] = std::ranges::minmax(block.subspan(g * kSmall, kSmall));
    minima[g] = std::max(0.0f, -least);
    steps[g] = (greatest + minima[g]) / static_cast<float>(most);
  }
  const float scale = half(greatest_magnitude(steps) / 63.0f);
  const float minimum = half(greatest_magnitude(minima) / 63.0f);
  std::string pairs(12, '\0'), fifth(32, '\0'), nibbles(128, '\0');
  for (size_t g = 0; g < kGroups; ++g) {
    const int s = nearest(steps[g], scale, 0, 63), t = nearest(minima[g], minimum, 0, 63);
    if (g < 4) {
      pairs[g] = static_cast<char>(pairs[g] | s);
      pairs[g + 4] = static_cast<char>(pairs[g + 4] | t);
    } else {
      pairs[g + 4] = static_cast<char>((s & 15) | (t & 15) << 4);
      pairs[g - 4] = static_cast<char>(pairs[g - 4] | s >> 4 << 6);
      pairs[g] = static_cast<char>(pairs[g] | t >> 4 << 6);
    }
    const float group_scale = scale * static_cast<float>(s), group_minimum = minimum * static_cast<float>(t);
    std::array<int, kSmall> numbers{};
    for (size_t i = 0; i < kSmall; ++i) {
      numbers[i] = nearest(block[g * kSmall + i] + group_minimum, group_scale, 0, most);
      out.values.push_back(group_scale * static_cast<float>(numbers[i]) - group_minimum);
      char& byte = nibbles[g / 2 * kSmall + i];
      byte = static_cast<char>(byte | (numbers[i] & 15) << (g % 2 * 4));
      fifth[i] = static_cast<char>(fifth[i] | (numbers[i] >> 4) << g);
    }
    out.kept += bits == 4 ? q4_1_block(group_scale, -group_minimum, numbers)
                          : rounded_to_q8_0(std::span(out.values).last(kSmall));
  }
  out.kept_type = bits == 4 ? DType::kQ4_1 : DType::kQ8_0;
  out.bytes += raw_half(scale) + raw_half(minimum) + pairs + (bits == 5 ? fifth : "") + nibbles;
}

// q6_k: (d s) (q - 32), a signed s for each of 16 groups of 16. Two halves of 128 values lie one behind the
// other in the nibbles and in the upper bits.
void encode_q6_k(Block block, EncodedMatrix& out) {
  constexpr size_t kGroups = 16, kGroup = 16;
  std::array<float, kGroups> steps;
  for (size_t g = 0; g < kGroups; ++g) {
    steps[g] = greatest_magnitude(block.subspan(g * kGroup, kGroup)) / 31.0f;
    if (g % 3 == 1) steps[g] = -steps[g];  // the sign may be the scale's
  }
  const float scale = half(greatest_magnitude(steps) / 127.0f);
  std::string nibbles(128, '\0'), upper(64, '\0'), scales;
  for (size_t g = 0; g < kGroups; ++g) {
    const int s = nearest(steps[g], scale, -128, 127);
    scales += static_cast<char>(s);
    const float step = scale * static_cast<float>(s);
    for (size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      const int number = nearest(block[i], step, -32, 31);
      out.values.push_back(step * static_cast<float>(number));
      const size_t part = i / 128, quarter = i % 128 / 32, column = i % 32;
      char& low = nibbles[part * 64 + quarter % 2 * 32 + column];
      low = static_cast<char>(low | ((number + 32) & 15) << (quarter / 2 * 4));
      char& high = upper[part * 32 + column];
      high = static_cast<char>(high | (number + 32) >> 4 << (quarter * 2));
    }
  }
  out.bytes += nibbles + upper + scales + raw_half(scale);
  out.kept_type = DType::kQ8_0;
  for (size_t i = 0; i < kLarge; i += kSmall)
    out.kept += rounded_to_q8_0(std::span(out.values).last(kLarge).subspan(i, kSmall));
}

void encode_float(float value, EncodedMatrix& out) {
  switch (out.type) {
    case 0:
      out.bytes += raw(value);
      break;
    case 1:
      out.bytes += raw(f32_to_f16(value));
      value = half(value);
      break;
    default:
      out.bytes += raw(f32_to_bf16(value));
      value = bf16_to_f32(f32_to_bf16(value));
  }
  out.values.push_back(value);
  out.kept += raw(value);
}

struct Format {
  const char* name;
  uint32_t type;  // ggml_type of ggml.h
  size_t block;
  void (*encode)(Block block, EncodedMatrix& out);
};

constexpr void (*kFloats)(Block, EncodedMatrix&) = [](Block block, EncodedMatrix& out) {
  encode_float(block[0], out);
};

constexpr Format kFormats[] = {
    {"f32", 0, 1, kFloats},
    {"f16", 1, 1, kFloats},
    {"bf16", 30, 1, kFloats},
    {"q4_0", 2, kSmall, [](Block block, EncodedMatrix& out) { encode_integers(4, block, out); }},
    {"q5_0", 6, kSmall, [](Block block, EncodedMatrix& out) { encode_integers(5, block, out); }},
    {"q8_0", 8, kSmall, [](Block block, EncodedMatrix& out) { encode_integers(8, block, out); }},
    {"q4_1", 3, kSmall, [](Block block, EncodedMatrix& out) { encode_offsets(4, block, out); }},
    {"q5_1", 7, kSmall, [](Block block, EncodedMatrix& out) { encode_offsets(5, block, out); }},
    {"q4_k", 12, kLarge, [](Block block, EncodedMatrix& out) { encode_pairs(4, block, out); }},
    {"q5_k", 13, kLarge, [](Block block, EncodedMatrix& out) { encode_pairs(5, block, out); }},
    {"q6_k", 14, kLarge, encode_q6_k}};

}  // namespace

EncodedMatrix encode_matrix(const std::string& format, const std::vector<float>& values) {
  const auto* found = std::ranges::find(kFormats, format, &Format::name);
  if (found == std::end(kFormats)) throw std::invalid_argument(format);
  EncodedMatrix out{.type = found->type};
  for (size_t begin = 0; begin < values.size(); begin += found->block)
    found->encode(std::span(values).subspan(begin, found->block), out);
  return out;
}

}  // namespace volley::test
