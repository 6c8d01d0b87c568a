#include "image/image_model.h"

#include <filesystem>
#include <utility>

#include "core/base/error.h"
#include "core/io/open_weights.h"
#include "core/io/zero_source.h"
#include "image/grid_transformer.h"

namespace volley::image {

std::string_view transformer_name(Transformer transformer) {
  return transformer == Transformer::kLlamaGen ? "llamagen" : "arpg";
}

const SamplingDefaults& defaults_of(const ImageCard& card, Transformer transformer) {
  return transformer == Transformer::kLlamaGen ? card.llamagen->defaults : card.arpg->defaults;
}

std::string hash_file(const std::string& path) {
  return FileHash(weight_files(path)).hex();
}

namespace {

// Rows of the hidden layer as config.json states them and as the weights have them.
template <typename Config>
void check_ffn_dim(const ImageCard& card, Transformer transformer, const CardPart<Config>& part,
                   const WeightSource& weights, const std::vector<std::string>& layers) {
  if (!part.ffn_dim) return;
  for (const std::string& layer : layers) {
    const int64_t rows = require_shape(weights, layer + "w1.weight", 2)[0];
    if (rows == *part.ffn_dim) continue;
    throw Error((std::filesystem::path(card.folder) / "config.json").string() + ": " +
                std::string(transformer_name(transformer)) + ": ffn_dim: expected " + std::to_string(rows) +
                " as in " + part.file + ", tensor " + layer + "w1.weight; found " +
                std::to_string(*part.ffn_dim));
  }
}

std::vector<std::string> ffn_layers(const LlamaGenConfig& config) {
  std::vector<std::string> layers;
  for (int64_t l = 0; l < config.n_layer; ++l)
    layers.push_back("layers." + std::to_string(l) + ".feed_forward.");
  return layers;
}

std::vector<std::string> ffn_layers(const ArpgConfig& config) {
  std::vector<std::string> layers;
  for (int64_t l = 0; l < config.n_layer / 2; ++l) {
    for (const char* pass : {"self_dec.", "cross_dec."})
      layers.push_back("layers." + std::string(pass) + std::to_string(l) + ".ffn.");
  }
  return layers;
}

}  // namespace

ImageModel::ImageModel(ImageCard card, const Options& options)
    : card_(std::move(card)),
      backend_(options.backend),
      weight_type_(options.weight_type),
      transformer_(options.transformer),
      values_(options.values) {
  load();
}

ImageModel::ImageModel(const ImageModel& other, std::shared_ptr<const Backend> backend)
    : card_(other.card_),
      backend_(std::move(backend)),
      weight_type_(other.weight_type_),
      transformer_(other.transformer_),
      hashes_(other.hashes_) {
  load();
}

void ImageModel::load() {
  const bool is_there =
      transformer_ == Transformer::kLlamaGen ? card_.llamagen.has_value() : card_.arpg.has_value();
  if (!is_there) {
    throw Error(card_.folder + ": model " + card_.name + " has no " +
                    std::string(transformer_name(transformer_)) + " transformer",
                ErrorKind::kModelMissing);
  }
  // The hash is of what is read here; files are not changed in place while they are mapped.
  const auto open = [&](std::string_view role,
                        const std::string& file) -> std::unique_ptr<const WeightSource> {
    if (values_ == WeightValues::kZero)
      return std::make_unique<const ZeroSource>(
          std::shared_ptr<const WeightSource>(open_image_weights(file, CrcCheck::kSkip)));
    auto& hash = hashes_[std::string(role)];
    if (hash == nullptr) hash = std::make_shared<const FileHash>(weight_files(file));
    if (!card_.packed) hash->begin();
    return open_image_weights(file);
  };
  {
    const auto source = open("vq", card_.vq.file);
    vq_ = std::make_unique<const VqModel>(card_.vq.config, WeightLoader(*source, *backend_, weight_type_));
  }
  if (card_.text_encoder) {
    const auto source = open("text_encoder", card_.text_encoder->file);
    text_encoder_ = std::make_unique<const TextEncoder>(card_.text_encoder->config,
                                                        WeightLoader(*source, *backend_, weight_type_));
  }
  if (transformer_ == Transformer::kLlamaGen) {
    const auto source = open("llamagen", card_.llamagen->file);
    llamagen_ = std::make_unique<const LlamaGen>(card_.llamagen->config,
                                                 WeightLoader(*source, *backend_, weight_type_));
    check_ffn_dim(card_, transformer_, *card_.llamagen, *source, ffn_layers(card_.llamagen->config));
  } else {
    const auto source = open("arpg", card_.arpg->file);
    arpg_ = std::make_unique<const Arpg>(card_.arpg->config, WeightLoader(*source, *backend_, weight_type_));
    check_ffn_dim(card_, transformer_, *card_.arpg, *source, ffn_layers(card_.arpg->config));
  }
}

void ImageModel::begin_hashes() const {
  for (const auto& [role, hash] : hashes_) hash->begin();
}

std::map<std::string, std::string> ImageModel::weights() const {
  std::map<std::string, std::string> weights;
  for (const auto& [role, hash] : hashes_) weights.emplace(role, hash->hex());
  return weights;
}

const SamplingDefaults& ImageModel::defaults() const {
  return defaults_of(card_, transformer_);
}

const StepModel& ImageModel::step_model() const {
  if (llamagen_) return *llamagen_;
  return *arpg_;
}

const CaptionProjection& ImageModel::caption() const {
  return llamagen_ ? llamagen_->caption() : arpg_->caption();
}

int32_t ImageModel::class_token(int64_t class_id) const {
  VOLLEY_ASSERT(class_id >= 0 && class_id < static_cast<int64_t>(card_.classes.size()));
  return llamagen_ ? llamagen_->class_token(class_id) : arpg_->class_token(class_id);
}

int32_t ImageModel::null_class_token() const {
  const int32_t token = llamagen_ ? llamagen_->null_class_token() : arpg_->null_class_token();
  if (token >= step_model().traits().token_rows) {
    throw Error(card_.name + ": its " + std::string(transformer_name(transformer_)) +
                    " was trained without a null class; only --cfg 1 works",
                ErrorKind::kUsage);
  }
  return token;
}

}  // namespace volley::image
