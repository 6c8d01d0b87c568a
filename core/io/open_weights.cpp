#include "core/io/open_weights.h"

#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/io/byte_reader.h"
#include "core/io/gguf.h"
#include "core/io/mapped_file.h"
#include "core/io/safetensors.h"
#include "core/io/torch_zip.h"

namespace volley {
namespace {

namespace fs = std::filesystem;

enum class Container { kUnknown, kSafetensors, kTorchZip, kGguf };

Container container_of(std::string_view bytes, std::string_view path) {
  if (bytes.starts_with("PK\x03\x04") || bytes.starts_with("PK\x05\x06")) return Container::kTorchZip;
  if (bytes.starts_with("GGUF")) return Container::kGguf;
  if (bytes.size() > 8 && bytes[8] == '{') return Container::kSafetensors;
  const std::string extension = fs::path(path).extension().string();
  if (extension == ".safetensors") return Container::kSafetensors;
  if (extension == ".pt" || extension == ".pth" || extension == ".bin" || extension == ".ckpt")
    return Container::kTorchZip;
  if (extension == ".gguf") return Container::kGguf;
  return Container::kUnknown;
}

// Files that people meet in place of weights, told by their first bytes; null for others.
const char* known_stranger(std::string_view bytes) {
  if (bytes.starts_with("version https://git-lfs")) return "is a Git LFS pointer, not the weights";
  // Before PyTorch 1.6: a bare pickle of the magic number 0x1950a86a20f9469cfc6c.
  if (bytes.starts_with("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46")) {
    return "is a PyTorch file of the form before version 1.6, save it again with a newer one";
  }
  return nullptr;
}

template <typename Source>
std::unique_ptr<WeightSource> finish(Result<std::unique_ptr<Source>> source, const std::string& path) {
  return std::move(source).value_or_throw(path);
}

std::unique_ptr<WeightSource> open_file(const std::string& path, CrcCheck crc) {
  if (path.ends_with(".index.json")) return finish(ShardedSafetensors::open(path), path);
  MappedFile file = MappedFile::open(path).value_or_throw(path);
  const std::string_view bytes = as_text(file.bytes());
  if (bytes.empty()) throw Error(path + ": file is empty");
  if (const char* stranger = known_stranger(bytes)) throw Error(path + ": " + stranger);
  switch (container_of(bytes, path)) {
    case Container::kSafetensors:
      return finish(SafetensorsFile::from_mapping(std::move(file), path), path);
    case Container::kTorchZip:
      return finish(TorchZipFile::from_mapping(std::move(file), path, crc), path);
    case Container::kGguf:
      return finish(GgufFile::from_mapping(std::move(file), path), path);
    case Container::kUnknown:
      break;
  }
  throw Error(path + ": neither a safetensors file nor a PyTorch zip file nor a GGUF file");
}

// The file of a folder that stands for its checkpoint.
std::string file_in_folder(const std::string& path) {
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    const fs::path inside = fs::path(path) / name;
    std::error_code code;
    if (fs::exists(fs::symlink_status(inside, code))) return inside.string();
  }
  throw Error(path + ": folder holds neither model.safetensors nor model.safetensors.index.json",
              ErrorKind::kModelMissing);
}

}  // namespace

namespace {

std::string checkpoint_file(const std::string& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  if (status.type() == fs::file_type::not_found) {
    throw Error(path + ": no such file or folder", ErrorKind::kModelMissing);
  }
  return fs::is_directory(status) ? file_in_folder(path) : path;
}

}  // namespace

std::unique_ptr<WeightSource> open_weights(const std::string& path, CrcCheck crc) {
  return open_file(checkpoint_file(path), crc);
}

std::vector<std::string> weight_files(const std::string& path) {
  const std::string file = checkpoint_file(path);
  if (!file.ends_with(".index.json")) return gguf_part_files(file);
  std::vector<std::string> files{file};
  std::vector<std::string> shards = shard_files(file).value_or_throw(file);
  files.insert(files.end(), shards.begin(), shards.end());
  return files;
}

}  // namespace volley
