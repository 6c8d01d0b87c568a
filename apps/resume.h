#pragma once

#include "apps/image_renderer.h"
#include "apps/image_tasks.h"
#include "apps/output_names.h"
#include "apps/picture_writer.h"
#include "image/image_model.h"

namespace volley::apps {

// What --skip-existing works with; all of it outlives the call.
struct ResumeContext {
  const ImageFlags& flags;
  const image::ImageModel& model;
  const SideOutputs& sides;
  PictureWriter& writer;
  Console& console;
};

// --skip-existing: which pictures of a task are there already, by their files' names and run records. Leaves
// the others in the request's `only` and returns how many are kept; all of them: there is nothing to run.
// Files without a record count by their name, which the console is told. A picture that lacks its animation
// or its step map is made again for their sake, and so is a grid with fewer pictures, which `writer` may then
// replace. Throws Error naming a file that was made otherwise.
int64_t keep_existing(const ResumeContext& context, ImageTask& task);

// The pictures of a task that `keep_existing` will leave to be made, as far as files tell while there is no
// model to compare their records with.
struct ExistingFiles {
  const ImageFlags& flags;
  const OutputNames& names;
  const SideOutputs& sides;
};
std::vector<int64_t> missing_items(const ExistingFiles& files, const ImageTask& task);

}  // namespace volley::apps
