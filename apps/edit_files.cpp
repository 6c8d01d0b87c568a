#include "apps/edit_files.h"

#include <algorithm>
#include <filesystem>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/io/mapped_file.h"
#include "image/picture_file.h"

namespace volley::apps {
namespace {

struct ReadPicture {
  image::SourceFile file;
  image::RgbaPicture picture;
};

ReadPicture read_picture(const std::string& path) {
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  return {
      .file = {.name = std::filesystem::path(path).filename().string(), .sha256 = sha256_hex(file.bytes())},
      .picture = image::decode_upright_picture(file.bytes()).value_or_throw(path)};
}

std::string size_text(int64_t width, int64_t height) {
  return std::to_string(width) + "x" + std::to_string(height);
}

}  // namespace

void read_edit_files(const EditPaths& paths, const image::ImageCard& card,
                     const std::function<void(const std::string&)>& note, image::EditRequest& edit) {
  const ReadPicture init = read_picture(paths.init);
  edit.init = init.file;
  std::optional<ReadPicture> mask;
  if (!paths.mask.empty()) {
    mask = read_picture(paths.mask);
    edit.mask = mask->file;
  }
  const int64_t side = card.image_size, width = init.picture.width, height = init.picture.height;
  if (width != side || height != side) {
    const std::string square = size_text(side, side);
    note(paths.init + ": " + size_text(width, height) + " pixels, " +
         (width == height ? "scaled to " + square
                          : "scaled and cropped to the middle " + square + " of the model"));
  }
  if (mask && (mask->picture.width != width || mask->picture.height != height)) {
    note(paths.mask + ": " + size_text(mask->picture.width, mask->picture.height) +
         " pixels, stretched to the picture's " + size_text(width, height));
  }
  edit.source = std::make_shared<const image::EditSource>(
      fit_edit(init.picture, mask ? &mask->picture : nullptr, side));
}

}  // namespace volley::apps
