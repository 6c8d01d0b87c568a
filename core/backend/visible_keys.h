#pragma once

// The order in which a row sees its keys and the entry that it writes, written once for every backend.

#include <cstdint>

#include "core/backend/operations.h"
#include "core/base/host_device.h"

namespace volley {

// Where entries lie in a plane.
struct PlaneLayout {
  explicit PlaneLayout(const CachePlane& plane) : groups(plane.shape[1]), width(plane.shape[3]) {}
  bool operator==(const PlaneLayout&) const = default;

  int64_t groups = 0;
  int64_t width = 0;

  // Elements from an entry's vector of a group to that of the next group.
  VOLLEY_HOST_DEVICE int64_t group_stride() const { return kPageSize * width; }
  // Where an entry's vector of group 0 begins.
  VOLLEY_HOST_DEVICE int64_t offset(int64_t entry) const {
    return entry / kPageSize * groups * group_stride() + entry % kPageSize * width;
  }
  VOLLEY_HOST_DEVICE int64_t page_size() const { return groups * group_stride(); }
};

// The tables of a step and of a cache as plain pointers, which device code takes by value.
struct RowTables {
  RowTables(const StepTables& step, const CacheTables& cache, int64_t first)
      : row_sequence(step.row_sequence.data),
        row_entry(step.row_entry.data),
        row_context(step.row_context.data),
        row_prefix(step.row_prefix.data),
        row_tail_begin(step.row_tail_begin.data),
        row_tail_count(step.row_tail_count.data),
        tail(step.tail.data),
        sequence_slot(step.sequence_slot.data),
        sequence_memory(step.sequence_memory.data),
        lengths(cache.lengths.data),
        block_table(cache.block_table.data),
        slot_pages(cache.block_table.shape[1]),
        first_row(first) {}
  bool operator==(const RowTables&) const = default;

  const int32_t* row_sequence;
  const int32_t* row_entry;
  const int32_t* row_context;
  const int32_t* row_prefix;
  const int32_t* row_tail_begin;
  const int32_t* row_tail_count;
  const int32_t* tail;
  const int32_t* sequence_slot;
  const int32_t* sequence_memory;
  const int32_t* lengths;
  const int32_t* block_table;
  int64_t slot_pages;
  int64_t first_row;
};

// The visible keys of one row, as indices into a plane's [pages * kPageSize] entries.
class VisibleKeys {
 public:
  VisibleKeys(const AttentionArgs& args, int64_t row)
      : VisibleKeys(RowTables(args.step, args.cache, args.first_row), args.source, row) {}

  VOLLEY_HOST_DEVICE VisibleKeys(const RowTables& tables, KeySource source, int64_t row) {
    const int64_t r = tables.first_row + row;
    const int32_t sequence = tables.row_sequence[r];
    if (sequence < 0) return;
    const int32_t slot =
        source == KeySource::kMemory ? tables.sequence_memory[sequence] : tables.sequence_slot[sequence];
    if (slot < 0) return;
    pages_ = tables.block_table + slot * tables.slot_pages;
    length_ = tables.lengths[slot];
    context_ = length_;
    active_ = true;
    if (source == KeySource::kMemory) return;
    if (tables.row_context[r] < length_) context_ = tables.row_context[r];
    prefix_ = tables.row_prefix[r];
    tail_ = tables.tail + tables.row_tail_begin[r];
    tail_count_ = tables.row_tail_count[r];
  }

  // False for padding rows and rows whose sequence has no such cache.
  VOLLEY_HOST_DEVICE bool active() const { return active_; }
  VOLLEY_HOST_DEVICE int64_t size() const { return context_ + prefix_ + tail_count_; }
  // The first of them, which the cache keeps from earlier steps.
  VOLLEY_HOST_DEVICE int64_t kept() const { return context_; }

  // How many first keys are the same as those of another active row.
  VOLLEY_HOST_DEVICE int shared_with(const VisibleKeys& other) const {
    if (pages_ != other.pages_) return 0;
    if (context_ != other.context_)
      return static_cast<int>(context_ < other.context_ ? context_ : other.context_);
    return static_cast<int>(context_ + (prefix_ < other.prefix_ ? prefix_ : other.prefix_));
  }

  // Entry of the i-th visible key in the plane.
  VOLLEY_HOST_DEVICE int64_t entry(int64_t i) const {
    const int64_t at = logical(i);
    return int64_t{page(at)} * kPageSize + at % kPageSize;
  }
  // The i-th visible key's place among the entries of its sequence, and the page of such a place.
  VOLLEY_HOST_DEVICE int64_t logical(int64_t i) const {
    if (i < context_) return i;
    i -= context_;
    return length_ + (i < prefix_ ? i : tail_[i - prefix_]);
  }
  VOLLEY_HOST_DEVICE int32_t page(int64_t logical) const { return pages_[logical / kPageSize]; }

 private:
  const int32_t* pages_ = nullptr;
  const int32_t* tail_ = nullptr;
  int64_t length_ = 0;
  int64_t context_ = 0;
  int64_t prefix_ = 0;
  int64_t tail_count_ = 0;
  bool active_ = false;
};

// Entry of the plane that a row writes, or -1.
VOLLEY_HOST_DEVICE inline int64_t written_entry(const RowTables& tables, int64_t row) {
  const int32_t sequence = tables.row_sequence[tables.first_row + row];
  const int32_t code = tables.row_entry[tables.first_row + row];
  if (sequence < 0 || code == kNoEntry) return -1;
  const int32_t slot = tables.sequence_slot[sequence];
  const int64_t logical = code >= 0 ? int64_t{tables.lengths[slot]} + code : -1 - int64_t{code};
  const int32_t page = tables.block_table[slot * tables.slot_pages + logical / kPageSize];
  return int64_t{page} * kPageSize + logical % kPageSize;
}

inline int64_t written_entry(const WriteCacheArgs& args, int64_t row) {
  return written_entry(RowTables(args.step, args.cache, args.first_row), row);
}

}  // namespace volley
