#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend/operations.h"
#include "core/decode/check.h"
#include "image/image_request.h"
#include "image/picture.h"

namespace volley::image {

inline constexpr std::string_view kRunSchema =
    "volley.run/1";  // also the keyword of the PNG text that holds it

// One picture of a file.
struct RecordedPicture {
  int64_t index = 0;  // item of the run
  uint64_t seed = 0;
  std::string token_hash;

  bool operator==(const RecordedPicture&) const = default;
};

// All that is needed to make a file of pictures again, and to tell whether it came out the same.
struct RunRecord {
  std::string volley;  // version that made it
  ImageRequest request;
  std::map<std::string, std::string> weights;  // SHA-256 by role
  std::string device;
  std::string dtype;
  int64_t width = 0;  // of the file
  int64_t height = 0;
  int64_t tokens = 0;  // of one picture; 0: not recorded
  GridLayout layout;   // cell i holds item first + i, the first item being that of the first picture
  std::vector<RecordedPicture> pictures;  // increasing index, at least one
};

nlohmann::json to_json(const RunRecord& record);
// Throws Error "<subject>: key ...".
RunRecord read_run_record(const nlohmann::json& json, const std::string& subject);

using volley::hash_tokens;
using volley::weight_type_name;

}  // namespace volley::image
