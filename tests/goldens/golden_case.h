#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/decode/generation.h"
#include "core/io/json.h"
#include "core/io/weight_source.h"

namespace volley::goldens {

// A folder with config.json, weights and io.safetensors: inputs and what the authors' code made of them.
// Everything throws Error naming the file and the tensor that does not fit.
class Case {
 public:
  explicit Case(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const std::string& family() const { return family_; }
  const nlohmann::json& config() const { return config_; }
  std::string config_path() const { return folder_ + "/config.json"; }
  // model.safetensors, then model.pt if there is one.
  std::vector<std::string> weight_files() const;

  bool has(std::string_view name) const { return io_->find(name) != nullptr; }
  // Names of all tensors of io.safetensors that end in `suffix`, without it.
  std::vector<std::string> names_before(std::string_view suffix) const;
  Shape shape(std::string_view name) const;
  // Throws unless the tensor has `rank` dimensions.
  Shape shape(std::string_view name, int64_t rank) const;
  std::vector<float> floats(std::string_view name) const;
  std::vector<int32_t> ids(std::string_view name) const;

 private:
  const HostView& tensor(std::string_view name) const;

  std::string folder_;
  std::string family_;
  nlohmann::json config_;
  std::unique_ptr<WeightSource> io_;
};

// Name of a case's family: its folder's without a trailing _<number>.
std::string family_of(const std::string& folder);

// Compares what a family computes with what its case expects, and keeps it so that two runs can be compared.
class Check {
 public:
  Check(const Case& golden, std::string prefix) : golden_(golden), prefix_(std::move(prefix)) {}

  // |difference| <= 1e-4 + 1e-4 |expected| for each element of io tensor `name`.
  void close(const std::string& name, std::span<const float> actual);
  void close(const std::string& name, std::span<const float> actual, std::span<const float> expected);
  // Equal to io tensor `name`.
  void equal(const std::string& name, std::span<const int32_t> actual);
  void equal(const std::string& name, std::span<const int32_t> actual, std::span<const int32_t> expected);
  // The same bits as another run's outputs.
  void same_outputs(const Check& other);

  bool passed() const { return failures_ == 0; }
  bool is_empty() const { return floats_.empty() && ids_.empty(); }

 private:
  void fail(const std::string& name, const std::string& fault);

  const Case& golden_;
  std::string prefix_;  // of printed names
  std::map<std::string, std::vector<float>> floats_;
  std::map<std::string, std::vector<int32_t>> ids_;
  int64_t failures_ = 0;
};

// What a family's check gets.
struct Run {
  const Case& golden;
  const WeightSource& weights;
  const std::shared_ptr<const Backend>& backend;
  Check& check;
};

// Runs every method that must give sequential decoding's tokens, each in a session of its own, and demands
// `expected`: the outputs one after the other.
struct MethodsCheck {
  const StepModel& model;
  std::vector<Generation> generations;
  std::string name;
  std::span<const int32_t> expected;
  std::span<const float> memory = {};  // [T, width], for models that read one
};
void check_methods(const Run& run, MethodsCheck check);

// Logits of all rows of the id sequences [B, T] in io tensor `ids`, each a step under the model's first mask.
std::vector<float> whole_logits(const Run& run, const StepModel& model, const std::string& ids);

void check_text_llama(const Run& run);
void check_llamagen(const Run& run);
void check_arpg(const Run& run);
void check_vq(const Run& run);
void check_whisper(const Run& run);
void check_llada(const Run& run);
void check_fast_dllm_v2(const Run& run);
void check_sdlm(const Run& run);
void check_smdm(const Run& run);
void check_whisfusion(const Run& run);

}  // namespace volley::goldens
