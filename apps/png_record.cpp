#include "apps/png_record.h"

#include "core/base/error.h"
#include "core/io/mapped_file.h"

namespace volley::apps {

RecordedPng read_recorded_png(const std::string& path) {
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  const auto chunks = image::parse_png(file.bytes()).value_or_throw(path);
  const image::PngText* found = nullptr;
  const auto texts = image::read_png_texts(chunks).value_or_throw(path);
  for (const image::PngText& text : texts) {
    if (text.keyword != image::kRunSchema) continue;
    if (found != nullptr) throw Error(path + ": holds two run records, expected one");
    found = &text;
  }
  if (found == nullptr)
    throw Error(path + ": holds no run record (PNG text " + std::string(image::kRunSchema) + ")");
  RecordedPng png{.picture = image::decode_png(file.bytes()).value_or_throw(path),
                  .subject = path + ": run record"};
  png.json = parse_json(found->text).value_or_throw(png.subject);
  png.record = image::read_run_record(png.json, png.subject);
  return png;
}

}  // namespace volley::apps
