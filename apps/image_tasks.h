#pragma once

#include <string>
#include <vector>

#include "apps/image_flags.h"
#include "apps/output_names.h"
#include "image/image_request.h"

namespace volley::apps {

// One request of a run, and which of the run's files its pictures are.
struct ImageTask {
  image::ImageRequest request;
  std::string source;  // "prompts.txt:3", or empty
  int64_t line = 0;
  std::string name;       // for file names
  size_t first_file = 0;  // file of item 0
};

// A line of --prompt-file that cannot be made.
struct TaskFailure {
  int64_t line = 0;
  std::string message;  // "prompts.txt:3: ..."
};

struct ImageTasks {
  std::vector<ImageTask> tasks;
  std::vector<TaskFailure> failures;

  int64_t pictures() const;
  // Of each picture of each task.
  std::vector<OutputFields> fields() const;
};

// What the flags ask for: one request, or one for each line of the prompt file. Reads that and the files of
// an edit, and tells `console` what was made of words and pictures. Throws Error.
ImageTasks make_tasks(const ImageFlags& flags, const image::ImageCard& card, Console& console);

}  // namespace volley::apps
