#pragma once

// Weights packed for a backend's products, stored in a file so that loading maps them and packs nothing.
//
// The file is a safetensors file. A product's weight NAME [out, in] is stored as
//   NAME.packed_shape   i64 [2]: out, in
//   NAME.bf16_panels, or NAME.q8_0_panels and NAME.q8_0_scales, or the same with q4_1   the planes, as the
//   layout lays
//                       them out
// and its metadata states the layout under "volley.packed_layout". Everything else is stored as the model
// reads it.

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/backend/backend.h"
#include "core/io/weight_source.h"

namespace volley {

inline constexpr std::string_view kPackedLayoutKey = "volley.packed_layout";

// A packed weight in a file.
struct PackedTensor {
  WeightType type = WeightType::kBF16;
  Shape shape;  // [out, in]
  PackedPlanes planes;
  std::vector<std::string> names;  // of its tensors
};

// Null if the source holds no packed weight of that name. Throws Error "<path>: tensor ..." if what it holds
// is incomplete.
std::optional<PackedTensor> find_packed(const WeightSource& source, std::string_view name);

// Shape of a weight in whatever form it is stored: as it is, as q8_0 planes, packed. Null if it is not there.
std::optional<Shape> stored_shape(const WeightSource& source, std::string_view name);

// Takes what a WeightLoader loads and writes it as a packed file.
class PackedWriter {
 public:
  explicit PackedWriter(const Backend& backend, std::stop_token stop = {})
      : backend_(backend), stop_(std::move(stop)) {}

  // Throws Error when asked to stop, so that reading a large checkpoint ends at its next weight.
  void add_packed(const std::string& name, const LinearWeight& weight);
  void add_floats(const std::string& name, Shape shape, std::span<const float> values);

  // Throws Error naming the path.
  void write(const std::string& path) const;

 private:
  struct Kept {
    std::string name;
    HostView view;
    std::shared_ptr<const void> owner;
  };

  const Backend& backend_;
  std::stop_token stop_;
  std::vector<Kept> kept_;
};

}  // namespace volley
