#include "apps/output_names.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kEnding = ".png";
constexpr int64_t kMaxDigits = 18;

// A place of the pattern: "%", up to two digits, "d".
struct Place {
  size_t begin = std::string::npos;
  size_t end = 0;
  int64_t digits = 0;
};

Place find_place(const std::string& pattern) {
  Place place;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '%') continue;
    if (i + 1 < pattern.size() && pattern[i + 1] == '%') {
      ++i;
      continue;
    }
    int64_t digits = 0;
    const char* end = pattern.data() + pattern.size();
    const auto parsed = std::from_chars(pattern.data() + i + 1, end, digits);
    const size_t stop = static_cast<size_t>(parsed.ptr - pattern.data());
    if (stop >= pattern.size() || pattern[stop] != 'd' || parsed.ec == std::errc::result_out_of_range ||
        digits > kMaxDigits || digits < 0) {
      throw Error("--out " + pattern + ": after % expected a number's width and d, as in %03d",
                  ErrorKind::kUsage);
    }
    if (place.begin != std::string::npos) {
      throw Error("--out " + pattern + ": holds two numbers, expected one", ErrorKind::kUsage);
    }
    place = {.begin = i, .end = stop + 1, .digits = digits};
    i = stop;
  }
  return place;
}

std::string unescape(std::string text) {
  for (size_t i = 0; (i = text.find("%%", i)) != std::string::npos; ++i) text.erase(i, 1);
  return text;
}

std::string padded(int64_t number, int64_t digits) {
  std::string text = std::to_string(number);
  if (static_cast<int64_t>(text.size()) < digits)
    text.insert(0, static_cast<size_t>(digits) - text.size(), '0');
  return text;
}

bool is_stream(const std::string& path) {
  std::error_code code;
  const fs::file_status status = fs::status(path, code);
  return fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

// One more than the largest number of the files "PREFIXnumber.png" in the folder.
int64_t next_number(const std::string& folder, const std::string& prefix) {
  int64_t next = 0;
  std::error_code code;
  for (fs::directory_iterator entry(folder, code), end; !code && entry != end; entry.increment(code)) {
    std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix) || !name.ends_with(kEnding)) continue;
    name = name.substr(prefix.size(),
                       name.size() - prefix.size() - std::min(name.size() - prefix.size(), kEnding.size()));
    int64_t number = -1;
    const auto [stop, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && stop == name.data() + name.size() && number >= 0 && number < INT32_MAX) {
      next = std::max(next, number + 1);
    }
  }
  return next;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return text;
}

}  // namespace

bool has_number(const std::string& pattern) {
  return find_place(pattern).begin != std::string::npos;
}

std::string with_number(const std::string& pattern, int64_t number) {
  const Place place = find_place(pattern);
  if (place.begin == std::string::npos) return unescape(pattern);
  return unescape(pattern.substr(0, place.begin)) + padded(number, place.digits) +
         unescape(pattern.substr(place.end));
}

OutputNames name_outputs(const SharedFlags& flags, const std::string& prefix, int64_t count) {
  OutputNames names;
  if (flags.out.empty()) {
    names.folder = flags.out_dir.empty() ? "out" : flags.out_dir;
    const int64_t first = next_number(names.folder, prefix);
    for (int64_t i = 0; i < count; ++i) {
      const std::string file = prefix + padded(first + i, 3) + std::string(kEnding);
      names.paths.push_back((fs::path(names.folder) / file).string());
    }
    return names;
  }
  if (flags.out == "-") {
    if (count > 1)
      throw Error("--out -: standard output takes one file, not " + std::to_string(count), ErrorKind::kUsage);
    if (flags.json) throw Error("--out -: standard output is taken by --json", ErrorKind::kUsage);
    if (!flags.out_dir.empty()) throw Error("--out -: does not go with --out-dir", ErrorKind::kUsage);
    if (::isatty(STDOUT_FILENO) == 1)
      throw Error("--out -: standard output is a terminal", ErrorKind::kUsage);
    names.paths = {"-"};
    return names;
  }
  names.folder = flags.out_dir;
  const std::string pattern =
      flags.out_dir.empty() ? flags.out : (fs::path(flags.out_dir) / flags.out).string();
  if (count > 1 && !has_number(flags.out)) {
    throw Error("--out " + flags.out + ": " + std::to_string(count) +
                    " files need a pattern such as %03d, or --grid makes one of them",
                ErrorKind::kUsage);
  }
  for (int64_t i = 0; i < count; ++i) {
    const std::string path = with_number(pattern, i);
    std::error_code code;
    if (is_stream(path)) {
      names.paths.push_back(path);
      continue;
    }
    if (fs::is_directory(path, code)) throw Error(path + ": is a directory, expected a file name to write");
    if (flags.format.empty() && !lower(path).ends_with(kEnding)) {
      throw Error("--out " + flags.out + ": expected a name that ends in .png (or --format png)",
                  ErrorKind::kUsage);
    }
    if (!flags.overwrite && fs::exists(fs::symlink_status(path, code))) {
      throw Error(path + ": exists already; --overwrite replaces it");
    }
    names.paths.push_back(path);
  }
  return names;
}

void refuse_events_among(const OutputNames& names, const std::string& events) {
  if (events.empty()) return;
  const auto place = [](const std::string& path) {
    std::error_code code;
    const fs::path given = path == "-" ? "/dev/stdout" : path;
    const fs::path found = fs::weakly_canonical(given, code);
    return fs::absolute(code ? given : found, code).lexically_normal();
  };
  const fs::path events_place = place(events);
  for (const std::string& path : names.paths) {
    if (place(path) != events_place) continue;
    throw Error("--events " + events + ": is also where " + (path == "-" ? "the picture" : path) +
                    " goes; two outputs need two places",
                ErrorKind::kUsage);
  }
}

void prepare_outputs(const OutputNames& names) {
  if (!names.folder.empty()) {
    std::error_code code;
    std::filesystem::create_directories(names.folder, code);
    if (code) throw Error(names.folder + ": cannot make the folder: " + code.message());
  }
  if (!names.paths.empty() && names.paths.front() != "-") {
    const AtomicFile probe(names.paths.front());  // takes its temporary file away again
  }
}

}  // namespace volley::apps
