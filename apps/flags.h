#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "apps/console.h"
#include "apps/parser.h"
#include "core/backend/backend.h"
#include "image/image_request.h"

namespace volley::apps {

inline constexpr std::string_view kDefaultModel = "emoji-128";
// What --help says of --model in verbs of text; see default_text_model.
inline constexpr const char* kPulledTextModel = "the one text model that was pulled";

// Flags that mean the same in every verb that has them.
struct SharedFlags {
  std::string config;  // empty: the usual file
  std::string model;
  std::string vq;
  int64_t image_size = 0;  // 0: as the model says
  std::string text_features;
  std::string out;
  std::string out_dir;
  std::string format;
  bool overwrite = false;
  bool skip_existing = false;
  std::string device = "auto";
  std::string dtype = "auto";
  int64_t threads = 0;  // 0: physical cores
  image::MethodChoices method;
  std::string draft_model;
  std::string heads;
  std::optional<int64_t> draft_max;
  std::string device_meaning = "auto, cpu, cpu-reference or cuda:N [auto, printed]";
  std::string model_default;  // what --help says of it, where `model` is empty at first
  // What --help says of the defaults of sampling.
  std::string temperature_default = "the model's card";
  std::string top_k_default = temperature_default;
  std::string top_p_default = temperature_default;
  int64_t seed = 0;  // -1: random
  bool json = false;
  std::string events;
  bool check = false;
  bool dry_run = false;
  bool quiet = false;
  bool verbose = false;
  bool no_progress = false;
  When color = When::kAuto;

  void apply_to(Console& console) const;
};

// Adds the flags of these names (long, without dashes) to a verb, and those every verb has: --config,
// --quiet,
// --verbose, --color.
void add_shared_flags(CLI::App& verb, SharedFlags& flags, std::initializer_list<std::string_view> names);

// What --device may name, apart from auto.
std::vector<std::string> device_names();
// The backend of --device and --threads, and the number of threads that it uses.
std::shared_ptr<const Backend> backend_for(const SharedFlags& flags);
// The devices of a list such as cuda:0,cuda:1 or cuda:0,1 as each would be named alone. Throws Error kUsage.
std::vector<std::string> listed_devices(const std::string& list);
// A backend for each of them, which share the threads. Throws Error naming the device that is missing, or
// two that do not compute alike.
std::vector<std::shared_ptr<const Backend>> backends_for(const SharedFlags& flags);
// Whether the processor computes, by kernels or by the reference.
bool is_processor(const Backend& backend);
int64_t threads_for(const SharedFlags& flags);
// Storage of the weights: --dtype's, else what the model is packed for, else bf16 where the device has it.
// Throws Error kUsage for another storage than the model's.
struct StorageChoice {
  const std::string& dtype;  // as --dtype takes it
  const image::ImageCard& card;
  const Backend& backend;
};
WeightType weight_type_for(const StorageChoice& choice);

// The storage that --dtype names; auto: bf16 where the device has it, else f32. Throws Error kUsage if the
// device has no such products.
WeightType weight_type_of(const std::string& dtype, const Backend& backend);

}  // namespace volley::apps
