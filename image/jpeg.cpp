// JPEG containers are read and written here, pixels are packed and unpacked by libjpeg-turbo.
#include "image/jpeg.h"

#include <turbojpeg.h>

#include <memory>

#include "core/io/byte_reader.h"
#include "core/io/untrusted_text.h"
#include "image/picture_limits.h"

namespace volley::image {
namespace {

constexpr std::string_view kXmpName("http://ns.adobe.com/xap/1.0/\0", 29);
constexpr std::string_view kExifName("Exif\0\0", 6);
constexpr uint8_t kApp0 = 0xE0, kApp1 = 0xE1, kScan = 0xDA, kEnd = 0xD9;
// From here on colours are as fine as brightness.
constexpr int64_t kFineQuality = 90;
constexpr size_t kLongestSegment = 0xFFFF - 2;
static_assert(kMaxJpegXmp == kLongestSegment - kXmpName.size());

struct Destroy {
  void operator()(void* handle) const { tjDestroy(handle); }
};
using Handle = std::unique_ptr<void, Destroy>;

struct FreeBytes {
  void operator()(unsigned char* bytes) const { tjFree(bytes); }
};

// The library's words about its last failure, fit for a line.
std::string failure(const Handle& handle) {
  return quote(tjGetErrorStr2(handle.get()));
}

}  // namespace

std::string encode_jpeg(const Picture& picture, int64_t quality, std::string_view xmp) {
  VOLLEY_ASSERT(quality >= 1 && quality <= 100 && xmp.size() <= kMaxJpegXmp);
  const Handle handle(tjInitCompress());
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const int status = handle == nullptr
                         ? -1
                         : tjCompress2(handle.get(), picture.rgb.data(), static_cast<int>(picture.width), 0,
                                       static_cast<int>(picture.height), TJPF_RGB, &bytes, &size,
                                       quality >= kFineQuality ? TJSAMP_444 : TJSAMP_420,
                                       static_cast<int>(quality), TJFLAG_ACCURATEDCT);
  const std::unique_ptr<unsigned char, FreeBytes> owner(bytes);
  if (status != 0) throw_no_memory(picture.width, picture.height);
  std::string file(reinterpret_cast<const char*>(bytes), size);
  if (xmp.empty()) return file;
  // Behind the JFIF segment, which has to be the first.
  const auto segments = parse_jpeg(as_bytes(file)).value_or_throw("JPEG encoder");
  VOLLEY_ASSERT(segments.front().marker == kApp0);
  const size_t place = 2 + 4 + segments.front().data.size();
  const size_t length = 2 + kXmpName.size() + xmp.size();
  std::string segment{static_cast<char>(0xFF), static_cast<char>(kApp1), static_cast<char>(length >> 8),
                      static_cast<char>(length & 0xFF)};
  segment += kXmpName;
  segment += xmp;
  return file.insert(place, segment);
}

Result<std::vector<JpegSegment>> parse_jpeg(std::span<const std::byte> file) {
  ByteReader reader(file);
  uint8_t first = 0, second = 0;
  if (!reader.read_all(first, second) || first != 0xFF || second != 0xD8) return Fault{"is no JPEG file"};
  std::vector<JpegSegment> segments;
  while (true) {
    const std::string at = "JPEG segment at byte " + std::to_string(reader.position());
    uint8_t mark = 0, marker = 0xFF, high = 0, low = 0;
    if (!reader.read(mark)) return Fault{"JPEG ends before its pixels"};
    if (mark != 0xFF) return Fault{at + ": expected a marker"};
    while (marker == 0xFF) {  // any number of fill bytes
      if (!reader.read(marker)) return Fault{"JPEG ends before its pixels"};
    }
    if (marker == kEnd) return Fault{"JPEG ends before its pixels"};
    if (marker == 0 || marker == 1 || (marker >= 0xD0 && marker <= 0xD8)) {
      return Fault{at + ": a marker that has no place there"};
    }
    std::span<const std::byte> data;
    if (!reader.read_all(high, low)) return Fault{"JPEG ends before its pixels"};
    const uint32_t length = uint32_t{high} << 8 | low;
    if (length < 2 || !reader.take(length - 2, data)) {
      return Fault{at + ": " + std::to_string(length) + " bytes do not fit"};
    }
    if (marker == kScan) return segments;
    segments.push_back({.marker = marker, .data = data});
  }
}

std::optional<std::string_view> find_jpeg_xmp(std::span<const JpegSegment> segments) {
  for (const JpegSegment& segment : segments) {
    const std::string_view text = as_text(segment.data);
    if (segment.marker == kApp1 && text.starts_with(kXmpName)) return text.substr(kXmpName.size());
  }
  return std::nullopt;
}

std::span<const std::byte> find_jpeg_exif(std::span<const JpegSegment> segments) {
  for (const JpegSegment& segment : segments) {
    if (segment.marker == kApp1 && as_text(segment.data).starts_with(kExifName)) return segment.data;
  }
  return {};
}

Result<RgbaPicture> decode_jpeg(std::span<const std::byte> file) {
  const auto segments = parse_jpeg(file);
  if (!segments.ok()) return segments.fault();
  const Handle handle(tjInitDecompress());
  if (handle == nullptr) throw Error("out of memory: cannot unpack a JPEG file");
  const auto* bytes = reinterpret_cast<const unsigned char*>(file.data());
  int width = 0, height = 0, sampling = 0, colors = 0;
  if (tjDecompressHeader3(handle.get(), bytes, file.size(), &width, &height, &sampling, &colors) != 0) {
    return Fault{"JPEG cannot be read: " + failure(handle)};
  }
  const std::string fault = size_fault(width, height);
  if (!fault.empty()) return Fault{"JPEG of " + fault};
  RgbaPicture picture{.width = width, .height = height};
  picture.rgba.resize(static_cast<size_t>(4 * picture.width * picture.height));
  // A picture that is cut off or makes the library wonder is refused, not guessed.
  if (tjDecompress2(handle.get(), bytes, file.size(), picture.rgba.data(), width, 0, height, TJPF_RGBA,
                    TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS | TJFLAG_STOPONWARNING) != 0) {
    return Fault{"JPEG pixels cannot be unpacked: " + failure(handle)};
  }
  return picture;
}

}  // namespace volley::image
