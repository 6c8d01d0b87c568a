#pragma once

// What property tests ask of the registry's methods, and how they watch a run.

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "core/decode/decoder.h"
#include "core/decode/observer.h"
#include "tests/support/toy_models.h"

namespace volley::test {

// The registry's methods that promise sequential tokens.
inline std::vector<std::string> same_tokens_methods() {
  std::vector<std::string> names;
  for (const DecoderInfo& info : decoder_registry()) {
    if (info.kind == DecoderClass::kSameTokens) names.push_back(info.name);
  }
  return names;
}

inline std::vector<std::vector<int32_t>> tokens_of(const std::vector<GenerationOutput>& outputs) {
  std::vector<std::vector<int32_t>> tokens;
  for (const GenerationOutput& output : outputs) tokens.push_back(output.tokens);
  return tokens;
}

// Decoders that choose draft lengths by the clock.
inline std::vector<std::string> adaptive_decoders() {
  return {"lookup:length=adaptive,draft=7,ngram=2", "lookup:length=adaptive,draft=3,ngram=1",
          "lookup:length=adaptive,draft=6,pool=500", "draft:length=adaptive,draft=6",
          "jacobi:length=adaptive,window=6"};
}

// A clock that makes methods change their minds: steps take any time, at times none, or time runs backwards
// or is no number. By every fourth clock steps take the same time otherwise, whatever their rows: long drafts
// pay.
class OddClock {
 public:
  explicit OddClock(uint64_t seed) : random_(seed), is_even_(seed % 4 == 0) {}
  double operator()() {
    const int64_t kind = random_.below(40);
    if (kind == 0) return std::nan("");
    if (kind == 1) return std::numeric_limits<double>::infinity();
    now_ += kind == 2 ? -0.1 : kind == 3 ? 0.0 : is_even_ ? 0.01 : 0.01 * std::pow(8.0, random_.uniform());
    return now_;
  }

 private:
  TestRandom random_;
  bool is_even_;
  double now_ = 0.0;
};

// Counts drafted tokens.
class DraftCounter : public Observer {
 public:
  void on_step(const StepEvent& event) override {
    proposed += event.proposed;
    accepted += event.accepted;
    ++steps[event.proposed];
  }
  int64_t proposed = 0, accepted = 0;
  std::map<int64_t, int64_t> steps;  // by drafted tokens
};

}  // namespace volley::test
