#pragma once

// How products of packed weights are cut into parts that threads share.

#include <algorithm>
#include <cstdint>
#include <span>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/packed_weight.h"

namespace volley {

inline int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
inline int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

// Bytes of a weight's part that stays in the second-level cache beside the rows.
inline constexpr int64_t kPanelBytes = 512 * 1024;

// One thread's nanoseconds for a product: its multiplications, or reading its weight.
inline double product_guess(int64_t rows, int64_t weight_bytes) {
  return static_cast<double>(weight_bytes) * (0.05 + 0.005 * static_cast<double>(rows));
}

// The groups of some targets, of one type and depth, in a line: one target behind the other, or of a pair
// side by side. Parts are runs of neighbours, as even as possible, and as many for each thread.
class ProductParts {
 public:
  enum class Order : uint8_t { kBehindEachOther, kSideBySide };
  ProductParts(std::span<const LinearTarget> targets, Order order, int64_t threads)
      : targets_(targets),
        order_(order),
        group_(kGroupColumns, targets.front().weight->in_features, targets.front().weight->type) {
    for (const LinearTarget& target : targets) {
      all_groups_ += groups_of(target);
      if (order == Order::kBehindEachOther || &target == &targets.front()) length_ += groups_of(target);
    }
    // Small enough for the cache, and enough of them that threads can help each other.
    constexpr int64_t kLeast = 8, kMost = 16;  // groups of a part, parts of a thread
    const int64_t step_bytes = group_.group_bytes() * (order == Order::kSideBySide ? 2 : 1);
    const int64_t own = divide_up(length_, threads);  // groups of a thread
    parts_of_thread_ =
        std::max(std::clamp<int64_t>(own / kLeast, 1, kMost), divide_up(own * step_bytes, kPanelBytes));
    count_ = threads * parts_of_thread_;
  }

  int64_t count() const { return count_; }
  // What all targets have in common: extents of a group.
  const PackedExtents& group() const { return group_; }
  int64_t weight_bytes() const { return all_groups_ * group_.group_bytes(); }
  // Of a part and one target, at most.
  int64_t most_groups() const { return (divide_up(pairs(), count_) + 1) * kTogether; }

  // Groups of one target that are multiplied in one go.
  struct Run {
    const LinearTarget* target = nullptr;
    int64_t begin = 0, end = 0;
  };
  // Calls body(run, what its thread multiplies behind it) for the runs of a part, in order.
  template <typename Body>
  void for_runs(int64_t part, const Body& body) const {
    const int64_t begin = begin_of(part), end = begin_of(part + 1);
    const int64_t stripe_end = begin_of((part / parts_of_thread_ + 1) * parts_of_thread_);
    for (int64_t at = begin; at < end;) {
      const Run run = run_at(at, end);
      at += run.end - run.begin;
      const WeightStretch behind = at < stripe_end ? stretch_of(run_at(at, stripe_end)) : WeightStretch{};
      if (order_ == Order::kBehindEachOther) {
        body(run, behind);
      } else {
        const Run other{.target = &targets_[1], .begin = run.begin, .end = run.end};
        body(run, stretch_of(other));
        body(other, behind);
      }
    }
  }
  // What a part begins with.
  WeightStretch first_of(int64_t part) const {
    const int64_t begin = begin_of(part), end = begin_of(part + 1);
    return begin < end ? stretch_of(run_at(begin, end)) : WeightStretch{};
  }

 private:
  static constexpr int64_t kTogether = 2;  // groups that kernels multiply side by side

  static int64_t groups_of(const LinearTarget& target) {
    return divide_up(target.weight->out_features, kGroupColumns);
  }
  int64_t pairs() const { return divide_up(length_, kTogether); }
  int64_t begin_of(int64_t part) const { return std::min(length_, pairs() * part / count_ * kTogether); }
  // From a place in the line on, up to another or the target's end.
  Run run_at(int64_t begin, int64_t end) const {
    int64_t before = 0;
    for (const LinearTarget& target : targets_) {
      const int64_t groups = groups_of(target);
      if (begin < before + groups) return {&target, begin - before, std::min(end - before, groups)};
      before += groups;
    }
    return {};
  }
  WeightStretch stretch_of(const Run& run) const {
    const LinearWeight& weight = *run.target->weight;
    const int64_t groups = std::min(kTogether, run.end - run.begin);
    return {.panels = weight.data.data() + run.begin * group_.group_bytes(),
            .panel_bytes = groups * group_.group_bytes(),
            .scales = weight.scales.data() + run.begin * group_.group_scales() * 2,
            .scale_bytes = groups * group_.group_scales() * 2};
  }

  std::span<const LinearTarget> targets_;
  Order order_;
  PackedExtents group_;
  int64_t all_groups_ = 0;
  int64_t length_ = 0;  // of the line
  int64_t parts_of_thread_ = 1;
  int64_t count_ = 1;
};

}  // namespace volley
