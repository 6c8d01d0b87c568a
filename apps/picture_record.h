#pragma once

#include <string>

#include "core/base/error.h"
#include "image/picture_file.h"
#include "image/run_record.h"

namespace volley::apps {

// A file of pictures, or of how they filled in, and the run record in it.
struct RecordedPicture {
  std::string path;
  image::FileRecord file;
  int64_t width = 0;
  int64_t height = 0;
  image::Picture picture;  // empty if it was not asked for, and of an animation
  std::string bytes;       // the whole file, of an animation that was asked for
  std::string subject;     // what messages call the record
  nlohmann::json json;     // as it stands in the file
  image::RunRecord record;
};

// A whole picture that is none of ours, or that has lost its record.
class NoRecord : public Error {
 public:
  explicit NoRecord(std::string message) : Error(std::move(message)) {}
};

enum class Pixels : uint8_t { kRead, kLeave };

// Throws Error "<path>: <fault>"; NoRecord if there is no record to be read.
RecordedPicture read_recorded_picture(const std::string& path, Pixels pixels = Pixels::kRead);

}  // namespace volley::apps
