#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string_view>

namespace volley {

class DraftPool;

// What one step of a method did to one generation.
struct StepEvent {
  int64_t generation = 0;              // index in the request
  int64_t candidate = 0;               // of methods that make several and choose one
  int64_t worker = 0;                  // of runs that several share: who did it
  int64_t step = 0;                    // of this generation, from 0 (the prompt's own token)
  std::span<const int32_t> positions;  // indices in the output
  std::span<const int32_t> tokens;     // now at those positions
  int64_t proposed = 0;                // draft tokens that were checked
  int64_t accepted = 0;                // of them right
  std::string_view source;             // who proposed them: "prompt", "model", "n-gram", ...
  bool is_final = true;                // false: a later step may change these tokens
  int64_t done = 0;                    // final tokens so far
  int64_t total = 0;                   // at most
};

// A generation's context was full: of its sequence the first tokens stay, those behind them are dropped.
struct ShiftEvent {
  int64_t generation = 0;
  int64_t step = 0;  // the next one
  int64_t kept = 0;  // first tokens that stay
  int64_t dropped = 0;
  int64_t done = 0;  // output tokens so far
};

// Receives the progress of a run. Progress bars, previews, animations and event files are renderers of it.
// Called on the thread that decodes; spans are valid during the call.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_step(const StepEvent& event) { (void)event; }
  virtual void on_shift(const ShiftEvent& event) { (void)event; }
};

// How a running method talks to its caller. `stop` is checked every step: a stopped run returns what it has.
struct DecodeControl {
  Observer* observer = nullptr;
  std::stop_token stop;
  // Seconds from any beginning, for methods that measure what their steps take; empty: the machine's.
  // Whatever it says, the tokens of a same-tokens method are the same.
  std::function<double()> clock;
  // Texts of earlier runs, for methods that draft from them (option `pool`); they add those of this run.
  // Null: this run's alone. It only ever changes what a step tries.
  DraftPool* pool = nullptr;
};

}  // namespace volley
