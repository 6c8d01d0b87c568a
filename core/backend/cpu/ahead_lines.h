#pragma once

// How kernels ask for memory that they read next.

#include <cstddef>
#include <cstdint>

namespace volley {

// Asks for a stretch of memory, a share of it in each of some steps, so that memory is read all the time:
// into the second-level cache, as the first has no room beside what is in use. Lines are asked for in four
// places by turns: processors read ahead of each place by themselves, and of one alone not far enough.
class AheadLines {
 public:
  AheadLines(const void* begin, int64_t bytes, int64_t steps)
      : next_(static_cast<const std::byte*>(begin)),
        place_lines_((bytes + kPlaces * kLine - 1) / (kPlaces * kLine)),
        end_(next_ + bytes),
        steps_(steps) {}

  void step() {
    // Of a place so many lines, rounded down, are due in so many steps.
    for (due_ += place_lines_; due_ >= steps_; due_ -= steps_, next_ += kLine) {
      const std::byte* line = next_;
      for (int64_t place = 0; place < kPlaces && line < end_; ++place, line += place_lines_ * kLine) {
        __builtin_prefetch(line, 0, 2);
      }
    }
  }

 private:
  static constexpr int64_t kPlaces = 4, kLine = 64;
  const std::byte* next_;
  int64_t place_lines_;
  const std::byte* end_;
  int64_t steps_;
  int64_t due_ = 0;
};

}  // namespace volley
