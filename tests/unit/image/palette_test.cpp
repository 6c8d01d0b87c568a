#include "image/palette.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace volley::image {
namespace {

using Color = std::array<uint8_t, 3>;

Picture picture_of(const std::vector<Color>& colors, int64_t width) {
  Picture picture{.width = width, .height = std::ssize(colors) / width};
  for (const Color& color : colors) picture.rgb.insert(picture.rgb.end(), color.begin(), color.end());
  return picture;
}

std::vector<Color> shown(const IndexedPicture& indexed) {
  std::vector<Color> colors;
  for (uint8_t index : indexed.indices) colors.push_back(indexed.palette.at(index));
  return colors;
}

std::vector<Color> random_colors(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<Color> colors(count);
  for (Color& color : colors) {
    for (uint8_t& value : color) value = static_cast<uint8_t>(random());
  }
  return colors;
}

int64_t squared_distance(const Color& a, const Color& b) {
  int64_t sum = 0;
  for (size_t c = 0; c < 3; ++c) sum += (a[c] - b[c]) * (a[c] - b[c]);
  return sum;
}

TEST(Palette, UpTo256ColoursAreExact) {
  for (const size_t count : {1u, 2u, 17u, 256u}) {
    std::set<Color> distinct;
    for (const Color& color : random_colors(2 * count, 1)) {
      if (distinct.size() < count) distinct.insert(color);
    }
    ASSERT_EQ(distinct.size(), count);
    std::vector<Color> colors;
    for (int64_t i = 0; i < 4; ++i) colors.insert(colors.end(), distinct.begin(), distinct.end());
    std::ranges::shuffle(colors, std::mt19937(2));
    const IndexedPicture indexed = index_colors(picture_of(colors, static_cast<int64_t>(count)));
    EXPECT_EQ(indexed.palette.size(), count);
    EXPECT_EQ(shown(indexed), colors);
  }
}

TEST(Palette, FlatColoursAreExactAmongManyOthers) {
  // 1/256 of the picture each, the least that counts; the others are seen once.
  constexpr size_t kPixels = 256 * 64;
  for (const size_t flat : {1u, 3u, 200u, 255u}) {
    std::vector<Color> colors;
    const auto kept = random_colors(flat, 3);
    for (const Color& color : kept) colors.insert(colors.end(), kPixels / 256, color);
    const auto others = random_colors(kPixels - colors.size(), 4);
    colors.insert(colors.end(), others.begin(), others.end());
    std::ranges::shuffle(colors, std::mt19937(5));
    const IndexedPicture indexed = index_colors(picture_of(colors, 128));
    EXPECT_LE(indexed.palette.size(), 256u);
    const std::set<Color> exact(kept.begin(), kept.end());
    const auto found = shown(indexed);
    for (size_t i = 0; i < colors.size(); ++i) {
      if (exact.contains(colors[i])) {
        ASSERT_EQ(found[i], colors[i]);
      }
    }
  }
}

TEST(Palette, EachPixelTakesTheNearestEntry) {
  const auto colors = random_colors(5000, 6);
  const IndexedPicture indexed = index_colors(picture_of(colors, 100));
  ASSERT_EQ(indexed.palette.size(), 256u);
  int64_t sum = 0;
  for (size_t i = 0; i < colors.size(); ++i) {
    int64_t least = INT64_MAX;
    for (const Color& entry : indexed.palette) least = std::min(least, squared_distance(entry, colors[i]));
    ASSERT_EQ(squared_distance(indexed.palette[indexed.indices[i]], colors[i]), least) << i;
    sum += least;
  }
  // 256 cubes of one size that fill the colours have sides of 40.3: 3 * 40.3^2 / 12 from their middles. Boxes
  // come near to that.
  EXPECT_LT(static_cast<double>(sum) / 5000.0, 1.05 * 406.0);
}

}  // namespace
}  // namespace volley::image
