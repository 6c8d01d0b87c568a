#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "core/backend/plan_backend.h"

namespace volley::apps {

// What a run takes of each device, beside what there is, before anything is loaded.
struct MemoryCheck {
  MemoryPlan plan;
  struct Device {
    std::string name;
    int64_t copies = 1;  // of the model that it will hold
    int64_t free = 0;    // bytes; 0: not known
  };
  std::vector<Device> devices;
  std::string smaller_caches;  // flag and value that make caches smaller: "--batch below 8"; empty: none
  std::string smaller_types;   // of weights that the model could have, for --dtype; empty: none

  // "memory of cpu: 1.2 GiB needed (...), 3.4 GiB free", a line for each device.
  std::vector<std::string> lines() const;
  nlohmann::json json() const;
  // Throws Error naming the device, the bytes needed and free, and what needs fewer.
  void require() const;
};

// The devices of a list, each once, and what they have left.
std::vector<MemoryCheck::Device> devices_of(std::span<const std::shared_ptr<const Backend>> backends);
// "bf16 or q8_0": what weights of that storage could be instead.
std::string smaller_types_than(WeightType type);

}  // namespace volley::apps
