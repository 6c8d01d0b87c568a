#include "core/io/block_formats.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "core/io/byte_reader.h"
#include "core/io/convert.h"
#include "core/io/gguf.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

constexpr DType kBlockTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                 DType::kQ8_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

std::vector<uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<uint32_t>(value));
  return bits;
}

class BlockFormats : public testing::Test {
 protected:
  // Blocks of every type with the floats that an independent decoder makes of them: data/README.md.
  std::unique_ptr<GgufFile> file_ = GgufFile::open(VOLLEY_IO_DATA "/gguf_blocks.gguf").value_or_throw("data");
};

TEST_F(BlockFormats, EveryTypeDecodesToTheIndependentDecodersBits) {
  std::vector<std::string> types{"f32", "f16", "bf16"};
  for (const DType type : kBlockTypes) types.emplace_back(dtype_name(type));
  for (const std::string& type : types) {
    SCOPED_TRACE(type);
    const HostView* view = file_->find(type);
    const HostView* expected = file_->find(type + ".expected");
    ASSERT_NE(view, nullptr);
    ASSERT_NE(expected, nullptr);
    EXPECT_EQ(dtype_name(view->dtype), type);
    EXPECT_EQ(view->shape, expected->shape);
    EXPECT_EQ(bits_of(to_f32(*view)), bits_of(to_f32(*expected)));
    EXPECT_EQ(first_non_finite(*view), -1);
  }
}

TEST_F(BlockFormats, IntegerBlocksSplitIntoPlanesOfTheSameValues) {
  for (const DType type : kBlockTypes) {
    SCOPED_TRACE(dtype_name(type));
    const HostView& view = *file_->find(dtype_name(type));
    const auto planes = q8_0_planes(view);
    ASSERT_EQ(planes.has_value(), type == DType::kQ4_0 || type == DType::kQ5_0 || type == DType::kQ8_0);
    if (!planes) continue;
    const HostView quants{std::as_bytes(std::span(planes->quants)).data(), DType::kI8, view.shape};
    const HostView scales{
        std::as_bytes(std::span(planes->scales)).data(), DType::kF16, {view.shape[0], view.shape[1] / 32}};
    EXPECT_EQ(bits_of(dequantize_q8_0(quants, scales)), bits_of(to_f32(view)));
  }
}

// Numbers of 4 bits with scale and offset are the same values: exactly, but for q4_k, whose scales and
// offsets are rounded to halves, each by at most 2^-11 of itself.
TEST_F(BlockFormats, FourBitsSplitIntoPlanesOfTheSameValues) {
  for (const DType type : kBlockTypes) {
    SCOPED_TRACE(dtype_name(type));
    ASSERT_EQ(has_four_bits(type), type == DType::kQ4_0 || type == DType::kQ4_1 || type == DType::kQ4_K);
    if (!has_four_bits(type)) continue;
    const HostView& view = *file_->find(dtype_name(type));
    const std::vector<float> values = to_f32(view);
    std::vector<uint8_t> quants(values.size());
    std::vector<uint16_t> scales(values.size() / 32), offsets(values.size() / 32);
    split_four_bits(type, {view.data, static_cast<size_t>(view.bytes())},
                    {.quants = quants.data(), .scales = scales.data(), .offsets = offsets.data()});
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_LT(quants[i], 16);
      const float part = static_cast<float>(quants[i]) * f16_to_f32(scales[i / 32]);
      const float offset = f16_to_f32(offsets[i / 32]);
      const float bound = type == DType::kQ4_K ? 0x1p-10f * (std::abs(part) + std::abs(offset)) : 0.0f;
      ASSERT_NEAR(part + offset, values[i], bound) << i;
    }
  }
}

// Written out by hand from the layouts, one value that uses every field.
TEST(BlockLayouts, EachFieldIsWhereTheFormatSays) {
  const std::string half = raw<uint16_t>(0x3800), one = raw<uint16_t>(0x3c00);  // 0.5, 1
  const auto decode = [](DType type, const std::string& block) {
    EXPECT_EQ(std::ssize(block), dtype_block(type).bytes);
    std::vector<float> values(static_cast<size_t>(dtype_block(type).values));
    decode_blocks(type, as_bytes(block), values.data());
    return values;
  };
  std::string nibbles(16, '\0');
  nibbles[3] = '\xa5';  // value 3: 5, value 19: 10
  EXPECT_EQ(decode(DType::kQ4_0, half + nibbles)[3], (5 - 8) * 0.5f);
  EXPECT_EQ(decode(DType::kQ4_0, half + nibbles)[19], (10 - 8) * 0.5f);
  EXPECT_EQ(decode(DType::kQ4_1, half + one + nibbles)[19], 10 * 0.5f + 1.0f);
  const std::string fifth = raw<uint32_t>(1u << 19);
  EXPECT_EQ(decode(DType::kQ5_0, half + fifth + nibbles)[19], (26 - 16) * 0.5f);
  EXPECT_EQ(decode(DType::kQ5_1, half + one + fifth + nibbles)[3], 5 * 0.5f + 1.0f);
  EXPECT_EQ(decode(DType::kQ5_1, half + one + fifth + nibbles)[19], 26 * 0.5f + 1.0f);
  std::string bytes(32, '\0');
  bytes[31] = '\x80';
  EXPECT_EQ(decode(DType::kQ8_0, half + bytes)[31], -128 * 0.5f);

  // Pair 6, values 192..223: scale 0b10'0001, minimum 0b01'1000; value 200 has nibble 7, fifth bit 1.
  std::string pairs(12, '\0');
  pairs[2] = static_cast<char>(0x80);   // upper bits of the scale
  pairs[6] = static_cast<char>(0x40);   // upper bits of the minimum
  pairs[10] = static_cast<char>(0x81);  // lower bits: minimum, scale
  std::string large_nibbles(128, '\0');
  large_nibbles[96 + 8] = 7;
  EXPECT_EQ(decode(DType::kQ4_K, half + one + pairs + large_nibbles)[200], 0.5f * 33 * 7 - 24.0f);
  std::string large_fifth(32, '\0');
  large_fifth[8] = 1 << 6;
  EXPECT_EQ(decode(DType::kQ5_K, half + one + pairs + large_fifth + large_nibbles)[200],
            0.5f * 33 * 23 - 24.0f);

  // Value 200 of q6_k: second half, group 2, so the upper nibble of byte 64 + 8 and bits 4, 5 of byte 32 + 8.
  std::string upper(64, '\0'), scales(16, '\0');
  large_nibbles.assign(128, '\0');
  large_nibbles[64 + 8] = '\x70';
  upper[32 + 8] = '\x30';
  scales[12] = '\xfd';  // -3
  EXPECT_EQ(decode(DType::kQ6_K, large_nibbles + upper + scales + half)[200], 0.5f * -3 * (0x37 - 32));
}

TEST(BlockLayouts, ValuesThatAreNotFiniteAreFound) {
  std::string blocks;
  for (int i = 0; i < 400; ++i) blocks += raw<uint16_t>(i == 301 ? 0x7c00 : 0x3c00) + std::string(32, '\1');
  const HostView view{as_bytes(blocks).data(), DType::kQ8_0, {4, 3200}};
  EXPECT_EQ(first_non_finite(view), 301 * 32);
}

}  // namespace
}  // namespace volley::test
