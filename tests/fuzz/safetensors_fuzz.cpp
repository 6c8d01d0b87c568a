// Accepted files have names in order, and views that cover the data part once.

#include <cstring>

#include "core/io/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const Result<SafetensorsIndex> index = parse_safetensors(file);
  if (!index) {
    fuzz::require(index.fault().message.find('\n') == std::string::npos);
    return 0;
  }
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, data, sizeof(header_bytes));
  uint64_t covered = 0;
  const std::string* before = nullptr;
  for (const NamedTensor& tensor : index.value().tensors) {
    fuzz::require(before == nullptr || *before < tensor.name);
    fuzz::touch(tensor.view);
    covered += static_cast<uint64_t>(tensor.view.bytes());
    before = &tensor.name;
  }
  fuzz::require(covered == size - 8 - header_bytes);
  return 0;
}
