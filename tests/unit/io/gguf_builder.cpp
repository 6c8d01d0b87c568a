#include "tests/unit/io/gguf_builder.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/tensor/dtype.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace gguf {

std::string u16(uint16_t value) {
  return raw<uint32_t>(2) + raw(value);
}
std::string u32(uint32_t value) {
  return raw<uint32_t>(4) + raw(value);
}
std::string u64(uint64_t value) {
  return raw<uint32_t>(10) + raw(value);
}
std::string i32(int32_t value) {
  return raw<uint32_t>(5) + raw(value);
}
std::string f32(float value) {
  return raw<uint32_t>(6) + raw(value);
}
std::string boolean(uint8_t value) {
  return raw<uint32_t>(7) + raw(value);
}
std::string bare_text(std::string_view value, std::optional<uint64_t> length) {
  return raw<uint64_t>(length.value_or(value.size())) + std::string(value);
}
std::string text(std::string_view value) {
  return raw<uint32_t>(8) + bare_text(value);
}
std::string array(uint32_t type, const std::vector<std::string>& items, std::optional<uint64_t> count) {
  std::string bytes = raw<uint32_t>(9) + raw(type) + raw<uint64_t>(count.value_or(items.size()));
  for (const std::string& item : items) bytes += item;
  return bytes;
}
std::string texts(const std::vector<std::string>& values) {
  std::vector<std::string> items;
  for (const std::string& value : values) items.push_back(bare_text(value));
  return array(8, items);
}

}  // namespace gguf

namespace {

void pad(std::string& bytes, uint64_t alignment) {
  while (bytes.size() % alignment != 0) bytes += '\0';
}

}  // namespace

std::string GgufImage::bytes() const {
  std::string file = "GGUF" + raw(version) + raw<uint64_t>(tensor_count.value_or(tensors.size())) +
                     raw<uint64_t>(entry_count.value_or(metadata.size()));
  for (const auto& [key, value] : metadata) file += gguf::bare_text(key) + value;
  std::string data;
  for (const GgufTensor& tensor : tensors) {
    pad(data, alignment);
    file += gguf::bare_text(tensor.name) +
            raw<uint32_t>(tensor.dims.value_or(static_cast<uint32_t>(tensor.shape.size())));
    for (auto extent = tensor.shape.rbegin(); extent != tensor.shape.rend(); ++extent) file += raw(*extent);
    file += raw(tensor.type) + raw<uint64_t>(tensor.offset.value_or(data.size()));
    data += tensor.bytes;
  }
  pad(file, alignment);
  return file + data;
}

std::string q8_0_blocks(const std::vector<float>& values) {
  std::string bytes;
  for (size_t begin = 0; begin < values.size(); begin += 32) {
    const auto block = std::span(values).subspan(begin, 32);
    float greatest = 0.0f;
    for (const float value : block) greatest = std::max(greatest, std::fabs(value));
    const float scale = greatest / 127.0f;
    bytes += raw(f32_to_f16(scale));
    for (const float value : block) {
      bytes += static_cast<char>(static_cast<int8_t>(scale == 0.0f ? 0 : std::lround(value / scale)));
    }
  }
  return bytes;
}

std::string q4_1_blocks(const std::vector<float>& values) {
  std::string bytes;
  for (size_t begin = 0; begin < values.size(); begin += 32) {
    const auto block = std::span(values).subspan(begin, 32);
    const auto [least, greatest] = std::ranges::minmax(block);
    const float scale = (greatest - least) / 15.0f;
    bytes += raw(f32_to_f16(scale)) + raw(f32_to_f16(least));
    const auto quant = [&, least = least](size_t i) {
      return scale == 0.0f ? 0L : std::clamp(std::lround((block[i] - least) / scale), 0L, 15L);
    };
    for (size_t i = 0; i < 16; ++i) bytes += static_cast<char>(quant(i) | quant(i + 16) << 4);
  }
  return bytes;
}

}  // namespace volley::test
