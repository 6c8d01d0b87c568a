#pragma once

#include <deque>
#include <exception>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "apps/event_file.h"
#include "apps/fill_outputs.h"
#include "apps/image_tasks.h"
#include "apps/picture_writer.h"
#include "apps/preview.h"
#include "apps/progress.h"
#include "apps/verbs.h"

namespace volley::apps {

// Where the outputs of a run go, besides the pictures.
struct SideOutputs {
  std::vector<std::string> animations;  // of each file; empty: none
  std::vector<std::string> step_maps;
};

// What a renderer works with; all of it outlives it.
struct RenderContext {
  const ImageFlags& flags;
  Program& program;
  const image::ImageModel& model;
  const ImageTask& task;
  const SideOutputs& sides;
  PictureWriter& writer;
  EventFile* events = nullptr;
  int64_t encoders = 1;  // pictures whose files are encoded at once beside decoding; 1: each in its turn
};

// Renders the run of one task: files as pictures are finished, progress, events, previews, animations.
class ImageRenderer : public image::ImageObserver {
 public:
  explicit ImageRenderer(const RenderContext& context);

  void on_step(const StepEvent& event) override;
  void on_picture(const image::ImagePicture& picture) override;
  void on_check_step(const StepEvent& event) override;
  void on_check(const image::CheckOutcome& outcome) override;

  // Writes all that is made and not written yet, and prints the names that are not printed yet. What fails
  // keeps nothing else from being written; returns the first failure, if there is any.
  std::exception_ptr keep_what_is_made();
  // The same, which throws that failure, and names the pictures' files in the result.
  void finish(image::ImageResult& result);

 private:
  // Lets previews and animations see something.
  template <typename Show>
  void show(Show show);
  size_t file_of(int64_t item) const;
  // A picture whose file is being encoded on another thread.
  struct Made {
    std::shared_ptr<const image::ImagePicture> picture;
    std::future<std::vector<std::string>> encoded;
  };
  // Writes those that are encoded, in the order in which they were made, and waits until at most so many are
  // left.
  void settle(size_t most);
  void write_first_made();
  void announce(size_t file);
  void announce_in_order();
  void write_grid();

  RenderContext context_;
  Console& console_;
  const image::ImageRequest& request_;
  Progress progress_;
  Progress check_progress_;
  std::optional<image::PictureMaker> maker_;  // of what follows, if there is any
  std::optional<Preview> preview_;
  std::optional<FillOutputs> fills_;
  double render_seconds_ = 0.0;  // of preview_ and fills_
  std::deque<Made> made_;
  size_t most_made_ = 1;                   // at once
  std::vector<image::ImagePicture> kept_;  // for the grid
  std::vector<int64_t> items_;             // of the run, in order
  std::set<int64_t> finished_;             // whose names are not printed yet
  size_t next_ = 0;                        // place in items_ of the one whose name comes next
};

}  // namespace volley::apps
