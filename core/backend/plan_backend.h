#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace volley {

// A device like `device` whose memory has no end and whose queues carry out nothing (PlanQueue): it counts
// what would be allocated. Weights take what the extents of their panels take, which may be a little more or
// less than there; what a device holds for single operations is counted of cards alone, and roughly.
std::shared_ptr<const Backend> make_plan_backend(std::shared_ptr<const Backend> device);

// Bytes that the memory of a device (DeviceInfo::name) has left, or of the machine. 0: not known.
int64_t free_memory(std::string_view device);

}  // namespace volley
