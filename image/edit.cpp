// Repainting and widening of pictures: which cells are given to the transformer, which pixels are put back.
// Ref: Li et al. 2025, ARPG (known codes are prefilled, only the others are asked for). The authors' code has
// no editing; windows of the trained size with overlap are our own choice for pictures beyond it.
#include "image/edit.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "core/base/noise.h"
#include "image/stb.h"

namespace volley::image {
namespace {

struct Size {
  int64_t width = 0;
  int64_t height = 0;
  bool operator==(const Size&) const = default;
};
struct Scaling {
  Size from;
  Size to;
};

// The middle square of 8-bit planes that lie interleaved.
std::vector<uint8_t> middle(std::span<const uint8_t> pixels, int64_t channels, Size size, int64_t side) {
  const int64_t left = (size.width - side) / 2, top = (size.height - side) / 2;
  std::vector<uint8_t> square;
  square.reserve(static_cast<size_t>(channels * side * side));
  for (int64_t y = top; y < top + side; ++y) {
    const auto row = pixels.begin() + channels * (y * size.width + left);
    square.insert(square.end(), row, row + channels * side);
  }
  return square;
}

// The middle square of what is scaled. Nothing else is computed: the whole of a long and narrow picture may
// take gigabytes.
std::vector<uint8_t> scaled_middle(std::span<const uint8_t> pixels, int64_t channels, const Scaling& scaling,
                                   int64_t side) {
  const auto& [from, to] = scaling;
  if (from == to) return middle(pixels, channels, from, side);
  std::vector<uint8_t> square(static_cast<size_t>(channels * side * side));
  const auto whole = [](int64_t length) { return static_cast<int>(length); };
  const auto ratio = [](int64_t length, int64_t of) {
    return static_cast<float>(length) / static_cast<float>(of);
  };
  if (stbir_resize_subpixel(
          pixels.data(), whole(from.width), whole(from.height), 0, square.data(), whole(side), whole(side), 0,
          STBIR_TYPE_UINT8, whole(channels), STBIR_ALPHA_CHANNEL_NONE, 0, STBIR_EDGE_CLAMP, STBIR_EDGE_CLAMP,
          STBIR_FILTER_DEFAULT, STBIR_FILTER_DEFAULT, STBIR_COLORSPACE_LINEAR, nullptr,
          ratio(to.width, from.width), ratio(to.height, from.height),
          static_cast<float>((to.width - side) / 2), static_cast<float>((to.height - side) / 2)) == 0) {
    throw Error("out of memory: cannot scale a picture of " + std::to_string(from.width) + "x" +
                std::to_string(from.height) + " pixels");
  }
  return square;
}

// Distance of each pixel from the nearest one that is set, by steps to the eight neighbours.
std::vector<float> distances(const std::vector<uint8_t>& set, int64_t width, int64_t height) {
  constexpr float kFar = 1e9f, kDiagonal = 1.41421356f;
  std::vector<float> distance(set.size());
  for (size_t i = 0; i < set.size(); ++i) distance[i] = set[i] != 0 ? 0.0f : kFar;
  const auto relax = [&](int64_t x, int64_t y, int64_t from_x, int64_t from_y, float step) {
    if (from_x < 0 || from_y < 0 || from_x >= width || from_y >= height) return;
    float& here = distance[static_cast<size_t>(y * width + x)];
    here = std::min(here, distance[static_cast<size_t>(from_y * width + from_x)] + step);
  };
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      relax(x, y, x - 1, y, 1.0f);
      relax(x, y, x, y - 1, 1.0f);
      relax(x, y, x - 1, y - 1, kDiagonal);
      relax(x, y, x + 1, y - 1, kDiagonal);
    }
  }
  for (int64_t y = height - 1; y >= 0; --y) {
    for (int64_t x = width - 1; x >= 0; --x) {
      relax(x, y, x + 1, y, 1.0f);
      relax(x, y, x, y + 1, 1.0f);
      relax(x, y, x + 1, y + 1, kDiagonal);
      relax(x, y, x - 1, y + 1, kDiagonal);
    }
  }
  return distance;
}

// The cells with the smallest noise: `share` of them, at least one.
std::vector<int64_t> drawn_cells(int64_t cells, double share, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(cells));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](int64_t cell) {
    const NoiseKey key{.seed = seed, .purpose = NoisePurpose::kMask, .position = static_cast<uint32_t>(cell)};
    return noise_bits(key, 0);
  });
  const auto count = static_cast<int64_t>(std::lround(share * static_cast<double>(cells)));
  order.resize(static_cast<size_t>(std::clamp<int64_t>(count, 1, cells)));
  return order;
}

// Offsets along one axis from the given picture outwards.
std::vector<int64_t> offsets(int64_t before, int64_t after, int64_t side) {
  const int64_t step = std::max<int64_t>(side / 2, 1);
  std::vector<int64_t> result{before};
  for (int64_t moved = 0; moved < after;) {
    moved = std::min(moved + step, after);
    result.push_back(before + moved);
  }
  for (int64_t left = before; left > 0;) {
    left = std::max<int64_t>(left - step, 0);
    result.push_back(left);
  }
  return result;
}

// Pixels to be made anew.
std::vector<uint8_t> repainted_pixels(const EditRequest& edit, const Canvas& canvas, int64_t side,
                                      uint64_t seed) {
  const int64_t pixels = side * canvas.cell;
  const int64_t left = edit.outpaint.left * canvas.cell, top = edit.outpaint.up * canvas.cell;
  std::vector<uint8_t> repaint(static_cast<size_t>(canvas.width() * canvas.height()), 1);
  const auto at = [&](int64_t x, int64_t y) -> uint8_t& {
    return repaint[static_cast<size_t>((top + y) * canvas.width() + left + x)];
  };
  for (int64_t y = 0; y < pixels; ++y) {
    for (int64_t x = 0; x < pixels; ++x) {
      at(x, y) = edit.source->mask.empty() ? 0 : edit.source->mask[static_cast<size_t>(y * pixels + x)];
    }
  }
  if (edit.strength <= 0.0) return repaint;
  for (int64_t cell : drawn_cells(side * side, edit.strength, seed)) {
    for (int64_t i = 0; i < canvas.cell * canvas.cell; ++i) {
      at(cell % side * canvas.cell + i % canvas.cell, cell / side * canvas.cell + i / canvas.cell) = 1;
    }
  }
  return repaint;
}

}  // namespace

EditSource fit_edit(const RgbaPicture& init, const RgbaPicture* mask, int64_t side) {
  const int64_t shorter = std::min(init.width, init.height);
  const auto scaled = [&](int64_t length) { return std::max(side, (length * side + shorter / 2) / shorter); };
  const Size to{scaled(init.width), scaled(init.height)};
  EditSource source{.init = {.width = side, .height = side}};
  source.init.rgb =
      scaled_middle(over(init, 255).rgb, 3, {.from = {init.width, init.height}, .to = to}, side);
  if (mask == nullptr) return source;
  const Picture shown = over(*mask, 0);
  std::vector<uint8_t> grey;
  grey.reserve(shown.rgb.size() / 3);
  for (size_t i = 0; i < shown.rgb.size(); i += 3) {
    grey.push_back(
        static_cast<uint8_t>((299 * shown.rgb[i] + 587 * shown.rgb[i + 1] + 114 * shown.rgb[i + 2]) / 1000));
  }
  source.mask = scaled_middle(grey, 1, {.from = {mask->width, mask->height}, .to = to}, side);
  for (uint8_t& value : source.mask) value = value >= 128 ? 1 : 0;
  return source;
}

std::vector<Window> sliding_windows(const Margins& margins, int64_t side) {
  std::vector<Window> windows;
  for (int64_t row : offsets(margins.up, margins.down, side)) {
    for (int64_t column : offsets(margins.left, margins.right, side))
      windows.push_back({.column = column, .row = row});
  }
  return windows;
}

EditPlan plan_edit(const EditRequest& edit, const Canvas& canvas, int64_t side, uint64_t seed) {
  VOLLEY_ASSERT(edit.source != nullptr && edit.source->init.width == side * canvas.cell);
  const std::vector<uint8_t> repaint = repainted_pixels(edit, canvas, side, seed);
  EditPlan plan{.repainted = std::vector<uint8_t>(static_cast<size_t>(canvas.cells()), 0)};
  for (int64_t y = 0; y < canvas.height(); ++y) {
    for (int64_t x = 0; x < canvas.width(); ++x) {
      if (repaint[static_cast<size_t>(y * canvas.width() + x)] == 0) continue;
      plan.repainted[static_cast<size_t>(y / canvas.cell * canvas.columns + x / canvas.cell)] = 1;
    }
  }
  if (std::ranges::count(plan.repainted, 1) == 0) {
    throw Error("--mask " + (edit.mask ? edit.mask->name : "") +
                    ": is black where the picture is used, so nothing would be repainted (white = repaint)",
                ErrorKind::kUsage);
  }
  plan.weights = distances(repaint, canvas.width(), canvas.height());
  const float reach = static_cast<float>(edit.feather) + 1.0f;
  for (float& value : plan.weights) value = std::max(0.0f, 1.0f - value / reach);
  return plan;
}

void blend_kept(Picture& picture, const EditRequest& edit, const EditPlan& plan, const Canvas& canvas) {
  const Picture& init = edit.source->init;
  const int64_t left = edit.outpaint.left * canvas.cell, top = edit.outpaint.up * canvas.cell;
  for (int64_t y = 0; y < init.height; ++y) {
    for (int64_t x = 0; x < init.width; ++x) {
      const auto place = static_cast<size_t>((top + y) * canvas.width() + left + x);
      const float weight = plan.weights[place];
      for (size_t c = 0; c < 3; ++c) {
        uint8_t& made = picture.rgb[3 * place + c];
        const uint8_t kept = init.rgb[3 * static_cast<size_t>(y * init.width + x) + c];
        const float mixed = static_cast<float>(kept) + weight * static_cast<float>(made - kept);
        made = weight <= 0.0f ? kept : weight >= 1.0f ? made : static_cast<uint8_t>(std::lround(mixed));
      }
    }
  }
}

}  // namespace volley::image
