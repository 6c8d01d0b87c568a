#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/io/gguf_metadata.h"
#include "core/io/mapped_file.h"
#include "core/io/weight_source.h"

namespace volley {

// What a GGUF file holds. Views and values point into the bytes that were parsed.
struct GgufIndex {
  std::vector<NamedTensor> tensors;  // sorted by name; extents in torch's order, the slowest first
  GgufMetadata::Values metadata;
};

// Checks and indexes a whole GGUF file held in memory: versions 2 and 3, little-endian. Tensors are f32, f16,
// bf16, f64, i8 to i64 and the block types of core/io/block_formats.h. They must lie within the file,
// aligned, and not overlap; names and keys are UTF-8 and occur once. Ref: ggml, docs/gguf.md
Result<GgufIndex> parse_gguf(std::span<const std::byte> file);

// One GGUF model, mapped: a file, or the parts of a split one, which lie in one folder and are opened by the
// first, NAME-00001-of-0000N.gguf.
class GgufFile : public WeightSource {
 public:
  static Result<std::unique_ptr<GgufFile>> open(const std::string& path);
  // `path` is for messages and for finding the other parts; the bytes are the mapping's.
  static Result<std::unique_ptr<GgufFile>> from_mapping(MappedFile file, std::string path);

  // A whole model held in memory by the caller, for as long as the result lives.
  static Result<std::unique_ptr<GgufFile>> from_bytes(std::span<const std::byte> bytes, std::string path);

  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }
  std::shared_ptr<const void> owner() const override { return files_; }
  void release(const HostView& view) const override;
  // Strings, numbers and booleans as text; no arrays, nothing that is not UTF-8.
  const std::map<std::string, std::string>& metadata() const override { return summary_; }
  // All of it, typed; of the first part if there are several.
  const GgufMetadata& values() const { return values_; }

 private:
  using Files = std::vector<MappedFile>;

  // `files` holds the mapping of `bytes`, if they are mapped, and takes those of other parts.
  static Result<std::unique_ptr<GgufFile>> read(std::span<const std::byte> bytes, std::string path,
                                                Files files);
  GgufFile(std::shared_ptr<const Files> files, std::vector<NamedTensor> tensors, GgufMetadata values);

  std::shared_ptr<const Files> files_;
  std::vector<NamedTensor> tensors_;
  GgufMetadata values_;
  std::map<std::string, std::string> summary_;
  std::string path_;
};

// The files that a split model consists of, told from the name of its first, which comes first; `path` alone
// for any other name.
std::vector<std::string> gguf_part_files(const std::string& path);

}  // namespace volley
