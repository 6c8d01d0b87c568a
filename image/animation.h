#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "image/picture.h"

namespace volley::image {

// Pictures of one size, shown in turn, again and again.
struct Animation {
  struct Frame {
    Picture picture;
    int64_t milliseconds = 0;
  };
  std::vector<Frame> frames;  // at least one
};

enum class AnimationFormat : uint8_t { kWebp, kPng, kGif };
// The one that a path's ending names (".webp", ".png", ".gif"), letter case aside.
std::optional<AnimationFormat> animation_format_of_path(std::string_view path);

// A whole animation file: WebP and PNG without loss, GIF in 256 colours a frame. Throws Error when memory is
// short or the pictures are too large for the format.
std::string encode_animation(const Animation& animation, AnimationFormat format);

// Ref: W3C, Portable Network Graphics (PNG) Specification (Third Edition), section 11.3.4 (APNG)
std::string encode_animated_png(const Animation& animation);
std::string encode_animated_webp(const Animation& animation);
std::string encode_animated_gif(const Animation& animation);

}  // namespace volley::image
