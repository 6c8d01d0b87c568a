#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/decode/decoder.h"
#include "core/io/json.h"
#include "image/edit.h"
#include "image/image_model.h"
#include "image/text_features.h"

namespace volley::image {

inline constexpr int64_t kMaxCount = 1000000;  // pictures of a run

enum class Check : uint8_t { kNo, kYes };

// What makes a run's pixels what they are, besides the weights and the storage they are multiplied in. Item i
// of the run uses seed + i, or the i-th of `seeds`, so each can be made alone.
struct ImageRequest {
  std::string model;       // its name
  std::string prompt;      // as asked, or empty
  std::string class_name;  // empty: drawn from text features, or from the prompt by a text encoder
  int64_t class_id = 0;
  std::string features_hash;                     // SHA-256 of their file, or empty
  std::shared_ptr<const TextFeatures> features;  // themselves; not part of a record
  int64_t count = 1;
  std::vector<int64_t> only;  // items to make, increasing; empty: all
  uint64_t seed = 0;
  std::vector<uint64_t> seeds;  // of the items, `count` of them; empty: seed + item
  std::optional<EditRequest> edit;
  DecoderSpec decoder;  // every option stated
  double cfg = 1.0;     // 1: no guidance
  GuidanceSchedule::Kind guidance = GuidanceSchedule::Kind::kConstant;
  int64_t cfg_interval = -1;
  double temperature = 1.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  Check check = Check::kNo;  // decode again sequentially and compare the tokens

  std::vector<int64_t> items() const;
  // What is drawn, in words.
  std::string subject() const;
  // Drawn from the words of the prompt.
  bool is_text() const { return class_name.empty() && features_hash.empty(); }
  uint64_t seed_of(int64_t item) const;
};

// The cells of a request's pictures.
Canvas canvas_of(const ImageCard& card, const ImageRequest& request);

// What a person may say about the method; the model's card and the methods' defaults say the rest.
struct MethodChoices {
  std::string decoder;  // as --decoder takes it; empty: not said
  std::optional<int64_t> steps;
  std::string schedule;  // of parallel decoding; empty: not said
  std::string order;     // the same
  std::optional<double> cfg;
  std::optional<double> temperature;
  std::optional<int64_t> top_k;
  std::optional<double> top_p;
  bool shows_steps = false;  // not the pictures alone: an animation, a map of steps
};

// Fills the method's fields of `request`. "auto" is jacobi where the model has a raster-order transformer,
// parallel where it has only the other, or where steps, a schedule, an order or an edit are asked for. Jacobi
// adapts its window to the machine, unless its steps are shown, which shall be the same in every run. Throws
// Error kUsage for what does not go together, kModelMissing for a transformer the model lacks.
void choose_method(const ImageCard& card, const MethodChoices& choices, ImageRequest& request);

// The transformer a method runs. Throws Error kUsage for methods that make no pictures.
Transformer transformer_for(const DecoderSpec& decoder);

using volley::decoder_text;

// The fields of the `--json` schema. `read_request` throws Error "<subject>: key ..."; `subject` is that of
// `fields`. What it returns has a method that makes pictures.
nlohmann::json to_json(const ImageRequest& request);
ImageRequest read_request(const JsonFields& fields, const std::string& subject);
// Key 'seed', all 64 bits.
uint64_t read_seed(const JsonFields& fields);

}  // namespace volley::image
