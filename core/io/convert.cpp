#include "core/io/convert.h"

#include <cstring>
#include <string>

#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

// Copies element by element: a checkpoint's bytes need not be aligned.
template <typename Stored, typename To, typename Convert>
std::vector<To> convert_all(const HostView& view, Convert convert) {
  std::vector<To> values(static_cast<size_t>(view.shape.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    Stored element;
    std::memcpy(&element, view.data + i * sizeof(Stored), sizeof(Stored));
    values[i] = convert(element);
  }
  return values;
}

template <typename Stored>
std::vector<int64_t> widen_all(const HostView& view) {
  return convert_all<Stored, int64_t>(view, [](Stored value) { return static_cast<int64_t>(value); });
}

[[noreturn]] void wrong_type(const char* expected, DType found) {
  throw Error(std::string("expected ") + expected + ", found " + std::string(dtype_name(found)));
}

}  // namespace

std::vector<float> to_f32(const HostView& view) {
  switch (view.dtype) {
    case DType::kF32:
      return convert_all<float, float>(view, [](float value) { return value; });
    case DType::kF16:
      return convert_all<uint16_t, float>(view, f16_to_f32);
    case DType::kBF16:
      return convert_all<uint16_t, float>(view, bf16_to_f32);
    case DType::kF64:
      return convert_all<double, float>(view, [](double value) { return static_cast<float>(value); });
    default:
      wrong_type("floats", view.dtype);
  }
}

std::vector<int64_t> to_i64(const HostView& view) {
  switch (view.dtype) {
    case DType::kI64:
      return widen_all<int64_t>(view);
    case DType::kI32:
      return widen_all<int32_t>(view);
    case DType::kI16:
      return widen_all<int16_t>(view);
    case DType::kI8:
      return widen_all<int8_t>(view);
    case DType::kU8:
    case DType::kBool:
      return widen_all<uint8_t>(view);
    default:
      wrong_type("integers", view.dtype);
  }
}

std::vector<float> dequantize_q8_0(const HostView& quants, const HostView& scales) {
  if (quants.dtype != DType::kI8) wrong_type("q8_0 quants of i8", quants.dtype);
  if (scales.dtype != DType::kF16) wrong_type("q8_0 scales of f16", scales.dtype);
  const Shape& shape = quants.shape;
  bool fits = shape.rank() > 0 && scales.shape.rank() == shape.rank() && shape[-1] % kQ8BlockSize == 0 &&
              scales.shape[-1] == shape[-1] / kQ8BlockSize;
  for (int64_t i = 0; fits && i + 1 < shape.rank(); ++i) fits = shape[i] == scales.shape[i];
  if (!fits) {
    throw Error("q8_0 scales " + scales.shape.to_string() + " do not fit quants " + shape.to_string() +
                ", expected one per 32 of the last dimension");
  }
  const std::vector<float> scale = to_f32(scales);               // [N, K/32]
  std::vector<float> values(static_cast<size_t>(shape.size()));  // [N, K]
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(static_cast<int8_t>(quants.data[i])) * scale[i / kQ8BlockSize];
  }
  return values;
}

FloatTensor read_f32(const WeightSource& source, std::string_view name) {
  const std::string subject = source.path() + ": tensor " + quote(name);
  try {
    if (const HostView* view = source.find(name)) return {view->shape, to_f32(*view)};
    const HostView* quants = source.find(std::string(name) + ".quants");
    const HostView* scales = source.find(std::string(name) + ".scales");
    if (quants != nullptr && scales != nullptr) return {quants->shape, dequantize_q8_0(*quants, *scales)};
  } catch (const Error& error) {
    throw Error(subject + ": " + error.what(), error.kind());
  }
  throw Error(subject + " is missing");
}

}  // namespace volley
