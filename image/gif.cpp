// GIF files as blocks: their frames are counted, and the XMP packet among them is found.
#include "image/gif.h"

#include "core/io/byte_reader.h"
#include "image/picture_limits.h"

namespace volley::image {
namespace {

constexpr uint8_t kExtension = 0x21, kFrame = 0x2C, kTrailer = 0x3B, kApplication = 0xFF;
constexpr std::string_view kXmpName = "XMP DataXMP";

// Behind the packet, which stands there without the lengths of blocks. Readers that know of no XMP take any
// byte of it for a length and land here, where every length leads to the last zero.
std::string xmp_trailer() {
  std::string trailer(1, '\x01');
  for (int byte = 0xFF; byte >= 0; --byte) trailer += static_cast<char>(byte);
  return trailer + '\0';
}

Fault cut_at(const ByteReader& reader) {
  return Fault{"GIF is cut off at byte " + std::to_string(reader.position())};
}

// Blocks that each say their length, up to one of none.
bool skip_blocks(ByteReader& reader) {
  uint8_t length = 0;
  std::span<const std::byte> data;
  do {
    if (!reader.read(length) || !reader.take(length, data)) return false;
  } while (length > 0);
  return true;
}

bool skip_palette(ByteReader& reader, uint8_t flags) {
  std::span<const std::byte> colors;
  return (flags & 0x80) == 0 || reader.take(uint64_t{3} << ((flags & 7) + 1), colors);
}

bool skip_frame(ByteReader& reader) {
  uint16_t left = 0, top = 0, width = 0, height = 0;
  uint8_t flags = 0, code_size = 0;
  return reader.read_all(left, top, width, height, flags) && skip_palette(reader, flags) &&
         reader.read(code_size) && skip_blocks(reader);
}

// Empty: all is well.
std::optional<Fault> read_extension(ByteReader& reader, std::span<const std::byte> file, GifInfo& info) {
  uint8_t label = 0;
  if (!reader.read(label)) return cut_at(reader);
  const std::string_view rest = as_text(file.subspan(reader.position()));
  const bool is_xmp =
      label == kApplication && rest.starts_with('\x0B') && rest.substr(1).starts_with(kXmpName);
  const size_t begin = reader.position() + 1 + kXmpName.size();
  if (!skip_blocks(reader)) return cut_at(reader);
  if (!is_xmp) return std::nullopt;
  if (info.xmp) return Fault{"GIF holds two XMP packets, expected one"};
  const std::string trailer = xmp_trailer();
  const std::string_view data = as_text(file.subspan(begin, reader.position() - begin));
  if (!data.ends_with(trailer)) return Fault{"GIF: the XMP packet has no end"};
  info.xmp = data.substr(0, data.size() - trailer.size());
  return std::nullopt;
}

}  // namespace

std::string gif_xmp_extension(std::string_view packet) {
  VOLLEY_ASSERT(packet.find('\0') == std::string_view::npos);
  std::string extension{static_cast<char>(kExtension), static_cast<char>(kApplication),
                        static_cast<char>(kXmpName.size())};
  extension += kXmpName;
  extension += packet;
  return extension + xmp_trailer();
}

Result<GifInfo> read_gif_info(std::span<const std::byte> file) {
  ByteReader reader(file);
  std::span<const std::byte> signature;
  if (!reader.take(6, signature) || (as_text(signature) != "GIF87a" && as_text(signature) != "GIF89a"))
    return Fault{"is no GIF file"};
  uint16_t width = 0, height = 0;
  uint8_t flags = 0, background = 0, aspect = 0;
  if (!reader.read_all(width, height, flags, background, aspect) || !skip_palette(reader, flags))
    return cut_at(reader);
  const std::string fault = size_fault(width, height);
  if (!fault.empty()) return Fault{"GIF of " + fault};
  GifInfo info{.width = width, .height = height};
  for (uint8_t block = 0;;) {
    if (!reader.read(block)) return cut_at(reader);
    if (block == kTrailer) break;
    if (block == kFrame) {
      if (!skip_frame(reader)) return cut_at(reader);
      ++info.frames;
    } else if (block == kExtension) {
      if (auto wrong = read_extension(reader, file, info)) return *wrong;
    } else {
      return Fault{"GIF: unknown block at byte " + std::to_string(reader.position() - 1)};
    }
  }
  if (info.frames == 0) return Fault{"GIF holds no frame"};
  return info;
}

}  // namespace volley::image
