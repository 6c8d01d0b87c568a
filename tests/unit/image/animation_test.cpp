// Animations: their frames come back as the formats' own libraries show them.
#include "image/animation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/image/animation_frames.h"

namespace volley::image {
namespace {

double mean_difference(const Picture& a, const Picture& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.rgb.size(); ++i) sum += std::abs(a.rgb[i] - b.rgb[i]);
  return sum / static_cast<double>(a.rgb.size());
}

class AnimationTest : public testing::Test {
 protected:
  AnimationTest() {
    for (int64_t i = 0; i < 4; ++i)
      animation_.frames.push_back({.picture = test::smooth_picture(24, 16, i), .milliseconds = 50 * (i + 1)});
  }
  Animation animation_;
};

TEST_F(AnimationTest, WebpFramesComeBack) {
  const auto frames =
      test::read_webp_frames(encode_animation(animation_, AnimationFormat::kWebp, AnimationTexts{}));
  ASSERT_EQ(frames.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(frames[i].picture, animation_.frames[i].picture);
    EXPECT_EQ(frames[i].milliseconds, animation_.frames[i].milliseconds);
  }
}

TEST_F(AnimationTest, PngFramesComeBack) {
  const std::string file = encode_animation(animation_, AnimationFormat::kPng, AnimationTexts{});
  EXPECT_EQ(decode_png(as_bytes(file)).value(), animation_.frames[0].picture) << "a still for others";
  // Each frame as the PNG file it would be alone; sequence numbers count up over both kinds of chunks.
  std::vector<std::string> pixels;
  uint32_t sequence = 0;
  std::string header;
  std::vector<int> delays;
  const auto number = [](std::span<const std::byte> bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[i]);
    return value;
  };
  const auto chunks = parse_png(as_bytes(file)).value();
  for (const PngChunk& chunk : chunks) {
    if (chunk.type == "IHDR") header = as_text(chunk.data);
    if (chunk.type == "acTL") {
      EXPECT_EQ(number(chunk.data), 4u);
    }
    if (chunk.type == "fcTL") {
      EXPECT_EQ(number(chunk.data), sequence++);
      EXPECT_EQ(number(chunk.data.subspan(4)), 24u);
      delays.push_back(std::to_integer<int>(chunk.data[20]) * 256 + std::to_integer<int>(chunk.data[21]));
      pixels.emplace_back();
    }
    if (chunk.type == "IDAT") pixels.back() += as_text(chunk.data);
    if (chunk.type == "fdAT") {
      EXPECT_EQ(number(chunk.data), sequence++);
      pixels.back() += as_text(chunk.data.subspan(4));
    }
  }
  ASSERT_EQ(pixels.size(), 4u);
  EXPECT_EQ(delays, (std::vector<int>{50, 100, 150, 200}));
  for (size_t i = 0; i < 4; ++i) {
    const std::string still = std::string("\x89PNG\r\n\x1a\n", 8) + png_chunk("IHDR", header) +
                              png_chunk("IDAT", pixels[i]) + png_chunk("IEND", "");
    EXPECT_EQ(decode_png(as_bytes(still)).value(), animation_.frames[i].picture);
  }
}

TEST_F(AnimationTest, GifFramesAreNear) {
  const auto frames =
      test::read_gif_frames(encode_animation(animation_, AnimationFormat::kGif, AnimationTexts{}));
  ASSERT_EQ(frames.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_LT(mean_difference(frames[i].picture, animation_.frames[i].picture), 6.0);
    EXPECT_EQ(frames[i].milliseconds, animation_.frames[i].milliseconds);
  }
}

// A picture that fills in: undecided cells are grey, the background white, and between them is what has many
// colours. The first two are most of the frame, and near to nothing else.
TEST_F(AnimationTest, GifKeepsGreyAndWhiteOfAHalfFilledPicture) {
  constexpr int64_t kSide = 128, kCell = 8;
  constexpr std::array<uint8_t, 3> kGrey{128, 128, 128}, kWhite{255, 255, 255};
  Animation animation;
  for (int64_t decided = 0; decided <= 4; ++decided) {
    Picture picture{.width = kSide, .height = kSide};
    for (int64_t y = 0; y < kSide; ++y) {
      for (int64_t x = 0; x < kSide; ++x) {
        const int64_t cell = x / kCell + 3 * (y / kCell);
        const int64_t dx = x - kSide / 2, dy = y - kSide / 2;
        std::array<uint8_t, 3> color = kWhite;
        if (cell % 4 >= decided) {
          color = kGrey;
        } else if (dx * dx + dy * dy < 45 * 45) {
          color = {static_cast<uint8_t>(250 - x), static_cast<uint8_t>(20 + y + x / 4),
                   static_cast<uint8_t>((x * y) / 128)};
        }
        picture.rgb.insert(picture.rgb.end(), color.begin(), color.end());
      }
    }
    animation.frames.push_back({.picture = std::move(picture), .milliseconds = 100});
  }
  const auto frames =
      test::read_gif_frames(encode_animation(animation, AnimationFormat::kGif, AnimationTexts{}));
  ASSERT_EQ(frames.size(), animation.frames.size());
  for (size_t f = 0; f < frames.size(); ++f) {
    const auto& shown = frames[f].picture.rgb;
    const auto& meant = animation.frames[f].picture.rgb;
    ASSERT_EQ(shown.size(), meant.size());
    int64_t flat = 0, others = 0, sum = 0;
    int most = 0;
    for (size_t i = 0; i < meant.size(); i += 3) {
      const std::array<uint8_t, 3> is{shown[i], shown[i + 1], shown[i + 2]};
      const std::array<uint8_t, 3> was{meant[i], meant[i + 1], meant[i + 2]};
      if (was == kGrey || was == kWhite) {
        ASSERT_EQ(is, was) << "frame " << f << " pixel " << i / 3;
        ++flat;
        continue;
      }
      ++others;
      for (size_t c = 0; c < 3; ++c) {
        sum += std::abs(is[c] - was[c]);
        most = std::max(most, std::abs(is[c] - was[c]));
      }
    }
    EXPECT_GT(flat, kSide * kSide / 2);
    EXPECT_EQ(others > 0, f > 0);
    EXPECT_LE(most, 5) << "frame " << f;
    EXPECT_LE(4 * sum, 5 * 3 * others) << "frame " << f << ": at most 1.25 of 255 on average";
  }
}

}  // namespace
}  // namespace volley::image
