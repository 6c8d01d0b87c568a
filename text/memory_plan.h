#pragma once

#include <memory>
#include <stop_token>

#include "core/backend/plan_backend.h"
#include "text/heads_checkpoint.h"
#include "text/text_job.h"
#include "text/text_request.h"

namespace volley::text {

// What a request will run on, as it lies on disk.
struct TextCheckpoints {
  const TextCheckpoint& model;
  const TextCheckpoint* draft = nullptr;
  const HeadsCheckpoint* heads = nullptr;
};

struct MemoryPlanOptions {
  std::shared_ptr<const Backend> backend;  // whose memory is meant; nothing is allocated there
  WeightStorage storage = WeightType::kF32;
  WeightStorage draft_storage = WeightType::kF32;  // of the draft model's weights
  int64_t batch = kTextBatch;                      // prompts that are answered together at most
  std::stop_token stop;                            // ends it early, with less than the run would take
};

// What a run of the request takes of a device, by running its longest prompts together, for some steps, with
// the checkpoints' shapes and without their values on a device that carries out nothing. The checkpoints are
// left as they are. Throws Error as loading and running do.
MemoryPlan plan_memory(const TextCheckpoints& checkpoints, const TextRequest& request,
                       const MemoryPlanOptions& options);

}  // namespace volley::text
