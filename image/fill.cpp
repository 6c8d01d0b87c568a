// How a picture filled in: frames of an animation, and a map of the steps.
#include "image/fill.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/base/error.h"

namespace volley::image {
namespace {

constexpr int64_t kFillMilliseconds = 3000, kLastMilliseconds = 1500;
constexpr int64_t kMinimalSquare = 8, kMinimalWidth = 128;
constexpr int64_t kBarHeight = 10, kMargin = 4, kDot = 2;  // of the legend, in pixels

void fill_rectangle(Picture& picture, std::array<int64_t, 4> box, std::array<uint8_t, 3> color) {
  const auto [left, top, width, height] = box;
  for (int64_t y = top; y < top + height; ++y) {
    for (int64_t x = left; x < left + width; ++x) {
      for (size_t c = 0; c < 3; ++c) {
        picture.rgb[static_cast<size_t>(3 * (y * picture.width + x)) + c] = color[c];
      }
    }
  }
}

// Digits of 3x5 dots, a bit each, from the top left.
constexpr std::array<uint16_t, 10> kDigits{
    0b111'101'101'101'111, 0b010'110'010'010'111, 0b111'001'111'100'111, 0b111'001'111'001'111,
    0b101'101'111'001'001, 0b111'100'111'001'111, 0b111'100'111'101'111, 0b111'001'010'010'010,
    0b111'101'111'101'111, 0b111'101'111'001'111};

int64_t number_width(const std::string& number) {
  return kDot * (4 * std::ssize(number) - 1);
}

void draw_number(Picture& picture, int64_t left, int64_t top, const std::string& number) {
  for (size_t i = 0; i < number.size(); ++i) {
    const uint16_t dots = kDigits[static_cast<size_t>(number[i] - '0')];
    for (int64_t dot = 0; dot < 15; ++dot) {
      if ((dots >> (14 - dot) & 1) == 0) continue;
      fill_rectangle(
          picture,
          {left + kDot * (4 * static_cast<int64_t>(i) + dot % 3), top + kDot * (dot / 3), kDot, kDot},
          {0, 0, 0});
    }
  }
}

void draw_legend(Picture& picture, int64_t top, int64_t count) {
  const std::string first = "1", last = std::to_string(count);
  draw_number(picture, kMargin, top, first);
  draw_number(picture, picture.width - kMargin - number_width(last), top, last);
  const int64_t left = 2 * kMargin + number_width(first);
  const int64_t width = picture.width - left - 2 * kMargin - number_width(last);
  for (int64_t x = 0; x < width; ++x) {
    fill_rectangle(picture, {left + x, top, 1, kBarHeight}, step_color(x * count / width, count));
  }
}

}  // namespace

std::vector<Picture> fill_frames(PictureMaker& maker, int64_t item, std::span<const FillStep> steps,
                                 const Picture& whole, int64_t count) {
  VOLLEY_ASSERT(count >= 1);
  std::vector<int32_t> codes(static_cast<size_t>(maker.canvas().cells()), -1);
  size_t next = 0;
  const auto apply = [&](const FillStep& step) {
    for (size_t i = 0; i < step.cells.size(); ++i) codes[static_cast<size_t>(step.cells[i])] = step.codes[i];
  };
  while (next < steps.size() && steps[next].is_given) apply(steps[next++]);
  const auto given = static_cast<int64_t>(next), moving = std::ssize(steps) - given;
  std::vector<Picture> frames;
  for (int64_t frame = 0; frame + 1 < count; ++frame) {
    const int64_t until = given + moving * frame / (count - 1);
    while (static_cast<int64_t>(next) < until) apply(steps[next++]);
    frames.push_back(maker.partial(item, codes));
  }
  frames.push_back(whole);
  return frames;
}

int64_t frame_count(int64_t steps) {
  return std::min(steps + 1, kMostFrames);
}

Fill make_fill_grid(const std::map<int64_t, Fill>& fills) {
  VOLLEY_ASSERT(!fills.empty());
  const int64_t first = fills.begin()->first, count = fills.rbegin()->first - first + 1;
  const auto grid_of = [&](auto picture_of) {
    std::vector<const Picture*> cells(static_cast<size_t>(count), nullptr);
    for (const auto& [index, fill] : fills) cells[static_cast<size_t>(index - first)] = picture_of(fill);
    return make_grid(cells, grid_layout(count));
  };
  Fill grid;
  for (size_t f = 0; f < fills.begin()->second.frames.size(); ++f)
    grid.frames.push_back(grid_of([f](const Fill& fill) { return &fill.frames[f]; }));
  if (!fills.begin()->second.step_map.rgb.empty())
    grid.step_map = grid_of([](const Fill& fill) { return &fill.step_map; });
  return grid;
}

Animation fill_animation(std::vector<Picture> frames) {
  Animation animation;
  const int64_t moving = std::max<int64_t>(std::ssize(frames) - 1, 1);
  for (Picture& frame : frames)
    animation.frames.push_back({.picture = std::move(frame), .milliseconds = kFillMilliseconds / moving});
  animation.frames.back().milliseconds = kLastMilliseconds;
  return animation;
}

std::array<uint8_t, 3> step_color(int64_t step, int64_t count) {
  constexpr std::array<std::array<double, 3>, 5> kStops{
      {{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}}};
  const double place = count < 2 ? 0.0 : 4.0 * static_cast<double>(step) / static_cast<double>(count - 1);
  const auto from = static_cast<size_t>(std::min(place, 3.0));
  std::array<uint8_t, 3> color{};
  for (size_t c = 0; c < 3; ++c) {
    const double share = place - static_cast<double>(from);
    color[c] =
        static_cast<uint8_t>(std::lround(kStops[from][c] + share * (kStops[from + 1][c] - kStops[from][c])));
  }
  return color;
}

StepMap draw_step_map(const Canvas& canvas, std::span<const FillStep> steps) {
  StepMap map{.square = std::max({kMinimalSquare, canvas.cell, kMinimalWidth / canvas.columns})};
  Picture& picture = map.picture;
  const int64_t height = canvas.rows * map.square;
  picture = {.width = canvas.columns * map.square, .height = height + kBarHeight + 2 * kMargin};
  picture.rgb.assign(static_cast<size_t>(3 * picture.width * picture.height), 255);
  const auto count = std::ranges::count_if(steps, [](const FillStep& step) { return !step.is_given; });
  int64_t number = 0;
  for (const FillStep& step : steps) {
    const auto color = step.is_given ? kGivenColor : step_color(number++, count);
    for (int32_t cell : step.cells) {
      fill_rectangle(
          picture,
          {cell % canvas.columns * map.square, cell / canvas.columns * map.square, map.square, map.square},
          color);
    }
  }
  draw_legend(picture, height + kMargin, count);
  return map;
}

}  // namespace volley::image
