#include "image/picture.h"

#include <gtest/gtest.h>

namespace volley::image {
namespace {

TEST(Picture, GridLayoutIsNearlySquareAndHoldsAll) {
  for (int64_t count = 1; count <= 300; ++count) {
    const GridLayout layout = grid_layout(count);
    EXPECT_GE(layout.columns * layout.rows, count);
    EXPECT_LT(layout.columns * (layout.rows - 1), count) << "an empty row for " << count;
    EXPECT_GE(layout.columns, layout.rows);
    EXPECT_LE(layout.columns - layout.rows, 1);
  }
  EXPECT_EQ(grid_layout(16).columns, 4);
  EXPECT_EQ(grid_layout(16).rows, 4);
}

TEST(Picture, GridPlacesPicturesRowByRowAndLeavesHolesWhite) {
  const Picture red{.width = 2, .height = 1, .rgb = {255, 0, 0, 254, 0, 0}};
  const Picture blue{.width = 2, .height = 1, .rgb = {0, 0, 255, 0, 0, 254}};
  const std::vector<const Picture*> cells{&red, nullptr, &blue};
  const Picture grid = make_grid(cells, {.columns = 2, .rows = 2});
  EXPECT_EQ(grid.width, 4);
  EXPECT_EQ(grid.height, 2);
  EXPECT_EQ(grid.rgb, (std::vector<uint8_t>{255, 0, 0,   254, 0, 0,   255, 255, 255, 255, 255, 255,
                                            0,   0, 255, 0,   0, 254, 255, 255, 255, 255, 255, 255}));
}

}  // namespace
}  // namespace volley::image
