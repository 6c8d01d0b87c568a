#pragma once

// What the lists of broken files share.

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/unit/io/bad_files.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {

class Collector {
 public:
  // A single file of these bytes.
  void file(std::string name, std::string file_name, std::string bytes, std::string expected) {
    add(std::move(name), std::move(expected), [file_name, bytes](const std::filesystem::path& folder) {
      return write_text((folder / file_name).string(), bytes);
    });
  }
  void safetensors(std::string name, std::string bytes, std::string expected) {
    file("safetensors_" + name, "bad.safetensors", std::move(bytes), std::move(expected));
  }
  void torch(std::string name, std::string bytes, std::string expected) {
    file("torch_" + name, "bad.pt", std::move(bytes), std::move(expected));
  }
  void gguf(std::string name, std::string bytes, std::string expected) {
    file("gguf_" + name, "bad.gguf", std::move(bytes), std::move(expected));
  }
  void config(std::string name, std::string bytes, std::string expected) {
    file("config_" + name, "config.json", std::move(bytes), std::move(expected));
    all.back().read = BadFile::Read::kConfig;
  }
  void add(std::string name, std::string expected,
           std::function<std::string(const std::filesystem::path&)> make) {
    all.push_back({std::move(name), BadFile::Read::kWeights, std::move(make), std::move(expected)});
  }

  std::vector<BadFile> all;
};

inline std::string repeat(std::string_view text, size_t count) {
  std::string all;
  all.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

// Two tensors: a, f32 [2, 2], and b, f16 [3].
inline const std::string kGoodHeader =
    R"({"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]}})";

void bad_safetensors(Collector& c);
void bad_gguf(Collector& c);
void bad_zips(Collector& c);
void bad_pickles(Collector& c);
void bad_torch_tensors(Collector& c);

}  // namespace volley::test
