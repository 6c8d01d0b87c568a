// The palette of one picture: its flat colours as they are, and means of boxes of the others. Boxes are cut
// at the mean of their widest channel, always the one that is furthest from its pixels. All sums are
// integers. Ref: P. Heckbert, Color Image Quantization for Frame Buffer Display (1982); X. Wu, Color
// Quantization by Dynamic Programming and Principal Analysis (1992), which cuts for the squared error too
#include "image/palette.h"

#include <algorithm>
#include <span>

#include "core/base/error.h"

namespace volley::image {
namespace {

constexpr size_t kMostColors = 256;

using Color = std::array<uint8_t, 3>;

// Pixels of one colour.
struct ColorRun {
  Color color{};
  int64_t begin = 0;  // among the sorted pixels
  int64_t count = 0;
};

// A pixel as a number: its colour, then its place.
std::vector<uint64_t> sort_pixels(const Picture& picture) {
  std::vector<uint64_t> pixels(picture.rgb.size() / 3);
  for (size_t i = 0; i < pixels.size(); ++i) {
    const uint8_t* rgb = &picture.rgb[3 * i];
    const uint64_t color = uint64_t{rgb[0]} << 16 | uint64_t{rgb[1]} << 8 | rgb[2];
    pixels[i] = color << 32 | i;
  }
  std::ranges::sort(pixels);
  return pixels;
}

std::vector<ColorRun> color_runs(std::span<const uint64_t> pixels) {
  std::vector<ColorRun> runs;
  for (size_t i = 0; i < pixels.size(); ++i) {
    const uint64_t color = pixels[i] >> 32;
    if (i == 0 || color != pixels[i - 1] >> 32) {
      runs.push_back({.color = {static_cast<uint8_t>(color >> 16), static_cast<uint8_t>(color >> 8),
                                static_cast<uint8_t>(color)},
                      .begin = static_cast<int64_t>(i)});
    }
    ++runs.back().count;
  }
  return runs;
}

// Colours that share an entry: their mean.
struct Box {
  std::span<ColorRun> runs;
  Color mean{};
  int64_t error = 0;  // squared distances of its pixels from the mean
  size_t widest = 0;  // channel that gives most of it
  int64_t lower = 0;  // in that channel, the mean rounded down: some are not above it, some are
};

Box make_box(std::span<ColorRun> runs) {
  Box box{.runs = runs};
  int64_t most = -1;
  for (size_t c = 0; c < 3; ++c) {
    int64_t count = 0, sum = 0, squares = 0;
    for (const ColorRun& run : runs) {
      const int64_t value = run.color[c];
      count += run.count;
      sum += run.count * value;
      squares += run.count * value * value;
    }
    const int64_t mean = (2 * sum + count) / (2 * count);
    const int64_t error = squares - 2 * mean * sum + mean * mean * count;
    box.mean[c] = static_cast<uint8_t>(mean);
    box.error += error;
    if (error <= most) continue;
    most = error;
    box.widest = c;
    box.lower = sum / count;
  }
  return box;
}

// So many means of boxes that hold all colours, which are more.
std::vector<Color> cut_into_boxes(std::span<ColorRun> runs, size_t count) {
  VOLLEY_ASSERT(count >= 1 && runs.size() >= count);
  std::vector<Box> boxes{make_box(runs)};
  while (boxes.size() < count) {
    const auto worst = std::ranges::max_element(boxes, {}, &Box::error);
    const auto above = std::ranges::partition(
        worst->runs, [&](const ColorRun& run) { return run.color[worst->widest] <= worst->lower; });
    const auto upper = static_cast<size_t>(std::ranges::ssize(above));
    const auto both = worst->runs;
    *worst = make_box(both.first(both.size() - upper));
    boxes.push_back(make_box(both.last(upper)));
  }
  std::vector<Color> means;
  for (const Box& box : boxes) means.push_back(box.mean);
  return means;
}

int64_t squared(int64_t value) {
  return value * value;
}

// The entry nearest to a colour, of a palette in the order of its greens: from the colour's own green
// outwards, as far as green alone is not further than what was found.
size_t nearest(std::span<const Color> palette, const Color& color) {
  const auto start = std::ranges::lower_bound(palette, color[1], {}, [](const Color& c) { return c[1]; });
  int64_t best = INT64_MAX;
  size_t found = 0;
  // Whether entries further on may still be nearer.
  const auto look = [&](int64_t at) {
    const Color& entry = palette[static_cast<size_t>(at)];
    const int64_t green = squared(entry[1] - color[1]);
    if (green >= best) return false;
    const int64_t distance = green + squared(entry[0] - color[0]) + squared(entry[2] - color[2]);
    if (distance < best) {
      best = distance;
      found = static_cast<size_t>(at);
    }
    return true;
  };
  const int64_t middle = start - palette.begin();
  for (int64_t at = middle; at < std::ssize(palette) && look(at);) ++at;
  for (int64_t at = middle - 1; at >= 0 && look(at);) --at;
  return found;
}

}  // namespace

IndexedPicture index_colors(const Picture& picture) {
  VOLLEY_ASSERT(!picture.rgb.empty());
  const std::vector<uint64_t> pixels = sort_pixels(picture);
  std::vector<ColorRun> runs = color_runs(pixels);
  IndexedPicture result;
  const auto all = std::ssize(pixels);
  // Fewer than 256 are flat if there are more colours than 256: so many flat ones would leave no pixel to
  // others.
  const bool are_few = runs.size() <= kMostColors;
  const auto others = std::ranges::partition(
      runs, [&](const ColorRun& run) { return are_few || run.count * int64_t{kMostColors} >= all; });
  for (auto run = runs.begin(); run != others.begin(); ++run) result.palette.push_back(run->color);
  if (!others.empty()) {
    const auto means = cut_into_boxes(others, kMostColors - result.palette.size());
    result.palette.insert(result.palette.end(), means.begin(), means.end());
  }
  std::ranges::sort(result.palette, {}, [](const Color& c) { return std::array{c[1], c[0], c[2]}; });
  result.indices.resize(pixels.size());
  for (const ColorRun& run : runs) {
    const auto index = static_cast<uint8_t>(nearest(result.palette, run.color));
    for (int64_t i = run.begin; i < run.begin + run.count; ++i)
      result.indices[pixels[static_cast<size_t>(i)] & 0xFFFFFFFF] = index;
  }
  return result;
}

}  // namespace volley::image
