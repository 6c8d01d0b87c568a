#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <map>

#include "core/backend/operations.h"

namespace volley {

// Honest counts of a run. A speed-up is quoted only beside tokens per forward and rows per forward.
struct Statistics {
  int64_t forwards = 0;         // decode passes of the network, whatever the batch
  int64_t prompt_forwards = 0;  // passes on the prompt path
  int64_t rows = 0;             // rows of the decode passes, padding excluded
  int64_t prompt_rows = 0;
  int64_t prompt_rows_kept = 0;         // of prompts, in the cache from earlier ones: they ran no more
  int64_t tokens = 0;                   // that were emitted
  std::map<int64_t, int64_t> accepted;  // how often a verification emitted so many tokens
  // Of methods that draft and verify, summed over generations.
  int64_t steps = 0;           // verifications
  int64_t steps_off = 0;       // of them without a draft, as none was expected to pay (length=adaptive)
  int64_t drafted_tokens = 0;  // that were verified
  int64_t right_tokens = 0;    // of them right
  // Of a draft model, none of them in the counts above.
  int64_t draft_forwards = 0;
  int64_t draft_rows = 0;
  int64_t draft_prompt_forwards = 0;
  int64_t draft_prompt_rows = 0;
  double draft_seconds = 0.0;
  double prompt_seconds = 0.0;
  double decode_seconds = 0.0;
  double sample_seconds = 0.0;
  int64_t peak_bytes = 0;  // of the backend's memory

  void add_draft_tokens(int64_t drafted, int64_t right) {
    ++steps;
    drafted_tokens += drafted;
    right_tokens += right;
  }

  // Adds what another session counted at the same time; `peak_bytes` is the larger one.
  void add(const Statistics& other) {
    forwards += other.forwards;
    prompt_forwards += other.prompt_forwards;
    rows += other.rows;
    prompt_rows += other.prompt_rows;
    prompt_rows_kept += other.prompt_rows_kept;
    tokens += other.tokens;
    for (const auto& [length, times] : other.accepted) accepted[length] += times;
    steps += other.steps;
    steps_off += other.steps_off;
    drafted_tokens += other.drafted_tokens;
    right_tokens += other.right_tokens;
    draft_forwards += other.draft_forwards;
    draft_rows += other.draft_rows;
    draft_prompt_forwards += other.draft_prompt_forwards;
    draft_prompt_rows += other.draft_prompt_rows;
    draft_seconds += other.draft_seconds;
    prompt_seconds += other.prompt_seconds;
    decode_seconds += other.decode_seconds;
    sample_seconds += other.sample_seconds;
    peak_bytes = std::max(peak_bytes, other.peak_bytes);
  }

  // Adds what a draft model's session counted.
  void add_draft(const Statistics& draft) {
    draft_forwards += draft.forwards;
    draft_rows += draft.rows;
    draft_prompt_forwards += draft.prompt_forwards;
    draft_prompt_rows += draft.prompt_rows;
    draft_seconds += draft.prompt_seconds + draft.decode_seconds + draft.sample_seconds;
  }
};

// Adds the time of its life to `seconds`.
class StopWatch {
 public:
  explicit StopWatch(double& seconds) : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
  ~StopWatch() {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  StopWatch(const StopWatch&) = delete;
  StopWatch& operator=(const StopWatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace volley
