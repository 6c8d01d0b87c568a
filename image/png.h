#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "image/picture.h"

namespace volley::image {

// Text of a PNG file.
struct PngText {
  enum class Kind : uint8_t {
    kInternational,  // chunk iTXt
    kPlain,          // chunk tEXt, which older programs look for; written from ASCII only
  };
  std::string keyword;  // 1 to 79 bytes of Latin-1
  std::string text;     // UTF-8
  Kind kind = Kind::kInternational;

  bool operator==(const PngText&) const = default;
};

// A whole PNG file, its texts in front of the pixels. Throws Error when memory is short.
std::string encode_png(const Picture& picture, std::span<const PngText> texts);

// A chunk as it stands in a file, and a number as chunks hold it, in at least four bytes.
std::string png_chunk(std::string_view type, std::string_view data);
std::string big_endian(uint32_t value);
uint32_t from_big_endian(std::span<const std::byte> bytes);

// One chunk of a PNG file; `data` points into the parsed bytes.
struct PngChunk {
  std::string_view type;  // four letters
  std::span<const std::byte> data;
};

// The chunks of a PNG file held in memory. Faults: another signature, lengths that do not fit, types that are
// no letters, a wrong CRC, IHDR not first or not of its size, IEND missing or not last. Ref: W3C, Portable
// Network Graphics (PNG) Specification, sections 5 and 11
Result<std::vector<PngChunk>> parse_png(std::span<const std::byte> file);

// The uncompressed texts among the chunks. Faults: a keyword or text that is not what the specification says.
Result<std::vector<PngText>> read_png_texts(std::span<const PngChunk> chunks);

// The pixels of a PNG file, 8 bits each. Faults: those of parse_png, a picture beyond the limits, and
// whatever the decoder refuses.
Result<RgbaPicture> decode_png_rgba(std::span<const std::byte> file);
// The same before a white background.
Result<Picture> decode_png(std::span<const std::byte> file);

}  // namespace volley::image
