#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/error.h"
#include "image/picture.h"

namespace volley::image {

// The longest side of a WebP picture.
inline constexpr int64_t kMaxWebpSide = 16383;

// A whole WebP file: lossless without a quality, which is 1 to 100. `xmp` is empty for none. Throws Error
// when memory is short or the picture too large.
std::string encode_webp(const Picture& picture, std::optional<int64_t> quality, std::string_view xmp);

// The same file with an XMP packet, of a still picture or an animation of ours that has none. Throws Error
// when memory is short.
std::string with_webp_xmp(std::string_view file, std::string_view xmp);

// What a WebP file says of itself.
struct WebpInfo {
  int64_t width = 0;
  int64_t height = 0;
  int64_t frames = 1;  // of an animation
  bool is_animation = false;
  bool is_lossless = false;  // of a still picture
  std::optional<std::string> xmp;
  std::optional<std::string> exif;
};
// Faults: no WebP, a broken container, a picture beyond the limits.
Result<WebpInfo> read_webp_info(std::span<const std::byte> file);

// The pixels. Faults: no WebP, an animation, a picture beyond the limits, and what the decoder refuses.
Result<RgbaPicture> decode_webp(std::span<const std::byte> file);

}  // namespace volley::image
