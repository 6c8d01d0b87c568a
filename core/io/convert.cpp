#include "core/io/convert.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/base/error.h"
#include "core/io/block_formats.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

// Copies element by element: a checkpoint's bytes need not be aligned.
template <typename Stored, typename To, typename Convert>
void convert_all(const HostView& view, To* out, Convert convert) {
  const int64_t count = view.shape.size();
  for (int64_t i = 0; i < count; ++i) {
    Stored element;
    std::memcpy(&element, view.data + i * static_cast<int64_t>(sizeof(Stored)), sizeof(Stored));
    out[i] = convert(element);
  }
}

template <typename Stored>
std::vector<int64_t> widen_all(const HostView& view) {
  std::vector<int64_t> values(static_cast<size_t>(view.shape.size()));
  convert_all<Stored>(view, values.data(), [](Stored value) { return static_cast<int64_t>(value); });
  return values;
}

[[noreturn]] void wrong_type(const char* expected, DType found) {
  throw Error(std::string("expected ") + expected + ", found " + std::string(dtype_name(found)));
}

}  // namespace

void copy_to_f32(const HostView& view, float* out) {
  switch (view.dtype) {
    case DType::kF32:
      if (view.shape.size() > 0) std::memcpy(out, view.data, static_cast<size_t>(view.bytes()));
      return;
    case DType::kF16:
      return convert_all<uint16_t>(view, out, f16_to_f32);
    case DType::kBF16:
      return convert_all<uint16_t>(view, out, bf16_to_f32);
    case DType::kF64:
      return convert_all<double>(view, out, [](double value) { return static_cast<float>(value); });
    default:
      if (!is_block_type(view.dtype)) wrong_type("floats", view.dtype);
      decode_blocks(view.dtype, {view.data, static_cast<size_t>(view.bytes())}, out);
  }
}

std::vector<float> to_f32(const HostView& view) {
  std::vector<float> values(static_cast<size_t>(view.shape.size()));
  copy_to_f32(view, values.data());
  return values;
}

int64_t first_non_finite(const HostView& view) {
  constexpr int64_t kPiece = 4096;  // whole blocks of every block type
  std::vector<float> values(kPiece);
  const int64_t count = view.shape.size();
  for (int64_t begin = 0; begin < count; begin += kPiece) {
    const int64_t size = std::min(kPiece, count - begin);
    copy_to_f32({view.data + dtype_bytes(view.dtype, begin), view.dtype, {size}}, values.data());
    // x - x is 0 for finite numbers alone; a sum over a piece is quick to look at.
    float differences = 0.0f;
    for (int64_t i = 0; i < size; ++i) differences += values[i] - values[i];
    if (differences == 0.0f) continue;
    for (int64_t i = 0; i < size; ++i) {
      if (!std::isfinite(values[i])) return begin + i;
    }
  }
  return -1;
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

std::optional<Q8Planes> q8_0_planes(const HostView& view) {
  if (!has_integer_blocks(view.dtype)) return std::nullopt;
  Q8Planes planes;
  planes.quants.resize(static_cast<size_t>(view.shape.size()));
  planes.scales.resize(planes.quants.size() / static_cast<size_t>(kQ8BlockSize));
  split_blocks(view.dtype, {view.data, static_cast<size_t>(view.bytes())}, planes.quants.data(),
               planes.scales.data());
  return planes;
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
