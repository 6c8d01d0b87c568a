#pragma once

#include <optional>
#include <span>
#include <string>

#include "apps/picture_record.h"
#include "image/image_card.h"
#include "image/image_job.h"
#include "image/image_request.h"
#include "image/run_record.h"

namespace volley::apps {

// The first thing that is not as recorded.
struct Difference {
  std::string what;  // "weights", "record", "init", "mask", "tokens", "pixels", "bytes"
  std::string message;
};
using Verdict = std::optional<Difference>;

// "<name>: recorded <recorded>, found <found>", fit to be printed.
Verdict differs(std::string what, const std::string& name, const std::string& recorded,
                const std::string& found);

// Whether the card's files that the recorded method uses have the recorded SHA-256. Throws Error when one
// cannot be read.
Verdict compare_weights(const image::ImageCard& card, const image::RunRecord& record);

// What the record says of the file and the model, before anything is made from it.
Verdict compare_frame(const image::ImageCard& card, const RecordedPicture& made);

// The record of what was made from a record.
struct Remaking {
  const image::RunRecord& record;
  bool device_is_recorded = true;
};

// The pictures' places, seeds and tokens.
Verdict compare_tokens(const image::RunRecord& record, std::span<const image::ImagePicture> pictures);
// Pixels of one size, each one; the first that differs is named.
Verdict compare_pixels(const image::Picture& recorded, const image::Picture& found);
// The pixels of a file that shows the pictures, whose size compare_frame takes and whose tokens are equal.
Verdict compare_pictures(const RecordedPicture& made, std::span<const image::ImagePicture> pictures);
// What the record says besides, except for what may differ between two makings.
Verdict compare_record(const RecordedPicture& made, const Remaking& again);

// Why tokens or pixels may differ: another version or device. Empty if both are the record's.
std::string makers(const image::RunRecord& record, const image::RunRecord& again);

}  // namespace volley::apps
