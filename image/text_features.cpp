#include "image/text_features.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/base/sha256.h"
#include "core/io/byte_reader.h"
#include "core/io/convert.h"
#include "core/io/mapped_file.h"
#include "core/io/npy.h"
#include "core/io/safetensors.h"

namespace volley::image {
namespace {

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 || dtype == DType::kF64;
}

// Non-zero values of a mask; it may be of any type.
std::vector<bool> read_mask(const HostView& view) {
  const auto size = static_cast<size_t>(dtype_size(view.dtype));
  std::vector<bool> mask;
  for (int64_t i = 0; i < view.shape.size(); ++i) {
    const std::byte* value = view.data + static_cast<size_t>(i) * size;
    mask.push_back(std::any_of(value, value + size, [](std::byte b) { return b != std::byte{0}; }));
  }
  return mask;
}

std::string expectation(const TextFeatureShape& shape) {
  return "expected floats [T, " + std::to_string(shape.width) + "] with T up to " +
         std::to_string(shape.max_rows);
}

}  // namespace

TextFeatures read_text_features(const std::string& path, const TextFeatureShape& shape) {
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  HostView view;
  std::vector<bool> mask;
  SafetensorsIndex index;
  if (as_text(file.bytes()).starts_with("\x93NUMPY")) {
    view = parse_npy(file.bytes()).value_or_throw(path);
  } else {
    index = parse_safetensors(file.bytes()).value_or_throw(path);
    const HostView* masked = nullptr;
    for (const NamedTensor& tensor : index.tensors) {
      if (tensor.name == "features") view = tensor.view;
      if (tensor.name == "mask") masked = &tensor.view;
    }
    if (view.data == nullptr) throw Error(path + ": tensor features: missing, " + expectation(shape));
    if (masked != nullptr) mask = read_mask(*masked);
  }
  Shape found = view.shape;
  if (found.rank() == 3 && found[0] == 1) found = {found[1], found[2]};
  if (!is_float(view.dtype) || found.rank() != 2 || found[1] != shape.width || found[0] < 1 ||
      found[0] > shape.max_rows) {
    throw Error(path + ": text features: " + expectation(shape) + ", found " +
                std::string(dtype_name(view.dtype)) + " " + view.shape.to_string());
  }
  if (mask.empty()) mask.assign(static_cast<size_t>(found[0]), true);
  if (static_cast<int64_t>(mask.size()) != found[0]) {
    throw Error(path + ": tensor mask: expected " + std::to_string(found[0]) + " values, found " +
                std::to_string(mask.size()));
  }
  const std::vector<float> all = to_f32(view);
  TextFeatures features{.file = path, .sha256 = sha256_hex(file.bytes())};
  for (size_t row = 0; row < mask.size(); ++row) {
    if (!mask[row]) continue;
    const auto begin = all.begin() + static_cast<int64_t>(row) * shape.width;
    features.values.insert(features.values.end(), begin, begin + shape.width);
    ++features.rows;
  }
  if (features.rows == 0) throw Error(path + ": tensor mask: every row is padding");
  if (!std::ranges::all_of(features.values, [](float value) { return std::isfinite(value); }))
    throw Error(path + ": text features: a value is not finite");
  return features;
}

}  // namespace volley::image
