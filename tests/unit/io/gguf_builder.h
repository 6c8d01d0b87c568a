#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace volley::test {

// Values of a GGUF file's metadata: type and bytes.
namespace gguf {
std::string u16(uint16_t value);
std::string u32(uint32_t value);
std::string u64(uint64_t value);
std::string i32(int32_t value);
std::string f32(float value);
std::string boolean(uint8_t value);
std::string text(std::string_view value);
// `items` are bytes without types; `count` lies about how many.
std::string array(uint32_t type, const std::vector<std::string>& items,
                  std::optional<uint64_t> count = std::nullopt);
std::string texts(const std::vector<std::string>& values);
// A string without its type: length, which may lie, and bytes.
std::string bare_text(std::string_view value, std::optional<uint64_t> length = std::nullopt);
}  // namespace gguf

// A tensor; `shape` is in torch's order, the offset may lie.
struct GgufTensor {
  std::string name;
  uint32_t type = 0;  // f32
  std::vector<uint64_t> shape;
  std::string bytes;
  std::optional<uint64_t> offset = {};
  std::optional<uint32_t> dims = {};
};

// A whole file; the optional fields lie about it.
struct GgufImage {
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<GgufTensor> tensors;
  uint32_t version = 3;
  uint64_t alignment = 32;  // of the data; "general.alignment" is for the caller to write
  std::optional<uint64_t> entry_count = {};
  std::optional<uint64_t> tensor_count = {};

  std::string bytes() const;
};

// Numbers of tensor types in the file.
inline constexpr uint32_t kGgufF32 = 0, kGgufF16 = 1, kGgufQ4_0 = 2, kGgufQ4_1 = 3, kGgufQ8_0 = 8;

// Rows of floats as blocks of q8_0: d = the greatest magnitude / 127.
std::string q8_0_blocks(const std::vector<float>& values);
// As blocks of q4_1: m = the least value, d = the span / 15.
std::string q4_1_blocks(const std::vector<float>& values);

}  // namespace volley::test
