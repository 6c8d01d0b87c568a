// config.json of a language model: an Error of one line, or sizes that a model can have.

#include <algorithm>
#include <cmath>
#include <string>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/untrusted_text.h"
#include "tests/fuzz/fuzz_target.h"
#include "text/llama.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const Result<nlohmann::json> parsed = parse_json({reinterpret_cast<const char*>(data), size});
  if (!parsed) return 0;
  try {
    const text::LlamaConfig config = text::parse_llama_config(parsed.value(), "config.json");
    const auto& [heads, kv_heads, width] = config.attention;
    fuzz::require(config.vocab_size > 0 && config.hidden_size > 0 && config.intermediate_size > 0);
    fuzz::require(config.num_hidden_layers > 0 && config.max_position_embeddings > 0);
    fuzz::require(heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && width > 0 && width % 2 == 0);
    fuzz::require(std::isfinite(config.rms_norm_eps) && config.rms_norm_eps >= 0.0f);
    fuzz::require(std::ssize(config.rope_frequencies) == width / 2);
    fuzz::require(std::ranges::all_of(config.rope_frequencies,
                                      [](float value) { return std::isfinite(value) && value >= 0.0f; }));
    if (config.kind != text::ModelKind::kCausal)
      fuzz::require(config.mask_token >= 0 && config.mask_token < config.vocab_size);
    if (text::is_diffusion(config.kind) && config.kind != text::ModelKind::kMasked)
      fuzz::require(config.mask_block > 0);
  } catch (const Error& error) {
    const std::string message = error.what();
    fuzz::require(message.starts_with("config.json: "));
    fuzz::require(printable(message, message.size() + 1) == message && message.size() < 800);
  }
  return 0;
}
