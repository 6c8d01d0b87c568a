#pragma once

#include <string>

#include "core/io/weight_source.h"

namespace volley::test {

// How torch.save was called on a state dict.
struct TorchForm {
  std::string wrapper;              // key that holds it; empty: bare
  bool has_training_state = false;  // an average of other values and an optimizer's state beside it
};
void write_torch_checkpoint(const std::string& path, const WeightSource& weights, const TorchForm& form);

// A LlamaGen checkpoint under the names of transformers' Llama, as LANTERN exports it.
void write_lantern_checkpoint(const std::string& path, const WeightSource& weights);

// The file without a tensor, or with one more.
void write_without(const std::string& path, const WeightSource& weights, const std::string& name);
void write_with(const std::string& path, const WeightSource& weights, const std::string& name, Shape shape);

}  // namespace volley::test
