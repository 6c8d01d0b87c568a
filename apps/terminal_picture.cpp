#include "apps/terminal_picture.h"

#include <algorithm>
#include <array>

namespace volley::apps {
namespace {

using Color = std::array<int64_t, 3>;

// Mean colour of the pixels that the block (x, y) of `size` stands for.
Color mean(const image::Picture& picture, int64_t x, int64_t y, const std::array<int64_t, 2>& size) {
  const int64_t left = x * picture.width / size[0];
  const int64_t right = std::max((x + 1) * picture.width / size[0], left + 1);
  const int64_t top = y * picture.height / size[1];
  const int64_t bottom = std::max((y + 1) * picture.height / size[1], top + 1);
  Color sum{};
  for (int64_t py = top; py < bottom; ++py) {
    for (int64_t px = left; px < right; ++px) {
      for (size_t c = 0; c < 3; ++c)
        sum[c] += picture.rgb[static_cast<size_t>(3 * (py * picture.width + px)) + c];
    }
  }
  for (int64_t& value : sum) value /= (right - left) * (bottom - top);
  return sum;
}

std::string code(const char* place, const Color& color) {
  return std::string("\x1b[") + place + ";2;" + std::to_string(color[0]) + ";" + std::to_string(color[1]) +
         ";" + std::to_string(color[2]) + "m";
}

}  // namespace

std::string terminal_picture(const image::Picture& picture, int64_t columns, int64_t lines) {
  const int64_t fitting = 2 * lines * picture.width / picture.height;  // columns of a picture so high
  const int64_t width = std::max<int64_t>(std::min({picture.width, columns, fitting}), 1);
  const int64_t height =
      std::clamp<int64_t>((picture.height * width / picture.width + 1) / 2, 1, std::max<int64_t>(lines, 1));
  const std::array<int64_t, 2> size{width, 2 * height};
  std::string text;
  for (int64_t line = 0; line < height; ++line) {
    for (int64_t x = 0; x < width; ++x) {
      text += code("38", mean(picture, x, 2 * line, size)) +
              code("48", mean(picture, x, 2 * line + 1, size)) + "▀";
    }
    text += "\x1b[0m\n";
  }
  return text;
}

}  // namespace volley::apps
