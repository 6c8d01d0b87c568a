#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/decode/statistics.h"
#include "core/nn/draft_heads.h"

namespace volley {

// What is guessed for: a hidden row, and the tokens from the root on.
struct HeadPath {
  int32_t source = 0;  // row of the hidden rows
  std::vector<int32_t> tokens;
};

// Runs draft heads on rows of host memory. Used by one thread.
class HeadPasses {
 public:
  HeadPasses(const DraftHeads& heads, const Backend& backend);

  // Takes the hidden rows, [G, dim], that the paths of the next passes begin from.
  void begin(std::span<const float> hidden);
  // Logits of head `level` for each path, [paths, V], by one pass. Chained heads read the tokens: level + 1
  // of each path.
  std::vector<float> logits(int64_t level, std::span<const HeadPath> paths);

  // Its passes and their rows, as forwards of a model.
  Statistics& statistics() { return statistics_; }

 private:
  Indices upload(std::span<const int32_t> values, Shape shape);

  const DraftHeads& heads_;
  std::unique_ptr<Queue> queue_;
  Arena arena_;
  Tensor hidden_;  // [G, dim]
  Statistics statistics_;
};

}  // namespace volley
