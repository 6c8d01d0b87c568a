#pragma once

#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend/backend.h"
#include "core/io/weight_source.h"

namespace volley {

// A weight vector or table in the backend's memory, f32.
struct Weight {
  Buffer buffer;
  Shape shape;

  ConstTensor view() const { return buffer.data() ? ConstTensor(buffer.view<float>(shape)) : ConstTensor{}; }
};

// Takes the tensors of a checkpoint by name, checks their shapes and packs them for a backend. Any float type
// is accepted, and q8_0 planes: a weight NAME stored as NAME.quants [N, K] i8 and NAME.scales [N, K / 32]
// f16.
//
// Every method throws Error naming the file, the tensor, what was expected and what is there.
class WeightLoader {
 public:
  WeightLoader(const WeightSource& source, const Backend& backend, WeightType type)
      : source_(source), backend_(backend), type_(type) {}

  bool has(std::string_view name) const;
  // Shape of a tensor that must exist.
  Shape shape(std::string_view name) const;

  // A product's weight [out, in].
  LinearWeight linear(const std::string& name, int64_t out, int64_t in);
  // The same from host values (rows re-ordered by the model, say).
  LinearWeight linear(std::span<const float> values, int64_t out, int64_t in) const;
  // A vector or table, f32.
  Weight tensor(const std::string& name, Shape shape);
  Weight tensor(std::span<const float> values, Shape shape) const;
  // NAME.weight [out, in, h, w] and NAME.bias [out]; a signal's weight [out, in, w] counts as [out, in, 1,
  // w].
  ConvWeight conv(const std::string& name, int64_t out, int64_t in, int64_t kernel);
  ConvWeight conv1d(const std::string& name, int64_t out, int64_t in, int64_t kernel);
  // Values on the host.
  std::vector<float> values(const std::string& name, Shape shape);

  // Tensors that the model does not read, by name or by prefix.
  void ignore(std::string_view prefix);
  // Throws Error if the checkpoint holds tensors nobody asked for.
  void finish() const;

  const Backend& backend() const { return backend_; }

 private:
  [[noreturn]] void fail(std::string_view name, const std::string& fault) const;
  void require_finite(std::string_view name, std::span<const float> found) const;
  const HostView& find(const std::string& name, const Shape& shape);
  ConvWeight conv_as(const std::string& name, Shape stored, Shape used);

  const WeightSource& source_;
  const Backend& backend_;
  WeightType type_;
  std::set<std::string, std::less<>> used_;
  std::vector<std::string> ignored_;
};

}  // namespace volley
