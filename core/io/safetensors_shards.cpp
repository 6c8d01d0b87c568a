// Checkpoints of several safetensors files under one index.

#include <filesystem>
#include <set>
#include <utility>

#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

using nlohmann::json;

constexpr size_t kMaxShards = 4096;

// A name that can only mean a file in the index's own folder.
bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.find("..") != name.npos || name == ".") return false;
  for (const char c : name) {
    if (c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20) return false;
  }
  return true;
}

Result<json> read_weight_map(const std::string& path) {
  const Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.fault();
  Result<json> index = parse_json(file.value().bytes());
  if (!index) return index.fault();
  if (!index.value().is_object()) return Fault{"shard index is no JSON object"};
  const auto found = index.value().find("weight_map");
  if (found == index.value().end() || !found->is_object()) return Fault{"weight_map is missing or no object"};
  if (found->empty()) return Fault{"weight_map names no tensors"};
  return std::move(*found);
}

}  // namespace

Result<std::vector<std::string>> shard_files(const std::string& index_path) {
  const Result<json> weight_map = read_weight_map(index_path);
  if (!weight_map) return weight_map.fault();
  const std::filesystem::path folder = std::filesystem::path(index_path).parent_path();
  std::set<std::string> files;
  for (const auto& [name, value] : weight_map.value().items()) {
    if (!value.is_string() || !is_plain_file_name(value.get_ref<const std::string&>())) {
      return Fault{"weight_map: shard of " + quote(name) + " is not a plain file name"};
    }
    files.insert((folder / value.get_ref<const std::string&>()).string());
  }
  return std::vector<std::string>(files.begin(), files.end());
}

ShardedSafetensors::ShardedSafetensors(std::string path) : path_(std::move(path)) {}

Result<std::unique_ptr<ShardedSafetensors>> ShardedSafetensors::open(const std::string& index_path) {
  const Result<json> weight_map = read_weight_map(index_path);
  if (!weight_map) return weight_map.fault();
  const std::filesystem::path folder = std::filesystem::path(index_path).parent_path();
  std::unique_ptr<ShardedSafetensors> source(new ShardedSafetensors(index_path));
  std::map<std::string, const SafetensorsFile*> opened;
  for (const auto& [name, value] : weight_map.value().items()) {  // in order of name
    if (!value.is_string()) return Fault{"weight_map: value of " + quote(name) + " is no string"};
    const auto& shard_name = value.get_ref<const std::string&>();
    if (!is_plain_file_name(shard_name)) {
      return Fault{"weight_map: shard " + quote(shard_name) + " is not a plain file name"};
    }
    const SafetensorsFile*& shard = opened[shard_name];
    if (shard == nullptr) {
      if (opened.size() > kMaxShards) return Fault{"weight_map names more than 4096 shards"};
      auto file = SafetensorsFile::open((folder / shard_name).string());
      if (!file) return Fault{"shard " + quote(shard_name) + ": " + file.fault().message};
      source->shards_.push_back(std::move(file).value());
      shard = source->shards_.back().get();
    }
    const HostView* view = shard->find(name);
    if (view == nullptr) {
      return Fault{"shard " + quote(shard_name) + " lacks tensor " + quote(name) +
                   " that weight_map puts there"};
    }
    source->tensors_.push_back({name, *view});
  }
  return source;
}

}  // namespace volley
