#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "core/decode/check.h"
#include "core/decode/observer.h"
#include "core/decode/statistics.h"
#include "image/image_request.h"
#include "image/picture.h"
#include "image/run_record.h"

namespace volley::image {

using volley::CheckOutcome;  // of pictures: counted by index of the item

// A finished picture.
struct ImagePicture {
  int64_t index = 0;  // item of the run
  uint64_t seed = 0;
  std::vector<int32_t> tokens;
  std::string token_hash;
  Picture picture;
  std::string device;  // that made it
};

// The `source` of the event that tells, before an item's first step, which cells an edit has given.
inline constexpr std::string_view kGivenSource = "init";

// Receives what a run makes, on the thread that runs it.
class ImageObserver {
 public:
  virtual ~ImageObserver() = default;
  // A decoding step; `generation` is the item, positions are cells of its canvas, row by row.
  virtual void on_step(const StepEvent& event) { (void)event; }
  // A picture is whole. What has been delivered stays delivered, even if the run is stopped later.
  virtual void on_picture(const ImagePicture& picture) { (void)picture; }
  // Steps of the sequential decoding that a check compares with.
  virtual void on_check_step(const StepEvent& event) { (void)event; }
  virtual void on_check(const CheckOutcome& outcome) { (void)outcome; }
};

struct ImageControl {
  ImageObserver* observer = nullptr;
  std::stop_token stop;
};

// What is reported of an item.
struct PictureInfo {
  int64_t index = 0;
  uint64_t seed = 0;
  std::string token_hash;
  int64_t tokens = 0;    // that were decided: given ones are not
  int64_t forwards = 0;  // decode passes it took part in, the prompt's not counted
  int64_t rows = 0;      // rows it had in them, those of its guidance partner included
  std::string file;      // where the caller put it, or empty
  std::string device;    // that made it

  bool operator==(const PictureInfo&) const = default;
};

struct ImageResult {
  std::string volley;
  ImageRequest request;
  std::map<std::string, std::string> weights;
  std::string device;  // or several, separated by commas
  std::string dtype;
  int64_t threads = 0;                // 0: not known
  std::vector<PictureInfo> pictures;  // that were finished
  std::vector<CheckOutcome> checks;
  Statistics statistics;
  double load_seconds = 0.0;    // the caller's to fill in
  double pixels_seconds = 0.0;  // codes to pixels
  double check_seconds = 0.0;
  double render_seconds = 0.0;  // of the caller's previews and animations, its to fill in; part of the total
  double total_seconds = 0.0;   // of the run, loading left out
  bool interrupted = false;

  bool is_check_equal() const;
};

// Pictures that are decoded together at most; results do not depend on it.
inline constexpr int64_t kImageBatch = 64;
// Enough of them where the processor decodes: more are hardly faster, but finished only together, so that an
// interrupted run would keep few.
inline constexpr int64_t kProcessorBatch = 8;

// Makes the pictures of a request whose method was chosen (choose_method) for the model's transformer.
// Pictures are decoded in true batches of at most `batch` and delivered as soon as each is whole. Throws
// Error.
ImageResult run_image(const ImageModel& model, const ImageRequest& request, const ImageControl& control,
                      int64_t batch = kImageBatch);
// The same by several at once, each on a thread of its own: `models` are one model on devices that compute
// alike. Batches go to whoever is free; a picture is the same whoever makes it. Seconds and counts of the
// result are sums, its peak of memory is that of the device that took most. If one fails, the others end
// their step, what is finished is delivered, and its Error is thrown.
ImageResult run_image(std::span<const ImageModel* const> models, const ImageRequest& request,
                      const ImageControl& control, int64_t batch = kImageBatch);

// Bytes of the caches of so many pictures at once. Nothing else may allocate on the model's backend
// meanwhile.
int64_t cache_bytes(const ImageModel& model, const ImageRequest& request, int64_t pictures);

// The record of a file that holds these pictures in a grid. `model` is one of those that made them.
RunRecord make_run_record(const ImageModel& model, const ImageRequest& request,
                          std::span<const ImagePicture> pictures, GridLayout layout);

inline constexpr std::string_view kImageSchema = "volley.image/1";
nlohmann::json to_json(const ImageResult& result);
// Throws Error "<subject>: key ...".
ImageResult read_image_result(const nlohmann::json& json, const std::string& subject);

}  // namespace volley::image
