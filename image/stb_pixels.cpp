// What the formats that stb packs and unpacks have in common.
#include "image/stb_pixels.h"

#include <climits>
#include <memory>

#include "image/png.h"
#include "image/stb.h"

namespace volley::image {

static_assert(kMaxPngSide == STBI_MAX_DIMENSIONS);

void append_bytes(void* context, void* data, int size) {
  static_cast<std::string*>(context)->append(static_cast<const char*>(data), static_cast<size_t>(size));
}

void throw_no_memory(int64_t width, int64_t height) {
  throw Error("out of memory: cannot pack a picture of " + std::to_string(width) + "x" +
              std::to_string(height) + " pixels");
}

std::string size_fault(int64_t width, int64_t height) {
  if (width >= 1 && height >= 1 && width <= kMaxPngSide && height <= kMaxPngSide &&
      width * height <= kMaxPngPixels) {
    return "";
  }
  return std::to_string(width) + "x" + std::to_string(height) + " pixels: too large or empty";
}

Result<RgbaPicture> unpack_with_stb(std::span<const std::byte> file, const std::string& format) {
  if (file.size() > INT_MAX) return Fault{format + " of more than 2 GiB"};
  const auto* bytes = reinterpret_cast<const stbi_uc*>(file.data());
  const int size = static_cast<int>(file.size());
  int width = 0, height = 0, channels = 0;
  if (stbi_info_from_memory(bytes, size, &width, &height, &channels) == 0) {
    return Fault{format + " cannot be read: " + stbi_failure_reason()};
  }
  const std::string fault = size_fault(width, height);
  if (!fault.empty()) return Fault{format + " of " + fault};
  const std::unique_ptr<uint8_t, decltype(&stbi_image_free)> pixels(
      stbi_load_from_memory(bytes, size, &width, &height, &channels, 4), &stbi_image_free);
  if (pixels == nullptr) {
    return Fault{format + " pixels cannot be unpacked: " + stbi_failure_reason()};
  }
  RgbaPicture picture{.width = width, .height = height};
  picture.rgba.assign(pixels.get(), pixels.get() + int64_t{4} * width * height);
  return picture;
}

}  // namespace volley::image
