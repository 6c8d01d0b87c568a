#pragma once

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/flags.h"
#include "image/image_job.h"

namespace volley::apps {

// Throws Error kUsage if --events is standard output and --json takes that.
void refuse_taken_events(const SharedFlags& flags);

// --events: what a run's observer is told, as JSON Lines of schema volley.event/1. Lines are written as they
// come, each whole, so that another program may follow them.
class EventFile {
 public:
  enum class Existing : uint8_t { kRefuse, kReplace };
  // "-" is standard output. Throws Error naming the path.
  EventFile(std::string path, Existing existing);

  // Of volley image.
  void start(const image::ImageRequest& request);
  void step(const StepEvent& event);
  void picture(const image::ImagePicture& picture, const std::string& file);
  void check(const image::CheckOutcome& outcome);
  // `interrupted`: as ImageResult has it. The last call; throws Error if anything could not be written.
  void end(const image::ImageResult& result);

  // Any other event: an object with its key "event".
  void write(nlohmann::json event);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace volley::apps
