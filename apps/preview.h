#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apps/console.h"
#include "image/image_job.h"
#include "image/pixel_coder.h"

namespace volley::apps {

// --preview: the first unfinished picture of a run as far as it is, in files and on the terminal. Cells that
// are not decided are grey. Decodes pixels only when one is due.
class Preview {
 public:
  struct Options {
    std::vector<std::string> files;
    bool on_terminal = false;
    int64_t every = 0;  // steps of a picture; 0: at most twice a second
  };
  Preview(Console& console, Options options, image::PictureMaker& maker)
      : console_(console), options_(std::move(options)), maker_(maker) {}

  void on_step(const StepEvent& event);
  void on_picture(const image::ImagePicture& picture);

 private:
  struct Item {
    std::vector<int32_t> codes;
    int64_t steps = 0;
  };
  bool is_due(const Item& item) const;
  void show(const image::Picture& picture);

  Console& console_;
  Options options_;
  image::PictureMaker& maker_;
  std::map<int64_t, Item> items_;  // that are not finished
  std::chrono::steady_clock::time_point shown_{};
};

}  // namespace volley::apps
