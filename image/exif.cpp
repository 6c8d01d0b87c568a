// One tag of EXIF data, which is a TIFF file without pixels. A library for it would be one more to build
// with, for the sake of a single number.
#include "image/exif.h"

#include "core/io/byte_reader.h"

namespace volley::image {
namespace {

constexpr std::string_view kName("Exif\0\0", 6);
constexpr uint16_t kOrientationTag = 0x0112, kShort = 3, kTiff = 42;

uint16_t swapped(uint16_t value) {
  return static_cast<uint16_t>(value << 8 | value >> 8);
}
uint32_t swapped(uint32_t value) {
  return uint32_t{swapped(static_cast<uint16_t>(value))} << 16 | swapped(static_cast<uint16_t>(value >> 16));
}

}  // namespace

Orientation read_orientation(std::span<const std::byte> exif) {
  if (as_text(exif).starts_with(kName)) exif = exif.subspan(kName.size());
  const bool is_big = as_text(exif).starts_with("MM");
  if (!is_big && !as_text(exif).starts_with("II")) return Orientation::kTopLeft;
  ByteReader reader(exif);
  // Numbers in the data's own byte order.
  const auto read = [&](auto&... values) {
    if (!reader.read_all(values...)) return false;
    if (is_big) ((values = swapped(values)), ...);
    return true;
  };
  uint16_t order = 0, magic = 0, count = 0;
  uint32_t place = 0;
  if (!read(order, magic, place) || magic != kTiff || !reader.seek(place) || !read(count))
    return Orientation::kTopLeft;
  for (uint16_t i = 0; i < count; ++i) {
    uint16_t tag = 0, type = 0, value = 0, rest = 0;
    uint32_t values = 0;
    if (!read(tag, type, values, value, rest)) break;
    if (tag != kOrientationTag) continue;
    if (type != kShort || values != 1 || value < 1 || value > 8) break;
    return static_cast<Orientation>(value);
  }
  return Orientation::kTopLeft;
}

}  // namespace volley::image
