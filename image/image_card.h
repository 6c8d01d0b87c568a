#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/decode/logits_chain.h"
#include "image/arpg.h"
#include "image/llamagen.h"
#include "image/text_encoder.h"
#include "image/vq_model.h"

namespace volley::image {

// How a transformer's tokens are chosen unless the request says otherwise: the model's card.
struct SamplingDefaults {
  double cfg = 1.0;
  GuidanceSchedule::Kind guidance = GuidanceSchedule::Kind::kConstant;
  int64_t cfg_interval = -1;
  double temperature = 1.0;
  int64_t top_k = 0;
  double top_p = 1.0;
  int64_t steps = 0;     // of parallel decoding; 0: the method's own default
  std::string schedule;  // of parallel decoding; empty: the method's own default
};

template <typename Config>
struct CardPart {
  std::string file;  // path of the weights
  Config config;
  SamplingDefaults defaults;
  std::optional<int64_t> ffn_dim;  // of a transformer, if config.json states it; else the weights say it
};

struct EmojiName {
  std::string name;
  int64_t class_id = 0;
};

// Where the size of the pictures comes from.
enum class SizeSource : uint8_t {
  kStated,    // by config.json or the request
  kFileName,  // the checkpoint's, which holds it or is that of a published one
  kAssumed,   // nothing states it
};

// What a model folder says of itself in config.json and names.json, checked; no weights are read.
struct ImageCard {
  std::string folder;
  std::string name;
  int64_t image_size = 0;            // pixels of a side
  int64_t grid = 0;                  // codes of a side
  std::vector<std::string> classes;  // by id; empty: conditioned on text features
  std::vector<EmojiName> names;      // things a class holds, sorted by name
  CardPart<VqConfig> vq;
  std::optional<CardPart<TextEncoderConfig>> text_encoder;  // makes the condition of prompts and classes
  std::optional<CardPart<LlamaGenConfig>> llamagen;
  std::optional<CardPart<ArpgConfig>> arpg;
  std::optional<WeightType>
      packed;  // storage that the networks' files are packed for; else they are checkpoints
  SizeSource size_source = SizeSource::kStated;
  std::map<std::string, std::string>
      selftest;  // by transformer: hash of the selftest's tokens by the reference

  int64_t tokens() const { return grid * grid; }
  // Drawn from text features that somebody else made, not from a class or a prompt.
  bool is_caption_model() const {
    return !text_encoder && llamagen && llamagen->config.condition == Condition::kCaption;
  }
};

inline constexpr std::string_view kImageModelFormat = "volley.image_model/1";

// Throws Error "<file>: <fault>"; kModelMissing if the folder or its config.json is not there.
ImageCard read_image_card(const std::string& folder);

// A class as a person asked for it.
struct ClassChoice {
  int64_t id = 0;
  std::string name;
  bool is_exact = true;  // false: the text names something that the class holds
};

// The class of that name. Throws Error kUsage "<subject> 'name': ..." offering the five nearest.
ClassChoice find_class(const ImageCard& card, std::string_view name, std::string_view subject = "--class");
// The class of that name, or the one that holds the longest name among the prompt's words ("a red apple,
// please" names "red apple"). Letter case and the form of quotes count for nothing. Throws Error kUsage
// offering the five nearest classes or names.
ClassChoice find_prompt(const ImageCard& card, std::string_view prompt);

// What a class is called: its own name; of one that is a number, the name that the model has for it as well,
// as in "golden retriever (207)".
std::string class_label(const ImageCard& card, int64_t id);

// The candidates nearest to `text`: those that contain it first (plural or not; as words, as the start of
// one, as a part), then by edit distance; each once.
std::vector<std::string> nearest_choices(std::string_view text, const std::vector<std::string>& candidates,
                                         int64_t count);

std::string_view guidance_name(GuidanceSchedule::Kind kind);
// Empty if there is no such schedule.
std::optional<GuidanceSchedule::Kind> guidance_of(std::string_view name);

}  // namespace volley::image
