#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace volley::text {

// Reads a tokenizer: a folder with tokenizer.json or tokenizer.model (and tokenizer_config.json, which names
// the special tokens and holds the chat template), or one of these two files. Throws Error that names the
// file and the component that is missing, broken or not supported.
TokenizerPtr read_tokenizer(const std::string& path);

// From the text of a tokenizer.json of Hugging Face's tokenizers. `config` is tokenizer_config.json's
// object, or null. `subject` names the file in messages.
TokenizerPtr parse_tokenizer_json(std::string_view text, const nlohmann::json& config,
                                  const std::string& subject);

// From the bytes of a SentencePiece model (a protocol buffer, sentencepiece_model.proto): unigram and BPE.
TokenizerPtr parse_sentencepiece(std::span<const std::byte> bytes, const nlohmann::json& config,
                                 const std::string& subject);

// A vocabulary as plain arrays: the keys tokenizer.ggml.* of a GGUF file.
struct TokenizerArrays {
  std::string model;  // "gpt2": byte-level BPE with merges; "llama": SentencePiece BPE with scores
  std::string pre;    // of "gpt2", how text is split: "gpt-2" or "default" or empty, "llama-bpe", "qwen2",
                      // "smollm"
  std::vector<std::string> tokens;  // by id
  std::vector<float> scores;        // by id; of "llama"
  std::vector<int32_t> types;       // by id, kNormal ..; empty: all normal
  std::vector<std::string> merges;  // "left right", first merged first; of "gpt2"
  SpecialIds special_ids;
  std::optional<bool> add_bos, add_eos;  // by default "llama" adds bos and nothing else is added
  std::optional<bool> add_space_prefix;  // of "llama": by default yes
  std::string chat_template;

  enum Type : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
};
TokenizerPtr make_tokenizer(const TokenizerArrays& arrays, const std::string& subject);

}  // namespace volley::text
