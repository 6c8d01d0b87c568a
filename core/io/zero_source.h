#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "core/io/weight_source.h"

namespace volley {

// The names, types and shapes of a checkpoint's tensors. Their bytes are zero, and nothing is read, but for
// whole numbers, which are extents of other tensors.
class ZeroSource : public WeightSource {
 public:
  explicit ZeroSource(std::shared_ptr<const WeightSource> source);
  // `source` must outlive it.
  explicit ZeroSource(const WeightSource& source)
      : ZeroSource(std::shared_ptr<const WeightSource>(std::shared_ptr<void>(), &source)) {}

  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return source_->path(); }
  std::shared_ptr<const void> owner() const override { return zeros_; }
  bool has_values() const override { return false; }
  const std::map<std::string, std::string>& metadata() const override { return source_->metadata(); }

 private:
  std::shared_ptr<const WeightSource> source_;
  std::shared_ptr<const std::byte> zeros_;  // as many as the largest tensor has; memory that nobody writes
  std::vector<NamedTensor> tensors_;
};

}  // namespace volley
