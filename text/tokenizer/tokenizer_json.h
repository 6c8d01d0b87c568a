#pragma once

#include <string>
#include <vector>

#include "core/io/json.h"
#include "text/tokenizer/pipeline.h"

// The components of a tokenizer.json. Each function takes a component's value (null: there is none) and
// throws Error "<subject>: ..." for types and settings that are not supported.
namespace volley::text {

NormalizerPtr read_normalizer(const nlohmann::json& value, const std::string& subject);

enum class Units { kCharacters, kBytes };  // what the model's words consist of

struct PreTokenizerParts {
  std::vector<PreTokenizerPtr> stages;
  Units units = Units::kCharacters;
};
PreTokenizerParts read_pre_tokenizer(const nlohmann::json& value, const std::string& subject);

DecoderRule read_decoder(const nlohmann::json& value, const std::string& subject);

struct FrameParts {
  std::vector<int32_t> prefix, suffix;
};
FrameParts read_post_processor(const nlohmann::json& value, const std::string& subject);

// Special tokens and chat template of a tokenizer_config.json, into the pipeline.
void read_tokenizer_config(const nlohmann::json& config, const std::string& subject, Pipeline& pipeline);

// The bytes of a base64 text; a Fault if it is none.
Result<std::string> decode_base64(std::string_view text);

}  // namespace volley::text
