#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "apps/picture_writer.h"
#include "image/fill.h"
#include "image/image_job.h"

namespace volley::apps {

// The steps that made each picture, in order.
class FillSteps {
 public:
  void add(const StepEvent& event);
  // Those of a picture that is finished, which are then forgotten.
  std::vector<image::FillStep> take(int64_t item);

 private:
  std::map<int64_t, std::vector<image::FillStep>> steps_;
};

// --animate and --step-map: how pictures filled in, with the run record of the pictures' own file. Steps are
// kept while a picture is made; pixels are decoded when it is finished.
class FillOutputs {
 public:
  enum class Layout : uint8_t { kFiles, kGrid };
  struct Options {
    std::vector<std::string> animations;  // of item 0, 1, ..., or one of the grid; empty: none
    std::vector<std::string> step_maps;
    Layout layout = Layout::kFiles;
    Existing existing = Existing::kKeep;
    // The record of a file with these pictures.
    std::function<image::RunRecord(std::span<const image::ImagePicture>, image::GridLayout)> record;
  };
  FillOutputs(Options options, image::PictureMaker& maker) : options_(std::move(options)), maker_(maker) {}

  void on_step(const StepEvent& event) { steps_.add(event); }
  void on_picture(const image::ImagePicture& picture);
  // Of a grid: writes what was kept.
  void finish();

 private:
  void write(size_t file, image::Fill fill, const image::RunRecord& record);

  Options options_;
  image::PictureMaker& maker_;
  FillSteps steps_;
  // Of a grid.
  std::map<int64_t, image::Fill> finished_;
  std::vector<image::ImagePicture> pictures_;  // what their record says, no pixels
};

}  // namespace volley::apps
