// Files of pictures, whatever their format, and the run record in them.
#include "image/picture_file.h"

#include <algorithm>

#include "core/io/byte_reader.h"
#include "image/jpeg.h"
#include "image/png.h"
#include "image/webp.h"
#include "image/xmp.h"

namespace volley::image {
namespace {

constexpr int64_t kJpegQuality = 90;

std::optional<PictureFormat> format_of_bytes(std::span<const std::byte> file) {
  const std::string_view text = as_text(file);
  if (text.starts_with("\x89PNG")) return PictureFormat::kPng;
  if (text.starts_with("\xFF\xD8")) return PictureFormat::kJpeg;
  if (text.starts_with("RIFF") && text.substr(0, 12).ends_with("WEBP")) return PictureFormat::kWebp;
  return std::nullopt;
}

const Fault kNoPicture{"is no PNG, JPEG or WebP file"};

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

Result<FileRecord> read_png_record(std::span<const std::byte> file) {
  const auto chunks = parse_png(file);
  if (!chunks.ok()) return chunks.fault();
  const auto texts = read_png_texts(chunks.value());
  if (!texts.ok()) return texts.fault();
  const auto is_record = [](const PngText& text) { return text.keyword == kRunSchema; };
  const auto count = std::ranges::count_if(texts.value(), is_record);
  if (count > 1) return Fault{"holds two run records, expected one"};
  if (count == 0) return Fault{"holds no run record (PNG text " + std::string(kRunSchema) + ")"};
  return FileRecord{.text = std::ranges::find_if(texts.value(), is_record)->text};
}

Result<FileRecord> from_xmp(std::optional<std::string_view> packet, FileRecord record) {
  if (!packet) return Fault{"holds no run record (there is no XMP)"};
  auto text = read_xmp_record(*packet);
  if (!text.ok()) return text.fault();
  record.text = std::move(text.value());
  return record;
}

}  // namespace

std::optional<PictureFormat> format_of_name(std::string_view name) {
  if (name == "png") return PictureFormat::kPng;
  if (name == "jpg" || name == "jpeg") return PictureFormat::kJpeg;
  if (name == "webp") return PictureFormat::kWebp;
  return std::nullopt;
}

std::optional<PictureFormat> format_of_path(std::string_view path) {
  const size_t dot = path.find_last_of("./");
  if (dot == std::string_view::npos || path[dot] == '/') return std::nullopt;
  std::string ending(path.substr(dot + 1));
  for (char& c : ending) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return format_of_name(ending);
}

std::string_view format_ending(PictureFormat format) {
  switch (format) {
    case PictureFormat::kPng:
      return ".png";
    case PictureFormat::kJpeg:
      return ".jpg";
    case PictureFormat::kWebp:
      return ".webp";
  }
  return "";
}

std::string encode_picture(const Picture& picture, const PictureEncoding& encoding, const RunRecord& record) {
  const std::string json = to_json(record).dump();
  if (encoding.format == PictureFormat::kPng) {
    const std::string parameters = parameters_text(record);
    const auto kind = is_ascii(parameters) ? PngText::Kind::kPlain : PngText::Kind::kInternational;
    const std::vector<PngText> texts{{.keyword = "parameters", .text = parameters, .kind = kind},
                                     {.keyword = std::string(kRunSchema), .text = json}};
    return encode_png(picture, texts);
  }
  const std::string xmp = make_xmp(json);
  if (encoding.format == PictureFormat::kWebp) return encode_webp(picture, encoding.quality, xmp);
  if (xmp.size() > kMaxJpegXmp) {
    throw Error("JPEG: the run record of " + std::to_string(record.pictures.size()) +
                " pictures takes more than the " + std::to_string(kMaxJpegXmp) +
                " bytes that fit; PNG and WebP hold it");
  }
  return encode_jpeg(picture, encoding.quality.value_or(kJpegQuality), xmp);
}

std::string encode_picture(const Picture& picture, const PictureEncoding& encoding) {
  switch (encoding.format) {
    case PictureFormat::kPng:
      break;
    case PictureFormat::kJpeg:
      return encode_jpeg(picture, encoding.quality.value_or(kJpegQuality), {});
    case PictureFormat::kWebp:
      return encode_webp(picture, encoding.quality, {});
  }
  return encode_png(picture, {});
}

Result<RgbaPicture> decode_picture(std::span<const std::byte> file) {
  const auto format = format_of_bytes(file);
  if (!format) return kNoPicture;
  switch (*format) {
    case PictureFormat::kPng:
      return decode_png_rgba(file);
    case PictureFormat::kJpeg:
      return decode_jpeg(file);
    case PictureFormat::kWebp:
      return decode_webp(file);
  }
  return kNoPicture;
}

Result<FileRecord> read_file_record(std::span<const std::byte> file) {
  const auto format = format_of_bytes(file);
  if (!format) return kNoPicture;
  if (*format == PictureFormat::kPng) return read_png_record(file);
  if (*format == PictureFormat::kJpeg) {
    const auto segments = parse_jpeg(file);
    if (!segments.ok()) return segments.fault();
    return from_xmp(find_jpeg_xmp(segments.value()), {.format = *format, .is_lossless = false});
  }
  const auto info = read_webp_info(file);
  if (!info.ok()) return info.fault();
  return from_xmp(info.value().xmp, {.format = *format, .is_lossless = info.value().is_lossless});
}

}  // namespace volley::image
