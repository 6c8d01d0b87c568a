#pragma once

// Small models with random weights.

#include "image/arpg.h"
#include "image/llamagen.h"
#include "image/vq_model.h"
#include "speech/diff_llama.h"
#include "tests/support/toy_models.h"

namespace volley::test {

// Weights spread so that every product keeps the size of its input; norms about 1.
class RandomWeights : public MemoryWeights {
 public:
  explicit RandomWeights(uint64_t seed) : random_(seed) {}

  void linear(const std::string& name, int64_t out, int64_t in);
  void vector(const std::string& name, int64_t size);
  void conv(const std::string& name, int64_t out, int64_t in, int64_t kernel);
  void norm(const std::string& name, int64_t channels);

 private:
  TestRandom random_;
};

RandomWeights llamagen_weights(const image::LlamaGenConfig& config);
RandomWeights arpg_weights(const image::ArpgConfig& config);
RandomWeights vq_weights(const image::VqConfig& config, uint64_t seed = 9);
RandomWeights diff_llama_weights(const speech::DiffLlamaConfig& config);

}  // namespace volley::test
