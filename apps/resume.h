#pragma once

#include "apps/image_tasks.h"
#include "apps/picture_writer.h"
#include "image/image_model.h"

namespace volley::apps {

// --skip-existing: which pictures of a task are there already, by their files' names and run records. Leaves
// the others in the request's `only` and returns how many are kept; all of them: there is nothing to run.
// Files without a record count by their name, which `console` is told. Throws Error naming a file that was
// made otherwise.
int64_t keep_existing(const ImageFlags& flags, const image::ImageModel& model, PictureWriter& writer,
                      Console& console, ImageTask& task);

}  // namespace volley::apps
