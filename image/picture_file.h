#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "image/animation.h"
#include "image/picture.h"
#include "image/run_record.h"

namespace volley::image {

enum class PictureFormat : uint8_t { kPng, kJpeg, kWebp };

// "png", "jpg" (or "jpeg"), "webp", in small letters. Empty if there is no such format.
std::optional<PictureFormat> format_of_name(std::string_view name);
// The one that a path's ending names, letter case aside.
std::optional<PictureFormat> format_of_path(std::string_view path);
std::string_view format_ending(PictureFormat format);  // ".png", ".jpg", ".webp"

struct PictureEncoding {
  PictureFormat format = PictureFormat::kPng;
  // 1 to 100. Without it JPEG takes 90 and WebP is lossless; PNG has none.
  std::optional<int64_t> quality;
};

// A picture file with its run record: PNG holds it as text, beside the line of parameters that other programs
// read; JPEG and WebP as XMP. Throws Error when the record does not fit or memory is short.
std::string encode_picture(const Picture& picture, const PictureEncoding& encoding, const RunRecord& record);
// The same without a record.
std::string encode_picture(const Picture& picture, const PictureEncoding& encoding);
// How that picture filled in, with its record: an animation (GIF holds the record as XMP too), and a step map
// as PNG, which says that it is one.
std::string encode_animation(const Animation& animation, AnimationFormat format, const RunRecord& record);
std::string encode_step_map(const Picture& map, const RunRecord& record);

// The pixels of a PNG, JPEG or WebP file, which its first bytes tell. Faults: another file, and those of the
// format's decoder.
Result<RgbaPicture> decode_picture(std::span<const std::byte> file);
// The same as its maker meant it to be looked at: turned by the orientation that the file's EXIF data states,
// as cameras that are held upright do.
Result<RgbaPicture> decode_upright_picture(std::span<const std::byte> file);

// What is seen in a file: the pictures of its record, or how they filled in.
enum class Shows : uint8_t { kPicture, kAnimation, kStepMap };
std::string_view shows_name(Shows shows);  // "picture", "animation", "step map"

// What a file of pictures says of its making.
struct FileRecord {
  Shows shows = Shows::kPicture;
  PictureFormat format = PictureFormat::kPng;  // of an animation, what is below counts
  bool is_lossless = true;
  struct AnimationInfo {
    AnimationFormat format = AnimationFormat::kWebp;
    int64_t width = 0;
    int64_t height = 0;
    int64_t frames = 0;
  };
  AnimationInfo animation;  // if it shows one
  std::string text;         // the run record's JSON
};
// Of a PNG, JPEG, WebP or GIF file. Faults: another file, a broken container, no run record or two.
Result<FileRecord> read_file_record(std::span<const std::byte> file);

// The text that stable-diffusion-webui and programs like it write and read: the prompt, then one line of
// "Steps: ..., Sampler: ..., ...".
std::string parameters_text(const RunRecord& record);

}  // namespace volley::image
