#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "core/base/error.h"

namespace volley {

// Extents of a dense row-major tensor, up to six dimensions.
class Shape {
 public:
  static constexpr int64_t kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) : Shape(std::span(extents.begin(), extents.size())) {}
  explicit Shape(std::span<const int64_t> extents) : rank_(static_cast<int64_t>(extents.size())) {
    VOLLEY_ASSERT(rank_ <= kMaxRank);
    for (int64_t i = 0; i < rank_; ++i) extents_[i] = extents[i];
  }

  int64_t rank() const { return rank_; }
  // Extent of dimension `i`; negative counts from the last.
  int64_t operator[](int64_t i) const { return extents_[i < 0 ? i + rank_ : i]; }
  std::span<const int64_t> extents() const { return {extents_.data(), static_cast<size_t>(rank_)}; }
  // Number of elements; 1 for a scalar.
  int64_t size() const {
    int64_t product = 1;
    for (int64_t i = 0; i < rank_; ++i) product *= extents_[i];
    return product;
  }
  bool operator==(const Shape&) const = default;

  // "[2, 3]"
  std::string to_string() const {
    std::string text = "[";
    for (int64_t i = 0; i < rank_; ++i) text += (i ? ", " : "") + std::to_string(extents_[i]);
    return text + "]";
  }

 private:
  std::array<int64_t, kMaxRank> extents_{};
  int64_t rank_ = 0;
};

}  // namespace volley
