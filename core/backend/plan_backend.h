#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "core/backend/backend.h"

namespace volley {

// Bytes that a run takes of a device.
struct MemoryPlan {
  int64_t weights = 0;
  int64_t caches = 0;
  int64_t working = 0;  // scratch memory and tables of steps, and what is made of their outputs
  int64_t batch = 0;    // outputs that are decoded together
  int64_t total() const { return weights + caches + working; }
};

// A device like `device` whose memory has no end and whose queues carry out nothing (PlanQueue): it counts
// what would be allocated there, in steps of 64 bytes. `device` says what weights and operations take
// (Backend::linear_bytes and its neighbours); where that depends on values, it is the most.
std::shared_ptr<const Backend> make_plan_backend(std::shared_ptr<const Backend> device);

// Bytes that the memory of a device (DeviceInfo::name) has left, or of the machine. 0: not known.
int64_t free_memory(std::string_view device);

}  // namespace volley
