#include "core/nn/packed_weights.h"

#include <array>

#include "core/base/error.h"
#include "core/io/convert.h"
#include "core/io/safetensors.h"

namespace volley {
namespace {

struct PlaneNames {
  explicit PlaneNames(std::string_view name)
      : shape(std::string(name) + ".packed_shape"),
        bf16(std::string(name) + ".bf16_panels"),
        q8_0(std::string(name) + ".q8_0_panels"),
        scales(std::string(name) + ".q8_0_scales") {}

  std::string shape, bf16, q8_0, scales;
};

}  // namespace

std::optional<PackedTensor> find_packed(const WeightSource& source, std::string_view name) {
  const PlaneNames names(name);
  const HostView* shape = source.find(names.shape);
  if (shape == nullptr) return std::nullopt;
  const auto fail = [&](const std::string& tensor, const std::string& fault) -> Error {
    return Error(source.path() + ": tensor " + tensor + ": " + fault);
  };
  if (shape->shape != Shape({2}) || shape->dtype != DType::kI64) throw fail(names.shape, "expected i64 [2]");
  const std::vector<int64_t> extents = to_i64(*shape);
  constexpr int64_t kGreatest = int64_t{1} << 32;
  if (extents[0] < 1 || extents[1] < 1 || extents[0] > kGreatest || extents[1] > kGreatest) {
    throw fail(names.shape, "impossible extents");
  }
  PackedTensor packed{.shape = {extents[0], extents[1]}, .names = {names.shape}};
  const HostView* panels = source.find(names.bf16);
  if (panels != nullptr) {
    packed.planes.panels = *panels;
    packed.names.push_back(names.bf16);
    return packed;
  }
  packed.type = WeightType::kQ8_0;
  panels = source.find(names.q8_0);
  const HostView* scales = source.find(names.scales);
  if (panels == nullptr) throw fail(names.bf16, "missing");
  if (scales == nullptr) throw fail(names.scales, "missing");
  packed.planes = {.panels = *panels, .scales = *scales};
  packed.names.insert(packed.names.end(), {names.q8_0, names.scales});
  return packed;
}

std::optional<Shape> stored_shape(const WeightSource& source, std::string_view name) {
  if (const HostView* view = source.find(name)) return view->shape;
  if (const HostView* view = source.find(std::string(name) + ".quants")) return view->shape;
  if (const auto packed = find_packed(source, name)) return packed->shape;
  return std::nullopt;
}

void PackedWriter::add_packed(const std::string& name, const LinearWeight& weight) {
  const PlaneNames names(name);
  const auto shape = std::make_shared<const std::array<int64_t, 2>>(
      std::array<int64_t, 2>{weight.out_features, weight.in_features});
  kept_.push_back(
      {names.shape, {reinterpret_cast<const std::byte*>(shape->data()), DType::kI64, {2}}, shape});
  const PackedPlanes planes = backend_.packed_planes(weight);
  const auto owner = std::make_shared<const LinearWeight>(weight);
  const bool is_bf16 = weight.type == WeightType::kBF16;
  kept_.push_back({is_bf16 ? names.bf16 : names.q8_0, planes.panels, owner});
  if (!is_bf16) kept_.push_back({names.scales, planes.scales, owner});
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
