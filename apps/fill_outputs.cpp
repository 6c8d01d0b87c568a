#include "apps/fill_outputs.h"

#include <algorithm>

#include "core/base/error.h"

namespace volley::apps {

void FillOutputs::on_step(const StepEvent& event) {
  steps_[event.generation].push_back({.cells = {event.positions.begin(), event.positions.end()},
                                      .codes = {event.tokens.begin(), event.tokens.end()},
                                      .is_given = event.source == image::kGivenSource});
}

void FillOutputs::on_picture(const image::ImagePicture& picture) {
  const std::vector<image::FillStep> steps = std::move(steps_[picture.index]);
  steps_.erase(picture.index);
  const auto index = static_cast<size_t>(picture.index);
  const bool is_grid = options_.layout == Layout::kGrid;
  Finished finished;
  if (!options_.animations.empty()) {
    const int64_t count = is_grid ? kGridFrames : image::frame_count(std::ssize(steps));
    finished.frames = fill_frames(maker_, picture.index, steps, picture.picture, count);
  }
  if (!options_.step_maps.empty()) finished.step_map = draw_step_map(maker_.canvas(), steps).picture;
  if (is_grid) {
    finished_.emplace(picture.index, std::move(finished));
    return;
  }
  if (!options_.animations.empty()) {
    const std::string& path = options_.animations[index];
    write_file(path,
               encode_animation(image::fill_animation(std::move(finished.frames)),
                                *image::animation_format_of_path(path)),
               options_.existing);
  }
  if (!options_.step_maps.empty()) {
    write_file(options_.step_maps[index], image::encode_picture(finished.step_map, {}), options_.existing);
  }
}

void FillOutputs::finish() {
  if (finished_.empty()) return;
  const int64_t first = finished_.begin()->first, count = finished_.rbegin()->first - first + 1;
  const image::GridLayout layout = image::grid_layout(count);
  const auto grid_of = [&](auto picture_of) {
    std::vector<const image::Picture*> cells(static_cast<size_t>(count), nullptr);
    for (const auto& [index, finished] : finished_)
      cells[static_cast<size_t>(index - first)] = picture_of(finished);
    return image::make_grid(cells, layout);
  };
  if (!options_.animations.empty()) {
    std::vector<image::Picture> frames;
    for (size_t f = 0; f < static_cast<size_t>(kGridFrames); ++f)
      frames.push_back(grid_of([f](const Finished& finished) { return &finished.frames[f]; }));
    const std::string& path = options_.animations.front();
    write_file(
        path,
        encode_animation(image::fill_animation(std::move(frames)), *image::animation_format_of_path(path)),
        options_.existing);
  }
  if (!options_.step_maps.empty()) {
    write_file(
        options_.step_maps.front(),
        image::encode_picture(grid_of([](const Finished& finished) { return &finished.step_map; }), {}),
        options_.existing);
  }
}

}  // namespace volley::apps
