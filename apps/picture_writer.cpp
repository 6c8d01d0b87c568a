#include "apps/picture_writer.h"

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace volley::apps {
namespace {

[[noreturn]] void fail_taken(const std::string& path) {
  throw Error(path + ": was made by somebody else meanwhile; --overwrite would replace it");
}

}  // namespace

void write_file(const std::string& path, std::string_view bytes, Existing existing) {
  AtomicFile file(path);
  file.write(bytes);
  if (existing == Existing::kReplace) return file.commit();
  if (!file.commit_new(path)) fail_taken(path);
}

std::vector<std::string> encode(const PictureEncoding& encoding, const image::Picture& picture,
                                const image::RunRecord& record) {
  std::vector<std::string> encoded;
  for (const auto& format : encoding.formats) {
    encoded.emplace_back();
    if (format)
      encoded.back() =
          image::encode_picture(picture, {.format = *format, .quality = encoding.quality}, record);
  }
  return encoded;
}

PictureEncoding PictureWriter::encoding_of(size_t index) const {
  PictureEncoding encoding{.formats = {}, .quality = quality_};
  for (size_t f = 0; f < names_.formats.size(); ++f) {
    encoding.formats.emplace_back();
    if (!kept_.contains(path_in_format(names_, names_.paths[index], f)))
      encoding.formats.back() = names_.formats[f];
  }
  return encoding;
}

void PictureWriter::write(size_t index, const std::vector<std::string>& encoded) {
  for (size_t f = 0; f < names_.formats.size(); ++f) {
    const std::string path = path_in_format(names_, names_.paths[index], f);
    if (kept_.contains(path)) continue;
    if (path == "-") return console_.print(encoded[f]);
    const Existing existing = replaced_.contains(path) ? Existing::kReplace : existing_;
    if (existing == Existing::kReplace || !names_.is_numbered || f > 0) {
      write_file(path, encoded[f], existing);
      continue;
    }
    AtomicFile file(path);
    file.write(encoded[f]);
    while (!file.commit_new(path_in_format(names_, names_.paths[index], f)))
      names_.paths[index] = numbered_path(names_, names_.next++);
  }
}

std::vector<std::string> PictureWriter::paths(size_t index) const {
  std::vector<std::string> paths;
  for (size_t f = 0; f < names_.formats.size(); ++f)
    paths.push_back(path_in_format(names_, names_.paths[index], f));
  return paths;
}

}  // namespace volley::apps
