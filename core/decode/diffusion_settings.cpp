#include "core/decode/diffusion_settings.h"

#include <string>

#include "core/base/error.h"

namespace volley {

DiffusionSettings read_diffusion_settings(const OptionReader& options) {
  const std::string by = options.choice("remasking", {"low_confidence", "margin", "entropy", "random"});
  const std::string cache = options.choice("cache", {"off", "prefix", "dual"});
  using Cache = DiffusionSettings::Cache;
  DiffusionSettings settings{
      .steps = options.integer("steps", 0, 1 << 24),
      .block_length = options.integer("block_length", 1, 1 << 24),
      .rule = {.certainty = by == "margin"    ? Certainty::kMargin
                            : by == "entropy" ? Certainty::kEntropy
                            : by == "random"  ? Certainty::kRandom
                                              : Certainty::kProbability,
               .threshold = options.number_or_off("threshold", 0.0, by == "entropy" ? 100.0 : 1.0),
               .factor = options.number_or_off("factor", 0.0, 1e6)},
      .cache = cache == "prefix" ? Cache::kPrefix
               : cache == "dual" ? Cache::kDual
                                 : Cache::kOff,
      .always_second = options.choice("second_forward", {"needed", "always"}) == "always"};
  const auto refuse = [](const std::string& fault) {
    throw Error("--decoder diffusion: " + fault, ErrorKind::kUsage);
  };
  if (settings.rule.threshold && settings.rule.factor)
    refuse("threshold and factor: each says how many places a step fills");
  if ((settings.rule.threshold || settings.rule.factor) && settings.steps != 0)
    refuse(std::string(settings.rule.threshold ? "threshold" : "factor") +
           " and steps: each says how many places a step fills");
  if (settings.rule.threshold && by == "random")
    refuse("threshold: remasking=random has no certainty to ask for");
  if (settings.rule.factor && by != "low_confidence") refuse("factor: only remasking=low_confidence has one");
  return settings;
}

}  // namespace volley
