#include "apps/picture_record.h"

#include "core/io/byte_reader.h"
#include "core/io/mapped_file.h"

namespace volley::apps {

RecordedPicture read_recorded_picture(const std::string& path, Pixels pixels) {
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  const auto found = image::read_file_record(file.bytes());
  if (!found.ok()) {
    const std::string message = path + ": " + found.fault().message;
    if (image::decode_picture(file.bytes()).ok()) throw NoRecord(message);
    throw Error(message);
  }
  RecordedPicture result{.path = path,
                         .file = found.value(),
                         .width = found.value().animation.width,
                         .height = found.value().animation.height,
                         .subject = path + ": run record"};
  if (pixels == Pixels::kRead && result.file.shows == image::Shows::kAnimation) {
    result.bytes = as_text(file.bytes());
  } else if (pixels == Pixels::kRead) {
    result.picture = over(image::decode_picture(file.bytes()).value_or_throw(path), 255);
    result.width = result.picture.width;
    result.height = result.picture.height;
  }
  result.json = parse_json(found.value().text).value_or_throw(result.subject);
  result.record = image::read_run_record(result.json, result.subject);
  return result;
}

}  // namespace volley::apps
