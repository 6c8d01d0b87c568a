#pragma once

#include <span>

#include "core/backend/cpu/elementwise.h"
#include "core/backend/operations.h"

namespace volley {

// Where the input of a convolution comes from: it may be made of another tensor, row by row while bands of it
// are copied, so that it lies in memory nowhere.
class ConvInput {
 public:
  // The tensor itself.
  explicit ConvInput(ConstTensor x) : x_(x) {}
  // `group_norm` of norm.x; moments: [N, groups].
  ConvInput(const GroupNormArgs& norm, std::span<const GroupMoments> moments)
      : x_(norm.x), norm_(&norm), moments_(moments) {}
  // `upsample2x` of args.x.
  explicit ConvInput(const Upsample2xArgs& args) : x_(args.x), factor_(2) {}

  bool is_in_memory() const { return norm_ == nullptr && factor_ == 1; }
  // Row y of a channel of picture n; in `work`, which has room for a row, unless it lies in memory.
  const float* row(int64_t n, int64_t channel, int64_t y, float* work) const;

 private:
  void normalize(int64_t n, int64_t channel, const float* from, float* to) const;

  ConstTensor x_;  // [N, C, h, w]
  const GroupNormArgs* norm_ = nullptr;
  std::span<const GroupMoments> moments_;
  int64_t factor_ = 1;  // of height and width
};

}  // namespace volley
