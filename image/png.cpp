// PNG containers are read and written here, pixels are packed and unpacked by stb.
#include "image/png.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "core/io/byte_reader.h"
#include "core/io/crc32.h"
#include "core/io/untrusted_text.h"
#include "image/picture_limits.h"
#include "image/stb.h"

namespace volley::image {
namespace {

constexpr std::string_view kSignature("\x89PNG\r\n\x1a\n", 8);
constexpr size_t kHeaderChunk = 4 + 4 + 13 + 4;  // IHDR, whole
constexpr uint32_t kMaxLength = 0x7fffffff;
static_assert(kMaxSide == STBI_MAX_DIMENSIONS);
constexpr size_t kMaxKeyword = 79;

// Latin-1, which older texts are in, as UTF-8.
std::string from_latin1(std::string_view text) {
  std::string utf8;
  for (char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x80) {
      utf8 += c;
    } else {
      utf8 += static_cast<char>(0xC0 | code >> 6);
      utf8 += static_cast<char>(0x80 | (code & 0x3F));
    }
  }
  return utf8;
}

std::string text_chunk(const PngText& text) {
  VOLLEY_ASSERT(!text.keyword.empty() && text.keyword.size() <= kMaxKeyword);
  VOLLEY_ASSERT(text.keyword.find('\0') == std::string::npos && text.text.size() < kMaxLength / 2);
  if (text.kind == PngText::Kind::kPlain) {
    VOLLEY_ASSERT(
        std::ranges::all_of(text.text, [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
    return png_chunk("tEXt", text.keyword + std::string(1, '\0') + text.text);
  }
  // Keyword; not compressed; no language, no translated keyword.
  return png_chunk("iTXt", text.keyword + std::string("\0\0\0\0\0", 5) + text.text);
}

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

}  // namespace

std::string big_endian(uint32_t value) {
  std::string bytes(4, '\0');
  for (size_t i = 0; i < 4; ++i) bytes[i] = static_cast<char>(value >> (24 - 8 * i));
  return bytes;
}

uint32_t from_big_endian(std::span<const std::byte> bytes) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<uint32_t>(bytes[i]);
  return value;
}

std::string png_chunk(std::string_view type, std::string_view data) {
  std::string body(type);
  body += data;
  return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(crc32(as_bytes(body)));
}

std::string encode_png(const Picture& picture, std::span<const PngText> texts) {
  std::string file;
  const auto append = [](void* context, void* data, int size) {
    static_cast<std::string*>(context)->append(static_cast<const char*>(data), static_cast<size_t>(size));
  };
  if (stbi_write_png_to_func(append, &file, static_cast<int>(picture.width), static_cast<int>(picture.height),
                             3, picture.rgb.data(), static_cast<int>(3 * picture.width)) == 0) {
    throw_no_memory(picture.width, picture.height);
  }
  std::string packed_texts;
  for (const PngText& text : texts) packed_texts += text_chunk(text);
  file.insert(kSignature.size() + kHeaderChunk, packed_texts);
  return file;
}

Result<std::vector<PngChunk>> parse_png(std::span<const std::byte> file) {
  if (!as_text(file).starts_with(kSignature)) return Fault{"is no PNG file"};
  ByteReader reader(file);
  if (!reader.seek(kSignature.size())) return Fault{"is no PNG file"};
  std::vector<PngChunk> chunks;
  while (chunks.empty() || chunks.back().type != "IEND") {
    const std::string at = " at byte " + std::to_string(reader.position());
    std::span<const std::byte> length_bytes, type, data, crc;
    if (!reader.take(4, length_bytes) || !reader.take(4, type))
      return Fault{"PNG ends without an IEND chunk"};
    if (!std::ranges::all_of(as_text(type), is_letter))
      return Fault{"PNG chunk" + at + ": type is no four letters"};
    const std::string name = "PNG chunk " + std::string(as_text(type)) + at;
    const uint32_t length = from_big_endian(length_bytes);
    if (length > kMaxLength || !reader.take(length, data) || !reader.take(4, crc)) {
      return Fault{name + ": " + std::to_string(length) + " bytes do not fit into the file"};
    }
    const uint32_t actual = crc32(data, crc32(type));
    if (actual != from_big_endian(crc)) return Fault{name + ": wrong CRC"};
    if (chunks.empty() && (as_text(type) != "IHDR" || length != 13)) {
      return Fault{name + ": expected IHDR of 13 bytes"};
    }
    chunks.push_back({.type = as_text(type), .data = data});
  }
  if (reader.remaining() > 0) {
    return Fault{"PNG has " + std::to_string(reader.remaining()) + " bytes behind its IEND chunk"};
  }
  return chunks;
}

Result<std::vector<PngText>> read_png_texts(std::span<const PngChunk> chunks) {
  std::vector<PngText> texts;
  for (const PngChunk& chunk : chunks) {
    if (chunk.type != "iTXt" && chunk.type != "tEXt") continue;
    std::string_view rest = as_text(chunk.data);
    const size_t keyword = rest.find('\0');
    if (keyword == std::string_view::npos || keyword == 0 || keyword > kMaxKeyword) {
      return Fault{"PNG chunk " + std::string(chunk.type) + ": keyword is not 1 to 79 bytes"};
    }
    PngText text{.keyword = std::string(rest.substr(0, keyword))};
    rest.remove_prefix(keyword + 1);
    if (chunk.type == "tEXt") {
      text.kind = PngText::Kind::kPlain;
      text.text = from_latin1(rest);
      texts.push_back(std::move(text));
      continue;
    }
    if (rest.size() < 2) return Fault{"PNG chunk iTXt: too short"};
    const bool is_compressed = rest[0] != '\0';
    rest.remove_prefix(2);
    for (const char* part : {"language", "translated keyword"}) {
      const size_t end = rest.find('\0');
      if (end == std::string_view::npos) return Fault{std::string("PNG chunk iTXt: ") + part + " has no end"};
      rest.remove_prefix(end + 1);
    }
    if (is_compressed) continue;
    if (!is_valid_utf8(rest)) return Fault{"PNG chunk iTXt: text is not UTF-8"};
    text.text = rest;
    texts.push_back(std::move(text));
  }
  return texts;
}

Result<RgbaPicture> decode_png_rgba(std::span<const std::byte> file) {
  const auto chunks = parse_png(file);
  if (!chunks.ok()) return chunks.fault();
  const auto header = chunks.value().front().data;
  const std::string fault = size_fault(from_big_endian(header), from_big_endian(header.subspan(4)));
  if (!fault.empty()) return Fault{"PNG of " + fault};
  if (file.size() > kMaxLength) return Fault{"PNG of more than 2 GiB"};
  int width = 0, height = 0, channels = 0;
  const std::unique_ptr<uint8_t, decltype(&stbi_image_free)> pixels(
      stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(file.data()), static_cast<int>(file.size()),
                            &width, &height, &channels, 4),
      &stbi_image_free);
  if (pixels == nullptr) return Fault{std::string("PNG pixels cannot be unpacked: ") + stbi_failure_reason()};
  RgbaPicture picture{.width = width, .height = height};
  picture.rgba.assign(pixels.get(), pixels.get() + int64_t{4} * width * height);
  return picture;
}

Result<Picture> decode_png(std::span<const std::byte> file) {
  const auto decoded = decode_png_rgba(file);
  if (!decoded.ok()) return decoded.fault();
  return over(decoded.value(), 255);
}

}  // namespace volley::image
