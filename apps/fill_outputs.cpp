#include "apps/fill_outputs.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "image/picture_file.h"

namespace volley::apps {

void FillSteps::add(const StepEvent& event) {
  steps_[event.generation].push_back({.cells = {event.positions.begin(), event.positions.end()},
                                      .codes = {event.tokens.begin(), event.tokens.end()},
                                      .is_given = event.source == image::kGivenSource});
}

std::vector<image::FillStep> FillSteps::take(int64_t item) {
  std::vector<image::FillStep> steps = std::move(steps_[item]);
  steps_.erase(item);
  return steps;
}

void FillOutputs::on_picture(const image::ImagePicture& picture) {
  const std::vector<image::FillStep> steps = steps_.take(picture.index);
  const bool is_grid = options_.layout == Layout::kGrid;
  image::Fill fill;
  if (!options_.animations.empty()) {
    const int64_t count = is_grid ? image::kGridFrames : image::frame_count(std::ssize(steps));
    fill.frames = fill_frames(maker_, picture.index, steps, picture.picture, count);
  }
  if (!options_.step_maps.empty()) fill.step_map = draw_step_map(maker_.canvas(), steps).picture;
  if (!is_grid) {
    return write(static_cast<size_t>(picture.index), std::move(fill), options_.record({&picture, 1}, {}));
  }
  finished_.emplace(picture.index, std::move(fill));
  pictures_.push_back({.index = picture.index,
                       .seed = picture.seed,
                       .token_hash = picture.token_hash,
                       .device = picture.device});
}

void FillOutputs::finish() {
  if (finished_.empty()) return;
  std::ranges::sort(pictures_, {}, &image::ImagePicture::index);
  const int64_t count = pictures_.back().index - pictures_.front().index + 1;
  write(0, make_fill_grid(finished_), options_.record(pictures_, image::grid_layout(count)));
}

void FillOutputs::write(size_t file, image::Fill fill, const image::RunRecord& record) {
  if (!options_.animations.empty()) {
    const std::string& path = options_.animations[file];
    write_file(path,
               encode_animation(image::fill_animation(std::move(fill.frames)),
                                *image::animation_format_of_path(path), record),
               options_.existing);
  }
  if (!options_.step_maps.empty()) {
    write_file(options_.step_maps[file], image::encode_step_map(fill.step_map, record), options_.existing);
  }
}

}  // namespace volley::apps
