// A GGUF file is a model whose config is sound and whose weights have names in order, or an Error of one
// line.

#include <string>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "tests/fuzz/fuzz_target.h"
#include "text/llama_checkpoint.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  Result<std::unique_ptr<GgufFile>> file = GgufFile::from_bytes(bytes, "model.gguf");
  if (!file) return 0;
  try {
    const text::LlamaCheckpoint checkpoint = text::llama_from_gguf(std::move(file).value());
    const text::LlamaConfig& config = checkpoint.config;
    const auto& [heads, kv_heads, width] = config.attention;
    fuzz::require(config.vocab_size > 0 && config.hidden_size > 0 && config.num_hidden_layers > 0);
    fuzz::require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && width > 0 && width % 2 == 0);
    fuzz::require(std::ssize(config.rope_frequencies) == width / 2);
    const std::string* before = nullptr;
    for (const NamedTensor& tensor : checkpoint.weights->tensors()) {
      fuzz::require(before == nullptr || *before < tensor.name);
      before = &tensor.name;
      fuzz::touch(tensor.view);
    }
  } catch (const Error& error) {
    const std::string message = error.what();
    fuzz::require(message.starts_with("model.gguf: "));
    fuzz::require(printable(message, message.size() + 1) == message && message.size() < 800);
  }
  return 0;
}
