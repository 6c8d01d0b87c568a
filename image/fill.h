#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "image/animation.h"
#include "image/pixel_coder.h"

namespace volley::image {

// One step of a picture's making, as the observer was told of it.
struct FillStep {
  std::vector<int32_t> cells;
  std::vector<int32_t> codes;  // now in them
  bool is_given = false;       // by an edit, before the first step
};

// Moments of a picture's making, evenly over its steps: the first before any, the last the whole picture.
// What is not decided is grey.
std::vector<Picture> fill_frames(PictureMaker& maker, int64_t item, std::span<const FillStep> steps,
                                 const Picture& whole, int64_t count);

// Frames of an animation of so many steps.
inline constexpr int64_t kMostFrames = 40;
int64_t frame_count(int64_t steps);
// Shows the frames for three seconds and the last one for longer.
Animation fill_animation(std::vector<Picture> frames);

// Of a grid's animation.
inline constexpr int64_t kGridFrames = 24;

// How a picture, or a grid of them, filled in. Empty is what was not asked for.
struct Fill {
  std::vector<Picture> frames;
  Picture step_map;
};
// Fills by item, at least one and all with as many frames, in the places of their pictures in a grid of the
// first to the last of them.
Fill make_fill_grid(const std::map<int64_t, Fill>& fills);

// The colour of a step among `count`, from dark blue to yellow; no two alike among 256.
std::array<uint8_t, 3> step_color(int64_t step, int64_t count);
inline constexpr std::array<uint8_t, 3> kGivenColor{96, 96, 96};

// The cells as squares in the colour of the step that decided them, given ones in kGivenColor; below, the
// colours in order between the numbers of the first and the last step.
struct StepMap {
  Picture picture;
  int64_t square = 0;  // pixels of a cell's side
};
StepMap draw_step_map(const Canvas& canvas, std::span<const FillStep> steps);

}  // namespace volley::image
