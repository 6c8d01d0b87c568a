#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "core/io/weight_source.h"

namespace volley::apps {

// What a checkpoint holds.
struct WeightsInfo {
  std::string path;
  std::string family;  // empty: not recognised
  int64_t tensors = 0;
  int64_t parameters = 0;                 // scales of quantised blocks left out
  int64_t bytes = 0;                      // of the tensors
  std::map<std::string, int64_t> dtypes;  // parameters and scales by type
};

WeightsInfo describe_weights(const WeightSource& weights);
nlohmann::json to_json(const WeightsInfo& info);

// The family whose tensors these are, by names that only it has, or empty.
std::string recognise_family(const WeightSource& weights);

}  // namespace volley::apps
