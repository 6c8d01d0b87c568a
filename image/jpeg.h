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

// The longest XMP packet that one segment of a JPEG file holds.
inline constexpr size_t kMaxJpegXmp = 65533 - 29;

// A whole JPEG file. `quality` is 1 to 100; `xmp` at most kMaxJpegXmp bytes, empty for none. Throws Error
// when memory is short.
std::string encode_jpeg(const Picture& picture, int64_t quality, std::string_view xmp);

// One segment of a JPEG file before its pixels; `data` points into the parsed bytes.
struct JpegSegment {
  uint8_t marker = 0;
  std::span<const std::byte> data;
};

// The segments up to the first scan. Faults: no JPEG, a byte that is no marker, lengths that do not fit, no
// scan. Ref: ITU-T T.81, annex B
Result<std::vector<JpegSegment>> parse_jpeg(std::span<const std::byte> file);

// The XMP packet among the segments, if there is one.
std::optional<std::string_view> find_jpeg_xmp(std::span<const JpegSegment> segments);

// The EXIF data among the segments, if there is some, else empty.
std::span<const std::byte> find_jpeg_exif(std::span<const JpegSegment> segments);

// The pixels. Faults: those of parse_jpeg, a picture beyond the limits, and whatever the decoder refuses.
Result<RgbaPicture> decode_jpeg(std::span<const std::byte> file);

}  // namespace volley::image
