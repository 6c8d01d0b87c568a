// Animated PNG: the frames' pixels as stb packs them, in chunks of our own.
#include "core/io/byte_reader.h"
#include "image/animation.h"
#include "image/png.h"

namespace volley::image {
namespace {

std::string big_endian_16(uint16_t value) {
  return {static_cast<char>(value >> 8), static_cast<char>(value & 0xFF)};
}

// How the next frame is shown: whole, in the place of the one before.
std::string frame_control(const Animation::Frame& frame, uint32_t sequence) {
  return big_endian(sequence) + big_endian(static_cast<uint32_t>(frame.picture.width)) +
         big_endian(static_cast<uint32_t>(frame.picture.height)) + big_endian(0) + big_endian(0) +
         big_endian_16(static_cast<uint16_t>(frame.milliseconds)) + big_endian_16(1000) +
         std::string("\0\0", 2);
}

}  // namespace

std::string encode_animated_png(const Animation& animation, std::span<const PngText> texts) {
  std::string file;
  uint32_t sequence = 0;
  for (const Animation::Frame& frame : animation.frames) {
    VOLLEY_ASSERT(frame.milliseconds >= 0 && frame.milliseconds <= 0xFFFF);
    const bool is_first = file.empty();
    const std::string still = encode_png(frame.picture, is_first ? texts : std::span<const PngText>());
    const auto chunks = parse_png(as_bytes(still)).value_or_throw("PNG encoder");
    for (const PngChunk& chunk : chunks) {
      const std::string data(as_text(chunk.data));
      if (chunk.type == "IHDR") {
        if (is_first) {
          file =
              still.substr(0, 8) + png_chunk("IHDR", data) +
              png_chunk("acTL", big_endian(static_cast<uint32_t>(animation.frames.size())) + big_endian(0));
        }
        file += png_chunk("fcTL", frame_control(frame, sequence++));
      } else if (chunk.type == "IDAT") {
        file += is_first ? png_chunk("IDAT", data) : png_chunk("fdAT", big_endian(sequence++) + data);
      } else if (chunk.type != "IEND") {
        file += png_chunk(chunk.type, data);  // a text
      }
    }
  }
  return file + png_chunk("IEND", "");
}

}  // namespace volley::image
