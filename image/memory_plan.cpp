#include "image/memory_plan.h"

#include "core/backend/plan_backend.h"
#include "image/image_job.h"
#include "image/shared_work.h"

namespace volley::image {

MemoryPlan plan_memory(const ImageCard& card, const ImageRequest& request, const MemoryPlanOptions& options) {
  const auto backend = make_plan_backend(options.backend);
  const ImageModel model(card, {.backend = backend,
                                .weight_type = options.weight_type,
                                .transformer = transformer_for(request.decoder),
                                .values = WeightValues::kZero});
  MemoryPlan plan{.weights = backend->allocated_bytes()};
  // One batch of the largest size, and a picture's pixels.
  ImageRequest first = request;
  const BatchQueue batches(request.items(), {.workers = options.workers, .most = options.batch});
  plan.batch = batches.size();
  first.only.assign(batches.items().begin(), batches.items().begin() + batches.size());
  plan.caches = cache_bytes(model, first, batches.size());
  ImageObserver observer;
  run_image(model, first, {.observer = &observer, .stop = options.stop}, batches.size());
  plan.working = backend->peak_bytes() - plan.weights - plan.caches;
  return plan;
}

}  // namespace volley::image
