// Repainting, by cells and pixels.
#include "image/edit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "image/stb.h"
#include "tests/support/sanitized.h"

namespace volley::image {
namespace {

RgbaPicture noise_picture(int64_t width, int64_t height, uint8_t alpha = 255) {
  RgbaPicture picture{.width = width, .height = height};
  for (int64_t i = 0; i < width * height; ++i) {
    for (int64_t c = 0; c < 3; ++c) picture.rgba.push_back(static_cast<uint8_t>((i * 37 + c * 101) % 251));
    picture.rgba.push_back(alpha);
  }
  return picture;
}

// White where `is_white` says so.
RgbaPicture mask_picture(int64_t width, int64_t height, auto is_white) {
  RgbaPicture picture{.width = width, .height = height};
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const uint8_t value = is_white(x, y) ? 255 : 0;
      picture.rgba.insert(picture.rgba.end(), {value, value, value, 255});
    }
  }
  return picture;
}

// 4x4 cells of 4 pixels.
constexpr int64_t kSide = 4, kCell = 4, kPixels = kSide * kCell;
Canvas canvas_for(const Margins& margins) {
  return {.columns = kSide + margins.left + margins.right,
          .rows = kSide + margins.up + margins.down,
          .cell = kCell};
}

EditRequest edit_with(const RgbaPicture* mask, int64_t feather) {
  EditRequest edit{.feather = feather};
  edit.source = std::make_shared<EditSource>(fit_edit(noise_picture(kPixels, kPixels), mask, kPixels));
  return edit;
}

TEST(Edit, AFittingPictureIsTakenAsItIs) {
  const RgbaPicture picture = noise_picture(kPixels, kPixels);
  EXPECT_EQ(fit_edit(picture, nullptr, kPixels).init, over(picture, 0));
  const EditSource wide = fit_edit(noise_picture(3 * kPixels, 2 * kPixels), nullptr, kPixels);
  EXPECT_EQ(wide.init.width, kPixels);
  EXPECT_EQ(wide.init.rgb.size(), static_cast<size_t>(3 * kPixels * kPixels));
  // The middle of a wide picture of the right height.
  RgbaPicture three{.width = 3 * kPixels, .height = kPixels};
  for (int64_t i = 0; i < 3 * kPixels * kPixels; ++i) {
    const auto part = static_cast<uint8_t>(80 * (i % (3 * kPixels) / kPixels));
    three.rgba.insert(three.rgba.end(), {part, part, part, 255});
  }
  const EditSource middle = fit_edit(three, nullptr, kPixels);
  EXPECT_TRUE(std::ranges::all_of(middle.init.rgb, [](uint8_t value) { return value == 80; }));
}

// The whole picture scaled, of which the middle is cut out.
std::vector<uint8_t> middle_of_whole(const RgbaPicture& picture, int64_t side) {
  const int64_t shorter = std::min(picture.width, picture.height);
  const auto scaled = [&](int64_t length) {
    return static_cast<int>(std::max(side, (length * side + shorter / 2) / shorter));
  };
  const int width = scaled(picture.width), height = scaled(picture.height);
  std::vector<uint8_t> whole = over(picture, 255).rgb, square;
  if (width != picture.width || height != picture.height) {
    const std::vector<uint8_t> pixels = whole;
    whole.resize(static_cast<size_t>(3 * width * height));
    EXPECT_NE(stbir_resize_uint8(pixels.data(), static_cast<int>(picture.width),
                                 static_cast<int>(picture.height), 0, whole.data(), width, height, 0, 3),
              0);
  }
  for (int64_t y = (height - side) / 2; y < (height - side) / 2 + side; ++y) {
    const auto row = whole.begin() + 3 * (y * width + (width - side) / 2);
    square.insert(square.end(), row, row + 3 * side);
  }
  return square;
}

TEST(Edit, OnlyTheMiddleIsScaledAndNoBitOfItIsAnother) {
  const std::vector<std::array<int64_t, 2>> sizes{{97, 31}, {31, 97},   {200, 64}, {64, 201},
                                                  {33, 32}, {1, 40},    {40, 1},   {7, 300},
                                                  {16, 50}, {129, 128}, {240, 16}, {500, 333}};
  for (const auto& [width, height] : sizes) {
    for (const int64_t side : {16, 33, 128}) {
      const RgbaPicture picture = noise_picture(width, height);
      EXPECT_EQ(fit_edit(picture, nullptr, side).init.rgb, middle_of_whole(picture, side))
          << width << "x" << height << " to " << side;
    }
  }
}

// Scaled as a whole it would be 128 pixels wide and two millions high.
TEST(Edit, ANarrowPictureTakesLittleMemory) {
  const auto peak = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss / 1024;  // MiB
  };
  const RgbaPicture narrow = noise_picture(1, 16384),
                    mask = mask_picture(2, 9, [](int64_t, int64_t y) { return y == 4; });
  const int64_t before = peak();
  const EditSource source = fit_edit(narrow, &mask, 128);
  EXPECT_LT(peak() - before, test::kSanitized ? 128 : 32);
  EXPECT_EQ(source.init.rgb.size(), size_t{3 * 128 * 128});
  EXPECT_EQ(std::ranges::count(source.mask, 1), 128 * 128) << "the mask's fifth row of nine is its middle";
}

TEST(Edit, TransparentPartsOfAPictureAreWhiteAndOfAMaskBlack) {
  EXPECT_TRUE(std::ranges::all_of(fit_edit(noise_picture(8, 8, 0), nullptr, 8).init.rgb,
                                  [](uint8_t value) { return value == 255; }));
  RgbaPicture mask = mask_picture(8, 8, [](int64_t, int64_t) { return true; });
  for (size_t i = 0; i < 32; ++i) mask.rgba[4 * i + 3] = 0;  // the upper half
  const EditSource source = fit_edit(noise_picture(8, 8), &mask, 8);
  EXPECT_EQ(std::count(source.mask.begin(), source.mask.begin() + 32, 0), 32);
  EXPECT_EQ(std::count(source.mask.begin() + 32, source.mask.end(), 1), 32);
}

TEST(Edit, AMaskOfAnySizeCoversTheSamePart) {
  const auto left_half = [](int64_t size) {
    return mask_picture(size, size, [size](int64_t x, int64_t) { return 2 * x < size; });
  };
  const RgbaPicture exact = left_half(kPixels), large = left_half(8 * kPixels);
  const RgbaPicture init = noise_picture(kPixels, kPixels);
  EXPECT_EQ(fit_edit(init, &large, kPixels).mask, fit_edit(init, &exact, kPixels).mask);
}

TEST(Edit, ACellWithOneWhitePixelIsRepainted) {
  const RgbaPicture mask =
      mask_picture(kPixels, kPixels, [](int64_t x, int64_t y) { return x == 7 && y == 8; });
  const EditPlan plan = plan_edit(edit_with(&mask, 0), canvas_for({}), kSide, 0);
  for (int64_t cell = 0; cell < kSide * kSide; ++cell)
    EXPECT_EQ(plan.repainted[static_cast<size_t>(cell)], cell == 2 * kSide + 1) << cell;
  const RgbaPicture black = mask_picture(kPixels, kPixels, [](int64_t, int64_t) { return false; });
  EXPECT_THROW(plan_edit(edit_with(&black, 0), canvas_for({}), kSide, 0), Error);
}

TEST(Edit, PixelsOutsideTheFeatherAreKeptBitForBit) {
  const RgbaPicture mask = mask_picture(kPixels, kPixels, [](int64_t x, int64_t) { return x < 5; });
  for (const int64_t feather : {0, 1, 4}) {
    const EditRequest edit = edit_with(&mask, feather);
    const Canvas canvas = canvas_for({});
    const EditPlan plan = plan_edit(edit, canvas, kSide, 0);
    Picture made{.width = kPixels,
                 .height = kPixels,
                 .rgb = std::vector<uint8_t>(static_cast<size_t>(3 * kPixels * kPixels), 7)};
    blend_kept(made, edit, plan, canvas);
    for (int64_t i = 0; i < 3 * kPixels * kPixels; ++i) {
      const int64_t x = i / 3 % kPixels;
      const int old_value = edit.source->init.rgb[static_cast<size_t>(i)],
                value = made.rgb[static_cast<size_t>(i)];
      if (x < 5) {
        EXPECT_EQ(value, 7);
      } else if (x < 5 + feather) {
        EXPECT_TRUE(value >= std::min(7, old_value) && value <= std::max(7, old_value));
        if (std::abs(old_value - 7) > 20) {
          EXPECT_TRUE(value != 7 && value != old_value) << x;
        }
      } else {
        EXPECT_EQ(value, old_value) << "feather " << feather << ", column " << x;
      }
    }
  }
}

TEST(Edit, StrengthDrawsItsShareBySeed) {
  EditRequest edit = edit_with(nullptr, 0);
  std::set<std::string> drawn;
  for (const double strength : {0.01, 0.25, 0.5, 1.0}) {
    edit.strength = strength;
    const EditPlan plan = plan_edit(edit, canvas_for({}), kSide, 3);
    EXPECT_EQ(std::ranges::count(plan.repainted, 1), std::max<int64_t>(1, std::lround(16 * strength)));
    EXPECT_EQ(plan_edit(edit, canvas_for({}), kSide, 3).repainted, plan.repainted);
  }
  edit.strength = 0.5;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const EditPlan plan = plan_edit(edit, canvas_for({}), kSide, seed);
    drawn.emplace(plan.repainted.begin(), plan.repainted.end());
  }
  EXPECT_GT(drawn.size(), 6u);
}

TEST(Edit, MarginsAreRepaintedAroundThePicture) {
  EditRequest edit = edit_with(nullptr, 0);
  edit.outpaint = {.left = 1, .right = 2, .up = 3};
  const Canvas canvas = canvas_for(edit.outpaint);
  const EditPlan plan = plan_edit(edit, canvas, kSide, 0);
  for (int64_t row = 0; row < canvas.rows; ++row) {
    for (int64_t column = 0; column < canvas.columns; ++column) {
      const bool is_inside = row >= 3 && column >= 1 && column < 5;
      EXPECT_EQ(plan.repainted[static_cast<size_t>(row * canvas.columns + column)], !is_inside);
    }
  }
}

// Every cell is reached, and every window but the first overlaps what is there before it.
TEST(Edit, WindowsCoverTheCanvasAndSeeTheirNeighbours) {
  for (const Margins& margins : {Margins{}, Margins{.right = 16}, Margins{.left = 3, .right = 21},
                                 Margins{.left = 5, .up = 9, .down = 1}, Margins{.down = 100}}) {
    const int64_t side = 16, columns = side + margins.left + margins.right,
                  rows = side + margins.up + margins.down;
    std::vector<int> known(static_cast<size_t>(columns * rows), 0);
    bool is_first = true;
    for (const Window& window : sliding_windows(margins, side)) {
      ASSERT_GE(window.column, 0);
      ASSERT_GE(window.row, 0);
      ASSERT_LE(window.column + side, columns);
      ASSERT_LE(window.row + side, rows);
      int64_t seen = 0;
      for (int64_t i = 0; i < side * side; ++i) {
        int& cell = known[static_cast<size_t>((window.row + i / side) * columns + window.column + i % side)];
        seen += cell;
        cell = 1;
      }
      if (is_first) {
        EXPECT_EQ(window.column, margins.left);
        EXPECT_EQ(window.row, margins.up);
      } else {
        EXPECT_GE(seen, side * side / 2);
      }
      is_first = false;
    }
    EXPECT_EQ(std::ranges::count(known, 0), 0);
  }
}

TEST(Edit, MarginsAreReadFromWords) {
  EXPECT_EQ(parse_margins("right", 8), (Margins{.right = 8}));
  EXPECT_EQ(parse_margins("left=4,down,up=1", 8), (Margins{.left = 4, .up = 1, .down = 8}));
  for (const char* bad :
       {"", "east", "left=", "left=0", "left=x", "left=9999", "left,left", "left,", "left=4;up"})
    EXPECT_THROW(parse_margins(bad, 8), Error) << bad;
}

TEST(Edit, JsonKeepsIt) {
  EditRequest edit{.init = {.name = "a.png", .sha256 = std::string(64, '0')},
                   .mask = SourceFile{.name = "m.png", .sha256 = std::string(64, '1')},
                   .feather = 3,
                   .outpaint = {.left = 2}};
  const nlohmann::json json = to_json(edit);
  EXPECT_EQ(to_json(read_edit(JsonFields(json, "x"), "x")), json);
  edit.mask.reset();
  edit.outpaint = {};
  edit.strength = 0.5;
  EXPECT_EQ(to_json(read_edit(JsonFields(to_json(edit), "x"), "x")), to_json(edit));
  nlohmann::json bad = json;
  bad["init"]["sha256"] = "none";
  EXPECT_THROW(read_edit(JsonFields(bad, "x"), "x"), Error);
}

}  // namespace
}  // namespace volley::image
