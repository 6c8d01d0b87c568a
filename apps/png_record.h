#pragma once

#include <string>

#include "image/png.h"
#include "image/run_record.h"

namespace volley::apps {

// A PNG file and the run record in it.
struct RecordedPng {
  image::Picture picture;
  std::string subject;  // what messages call the record
  nlohmann::json json;  // as it stands in the file
  image::RunRecord record;
};

// Throws Error "<path>: <fault>".
RecordedPng read_recorded_png(const std::string& path);

}  // namespace volley::apps
