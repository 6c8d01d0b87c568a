#include "apps/output_names.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

bool is_stream(const std::string& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

// One more than the largest number of the files "PREFIXnumber.ENDING" in the folder, in any format.
int64_t next_number(const std::string& folder, const std::string& prefix) {
  int64_t next = 0;
  std::error_code code;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix) || !image::format_of_path(name)) continue;
    name = name.substr(prefix.size(), name.rfind('.') - prefix.size());
    int64_t number = -1;
    const auto [stop, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && stop == name.data() + name.size() && number >= 0 && number < INT32_MAX) {
      next = std::max(next, number + 1);
    }
  }
  return next;
}

// Of --format; empty: not said.
std::vector<image::PictureFormat> parse_formats(const std::string& list) {
  std::vector<image::PictureFormat> formats;
  for (size_t begin = 0; !list.empty() && begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const auto format = image::format_of_name(list.substr(begin, end - begin));
    if (!format) {
      throw Error("--format " + list + ": expected png, jpg, webp or several of them joined by commas",
                  ErrorKind::kUsage);
    }
    if (std::ranges::find(formats, *format) != formats.end()) {
      throw Error("--format " + list + ": names one twice", ErrorKind::kUsage);
    }
    formats.push_back(*format);
    begin = end + 1;
  }
  return formats;
}

// Without the ending of a format, if it has one.
std::string without_ending(const std::string& path) {
  return image::format_of_path(path) ? path.substr(0, path.rfind('.')) : path;
}

// A name that is too long for its folder. What the folder's own limit is, the system knows.
void refuse_long_name(const std::string& path) {
  std::error_code code;
  (void)fs::symlink_status(path, code);
  if (code == std::errc::filename_too_long) throw Error(path + ": cannot create: " + code.message());
}

void refuse_existing(const SharedFlags& flags, const std::string& path) {
  std::error_code code;
  if (is_stream(path)) return;
  refuse_long_name(path);
  if (fs::is_directory(path, code)) throw Error(path + ": is a directory, expected a file name to write");
  if (!flags.overwrite && !flags.skip_existing && fs::exists(fs::symlink_status(path, code))) {
    throw Error(path + ": exists already; --overwrite replaces it");
  }
}

void check_stream(const SharedFlags& flags, size_t count, size_t formats) {
  if (count > 1)
    throw Error("--out -: standard output takes one file, not " + std::to_string(count), ErrorKind::kUsage);
  if (formats > 1) throw Error("--out -: standard output takes one format", ErrorKind::kUsage);
  if (flags.json) throw Error("--out -: standard output is taken by --json", ErrorKind::kUsage);
  if (!flags.out_dir.empty()) throw Error("--out -: does not go with --out-dir", ErrorKind::kUsage);
  if (flags.skip_existing) throw Error("--out -: does not go with --skip-existing", ErrorKind::kUsage);
  if (::isatty(STDOUT_FILENO) == 1) throw Error("--out -: standard output is a terminal", ErrorKind::kUsage);
}

// Two files of a run that would be one.
void refuse_twins(const std::string& flag, const std::string& pattern, std::span<const std::string> paths) {
  std::map<std::string, size_t> seen;
  for (size_t i = 0; i < paths.size(); ++i) {
    if (is_stream(paths[i])) continue;
    const auto [found, is_new] = seen.emplace(paths[i], i);
    if (is_new) continue;
    throw Error(flag + " " + pattern + ": pictures " + std::to_string(found->second) + " and " +
                    std::to_string(i) + " would both be " + paths[i] + "; %03d tells them apart",
                ErrorKind::kUsage);
  }
}

fs::path place_of(const std::string& path) {
  std::error_code code;
  const fs::path given = path == "-" ? "/dev/stdout" : path;
  const fs::path found = fs::weakly_canonical(given, code);
  return fs::absolute(code ? given : found, code).lexically_normal();
}

// The folders that had to be made, innermost first.
std::vector<fs::path> make_folders(const std::string& folder) {
  std::vector<fs::path> made;
  std::error_code code;
  for (fs::path path = folder; !path.empty() && !fs::exists(path, code); path = path.parent_path())
    made.push_back(path);
  if (folder.empty()) return made;
  fs::create_directories(folder, code);
  if (code) throw Error(folder + ": cannot make the folder: " + code.message());
  return made;
}

}  // namespace

std::string path_in_format(const OutputNames& names, const std::string& path, size_t f) {
  if (names.formats.size() == 1) return path;
  return without_ending(path) + std::string(image::format_ending(names.formats[f]));
}

std::string numbered_path(const OutputNames& names, int64_t number) {
  const std::string file =
      fill_pattern("", "%03d", number, {}) + std::string(image::format_ending(names.formats.front()));
  return (fs::path(names.folder) / (names.prefix + file)).string();
}

OutputNames name_outputs(const SharedFlags& flags, const std::string& prefix,
                         std::span<const OutputFields> files) {
  if (flags.overwrite && flags.skip_existing) {
    throw Error("--overwrite: does not go with --skip-existing", ErrorKind::kUsage);
  }
  OutputNames names{.formats = parse_formats(flags.format), .prefix = prefix};
  if (flags.out.empty()) {
    if (names.formats.empty()) names.formats = {image::PictureFormat::kPng};
    names.folder = flags.out_dir.empty() ? "out" : flags.out_dir;
    names.is_numbered = true;
    names.next = flags.skip_existing ? 0 : next_number(names.folder, prefix);
    for (size_t i = 0; i < files.size(); ++i) names.paths.push_back(numbered_path(names, names.next++));
    return names;
  }
  if (flags.out == "-") {
    check_stream(flags, files.size(), names.formats.size());
    if (names.formats.empty()) names.formats = {image::PictureFormat::kPng};
    names.paths = {"-"};
    return names;
  }
  names.folder = flags.out_dir;
  const std::string pattern =
      flags.out_dir.empty() ? flags.out : (fs::path(flags.out_dir) / flags.out).string();
  if (files.size() > 1 && !has_place("--out", flags.out)) {
    throw Error("--out " + flags.out + ": " + std::to_string(files.size()) +
                    " files need a pattern such as %03d, or --grid makes one of them",
                ErrorKind::kUsage);
  }
  for (size_t i = 0; i < files.size(); ++i) {
    std::string path = fill_pattern("--out", pattern, static_cast<int64_t>(i), files[i]);
    if (names.formats.empty()) {
      const auto format =
          is_stream(path) ? std::optional(image::PictureFormat::kPng) : image::format_of_path(path);
      if (!format) {
        throw Error("--out " + flags.out + ": expected a name that ends in .png, .jpg or .webp (or --format)",
                    ErrorKind::kUsage);
      }
      names.formats = {*format};
    }
    path = path_in_format(names, path, 0);
    for (size_t f = 0; f < names.formats.size(); ++f) refuse_existing(flags, path_in_format(names, path, f));
    names.paths.push_back(std::move(path));
  }
  refuse_twins("--out", flags.out, names.paths);
  return names;
}

std::vector<std::string> name_side_outputs(const SharedFlags& flags, const std::string& flag,
                                           const std::string& pattern, std::span<const OutputFields> files) {
  if (files.size() > 1 && !has_place(flag, pattern)) {
    throw Error(
        flag + " " + pattern + ": " + std::to_string(files.size()) + " files need a pattern such as %03d",
        ErrorKind::kUsage);
  }
  std::vector<std::string> paths;
  for (size_t i = 0; i < files.size(); ++i) {
    paths.push_back(fill_pattern(flag, pattern, static_cast<int64_t>(i), files[i]));
    refuse_existing(flags, paths.back());
  }
  refuse_twins(flag, pattern, paths);
  return paths;
}

void refuse_shared_places(std::span<const OutputPlace> places) {
  std::map<fs::path, const OutputPlace*> seen;
  // Pictures first, so that a flag is named as the one that is in the way.
  for (const bool is_flag : {false, true}) {
    for (const OutputPlace& place : places) {
      if (place.flag.empty() == is_flag) continue;
      const auto [found, is_new] = seen.emplace(place_of(place.path), &place);
      if (is_new || !is_flag) continue;
      const OutputPlace& other = *found->second;
      throw Error(place.flag + " " + place.path + ": is also where " +
                      (!other.flag.empty() ? other.flag
                       : other.path == "-" ? "the picture"
                                           : other.path) +
                      " goes; two outputs need two places",
                  ErrorKind::kUsage);
    }
  }
}

void prepare_outputs(const OutputNames& names, std::span<const OutputPlace> sides) {
  const std::vector<fs::path> made = make_folders(names.folder);
  try {
    std::set<std::string> probed;
    const auto probe = [&](const std::string& flag, const std::string& path) {
      // Whoever reads a stream would take a probe for all of it.
      if (path == "-" || is_stream(path)) return;
      refuse_long_name(path);  // a folder may only be there now
      if (!probed.insert(flag + " " + fs::path(path).parent_path().string()).second) return;
      const AtomicFile file(path);  // takes its temporary file away again
    };
    for (const std::string& path : names.paths) {
      for (size_t f = 0; f < names.formats.size(); ++f) probe("", path_in_format(names, path, f));
    }
    for (const OutputPlace& side : sides) probe(side.flag, side.path);
  } catch (const Error&) {
    for (const fs::path& folder : made) {
      std::error_code code;
      fs::remove(folder, code);
    }
    throw;
  }
}

}  // namespace volley::apps
