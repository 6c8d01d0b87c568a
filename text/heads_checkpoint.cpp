#include "text/heads_checkpoint.h"

#include <filesystem>
#include <utility>

#include "core/base/error.h"
#include "core/io/open_weights.h"
#include "core/nn/packed_weights.h"

namespace volley::text {
namespace {

namespace fs = std::filesystem;

// Hydra's config.json can say that heads read a layer below the last.
void check_config(const std::string& path) {
  std::error_code code;
  const std::string config = (fs::path(path) / "config.json").string();
  if (!fs::is_directory(path, code) || !fs::exists(config, code)) return;
  const nlohmann::json json = read_json_file(config);
  const int64_t offset = JsonFields(json, config).integer_or("hidden_state_offset", 0);
  if (offset == 0) return;
  throw Error(config + ": key 'hidden_state_offset': " + std::to_string(offset) +
              ": heads on a layer below the last are not supported");
}

// The first head's output layer says whose model it is.
void check_fit(const HeadsCheckpoint& checkpoint, const TextCheckpoint& model) {
  const std::string name = checkpoint.config.output(0) + ".weight";
  const std::optional<Shape> shape = stored_shape(*checkpoint.weights, name);
  if (!shape || shape->rank() != 2) return;  // the loader names it
  const auto refuse = [&](const std::string& fault) {
    throw Error(checkpoint.weights->path() + ": tensor " + name + ": " + fault, ErrorKind::kUsage);
  };
  const LlamaConfig& config = model.llama.config;
  if ((*shape)[1] != config.hidden_size) {
    refuse("reads rows of width " + std::to_string((*shape)[1]) + ", those of model " + model.name +
           " have " + std::to_string(config.hidden_size));
  }
  const bool is_reduced = !checkpoint.config.target_ids.empty();
  const int64_t candidates = is_reduced ? std::ssize(checkpoint.config.target_ids) : config.vocab_size;
  if ((*shape)[0] == candidates) return;
  refuse("has " + std::to_string((*shape)[0]) + " tokens, " +
         (is_reduced ? "tensor d2t " + std::to_string(candidates)
                     : "model " + model.name + " " + std::to_string(candidates) +
                           "; tensor d2t would say which of them it has"));
}

}  // namespace

std::string heads_file(const std::string& path) {
  std::error_code code;
  if (!fs::is_directory(path, code)) return path;
  for (const char* name :
       {"medusa_lm_head.safetensors", "medusa_lm_head.pt", "hydra_lm_head.safetensors", "hydra_lm_head.pt"}) {
    const fs::path file = fs::path(path) / name;
    if (fs::exists(file, code)) return file.string();
  }
  return path;
}

HeadsCheckpoint open_heads(const std::string& path, const TextCheckpoint& model) {
  check_config(path);
  HeadsCheckpoint checkpoint{
      .path = path, .name = name_of_model(path), .weights = open_weights(heads_file(path))};
  checkpoint.config = recognise_heads(*checkpoint.weights, model.llama.config.vocab_size);
  check_fit(checkpoint, model);
  return checkpoint;
}

TextHeads::TextHeads(HeadsCheckpoint checkpoint, const TextModel& model, HashWeights hash)
    : name_(std::move(checkpoint.name)) {
  if (hash == HashWeights::kYes) {
    hash_.emplace(weight_files(heads_file(checkpoint.path)));
    hash_->begin();
  }
  const ModelTraits& traits = model.step_model().traits();
  // Rounded guesses cost a guess now and then, no token; heads of floats would weigh as much as a model of
  // blocks.
  const WeightStorage storage = model.storage().keeps_blocks ? WeightType::kQ4_1 : model.storage();
  heads_ = std::make_unique<const ResidualHeads>(
      std::move(checkpoint.config),
      ResidualHeads::Target{
          .vocab_size = traits.vocab_size, .dim = traits.dim, .embedding = &model.embeddings()},
      WeightLoader(*checkpoint.weights, *model.backend(), storage));
}

std::optional<std::string> TextHeads::weights_hash() const {
  if (!hash_) return std::nullopt;
  return hash_->hex();
}

}  // namespace volley::text
