#include "apps/image_memory.h"

#include <algorithm>
#include <vector>

#include "apps/resume.h"
#include "image/memory_plan.h"

namespace volley::apps {
namespace {

// What a task will make.
std::vector<int64_t> items_to_make(const ImageRun& run, const ImageTask& task) {
  if (!run.flags.shared.skip_existing) return task.request.items();
  return missing_items({.flags = run.flags, .names = run.names, .sides = run.sides}, task);
}

// Whether pictures are decoded in the making, besides those that are finished.
image::Watched watched(const ImageFlags& flags, const image::ImageRequest& request) {
  const bool is_watched = !flags.previews.empty() || !flags.animate.empty() ||
                          (!flags.step_map.empty() && request.edit);  // whose picture is encoded again
  return is_watched ? image::Watched::kYes : image::Watched::kNo;
}

}  // namespace

MemoryCheck check_memory(const ImageRun& run, const std::stop_token& stop) {
  image::ImageRequest largest = run.tasks.tasks.front().request;
  std::vector<int64_t> most;
  for (const ImageTask& task : run.tasks.tasks) {
    std::vector<int64_t> items = items_to_make(run, task);
    if (items.size() <= most.size()) continue;
    most = std::move(items);
    largest = task.request;
  }
  if (!most.empty()) largest.only = most;
  const auto& backend = run.backends.front();
  const WeightType type = weight_type_for({run.flags.shared.dtype, run.card, *backend});
  MemoryCheck check{.plan = plan_memory(run.card, largest,
                                        {.backend = backend,
                                         .weight_type = type,
                                         .workers = static_cast<int64_t>(run.backends.size()),
                                         .batch = most.empty() ? 0 : batch_for(run.flags, *backend),
                                         .watched = watched(run.flags, largest),
                                         .stop = stop}),
                    .devices = devices_of(run.backends)};
  if (check.plan.batch > 1) check.smaller_caches = "--batch below " + std::to_string(check.plan.batch);
  if (!run.card.packed) check.smaller_types = smaller_types_than(type);
  return check;
}

}  // namespace volley::apps
