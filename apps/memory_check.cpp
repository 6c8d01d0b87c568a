#include "apps/memory_check.h"

#include <algorithm>

#include "apps/console.h"
#include "core/base/error.h"

namespace volley::apps {

std::vector<std::string> MemoryCheck::lines() const {
  std::vector<std::string> lines;
  for (const Device& device : devices) {
    lines.push_back("memory of " + device.name + ": " + byte_count(device.copies * plan.total()) +
                    " needed (weights " + byte_count(plan.weights) + ", caches " + byte_count(plan.caches) +
                    ", working memory " + byte_count(plan.working) +
                    (device.copies > 1 ? ", " + std::to_string(device.copies) + " times" : "") + ")" +
                    (device.free > 0 ? ", " + byte_count(device.free) + " free" : ""));
  }
  return lines;
}

nlohmann::json MemoryCheck::json() const {
  nlohmann::json json = nlohmann::json::array();
  for (const Device& device : devices) {
    json.push_back({{"device", device.name},
                    {"weights", device.copies * plan.weights},
                    {"caches", device.copies * plan.caches},
                    {"working", device.copies * plan.working},
                    {"total", device.copies * plan.total()},
                    {"free", device.free}});
  }
  return json;
}

void MemoryCheck::require() const {
  for (const Device& device : devices) {
    const int64_t needed = device.copies * plan.total();
    if (device.free == 0 || needed <= device.free) continue;
    std::string remedies;
    if (!smaller_caches.empty()) remedies = "; " + smaller_caches + " takes smaller caches";
    if (!smaller_types.empty())
      remedies += (remedies.empty() ? "; --dtype " : ", --dtype ") + smaller_types + " smaller weights";
    throw Error(device.name + ": too little memory: " + std::to_string(needed) + " bytes needed (weights " +
                std::to_string(plan.weights) + ", caches " + std::to_string(plan.caches) +
                ", working memory " + std::to_string(plan.working) +
                (device.copies > 1 ? ", " + std::to_string(device.copies) + " times" : "") + "), " +
                std::to_string(device.free) + " free" + remedies);
  }
}

std::vector<MemoryCheck::Device> devices_of(std::span<const std::shared_ptr<const Backend>> backends) {
  std::vector<MemoryCheck::Device> devices;
  for (const auto& backend : backends) {
    const std::string& name = backend->info().name;
    const auto known = std::ranges::find(devices, name, &MemoryCheck::Device::name);
    if (known != devices.end()) {
      ++known->copies;
    } else {
      devices.push_back({.name = name, .free = free_memory(name)});
    }
  }
  return devices;
}

std::string smaller_types_than(WeightType type) {
  return type == WeightType::kF32 ? "bf16 or q8_0" : type == WeightType::kBF16 ? "q8_0" : "";
}

}  // namespace volley::apps
