#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "apps/console.h"
#include "core/decode/observer.h"

namespace volley::apps {

// A line that tells how far decoding is: tokens, forwards, tokens a forward, time.
class Progress {
 public:
  struct Work {
    std::string label;  // what is being done
    int64_t outputs = 1;
    int64_t tokens_each = 0;
  };
  Progress(Console& console, Work work) : console_(console), work_(std::move(work)) {}

  void on_step(const StepEvent& event);
  void clear() { console_.progress({}); }

 private:
  void draw();

  Console& console_;
  Work work_;
  std::map<int64_t, int64_t> tokens_;  // of each output so far
  // Of each worker: outputs that the forward going on has been reported for.
  std::map<int64_t, std::set<int64_t>> in_forward_;
  int64_t given_ = 0;            // of the tokens, by an edit
  int64_t forwards_ = 0;         // of the batches
  int64_t output_forwards_ = 0;  // of the outputs, each for itself
  std::chrono::steady_clock::time_point start_{};
  std::chrono::steady_clock::time_point drawn_{};
};

}  // namespace volley::apps
