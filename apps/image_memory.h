#pragma once

#include <memory>
#include <span>
#include <stop_token>

#include "apps/image_flags.h"
#include "apps/image_renderer.h"
#include "apps/image_tasks.h"
#include "apps/memory_check.h"
#include "apps/output_names.h"
#include "image/image_card.h"

namespace volley::apps {

struct ImageRun {
  const ImageFlags& flags;
  const image::ImageCard& card;
  const ImageTasks& tasks;
  const OutputNames& names;
  const SideOutputs& sides;
  std::span<const std::shared_ptr<const Backend>> backends;
};

// By the task with the most pictures to make; if --skip-existing leaves none, of the model alone. Throws
// Error as loading does.
MemoryCheck check_memory(const ImageRun& run, const std::stop_token& stop);

}  // namespace volley::apps
