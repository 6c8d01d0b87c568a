#include "core/io/zero_source.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "core/base/error.h"

namespace volley {

ZeroSource::ZeroSource(std::shared_ptr<const WeightSource> source)
    : source_(std::move(source)), tensors_(source_->tensors()) {
  int64_t largest = 1;
  for (const NamedTensor& tensor : tensors_) largest = std::max(largest, tensor.view.bytes());
  auto* zeros = static_cast<std::byte*>(std::calloc(static_cast<size_t>(largest), 1));
  if (zeros == nullptr) {
    throw Error(path() + ": out of memory: " + std::to_string(largest) +
                " bytes of host memory needed for a plan");
  }
  zeros_ = {zeros, [](std::byte* memory) { std::free(memory); }};
  for (NamedTensor& tensor : tensors_) {
    if (tensor.view.dtype != DType::kI64) tensor.view.data = zeros;
  }
}

}  // namespace volley
