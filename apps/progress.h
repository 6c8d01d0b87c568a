#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

#include "apps/console.h"
#include "core/decode/observer.h"

namespace volley::apps {

// A line that tells how far decoding is: pictures, tokens, forwards, time.
class Progress {
 public:
  Progress(Console& console, int64_t pictures, int64_t tokens_each)
      : console_(console), pictures_(pictures), tokens_each_(tokens_each) {}

  // `label`: what is being done.
  void on_step(const StepEvent& event, const std::string& label);
  void on_picture() { ++finished_; }
  void clear() { console_.progress({}); }
  void restart() { items_.clear(); }

 private:
  struct Item {
    int64_t tokens = 0;
    int64_t steps = 0;
  };

  Console& console_;
  int64_t pictures_;
  int64_t tokens_each_;
  int64_t finished_ = 0;
  std::map<int64_t, Item> items_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point drawn_{};
};

}  // namespace volley::apps
