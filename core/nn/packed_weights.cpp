#include "core/nn/packed_weights.h"

#include <array>

#include "core/base/error.h"
#include "core/io/convert.h"
#include "core/io/safetensors.h"

namespace volley {
namespace {

constexpr std::array kPackedTypes{WeightType::kBF16, WeightType::kQ8_0, WeightType::kQ4_1};

std::string shape_name(std::string_view name) {
  return std::string(name) + ".packed_shape";
}

struct PlaneNames {
  PlaneNames(std::string_view name, WeightType type)
      : panels(std::string(name) + "." + std::string(weight_type_name(type)) + "_panels"),
        scales(std::string(name) + "." + std::string(weight_type_name(type)) + "_scales") {}

  std::string panels, scales;
};

}  // namespace

std::optional<PackedTensor> find_packed(const WeightSource& source, std::string_view name) {
  const std::string extents_name = shape_name(name);
  const HostView* shape = source.find(extents_name);
  if (shape == nullptr) return std::nullopt;
  const auto fail = [&](const std::string& tensor, const std::string& fault) -> Error {
    return Error(source.path() + ": tensor " + tensor + ": " + fault);
  };
  if (shape->shape != Shape({2}) || shape->dtype != DType::kI64) throw fail(extents_name, "expected i64 [2]");
  const std::vector<int64_t> extents = to_i64(*shape);
  constexpr int64_t kGreatest = int64_t{1} << 32;
  if (extents[0] < 1 || extents[1] < 1 || extents[0] > kGreatest || extents[1] > kGreatest) {
    throw fail(extents_name, "impossible extents");
  }
  PackedTensor packed{.shape = {extents[0], extents[1]}, .names = {extents_name}};
  for (const WeightType type : kPackedTypes) {
    const PlaneNames names(name, type);
    const HostView* panels = source.find(names.panels);
    if (panels == nullptr) continue;
    packed.type = type;
    packed.planes.panels = *panels;
    packed.names.push_back(names.panels);
    if (!is_quantized(type)) return packed;
    const HostView* scales = source.find(names.scales);
    if (scales == nullptr) throw fail(names.scales, "missing");
    packed.planes.scales = *scales;
    packed.names.push_back(names.scales);
    return packed;
  }
  throw fail(PlaneNames(name, WeightType::kBF16).panels, "missing");
}

std::optional<Shape> stored_shape(const WeightSource& source, std::string_view name) {
  if (const HostView* view = source.find(name)) return view->shape;
  if (const HostView* view = source.find(std::string(name) + ".quants")) return view->shape;
  if (const auto packed = find_packed(source, name)) return packed->shape;
  return std::nullopt;
}

void PackedWriter::add_packed(const std::string& name, const LinearWeight& weight) {
  if (stop_.stop_requested()) throw Error("packing of " + name + " was interrupted");
  const PlaneNames names(name, weight.type);
  const auto shape = std::make_shared<const std::array<int64_t, 2>>(
      std::array<int64_t, 2>{weight.out_features, weight.in_features});
  kept_.push_back(
      {shape_name(name), {reinterpret_cast<const std::byte*>(shape->data()), DType::kI64, {2}}, shape});
  const PackedPlanes planes = backend_.packed_planes(weight);
  const auto owner = std::make_shared<const LinearWeight>(weight);
  kept_.push_back({names.panels, planes.panels, owner});
  if (is_quantized(weight.type)) kept_.push_back({names.scales, planes.scales, owner});
}

void PackedWriter::add_floats(const std::string& name, Shape shape, std::span<const float> values) {
  VOLLEY_ASSERT(shape.size() == static_cast<int64_t>(values.size()));
  const auto owner = std::make_shared<const std::vector<float>>(values.begin(), values.end());
  kept_.push_back({name, {reinterpret_cast<const std::byte*>(owner->data()), DType::kF32, shape}, owner});
}

void PackedWriter::write(const std::string& path) const {
  std::vector<NamedTensor> tensors;
  for (const Kept& kept : kept_) tensors.push_back({kept.name, kept.view});
  write_safetensors(path, tensors, {{std::string(kPackedLayoutKey), std::string(backend_.packed_layout())}});
}

}  // namespace volley
