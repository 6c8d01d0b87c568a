#pragma once

#include <memory>
#include <optional>
#include <string>

#include "text/draft_heads.h"
#include "text/text_model.h"

namespace volley::text {

// Draft heads on disk: weights that are not loaded yet, and what is known of them.
struct HeadsCheckpoint {
  std::string path;
  std::string name;  // of the file or folder
  HeadsConfig config;
  std::unique_ptr<WeightSource> weights;
};

// The file of weights in a folder of draft heads (medusa_lm_head or hydra_lm_head, .safetensors or .pt), else
// the path itself: a file, or a folder with weights of a usual name.
std::string heads_file(const std::string& path);

// Opens draft heads for a model: such a folder or file. Throws Error naming the file and what is missing,
// broken, not supported, or does not fit the model; kModelMissing if nothing is there.
HeadsCheckpoint open_heads(const std::string& path, const TextCheckpoint& model);

// Draft heads that can run. Const and shareable.
class TextHeads {
 public:
  // On the model's backend and in its storage, q4_1 where that keeps blocks; `model`, whose embedding they
  // read, must outlive them. Throws Error naming file and fault.
  TextHeads(HeadsCheckpoint checkpoint, const TextModel& model, HashWeights hash = HashWeights::kNo);

  const std::string& name() const { return name_; }
  const DraftHeads& heads() const { return *heads_; }
  // SHA-256 of the file; nothing unless asked for. Waits for it.
  std::optional<std::string> weights_hash() const;

 private:
  std::string name_;
  std::optional<FileHash> hash_;
  std::unique_ptr<const ResidualHeads> heads_;
};

}  // namespace volley::text
