#include "image/image_model.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/io/mapped_file.h"
#include "core/io/open_weights.h"

namespace volley::image {

std::string_view transformer_name(Transformer transformer) {
  return transformer == Transformer::kLlamaGen ? "llamagen" : "arpg";
}

const SamplingDefaults& defaults_of(const ImageCard& card, Transformer transformer) {
  return transformer == Transformer::kLlamaGen ? card.llamagen->defaults : card.arpg->defaults;
}

std::string hash_file(const std::string& path) {
  std::error_code code;
  if (!std::filesystem::exists(path, code)) throw Error(path + ": no such file", ErrorKind::kModelMissing);
  return sha256_hex(MappedFile::open(path).value_or_throw(path).bytes());
}

ImageModel::ImageModel(ImageCard card, const Options& options)
    : card_(std::move(card)),
      backend_(options.backend),
      weight_type_(options.weight_type),
      transformer_(options.transformer) {
  const bool is_there =
      transformer_ == Transformer::kLlamaGen ? card_.llamagen.has_value() : card_.arpg.has_value();
  if (!is_there) {
    throw Error(card_.folder + ": model " + card_.name + " has no " +
                    std::string(transformer_name(transformer_)) + " transformer",
                ErrorKind::kModelMissing);
  }
  // The hash is of what is read here; files are not changed in place while they are mapped.
  const auto open = [&](std::string_view role, const std::string& file) {
    weights_.emplace(role, hash_file(file));
    return open_weights(file);
  };
  {
    const auto source = open("vq", card_.vq.file);
    vq_ = std::make_unique<const VqModel>(card_.vq.config, WeightLoader(*source, *backend_, weight_type_));
  }
  if (transformer_ == Transformer::kLlamaGen) {
    const auto source = open("llamagen", card_.llamagen->file);
    llamagen_ = std::make_unique<const LlamaGen>(card_.llamagen->config,
                                                 WeightLoader(*source, *backend_, weight_type_));
  } else {
    const auto source = open("arpg", card_.arpg->file);
    arpg_ = std::make_unique<const Arpg>(card_.arpg->config, WeightLoader(*source, *backend_, weight_type_));
  }
}

const SamplingDefaults& ImageModel::defaults() const {
  return defaults_of(card_, transformer_);
}

const StepModel& ImageModel::step_model() const {
  if (llamagen_) return *llamagen_;
  return *arpg_;
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
