#pragma once

#include <map>
#include <memory>
#include <string>

#include "core/io/file_hash.h"
#include "image/image_card.h"

namespace volley::image {

enum class Transformer : uint8_t { kLlamaGen, kArpg };
// "llamagen", "arpg": keys of the card and of a run record's weights.
std::string_view transformer_name(Transformer transformer);

// kZero: only names, types and shapes of the checkpoints' tensors are looked at, and nothing is hashed.
enum class WeightValues : uint8_t { kRead, kZero };

// The networks that make pictures, loaded on one backend: a transformer that chooses the codes and a
// tokenizer that turns them into pixels. Const and shareable.
class ImageModel {
 public:
  struct Options {
    std::shared_ptr<const Backend> backend;
    WeightType weight_type = WeightType::kF32;
    Transformer transformer = Transformer::kLlamaGen;
    WeightValues values = WeightValues::kRead;
  };
  // Throws Error naming file and fault; kModelMissing if a file of the card, or the transformer, is not
  // there.
  ImageModel(ImageCard card, const Options& options);
  // The same on another device. The files are read again and not hashed again.
  ImageModel(const ImageModel& other, std::shared_ptr<const Backend> backend);

  const ImageCard& card() const { return card_; }
  const std::shared_ptr<const Backend>& backend() const { return backend_; }
  WeightType weight_type() const { return weight_type_; }
  Transformer transformer() const { return transformer_; }
  const SamplingDefaults& defaults() const;
  // SHA-256 of the files used, by role: "vq", the transformer's, and "text_encoder" if there is one. Waits
  // for them: they are computed beside loading and decoding. Those of packed files, which load at once, wait
  // for begin_hashes(), so that the first tokens have the processor to themselves.
  std::map<std::string, std::string> weights() const;
  void begin_hashes() const;

  const VqModel& vq() const { return *vq_; }
  const StepModel& step_model() const;
  const LlamaGen* llamagen() const { return llamagen_.get(); }  // null if it is another
  // Null if the model has none: prompts are then names of classes.
  const TextEncoder* text_encoder() const { return text_encoder_.get(); }
  // What projects a condition for the transformer; of models conditioned on features or text.
  const CaptionProjection& caption() const;
  int32_t class_token(int64_t class_id) const;
  // Prompt of the guidance partner. Throws Error if the model was trained without one.
  int32_t null_class_token() const;

 private:
  void load();

  ImageCard card_;
  std::shared_ptr<const Backend> backend_;
  WeightType weight_type_;
  Transformer transformer_;
  WeightValues values_ = WeightValues::kRead;
  std::map<std::string, std::shared_ptr<const FileHash>> hashes_;
  std::unique_ptr<const VqModel> vq_;
  std::unique_ptr<const TextEncoder> text_encoder_;
  std::unique_ptr<const LlamaGen> llamagen_;
  std::unique_ptr<const Arpg> arpg_;
};

// The card's defaults for a transformer that it has.
const SamplingDefaults& defaults_of(const ImageCard& card, Transformer transformer);
// SHA-256 of a checkpoint's files. Throws Error; kModelMissing if it is not there.
std::string hash_file(const std::string& path);

}  // namespace volley::image
