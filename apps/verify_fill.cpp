// Animations and step maps against those made again. GIF has lost colours, and all formats may put frames
// together: only the file as a whole can be compared.
#include "apps/verify_fill.h"

#include <map>
#include <set>
#include <string>
#include <vector>

namespace volley::apps {
namespace {

Verdict compare_step_map(const RecordedPicture& made, const image::Picture& map) {
  const auto size = [](const image::Picture& picture) {
    return std::to_string(picture.width) + "x" + std::to_string(picture.height);
  };
  if (size(made.picture) != size(map))
    return differs("pixels", "size of the step map", size(made.picture), size(map));
  return compare_pixels(made.picture, map);
}

}  // namespace

void require_remakable(const RecordedPicture& made) {
  if (made.file.shows == image::Shows::kPicture) return;
  DecoderSpec spec = made.record.request.decoder;
  state_options(spec);
  const auto length = spec.options.find("length");
  if (length == spec.options.end() || length->second != "adaptive") return;
  throw Error(made.path + ": shows the steps of " + image::decoder_text(made.record.request.decoder) +
              ", which are others in each run, and cannot be compared; the picture's own file can");
}

Verdict compare_fill(const RecordedPicture& made, const RemadeFill& again) {
  std::map<int64_t, std::vector<image::FillStep>> steps;
  for (const image::ImagePicture& picture : again.pictures)
    steps[picture.index] = again.steps.take(picture.index);
  std::map<int64_t, image::Fill> fills;
  if (made.file.shows == image::Shows::kStepMap) {
    for (const auto& [index, of] : steps)
      fills[index].step_map = draw_step_map(again.maker.canvas(), of).picture;
    return compare_step_map(made, make_fill_grid(fills).step_map);
  }
  // A single picture may stand alone or be what there was of a grid.
  std::set<int64_t> counts{image::kGridFrames};
  if (steps.size() == 1) counts.insert(image::frame_count(std::ssize(steps.begin()->second)));
  for (const int64_t count : counts) {
    for (const image::ImagePicture& picture : again.pictures) {
      fills[picture.index].frames =
          fill_frames(again.maker, picture.index, steps[picture.index], picture.picture, count);
    }
    const image::Animation animation = image::fill_animation(make_fill_grid(fills).frames);
    if (encode_animation(animation, made.file.animation.format, made.record) == made.bytes)
      return std::nullopt;
  }
  return Difference{.what = "bytes", .message = "the animation made again is not the same byte for byte"};
}

}  // namespace volley::apps
