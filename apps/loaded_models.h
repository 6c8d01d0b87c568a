#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "apps/flags.h"
#include "image/image_model.h"
#include "image/image_request.h"

namespace volley::apps {

// A model on each device of a run.
struct LoadedModels {
  std::vector<std::unique_ptr<const image::ImageModel>> all;

  const image::ImageModel& first() const { return *all.front(); }
  std::vector<const image::ImageModel*> pointers() const;
  // Whether the processor does all the work, one batch after the other.
  bool is_processor() const { return all.size() == 1 && apps::is_processor(*first().backend()); }
  // "cpu", "cuda:0 and cuda:1".
  std::string devices() const;
};

struct LoadOptions {
  const std::string& dtype;  // as --dtype takes it
  const DecoderSpec& decoder;
};
// Throws Error.
LoadedModels load_models(const image::ImageCard& card,
                         std::span<const std::shared_ptr<const Backend>> backends,
                         const LoadOptions& options);

}  // namespace volley::apps
