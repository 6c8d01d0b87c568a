// Picture files: whatever they hold is a fault or a picture within the limits, and a record that is found
// survives being written again.

#include <string>

#include "core/io/byte_reader.h"
#include "core/io/crc32.h"
#include "image/edit.h"
#include "image/picture_file.h"
#include "image/picture_limits.h"
#include "image/png.h"
#include "image/xmp.h"
#include "tests/fuzz/fuzz_target.h"

namespace {

void require_one_line(const std::string& message) {
  volley::fuzz::require(!message.empty() && message.find('\n') == std::string::npos);
}

void read_pixels(std::span<const std::byte> file) {
  using namespace volley::image;
  const auto decoded = decode_upright_picture(file);
  if (!decoded.ok()) return require_one_line(decoded.fault().message);
  const RgbaPicture& picture = decoded.value();
  volley::fuzz::require(picture.width >= 1 && picture.width <= kMaxSide && picture.height >= 1 &&
                        picture.height <= kMaxSide);
  volley::fuzz::require(static_cast<int64_t>(picture.rgba.size()) == 4 * picture.width * picture.height);
  // As --init and --mask take it.
  if (picture.width * picture.height > 1 << 20) return;
  const EditSource source = fit_edit(picture, &picture, 16);
  volley::fuzz::require(source.init.rgb.size() == 3 * 16 * 16 && source.mask.size() == 16 * 16);
}

void read_record(std::span<const std::byte> file) {
  using namespace volley;
  const auto found = image::read_file_record(file);
  if (!found.ok()) return require_one_line(found.fault().message);
  const auto text = image::read_xmp_record(image::make_xmp(found.value().text));
  fuzz::require(text.ok() && text.value() == found.value().text);
  const auto json = parse_json(found.value().text);
  if (!json.ok()) return require_one_line(json.fault().message);
  try {
    const image::RunRecord record = image::read_run_record(json.value(), "fuzz");
    fuzz::require(!image::parameters_text(record).empty());
    const nlohmann::json again = image::to_json(record);
    fuzz::require(image::to_json(image::read_run_record(again, "fuzz")) == again);
  } catch (const Error& error) {
    require_one_line(error.what());
  }
}

// A PNG file's chunks with the sums that belong to them, which chance does not find.
std::string with_sums(std::span<const std::byte> file) {
  using namespace volley;
  std::string fixed(as_text(file));
  for (size_t at = 8; at + 12 <= fixed.size();) {
    uint64_t length = 0;
    for (size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<unsigned char>(fixed[at + i]);
    if (length > fixed.size() - at - 12) break;
    const auto body = std::string_view(fixed).substr(at + 4, 4 + length);
    fixed.replace(at + 8 + length, 4, image::big_endian(crc32(as_bytes(body))));
    at += 12 + length;
  }
  return fixed;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  read_record(file);
  read_pixels(file);
  if (!volley::as_text(file).starts_with("\x89PNG")) return 0;
  const std::string fixed = with_sums(file);
  read_record(volley::as_bytes(fixed));
  read_pixels(volley::as_bytes(fixed));
  return 0;
}
