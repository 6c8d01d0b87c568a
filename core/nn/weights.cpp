#include "core/nn/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/base/error.h"
#include "core/io/block_formats.h"
#include "core/io/convert.h"
#include "core/io/untrusted_text.h"

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
  return stored_shape(source_, name).has_value();
}

Shape WeightLoader::shape(std::string_view name) const {
  const auto shape = stored_shape(source_, name);
  if (!shape) fail(name, "missing");
  return *shape;
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

const HostView& WeightLoader::find_floats(const std::string& name, const Shape& shape) {
  const HostView& view = find(name, shape);
  const bool is_float = view.dtype == DType::kF32 || view.dtype == DType::kF16 ||
                        view.dtype == DType::kBF16 || view.dtype == DType::kF64 || is_block_type(view.dtype);
  if (!is_float) fail(name, "expected a float type, found " + std::string(dtype_name(view.dtype)));
  return view;
}

std::optional<PackedPlanes> WeightLoader::find_quantized(const std::string& name, const Shape& shape) {
  if (source_.find(name) != nullptr || source_.find(name + ".quants") == nullptr) return std::nullopt;
  if (shape.rank() != 2 || shape[1] % kQ8BlockSize != 0) fail(name, "cannot be stored in blocks of 32");
  const HostView& quants = find(name + ".quants", shape);
  const HostView& scales = find(name + ".scales", {shape[0], shape[1] / kQ8BlockSize});
  if (quants.dtype != DType::kI8) fail(name + ".quants", "expected i8");
  if (scales.dtype != DType::kF16) fail(name + ".scales", "expected f16");
  return PackedPlanes{quants, scales};
}

std::vector<float> WeightLoader::values(const std::string& name, Shape shape) {
  std::vector<float> found;
  if (const auto planes = find_quantized(name, shape)) {
    found = dequantize_q8_0(planes->panels, planes->scales);
  } else {
    found = to_f32(find_floats(name, shape));
  }
  require_finite(name, found);
  if (writer_ != nullptr) writer_->add_floats(name, shape, found);
  return found;
}

std::optional<LinearWeight> WeightLoader::find_mapped(const std::string& name, WeightType type, int64_t out,
                                                      int64_t in) {
  const auto packed = find_packed(source_, name);
  if (!packed) return std::nullopt;
  const auto layout = source_.metadata().find(std::string(kPackedLayoutKey));
  if (layout == source_.metadata().end() || layout->second != backend_.packed_layout()) {
    fail(name, "packed for another device or version (" +
                   (layout == source_.metadata().end() ? "no layout stated" : quote(layout->second)) + ", " +
                   backend_.info().name + " reads " + quote(backend_.packed_layout()) + ")");
  }
  if (packed->type != type) {
    fail(name, "packed as " + std::string(weight_type_name(packed->type)) + ", asked for " +
                   std::string(weight_type_name(type)));
  }
  if (packed->shape != Shape({out, in})) {
    fail(name, "expected shape " + Shape({out, in}).to_string() + ", found " + packed->shape.to_string());
  }
  used_.insert(packed->names.begin(), packed->names.end());
  try {
    return backend_.map_linear({.planes = packed->planes,
                                .type = type,
                                .out_features = out,
                                .in_features = in,
                                .owner = source_.owner()});
  } catch (const Error& error) {
    fail(name, error.what());
  }
}

WeightType WeightLoader::type_of(DType dtype) const {
  if (!storage_.keeps_blocks || !is_block_type(dtype)) return type_;
  return has_four_bits(dtype) ? WeightType::kQ4_1 : WeightType::kQ8_0;
}

LinearWeight WeightLoader::pack(const std::string& name, const HostView& view) const {
  if (!source_.has_values()) return backend_.pack_linear(view, type_of(view.dtype));
  if (view.dtype == DType::kF64) {  // no backend packs it
    const std::vector<float> values = to_f32(view);
    return pack(name, host_view(values, view.shape));
  }
  const WeightType type = type_of(view.dtype);
  if (type == WeightType::kQ8_0) {
    if (const auto planes = q8_0_planes(view)) {  // as they are, without rounding again
      const Shape scales{view.shape[0], view.shape[1] / kQ8BlockSize};
      return pack_planes(name,
                         {.panels = {std::as_bytes(std::span(planes->quants)).data(), DType::kI8, view.shape},
                          .scales = {std::as_bytes(std::span(planes->scales)).data(), DType::kF16, scales}});
    }
  }
  try {
    return backend_.pack_linear(view, type);
  } catch (const Error& error) {
    const int64_t index = first_non_finite(view);
    if (index < 0) fail(name, error.what());
    require_finite(name, to_f32(view));
    throw;
  }
}

LinearWeight WeightLoader::pack_planes(const std::string& scales_name, const PackedPlanes& planes) const {
  if (first_non_finite(planes.scales) >= 0) fail(scales_name, "a value is not finite");
  return backend_.pack_quantized(planes.panels, planes.scales);
}

void WeightLoader::record(const std::string& name, const LinearWeight& weight) const {
  if (writer_ != nullptr) writer_->add_packed(name, weight);
}

LinearWeight WeightLoader::linear(const std::string& name, int64_t out, int64_t in) {
  return linear_rows(name, {.rows = out, .count = out}, in);
}

LinearWeight WeightLoader::linear_rows(const std::string& name, const RowRange& range, int64_t in) {
  const int64_t rows = range.rows, begin = range.begin, count = range.count;
  VOLLEY_ASSERT(begin >= 0 && begin + count <= rows);
  // A part is packed under a name of its own.
  const std::string packed_name = count == rows ? name : name + ".rows." + std::to_string(begin);
  if (auto mapped = find_mapped(packed_name, type_, count, in)) {
    record(packed_name, *mapped);
    return *mapped;
  }
  const auto part = [&](const HostView& view) {
    const int64_t row_bytes = view.bytes() / rows;
    return HostView{view.data + begin * row_bytes, view.dtype, {count, view.shape[1]}};
  };
  LinearWeight weight;
  if (const auto planes = find_quantized(name, {rows, in})) {
    const PackedPlanes wanted{part(planes->panels), part(planes->scales)};
    if (type_ == WeightType::kQ8_0 || storage_.keeps_blocks) {
      weight = pack_planes(name + ".scales", wanted);
    } else {
      const std::vector<float> values = dequantize_q8_0(wanted.panels, wanted.scales);
      weight = pack(name, host_view(values, {count, in}));
    }
  } else {
    const HostView& view = find_floats(name, {rows, in});
    weight = pack(name, part(view));
    source_.release(part(view));
  }
  record(packed_name, weight);
  return weight;
}

LinearWeight WeightLoader::linear(std::span<const float> values, int64_t out, int64_t in) const {
  if (writer_ != nullptr) throw Error(source_.path() + ": a model of this kind has no packed form");
  return backend_.pack_linear(host_view(values, {out, in}), type_);
}

Embedding WeightLoader::embedding(const std::string& name, int64_t rows, int64_t width) {
  const HostView* view = source_.find(name);
  if (!storage_.keeps_blocks || view == nullptr || !is_block_type(view->dtype))
    return {.table = tensor(name, {rows, width}), .packed = {}};
  return {.table = {}, .packed = linear(name, rows, width)};
}

void WeightLoader::upload(const std::string& name, Shape shape, std::byte* to) {
  if (writer_ == nullptr && !find_quantized(name, shape)) {
    const HostView& view = find_floats(name, shape);
    if (!source_.has_values()) return;
    if (view.dtype == DType::kF32 && first_non_finite(view) < 0) {  // as they lie
      backend_.make_queue()->upload(view.data, to, view.bytes());
      return;
    }
  }
  const std::vector<float> found = values(name, shape);
  const HostView view = host_view(found, shape);
  backend_.make_queue()->upload(view.data, to, view.bytes());
}

Weight WeightLoader::tensor(const std::string& name, Shape shape) {
  Weight weight{backend_.allocate(shape.size() * static_cast<int64_t>(sizeof(float))), shape};
  upload(name, shape, weight.buffer.data());
  return weight;
}

Weight WeightLoader::joined_tables(std::span<const Table> tables, int64_t width) {
  int64_t rows = 0;
  for (const Table& table : tables) rows += table.rows;
  const int64_t row_bytes = width * static_cast<int64_t>(sizeof(float));
  Weight weight{backend_.allocate(rows * row_bytes), {rows, width}};
  std::byte* to = weight.buffer.data();
  for (const Table& table : tables) {
    upload(table.name, {table.rows, width}, to);
    to += table.rows * row_bytes;
  }
  return weight;
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
  // Convolutions have no quantised weights: bf16 is the nearest.
  const WeightType type = is_quantized(type_) ? WeightType::kBF16 : type_;
  const std::vector<float> bias = values(name + ".bias", {used[0]});
  const HostView bias_view = host_view(bias, {used[0]});
  if (const auto packed = stored_shape(source_, name + ".weight"); packed && packed->rank() == 2) {
    if (const auto mapped = find_mapped(name + ".weight", type, (*packed)[0], (*packed)[1])) {
      record(name + ".weight", *mapped);
      try {
        return backend_.conv_from_linear(*mapped, bias_view, used);
      } catch (const Error& error) {
        fail(name + ".weight", error.what());
      }
    }
  }
  const HostView& view = find_floats(name + ".weight", stored);
  if (first_non_finite(view) >= 0) require_finite(name + ".weight", to_f32(view));
  ConvWeight conv = backend_.pack_conv({view.data, view.dtype, used}, bias_view, type);
  if (writer_ != nullptr) writer_->add_packed(name + ".weight", backend_.conv_as_linear(conv));
  return conv;
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
