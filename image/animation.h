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
#include "image/png.h"

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

// What an animation file says besides its frames; empty for nothing.
struct AnimationTexts {
  std::vector<PngText> png;  // PNG's
  std::string xmp;           // WebP's and GIF's
};

// A whole animation file: WebP and PNG without loss, GIF in 256 colours a frame. Throws Error when memory is
// short or the pictures are too large for the format.
std::string encode_animation(const Animation& animation, AnimationFormat format, const AnimationTexts& texts);

// Ref: W3C, Portable Network Graphics (PNG) Specification (Third Edition), section 11.3.4 (APNG)
std::string encode_animated_png(const Animation& animation, std::span<const PngText> texts);
std::string encode_animated_webp(const Animation& animation, std::string_view xmp);
std::string encode_animated_gif(const Animation& animation, std::string_view xmp);

}  // namespace volley::image
