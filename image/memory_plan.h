#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>

#include "core/backend/plan_backend.h"
#include "image/image_model.h"
#include "image/image_request.h"

namespace volley::image {

enum class Watched : uint8_t { kNo, kYes };

struct MemoryPlanOptions {
  std::shared_ptr<const Backend> backend;  // whose memory is meant; nothing is allocated there
  WeightType weight_type = WeightType::kF32;
  int64_t workers = 1;  // devices that share the run
  int64_t batch = 1;    // pictures that are decoded together at most; 0: none is made, the model is loaded
  // Whether someone looks at pictures in the making, with a PictureMaker of its own.
  Watched watched = Watched::kNo;
  std::stop_token stop;  // ends it early, with less than the run would take
};

// What a run of the request takes of a device, by running it with the checkpoints' shapes and without their
// values on a device that carries out nothing. Throws Error as loading does.
MemoryPlan plan_memory(const ImageCard& card, const ImageRequest& request, const MemoryPlanOptions& options);

}  // namespace volley::image
