#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/base/error.h"

namespace volley::image {

// The application extension that holds an XMP packet, which has no zero byte.
// Ref: Adobe, XMP Specification Part 3, section 1.1.2
std::string gif_xmp_extension(std::string_view packet);

// What a GIF file says of itself.
struct GifInfo {
  int64_t width = 0;
  int64_t height = 0;
  int64_t frames = 0;                   // at least one
  std::optional<std::string_view> xmp;  // in the file
};
// Faults: no GIF, a size beyond the limits, blocks that do not fit into the file, no frame, two XMP packets
// or one without its end. Pixels are not unpacked. Ref: CompuServe, Graphics Interchange Format Version 89a
Result<GifInfo> read_gif_info(std::span<const std::byte> file);

}  // namespace volley::image
