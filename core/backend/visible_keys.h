#pragma once

// The order in which a row sees its keys, written once for every host backend.

#include <algorithm>
#include <cstdint>

#include "core/backend/operations.h"

namespace volley {

// Where entries lie in a plane.
struct PlaneLayout {
  explicit PlaneLayout(const CachePlane& plane) : groups(plane.keys.shape[1]), width(plane.keys.shape[3]) {}

  int64_t groups = 0;
  int64_t width = 0;

  // Elements from an entry's vector of a group to that of the next group.
  int64_t group_stride() const { return kPageSize * width; }
  // Where an entry's vector of group 0 begins.
  int64_t offset(int64_t entry) const {
    return entry / kPageSize * groups * group_stride() + entry % kPageSize * width;
  }
  int64_t page_size() const { return groups * group_stride(); }
};

// The visible keys of one row, as indices into a plane's [pages * kPageSize] entries.
class VisibleKeys {
 public:
  VisibleKeys(const AttentionArgs& args, int64_t row) {
    const StepTables& step = args.step;
    const int32_t sequence = step.row_sequence.data[args.first_row + row];
    if (sequence < 0) return;
    const Indices& slots = args.source == KeySource::kMemory ? step.sequence_memory : step.sequence_slot;
    const int32_t slot = slots.data[sequence];
    if (slot < 0) return;
    pages_ = args.cache.block_table.data + slot * args.cache.block_table.shape[1];
    length_ = args.cache.lengths.data[slot];
    context_ = length_;
    active_ = true;
    if (args.source == KeySource::kMemory) return;
    const int64_t r = args.first_row + row;
    context_ = std::min<int64_t>(length_, step.row_context.data[r]);
    prefix_ = step.row_prefix.data[r];
    tail_ = step.tail.data + step.row_tail_begin.data[r];
    tail_count_ = step.row_tail_count.data[r];
  }

  // False for padding rows and rows whose sequence has no such cache.
  bool active() const { return active_; }
  int64_t size() const { return context_ + prefix_ + tail_count_; }

  // Entry of the i-th visible key in the plane.
  int64_t entry(int64_t i) const {
    if (i < context_) return place(i);
    i -= context_;
    return place(length_ + (i < prefix_ ? i : tail_[i - prefix_]));
  }

 private:
  int64_t place(int64_t logical) const {
    return int64_t{pages_[logical / kPageSize]} * kPageSize + logical % kPageSize;
  }

  const int32_t* pages_ = nullptr;
  const int32_t* tail_ = nullptr;
  int64_t length_ = 0;
  int64_t context_ = 0;
  int64_t prefix_ = 0;
  int64_t tail_count_ = 0;
  bool active_ = false;
};

// Entry of the plane that a row writes, or -1.
inline int64_t written_entry(const WriteCacheArgs& args, int64_t row) {
  const int32_t sequence = args.step.row_sequence.data[args.first_row + row];
  const int32_t code = args.step.row_entry.data[args.first_row + row];
  if (sequence < 0 || code == kNoEntry) return -1;
  const int32_t slot = args.step.sequence_slot.data[sequence];
  const int64_t logical = code >= 0 ? int64_t{args.cache.lengths.data[slot]} + code : -1 - int64_t{code};
  const int32_t page =
      args.cache.block_table.data[slot * args.cache.block_table.shape[1] + logical / kPageSize];
  return int64_t{page} * kPageSize + logical % kPageSize;
}

}  // namespace volley
