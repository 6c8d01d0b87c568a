#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/io/mapped_file.h"
#include "core/io/weight_source.h"

namespace volley {

// What a safetensors file holds. Views point into the bytes that were parsed.
struct SafetensorsIndex {
  std::vector<NamedTensor> tensors;  // sorted by name
  std::map<std::string, std::string> metadata;
};

// Checks and indexes a whole safetensors file held in memory.
// Ref: https://github.com/huggingface/safetensors (Format; tensor.rs, Metadata::validate)
Result<SafetensorsIndex> parse_safetensors(std::span<const std::byte> file);

// One safetensors file, mapped.
class SafetensorsFile : public WeightSource {
 public:
  static Result<std::unique_ptr<SafetensorsFile>> open(const std::string& path);
  // `path` is for messages; the bytes are the mapping's.
  static Result<std::unique_ptr<SafetensorsFile>> from_mapping(MappedFile file, std::string path);

  const std::vector<NamedTensor>& tensors() const override { return index_.tensors; }
  const std::string& path() const override { return path_; }
  std::shared_ptr<const void> owner() const override { return file_; }
  const std::map<std::string, std::string>& metadata() const override { return index_.metadata; }

 private:
  SafetensorsFile(MappedFile file, SafetensorsIndex index, std::string path);

  std::shared_ptr<const MappedFile> file_;
  SafetensorsIndex index_;
  std::string path_;
};

// Several safetensors files named by a `model.safetensors.index.json` in the same folder. Tensors of a
// shard that the index does not name are left out.
// Ref: https://huggingface.co/docs/safetensors (sharded checkpoints of transformers)
class ShardedSafetensors : public WeightSource {
 public:
  static Result<std::unique_ptr<ShardedSafetensors>> open(const std::string& index_path);

  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }

 private:
  explicit ShardedSafetensors(std::string path);

  std::vector<std::unique_ptr<SafetensorsFile>> shards_;
  std::vector<NamedTensor> tensors_;
  std::string path_;
};

// The files that an index names, each once, in order of name.
Result<std::vector<std::string>> shard_files(const std::string& index_path);

// Writes a file that parse_safetensors and the official reader accept: beside `path`, renamed when whole.
// Tensors of whole cache lines (64 bytes) come first, aligned to them; then by falling element size, so that
// each lies aligned to its elements. Throws Error naming the path for names that repeat, are not UTF-8 or are
// "__metadata__", for block types, and for what the system refuses.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace volley
