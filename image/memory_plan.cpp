#include "image/memory_plan.h"

#include <utility>
#include <vector>

#include "core/backend/plan_backend.h"
#include "core/decode/decoder.h"
#include "image/image_job.h"
#include "image/pixel_coder.h"
#include "image/shared_work.h"

namespace volley::image {

namespace {

// Looks at the first picture as it begins, as previews and animations do.
class Watcher : public ImageObserver {
 public:
  Watcher(const ImageModel& model, const ImageRequest& request) : maker_(model, request) {}
  void on_step(const StepEvent& event) override {
    if (std::exchange(has_seen_, true)) return;
    maker_.partial(event.generation, std::vector<int32_t>(static_cast<size_t>(maker_.canvas().cells()), -1));
  }

 private:
  PictureMaker maker_;
  bool has_seen_ = false;
};

}  // namespace

MemoryPlan plan_memory(const ImageCard& card, const ImageRequest& request, const MemoryPlanOptions& options) {
  const auto backend = make_plan_backend(options.backend);
  const ImageModel model(card, {.backend = backend,
                                .weight_type = options.weight_type,
                                .transformer = transformer_for(request.decoder),
                                .values = WeightValues::kZero});
  MemoryPlan plan{.weights = backend->allocated_bytes()};
  if (options.batch == 0) {
    plan.working = backend->peak_bytes() - plan.weights;
    return plan;
  }
  // One batch of the largest size, and a picture's pixels.
  ImageRequest first = request;
  plan_longest_drafts(first.decoder);
  const BatchQueue batches(request.items(), {.workers = options.workers, .most = options.batch});
  plan.batch = batches.size();
  first.only.assign(batches.items().begin(), batches.items().begin() + batches.size());
  plan.caches = cache_bytes(model, first, batches.size());
  std::unique_ptr<ImageObserver> observer = std::make_unique<ImageObserver>();
  if (options.watched == Watched::kYes) observer = std::make_unique<Watcher>(model, first);
  run_image(model, first, {.observer = observer.get(), .stop = options.stop}, batches.size());
  plan.working = backend->peak_bytes() - plan.weights - plan.caches;
  return plan;
}

}  // namespace volley::image
