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

// What there is of the items of a file. Only a grid that was interrupted is there in part.
enum class Found : uint8_t { kAll, kPart };

// Throws Error if the file's record is not that of these items.
Found compare(const std::string& path, const image::RunRecord& found, const image::RunRecord& expected) {
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
  if (found.pictures.size() > expected.pictures.size()) {
    fail("pictures", std::to_string(found.pictures.size()), std::to_string(expected.pictures.size()));
  }
  const bool is_part = found.pictures.size() < expected.pictures.size();
  for (size_t i = 0; i < found.pictures.size(); ++i) {
    const image::RecordedPicture& picture = found.pictures[i];
    auto at = expected.pictures.begin() + static_cast<int64_t>(i);
    if (is_part) {  // any of them may be missing
      at = std::ranges::lower_bound(expected.pictures, picture.index, {}, &image::RecordedPicture::index);
      if (at == expected.pictures.end()) fail("picture", std::to_string(picture.index), "not there");
    }
    if (picture.seed != at->seed) fail("seed", std::to_string(picture.seed), std::to_string(at->seed));
  }
  return is_part ? Found::kPart : Found::kAll;
}

// Whether all files of these items are there, as this run would make them. Of those that are not all there
// the ones that are stay.
bool is_there(const ResumeContext& context, const std::vector<std::string>& paths,
              const image::RunRecord& expected) {
  bool is_all = true;
  for (const std::string& path : paths) {
    Found found = Found::kAll;
    if (!exists(path)) {
      is_all = false;
      continue;
    }
    try {
      const RecordedPicture made = read_recorded_picture(path, Pixels::kLeave);
      if (made.file.shows != image::Shows::kPicture) {
        const std::string shown = made.file.shows == image::Shows::kStepMap ? "a step map" : "an animation";
        throw Error(path + ": exists, but shows " + shown + ", no picture; --overwrite replaces it");
      }
      found = compare(path, made.record, expected);
    } catch (const NoRecord& error) {
      context.console.note(std::string(error.what()) + "; kept because of its name");
    }
    if (found == Found::kAll) {
      context.writer.keep(path);
    } else {
      context.writer.replace(path);
      is_all = false;
    }
  }
  return is_all;
}

// Those that are asked for beside the pictures of a file.
bool has_sides(const SideOutputs& sides, size_t file) {
  return (sides.animations.empty() || exists(sides.animations[file])) &&
         (sides.step_maps.empty() || exists(sides.step_maps[file]));
}

image::RunRecord expected_record(const image::ImageModel& model, const image::ImageRequest& request,
                                 std::span<const int64_t> items) {
  std::vector<image::ImagePicture> pictures;
  for (int64_t item : items) pictures.push_back({.index = item, .seed = request.seed_of(item)});
  return make_run_record(model, request, pictures, {});
}

}  // namespace

int64_t keep_existing(const ResumeContext& context, ImageTask& task) {
  image::ImageRequest& request = task.request;
  const std::vector<int64_t> items = request.items();
  const auto is_made = [&](size_t file, std::span<const int64_t> of) {
    return is_there(context, context.writer.paths(file), expected_record(context.model, request, of)) &&
           has_sides(context.sides, file);
  };
  if (context.flags.grid) return is_made(0, items) ? request.count : 0;
  std::vector<int64_t> open;
  for (int64_t item : items) {
    if (!is_made(task.first_file + static_cast<size_t>(item), {&item, 1})) open.push_back(item);
  }
  const int64_t kept = std::ssize(items) - std::ssize(open);
  if (kept > 0) request.only = open;
  return kept;
}

std::vector<int64_t> missing_items(const ExistingFiles& files, const ImageTask& task) {
  const std::vector<int64_t> items = task.request.items();
  // A grid may be there in part; what cannot be read is refused, or kept because of its name, in its turn.
  const auto is_whole = [](const std::string& path, int64_t pictures) {
    try {
      return std::ssize(read_recorded_picture(path, Pixels::kLeave).record.pictures) >= pictures;
    } catch (const Error&) {
      return true;
    }
  };
  const auto is_made = [&](size_t file, int64_t pictures) {
    for (size_t f = 0; f < files.names.formats.size(); ++f) {
      const std::string path = path_in_format(files.names, files.names.paths[file], f);
      if (!exists(path) || (pictures > 1 && !is_whole(path, pictures))) return false;
    }
    return has_sides(files.sides, file);
  };
  if (files.flags.grid) return is_made(0, std::ssize(items)) ? std::vector<int64_t>() : items;
  std::vector<int64_t> missing;
  for (int64_t item : items) {
    if (!is_made(task.first_file + static_cast<size_t>(item), 1)) missing.push_back(item);
  }
  return missing;
}

}  // namespace volley::apps
