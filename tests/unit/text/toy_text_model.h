#pragma once

#include <string>

#include "text/draft_heads.h"
#include "text/llama.h"

namespace volley::test {

inline constexpr int64_t kToyContext = 256;

// Writes a model folder of the form that volley text runs, with random weights: config.json (Qwen 3, two
// layers, `context` positions), model.safetensors, the small byte-level vocabulary of
// tests/unit/text/tokenizers/smollm2.json, and `chat_template`. The weights have rows for some ids more
// than the vocabulary has.
struct ToyTextOptions {
  uint64_t seed = 1;
  int64_t spare_ids = 4;  // rows of the weights beyond the vocabulary's
  int64_t context = kToyContext;
  bool is_endless = false;  // greedy answers never end by a token, however a processor rounds
  std::string chat_template =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
      "'<|im_end|>' + '\\n'}}{% endfor %}";
};
void write_toy_text_folder(const std::string& folder, const ToyTextOptions& options = {});

// The same kind of folder with a LLaDA in it: no norms of q and k, other names. The mask token is the last
// spare id.
void write_toy_llada_folder(const std::string& folder, const ToyTextOptions& options = {});

// The same kind of folder with a Qwen 2 in it that fills blocks of 8 places (Fast-dLLM v2) or windows of 4
// (SDLM). The mask token is the last spare id.
void write_toy_block_folder(const std::string& folder, text::ModelKind kind,
                            const ToyTextOptions& options = {});

// The same model and vocabulary as a GGUF file.
void write_toy_text_gguf(const std::string& path, const ToyTextOptions& options = {});

// A safetensors file of random draft heads for that model.
struct ToyTextHeadsOptions {
  uint64_t seed = 1;
  int64_t dim = 0;  // 0: the model's
};
void write_toy_heads(const std::string& path, text::HeadsFamily family,
                     const ToyTextHeadsOptions& options = {});

}  // namespace volley::test
