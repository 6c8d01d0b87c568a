#include "core/nn/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/error.h"
#include "core/io/convert.h"

namespace volley {
namespace {

HostView host_view(std::span<const float> values, Shape shape) {
  VOLLEY_ASSERT(shape.size() == static_cast<int64_t>(values.size()));
  return {reinterpret_cast<const std::byte*>(values.data()), DType::kF32, shape};
}

}  // namespace

void WeightLoader::fail(std::string_view name, const std::string& fault) const {
  throw Error(source_.path() + ": tensor " + std::string(name) + ": " + fault);
}

void WeightLoader::require_finite(std::string_view name, std::span<const float> found) const {
  const auto broken = std::ranges::find_if_not(found, [](float value) { return std::isfinite(value); });
  if (broken == found.end()) return;
  fail(name, "value " + std::to_string(broken - found.begin()) + " is " +
                 (std::isnan(*broken) ? "NaN" : "infinite"));
}

bool WeightLoader::has(std::string_view name) const {
  return source_.find(name) != nullptr || source_.find(std::string(name) + ".quants") != nullptr;
}

Shape WeightLoader::shape(std::string_view name) const {
  if (const HostView* view = source_.find(name)) return view->shape;
  if (const HostView* view = source_.find(std::string(name) + ".quants")) return view->shape;
  fail(name, "missing");
}

const HostView& WeightLoader::find(const std::string& name, const Shape& shape) {
  const HostView* view = source_.find(name);
  if (view == nullptr) fail(name, "missing, expected " + shape.to_string());
  if (view->shape != shape) {
    fail(name, "expected shape " + shape.to_string() + ", found " + view->shape.to_string());
  }
  used_.insert(name);
  return *view;
}

std::vector<float> WeightLoader::values(const std::string& name, Shape shape) {
  const HostView* quants = source_.find(name + ".quants");
  if (source_.find(name) != nullptr || quants == nullptr) {
    const HostView& view = find(name, shape);
    const bool is_float = view.dtype == DType::kF32 || view.dtype == DType::kF16 ||
                          view.dtype == DType::kBF16 || view.dtype == DType::kF64;
    if (!is_float) fail(name, "expected a float type, found " + std::string(dtype_name(view.dtype)));
    std::vector<float> found = to_f32(view);
    require_finite(name, found);
    return found;
  }
  if (shape.rank() != 2 || shape[1] % kQ8BlockSize != 0) fail(name, "cannot be stored in blocks of 32");
  const HostView& quant_view = find(name + ".quants", shape);
  const HostView& scale_view = find(name + ".scales", {shape[0], shape[1] / kQ8BlockSize});
  if (quant_view.dtype != DType::kI8) fail(name + ".quants", "expected i8");
  std::vector<float> found = dequantize_q8_0(quant_view, scale_view);
  require_finite(name, found);
  return found;
}

LinearWeight WeightLoader::linear(const std::string& name, int64_t out, int64_t in) {
  return linear(values(name, {out, in}), out, in);
}

LinearWeight WeightLoader::linear(std::span<const float> values, int64_t out, int64_t in) const {
  return backend_.pack_linear(host_view(values, {out, in}), type_);
}

Weight WeightLoader::tensor(const std::string& name, Shape shape) {
  return tensor(values(name, shape), shape);
}

Weight WeightLoader::tensor(std::span<const float> values, Shape shape) const {
  const HostView view = host_view(values, shape);
  Weight weight{backend_.allocate(view.bytes()), shape};
  backend_.make_queue()->upload(view.data, weight.buffer.data(), view.bytes());
  return weight;
}

ConvWeight WeightLoader::conv(const std::string& name, int64_t out, int64_t in, int64_t kernel) {
  return conv_as(name, {out, in, kernel, kernel}, {out, in, kernel, kernel});
}

ConvWeight WeightLoader::conv1d(const std::string& name, int64_t out, int64_t in, int64_t kernel) {
  return conv_as(name, {out, in, kernel}, {out, in, 1, kernel});
}

ConvWeight WeightLoader::conv_as(const std::string& name, Shape stored, Shape used) {
  const std::vector<float> weight = values(name + ".weight", stored);
  const std::vector<float> bias = values(name + ".bias", {used[0]});
  // Convolutions have no q8_0: bf16 is the nearest.
  const WeightType type = type_ == WeightType::kQ8_0 ? WeightType::kBF16 : type_;
  return backend_.pack_conv(host_view(weight, used), host_view(bias, {used[0]}), type);
}

void WeightLoader::ignore(std::string_view prefix) {
  ignored_.emplace_back(prefix);
}

void WeightLoader::finish() const {
  for (const NamedTensor& tensor : source_.tensors()) {
    if (used_.contains(tensor.name)) continue;
    const auto starts = [&](const std::string& prefix) { return tensor.name.starts_with(prefix); };
    if (std::ranges::any_of(ignored_, starts)) continue;
    fail(tensor.name, "the model has no such tensor (shape " + tensor.view.shape.to_string() + ")");
  }
}

}  // namespace volley
