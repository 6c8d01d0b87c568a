#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apps/picture_writer.h"
#include "image/fill.h"
#include "image/image_job.h"

namespace volley::apps {

// --animate and --step-map: how pictures filled in. Steps are kept while a picture is made; pixels are
// decoded when it is finished.
class FillOutputs {
 public:
  enum class Layout : uint8_t { kFiles, kGrid };
  struct Options {
    std::vector<std::string> animations;  // of item 0, 1, ..., or one of the grid; empty: none
    std::vector<std::string> step_maps;
    Layout layout = Layout::kFiles;
    Existing existing = Existing::kKeep;
  };
  FillOutputs(Options options, image::PictureMaker& maker) : options_(std::move(options)), maker_(maker) {}

  void on_step(const StepEvent& event);
  void on_picture(const image::ImagePicture& picture);
  // Of a grid: writes what was kept.
  void finish();

  // Frames of a grid's animation.
  static constexpr int64_t kGridFrames = 24;

 private:
  Options options_;
  image::PictureMaker& maker_;
  std::map<int64_t, std::vector<image::FillStep>> steps_;  // of items that are not finished
  struct Finished {
    std::vector<image::Picture> frames;
    image::Picture step_map;
  };
  std::map<int64_t, Finished> finished_;  // of a grid
};

}  // namespace volley::apps
