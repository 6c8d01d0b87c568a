#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/io/weight_source.h"
#include "core/nn/weights.h"
#include "tests/unit/io/gguf_builder.h"
#include "text/llama.h"

namespace volley::test {

// Tensors that a test holds itself.
class HeldWeights : public WeightSource {
 public:
  void add(std::string name, DType dtype, Shape shape, std::string bytes);
  // Sorts; to be called once, behind the last `add`.
  void finish();
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }

 private:
  std::vector<std::unique_ptr<std::string>> bytes_;
  std::vector<NamedTensor> tensors_;
  std::string path_ = "held";
};

// A model: a golden case of the text families, its config and weights as transformers wrote them, or a test's
// own.
struct TextCase {
  explicit TextCase(const std::string& name);
  TextCase(nlohmann::json json, std::unique_ptr<WeightSource> weights);

  std::string folder;
  nlohmann::json json;
  text::LlamaConfig config;
  std::unique_ptr<WeightSource> weights;
};

// How a matrix's values become a tensor's type and bytes.
struct Encoded {
  uint32_t type = kGgufF32;
  std::string bytes;
};
using Encode = std::function<Encoded(const std::vector<float>&)>;
Encoded encode_f32(const std::vector<float>& values);
Encoded encode_q8_0(const std::vector<float>& values);
Encoded encode_q4_1(const std::vector<float>& values);

// The case as a converter to GGUF writes it: other names, extents turned round, q and k of "llama" in pairs
// of neighbours, Llama 3's scaling as divisors.
GgufImage gguf_of(const TextCase& from, const Encode& encode_matrix = encode_f32);

// Logits of every row of a prompt of 20 tokens and of three tokens behind it, one after the other.
std::vector<float> all_logits(const text::LlamaConfig& config, const WeightSource& weights,
                              const std::shared_ptr<const Backend>& backend, WeightStorage storage);

}  // namespace volley::test
