#include "apps/resume.h"

#include <algorithm>
#include <filesystem>

#include "apps/picture_record.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "image/image_job.h"

namespace volley::apps {
namespace {

bool exists(const std::string& path) {
  std::error_code code;
  return std::filesystem::exists(path, code);
}

// What of a record says how its pictures were made; which of the run's they are is compared apart.
nlohmann::json making(const image::RunRecord& record) {
  nlohmann::json json = to_json(record);
  for (const char* key : {"volley", "device", "count", "seed", "seeds", "pictures", "tokens", "columns",
                          "rows", "width", "height"})
    json.erase(key);
  return json;
}

// Throws Error if the file's record is not that of these items.
void compare(const std::string& path, const image::RunRecord& found, const image::RunRecord& expected) {
  const auto fail = [&](const std::string& key, const std::string& was, const std::string& is) {
    throw Error(path + ": exists, but is another picture (" + key + ": " + printable(was, 100) + ", now " +
                printable(is, 100) + "); --overwrite replaces it");
  };
  const nlohmann::json was = making(found), is = making(expected);
  for (const auto& [key, value] : is.items()) {
    if (!was.contains(key)) fail(key, "not there", value.dump());
    if (was[key] != value) fail(key, was[key].dump(), value.dump());
  }
  for (const auto& [key, value] : was.items()) {
    if (!is.contains(key)) fail(key, value.dump(), "not there");
  }
  if (found.pictures.size() != expected.pictures.size()) {
    fail("pictures", std::to_string(found.pictures.size()), std::to_string(expected.pictures.size()));
  }
  for (size_t i = 0; i < found.pictures.size(); ++i) {
    if (found.pictures[i].seed == expected.pictures[i].seed) continue;
    fail("seed", std::to_string(found.pictures[i].seed), std::to_string(expected.pictures[i].seed));
  }
}

// Whether all files of these items are there, as this run would make them. Of those that are not all there
// the ones that are stay.
bool is_there(const std::vector<std::string>& paths, const image::RunRecord& expected, PictureWriter& writer,
              Console& console) {
  for (const std::string& path : paths) {
    if (!exists(path)) continue;
    try {
      compare(path, read_recorded_picture(path, Pixels::kLeave).record, expected);
    } catch (const NoRecord& error) {
      console.note(std::string(error.what()) + "; kept because of its name");
    }
    writer.keep(path);
  }
  return std::ranges::all_of(paths, exists);
}

image::RunRecord expected_record(const image::ImageModel& model, const image::ImageRequest& request,
                                 std::span<const int64_t> items) {
  std::vector<image::ImagePicture> pictures;
  for (int64_t item : items) pictures.push_back({.index = item, .seed = request.seed_of(item)});
  return make_run_record(model, request, pictures, {});
}

}  // namespace

int64_t keep_existing(const ImageFlags& flags, const image::ImageModel& model, PictureWriter& writer,
                      Console& console, ImageTask& task) {
  image::ImageRequest& request = task.request;
  const std::vector<int64_t> items = request.items();
  if (flags.grid) {
    return is_there(writer.paths(0), expected_record(model, request, items), writer, console) ? request.count
                                                                                              : 0;
  }
  std::vector<int64_t> open;
  for (int64_t item : items) {
    const auto paths = writer.paths(task.first_file + static_cast<size_t>(item));
    if (!is_there(paths, expected_record(model, request, {&item, 1}), writer, console)) open.push_back(item);
  }
  const int64_t kept = std::ssize(items) - std::ssize(open);
  if (kept > 0) request.only = open;
  return kept;
}

}  // namespace volley::apps
