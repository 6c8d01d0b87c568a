#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace volley {

// What makes a masked model's guess at a hidden place a sure one.
enum class Certainty : uint8_t {
  kProbability,  // of the guess
  kMargin,       // of the likeliest token over the next
  kEntropy,      // of the distribution, in nats; the lower the surer
  kRandom,       // nothing: places are taken in a random order
};

// Whether a place that is exactly as sure as the threshold says is sure enough.
enum class ThresholdEnd : uint8_t { kIncluded, kExcluded };

// Which hidden places a step of masked decoding fills. The surest always is; of the others
//   with neither number below: as many of the surest as the schedule says;
//   threshold: those at least so sure (of an entropy: at most so unsure);
//   factor: a run of the surest, place n of it as long as (n + 1) (1 - probability) <= factor.
// Ref: ML-GSAI/LLaDA, `get_num_transfer_tokens`; Wu et al., "Fast-dLLM" (threshold, factor); Chen et al.,
// "dParallel" (threshold on entropies). Fast-dLLM's code fills the last place of such a run, too, when it
// alone fails; here it has to wait.
struct UnmaskRule {
  Certainty certainty = Certainty::kProbability;
  std::optional<double> threshold;
  ThresholdEnd threshold_end = ThresholdEnd::kIncluded;
  std::optional<double> factor;  // with kProbability only

  // Places to fill, increasing. `values` are what `certainty` names, of each hidden place; of equals the
  // first is the surest. At least one, unless `values` is empty.
  std::vector<int32_t> choose(std::span<const float> values, int64_t scheduled) const;
  // Index of the surest place. `values` is not empty.
  int32_t surest(std::span<const float> values) const;
};

// How many of the values, from the first on, are above `threshold`; at least one, unless there are none.
// Ref: Liu et al., "Sequential Diffusion Language Models" (longest confident prefix).
int64_t confident_prefix(std::span<const float> values, double threshold);

// Places that each step of a block fills: `places` over `steps`, the first steps one more where that does not
// divide. Steps that would fill none are left out.
std::vector<int64_t> unmask_schedule(int64_t places, int64_t steps);

}  // namespace volley
