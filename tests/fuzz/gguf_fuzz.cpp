// Accepted files have names in order, views that share no byte and lie in the file, and values that every
// getter can be asked for.

#include <string>
#include <vector>

#include "core/io/convert.h"
#include "core/io/gguf.h"
#include "core/io/untrusted_text.h"
#include "tests/fuzz/fuzz_target.h"

namespace volley {
namespace {

void check_value(const GgufValue& value, int depth) {
  fuzz::require(depth <= gguf_limits::kDepth);
  const bool whole = value.integer().has_value(), flag = value.boolean().has_value();
  const auto text = value.text();
  const auto items = value.items();
  fuzz::require(!whole || value.number().has_value());
  fuzz::require((flag ? 1 : 0) + (text ? 1 : 0) + (items ? 1 : 0) + (value.number() ? 1 : 0) == 1);
  if (text) fuzz::touch({reinterpret_cast<const std::byte*>(text->data()), DType::kU8, {std::ssize(*text)}});
  if (!items) return;
  for (const GgufValue& item : *items) check_value(item, depth + 1);
}

}  // namespace
}  // namespace volley

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(data), size);
  const Result<GgufIndex> index = parse_gguf(file);
  if (!index) {
    const std::string& message = index.fault().message;
    fuzz::require(printable(message, message.size() + 1) == message && message.size() < 600);
    return 0;
  }
  for (const auto& [key, value] : index.value().metadata) {
    fuzz::require(!key.empty() && is_valid_utf8(key));
    check_value(value, 0);
    const std::string words = describe(value);
    fuzz::require(printable(words, words.size() + 1) == words);
  }
  size_t covered = 0;
  const std::string* before = nullptr;
  for (const NamedTensor& tensor : index.value().tensors) {
    fuzz::require(before == nullptr || *before < tensor.name);
    before = &tensor.name;
    fuzz::touch(tensor.view);
    covered += static_cast<size_t>(tensor.view.bytes());
    const bool is_float = tensor.view.dtype <= DType::kF64 || is_block_type(tensor.view.dtype);
    if (!is_float) continue;
    fuzz::require(std::ssize(to_f32(tensor.view)) == tensor.view.shape.size());
    fuzz::require(first_non_finite(tensor.view) < tensor.view.shape.size());
  }
  fuzz::require(covered <= size);
  return 0;
}
