// Files of pictures, whatever their format, and the run record in them.
#include "image/picture_file.h"

#include <algorithm>

#include "core/io/byte_reader.h"
#include "image/gif.h"
#include "image/jpeg.h"
#include "image/picture_limits.h"
#include "image/png.h"
#include "image/webp.h"
#include "image/xmp.h"

namespace volley::image {
namespace {

constexpr int64_t kJpegQuality = 90;
constexpr std::string_view kShowsKeyword = "volley.shows";  // of a PNG text beside the record

std::optional<PictureFormat> format_of_bytes(std::span<const std::byte> file) {
  const std::string_view text = as_text(file);
  if (text.starts_with("\x89PNG")) return PictureFormat::kPng;
  if (text.starts_with("\xFF\xD8")) return PictureFormat::kJpeg;
  if (text.starts_with("RIFF") && text.substr(0, 12).ends_with("WEBP")) return PictureFormat::kWebp;
  return std::nullopt;
}

// Of a file whose pixels are read; what is broken otherwise states nothing.
Orientation orientation_of(PictureFormat format, std::span<const std::byte> file) {
  if (format == PictureFormat::kJpeg) {
    const auto segments = parse_jpeg(file);
    return segments.ok() ? read_orientation(find_jpeg_exif(segments.value())) : Orientation::kTopLeft;
  }
  if (format == PictureFormat::kWebp) {
    const auto info = read_webp_info(file);
    return info.ok() && info.value().exif ? read_orientation(as_bytes(*info.value().exif))
                                          : Orientation::kTopLeft;
  }
  const auto chunks = parse_png(file);
  if (!chunks.ok()) return Orientation::kTopLeft;
  const auto exif = std::ranges::find(chunks.value(), std::string_view("eXIf"), &PngChunk::type);
  return exif == chunks.value().end() ? Orientation::kTopLeft : read_orientation(exif->data);
}

const Fault kNoPicture{"is no PNG, JPEG or WebP file"};

bool is_gif(std::span<const std::byte> file) {
  return as_text(file).starts_with("GIF8");
}

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
  FileRecord record{.text = std::ranges::find_if(texts.value(), is_record)->text};
  for (const PngText& text : texts.value()) {
    if (text.keyword == kShowsKeyword && text.text == shows_name(Shows::kStepMap))
      record.shows = Shows::kStepMap;
  }
  for (const PngChunk& chunk : chunks.value()) {
    if (chunk.type != "acTL") continue;
    if (chunk.data.size() != 8 || from_big_endian(chunk.data) == 0)
      return Fault{"PNG chunk acTL: expected 8 bytes and at least one frame"};
    const auto header = chunks.value().front().data;
    record.shows = Shows::kAnimation;
    record.animation = {.format = AnimationFormat::kPng,
                        .width = from_big_endian(header),
                        .height = from_big_endian(header.subspan(4)),
                        .frames = from_big_endian(chunk.data)};
    const std::string fault = size_fault(record.animation.width, record.animation.height);
    if (!fault.empty()) return Fault{"PNG of " + fault};
  }
  return record;
}

Result<FileRecord> from_xmp(std::optional<std::string_view> packet, FileRecord record) {
  if (!packet) return Fault{"holds no run record (there is no XMP)"};
  auto text = read_xmp_record(*packet);
  if (!text.ok()) return text.fault();
  record.text = std::move(text.value());
  return record;
}

// The texts of a PNG file with a record.
std::vector<PngText> png_texts(const RunRecord& record) {
  const std::string parameters = parameters_text(record);
  const auto kind = is_ascii(parameters) ? PngText::Kind::kPlain : PngText::Kind::kInternational;
  return {{.keyword = "parameters", .text = parameters, .kind = kind},
          {.keyword = std::string(kRunSchema), .text = to_json(record).dump()}};
}

}  // namespace

std::string_view shows_name(Shows shows) {
  switch (shows) {
    case Shows::kPicture:
      return "picture";
    case Shows::kAnimation:
      return "animation";
    case Shows::kStepMap:
      return "step map";
  }
  return "";
}

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
  if (encoding.format == PictureFormat::kPng) return encode_png(picture, png_texts(record));
  const std::string xmp = make_xmp(to_json(record).dump());
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

std::string encode_animation(const Animation& animation, AnimationFormat format, const RunRecord& record) {
  AnimationTexts texts;
  if (format == AnimationFormat::kPng) {
    texts.png = png_texts(record);
  } else {
    texts.xmp = make_xmp(to_json(record).dump());
  }
  return encode_animation(animation, format, texts);
}

std::string encode_step_map(const Picture& map, const RunRecord& record) {
  std::vector<PngText> texts = png_texts(record);
  texts.push_back({.keyword = std::string(kShowsKeyword),
                   .text = std::string(shows_name(Shows::kStepMap)),
                   .kind = PngText::Kind::kPlain});
  return encode_png(map, texts);
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

Result<RgbaPicture> decode_upright_picture(std::span<const std::byte> file) {
  auto picture = decode_picture(file);
  if (!picture.ok()) return picture.fault();
  return upright(std::move(picture.value()), orientation_of(*format_of_bytes(file), file));
}

Result<FileRecord> read_file_record(std::span<const std::byte> file) {
  if (is_gif(file)) {
    const auto gif = read_gif_info(file);
    if (!gif.ok()) return gif.fault();
    const auto& [width, height, frames, xmp] = gif.value();
    return from_xmp(xmp, {.shows = Shows::kAnimation,
                          .is_lossless = false,
                          .animation = {AnimationFormat::kGif, width, height, frames}});
  }
  const auto format = format_of_bytes(file);
  if (!format) return Fault{"is no PNG, JPEG, WebP or GIF file"};
  if (*format == PictureFormat::kPng) return read_png_record(file);
  if (*format == PictureFormat::kJpeg) {
    const auto segments = parse_jpeg(file);
    if (!segments.ok()) return segments.fault();
    return from_xmp(find_jpeg_xmp(segments.value()), {.format = *format, .is_lossless = false});
  }
  const auto info = read_webp_info(file);
  if (!info.ok()) return info.fault();
  FileRecord record{.format = *format, .is_lossless = info.value().is_lossless};
  if (info.value().is_animation) {
    record.shows = Shows::kAnimation;
    record.animation = {AnimationFormat::kWebp, info.value().width, info.value().height, info.value().frames};
  }
  return from_xmp(info.value().xmp, std::move(record));
}

}  // namespace volley::image
