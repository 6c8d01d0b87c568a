#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "apps/image_flags.h"
#include "apps/image_tasks.h"
#include "image/memory_plan.h"

namespace volley::apps {

// What a run of pictures takes of each device, beside what there is, before anything is loaded.
struct MemoryCheck {
  image::MemoryPlan plan;
  struct Device {
    std::string name;
    int64_t copies = 1;  // of the model that it will hold
    int64_t free = 0;    // bytes; 0: not known
  };
  std::vector<Device> devices;
  std::string smaller_types;  // of weights that the model could have, for --dtype; empty: none

  // "memory of cpu: 1.2 GiB needed (...), 3.4 GiB free", a line for each device.
  std::vector<std::string> lines() const;
  nlohmann::json json() const;
  // Throws Error naming the device, the bytes needed and free, and what needs fewer.
  void require() const;
};

// By the task with the most pictures. Throws Error as loading does.
MemoryCheck check_memory(const ImageFlags& flags, const image::ImageCard& card, const ImageTasks& tasks,
                         std::span<const std::shared_ptr<const Backend>> backends,
                         const std::stop_token& stop);

}  // namespace volley::apps
