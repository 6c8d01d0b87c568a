#pragma once

// How attention asks for the keys and values that it reads next.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/backend/cpu/attention_kernels.h"

namespace volley {

// Asks for the next group's keys and values, a few in each of many steps, into the second-level cache. A core
// keeps track of few lines on their way and waits when there are more, so steps belong between calculations.
// Each asks in four places of the keys and four of the values: processors read ahead of each by themselves.
class VectorsAhead {
 public:
  // For keys that lie at offsets[0 .. count), in elements.
  VectorsAhead(const AttentionChunkArgs& args, const int64_t* offsets, int64_t count)
      : element_(cache_element_bytes(args.type)),
        keys_(args.keys + args.next_group * element_),
        values_(args.values + args.next_group * element_),
        offsets_(offsets),
        last_(count - 1),
        place_((count + kPlaces - 1) / kPlaces),
        left_(args.next_group == 0 ? 0 : place_),
        vector_bytes_(args.width * element_) {}

  void step() {
    if (left_ == 0) return;
    const int64_t at = place_ - left_--;
    for (int64_t place = 0; place < kPlaces; ++place) {
      const int64_t offset = offsets_[std::min(place * place_ + at, last_)] * element_;
      for (int64_t byte = 0; byte < vector_bytes_; byte += kLine) {
        __builtin_prefetch(keys_ + offset + byte, 0, 2);
        __builtin_prefetch(values_ + offset + byte, 0, 2);
      }
    }
  }
  void finish() {
    while (left_ > 0) step();
  }

 private:
  static constexpr int64_t kPlaces = 4, kLine = 64;
  int64_t element_;
  const std::byte* keys_;
  const std::byte* values_;
  const int64_t* offsets_;
  int64_t last_;
  int64_t place_;  // keys of a place
  int64_t left_;   // steps
  int64_t vector_bytes_;
};

}  // namespace volley
