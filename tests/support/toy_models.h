#pragma once

// Small random models for tests: no files, any vocabulary.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/io/weight_source.h"
#include "core/nn/step.h"
#include "text/llama.h"

namespace volley::test {

// Random numbers of tests: a plain counter-based stream, the same on every machine.
class TestRandom {
 public:
  explicit TestRandom(uint64_t seed) : seed_(seed) {}
  uint32_t bits();
  float uniform();  // (0, 1)
  float normal();   // standard
  int64_t below(int64_t limit);

 private:
  uint64_t seed_;
  uint32_t count_ = 0;
};

// A checkpoint in memory.
class MemoryWeights : public WeightSource {
 public:
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }
  // Gaussian values of the given spread, around `mean`.
  void add(const std::string& name, Shape shape, TestRandom& random, float spread, float mean = 0.0f);
  void add(const std::string& name, Shape shape, std::vector<float> values);
  // Adds Gaussian noise to every value.
  void disturb(TestRandom& random, float spread);
  // Must be called after the last `add`.
  void finish();

 private:
  std::string path_ = "toy";
  std::vector<NamedTensor> tensors_;
  std::vector<std::vector<float>> values_;
};

// Names and shapes of a checkpoint without values: reading one is a mistake.
class ShapesOnly : public WeightSource {
 public:
  explicit ShapesOnly(const std::map<std::string, Shape>& shapes);
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }

 private:
  std::string path_ = "toy";
  std::vector<NamedTensor> tensors_;
};

struct ToySizes {
  int64_t vocab = 16;
  int64_t dim = 16;
  int64_t layers = 2;
  int64_t heads = 2;
  int64_t kv_heads = 1;
  int64_t max_position = 2048;
  float spread = 0.6f;                              // of the weights: larger means less even distributions
  int32_t mask_token = -1;                          // a diffusion model's
  text::ModelKind kind = text::ModelKind::kMasked;  // with a mask token
  int64_t mask_block = 0;                           // its block or window
  float noise = 0.0f;                               // spread of what is added to the weights of this seed
};

// A decoder of the Llama kind with random weights.
std::unique_ptr<StepModel> make_toy_llama(const Backend& backend, uint64_t seed, const ToySizes& sizes = {},
                                          WeightType type = WeightType::kF32);

}  // namespace volley::test
