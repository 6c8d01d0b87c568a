#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/io/file_hash.h"
#include "text/chat_template.h"
#include "text/llama_checkpoint.h"
#include "text/tokenizer/tokenizer.h"

namespace volley::text {

// A text model on disk: weights that are not loaded yet, and everything else that is known of it.
struct TextCheckpoint {
  std::string path;
  std::string name;  // of the file or folder
  LlamaCheckpoint llama;
  TokenizerPtr tokenizer;
  std::vector<int32_t> end_tokens;  // any of them ends an answer; increasing
  // The format of the chat template that came with it. None: there is no template, or `chat_fault` says why
  // it is not known.
  std::optional<ChatFormat> chat_format;
  std::string chat_fault;

  // Tokens that prompt and answer may hold together.
  int64_t context() const { return llama.config.max_position_embeddings; }
  // Some weights are blocks of integers with scales, as GGUF files have them.
  bool has_blocks() const;
  ModelKind kind() const { return llama.config.kind; }
};

// What messages call a model: the folder's name, or the file's without its ending.
std::string name_of_model(const std::string& path);

// Opens a GGUF file, whose metadata holds the tokenizer, a folder with one such file and nothing else of a
// model, or a folder with config.json, safetensors and tokenizer.json or tokenizer.model (a safetensors file
// stands for its folder). The end tokens are the
// vocabulary's eos, those that generation_config.json or the metadata names, and the special tokens that end
// a turn in the known chat formats ("<|im_end|>", "<|eot_id|>", ...). Throws Error naming the file and what
// is missing, broken or not supported; kModelMissing if nothing is there.
TextCheckpoint open_text_checkpoint(const std::string& given);

// Throws Error kUsage, one line that begins with --draft-model, unless the two have one vocabulary: as many
// tokens, and the same spelling of every one that both can spell.
void check_draft_vocabulary(const TextCheckpoint& model, const TextCheckpoint& draft);

enum class HashWeights : uint8_t { kNo, kYes };

// A text model that can run. Const and shareable.
class TextModel {
 public:
  struct Options {
    std::shared_ptr<const Backend> backend;
    WeightStorage storage = WeightType::kF32;
    HashWeights hash = HashWeights::kNo;
  };
  // Throws Error naming file and fault.
  TextModel(TextCheckpoint checkpoint, const Options& options);

  // Without its weights, which are the model's now.
  const TextCheckpoint& checkpoint() const { return checkpoint_; }
  const std::shared_ptr<const Backend>& backend() const { return backend_; }
  const WeightStorage& storage() const { return storage_; }
  const StepModel& step_model() const { return *llama_; }
  // Of the model's tokens; lives as long as the model.
  const Embedding& embeddings() const { return llama_->embeddings(); }
  // SHA-256 of the files used; nothing unless asked for. Waits for it.
  std::optional<std::string> weights_hash() const;

 private:
  TextCheckpoint checkpoint_;
  std::shared_ptr<const Backend> backend_;
  WeightStorage storage_;
  std::optional<FileHash> hash_;
  std::unique_ptr<const Llama> llama_;
};

}  // namespace volley::text
