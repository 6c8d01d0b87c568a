#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "apps/console.h"

namespace volley::apps {

// A line of progress of a file, drawn ten times a second.
class PullProgress {
 public:
  PullProgress(Console& console, std::string label) : console_(console), label_(std::move(label)) {}

  void update(int64_t done, int64_t total);  // total 0: not known
  void clear() { console_.progress({}); }

 private:
  Console& console_;
  std::string label_;
  std::chrono::steady_clock::time_point start_{}, drawn_{};
  int64_t first_ = 0;
};

}  // namespace volley::apps
