#pragma once

#include <span>

#include "apps/fill_outputs.h"
#include "apps/verify_compare.h"

namespace volley::apps {

// How the pictures of a record filled in when they were made again.
struct RemadeFill {
  image::PictureMaker& maker;                     // of the record's request
  std::span<const image::ImagePicture> pictures;  // by increasing index
  FillSteps& steps;                               // theirs, which are taken
};

// Throws Error unless the file shows what can be made again: a method that adapts to the time that its steps
// take makes the same picture by other steps in each run.
void require_remakable(const RecordedPicture& made);

// Whether an animation is, byte for byte, the one made again, or a step map pixel for pixel. Throws Error.
Verdict compare_fill(const RecordedPicture& made, const RemadeFill& again);

}  // namespace volley::apps
