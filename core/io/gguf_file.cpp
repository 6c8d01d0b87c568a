// GGUF files on disk, and models that are split over several.
#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "core/io/gguf.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

constexpr std::string_view kSuffix = ".gguf";

// "-00001-of-00003.gguf"
std::string part_suffix(int64_t part, int64_t parts) {
  const auto five_digits = [](int64_t number) {
    const std::string digits = std::to_string(number);
    return std::string(5 - std::min<size_t>(digits.size(), 5), '0') + digits;
  };
  return "-" + five_digits(part) + "-of-" + five_digits(parts) + std::string(kSuffix);
}

// The number of parts that a first part's name states, or 1.
int64_t parts_of_name(const std::string& path) {
  const std::string pattern = part_suffix(1, 0);
  if (path.size() < pattern.size() || !path.ends_with(kSuffix)) return 1;
  const std::string digits = path.substr(path.size() - kSuffix.size() - 5, 5);
  if (digits.find_first_not_of("0123456789") != std::string::npos) return 1;
  const int64_t parts = std::stoll(digits);
  return parts >= 1 && path.ends_with(part_suffix(1, parts)) ? parts : 1;
}

// What a file says of its place in a split model.
struct Split {
  int64_t number = 0;  // from 0
  int64_t count = 1;
  std::optional<int64_t> tensors;  // of all parts
};

Result<Split> read_split(const GgufMetadata::Values& values) {
  Split split;
  const auto read = [&](const char* key, int64_t least, std::optional<int64_t>& value) {
    const auto found = values.find(key);
    if (found == values.end()) return true;
    value = found->second.integer();
    return value && *value >= least;
  };
  std::optional<int64_t> count, number;
  if (!read("split.count", 0, count) || !read("split.no", 0, number) ||
      !read("split.tensors.count", 0, split.tensors)) {
    return Fault{"metadata 'split.count', 'split.no' and 'split.tensors.count': expected whole numbers"};
  }
  split.count = std::max<int64_t>(count.value_or(1), 1);  // joined files say 0
  split.number = number.value_or(0);
  if (split.count > gguf_limits::kParts) {
    return Fault{"a model in " + std::to_string(split.count) + " parts, the limit is " +
                 std::to_string(gguf_limits::kParts)};
  }
  if (split.number < split.count) return split;
  return Fault{"metadata 'split.no': part " + std::to_string(split.number) + ", counted from 0, of " +
               std::to_string(split.count)};
}

struct Part {
  MappedFile file;
  GgufIndex index;
};

// Part `number`, counted from 0, of a model in `count` parts.
Result<Part> open_part(const std::string& path, int64_t number, int64_t count) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.fault();
  Result<GgufIndex> index = parse_gguf(file.value().bytes());
  if (!index) return index.fault();
  const Result<Split> split = read_split(index.value().metadata);
  if (!split) return split.fault();
  if (split.value().number != number || split.value().count != count) {
    return Fault{"says that it is part " + std::to_string(split.value().number + 1) + " of " +
                 std::to_string(split.value().count)};
  }
  return Part{std::move(file).value(), std::move(index).value()};
}

std::string file_name(const std::string& path) {
  return path.substr(path.rfind('/') + 1);
}

// Adds the other parts' files and tensors to those of the first.
std::optional<Fault> add_parts(const std::string& path, const Split& split, std::vector<MappedFile>& files,
                               std::vector<NamedTensor>& tensors) {
  const std::vector<std::string> paths = gguf_part_files(path);
  if (split.number != 0) {
    return Fault{"is part " + std::to_string(split.number + 1) + " of " + std::to_string(split.count) +
                 " of a split model: open the first, whose name ends in " + part_suffix(1, split.count)};
  }
  if (std::ssize(paths) != split.count) {
    return Fault{"is the first of " + std::to_string(split.count) +
                 " parts of a split model: expected a name that ends in " + part_suffix(1, split.count)};
  }
  for (int64_t i = 1; i < split.count; ++i) {
    Result<Part> part = open_part(paths[static_cast<size_t>(i)], i, split.count);
    if (!part) {
      return Fault{"part " + quote(file_name(paths[static_cast<size_t>(i)])) + ": " + part.fault().message};
    }
    files.push_back(std::move(part.value().file));
    std::ranges::move(part.value().index.tensors, std::back_inserter(tensors));
  }
  if (split.tensors && *split.tensors != std::ssize(tensors)) {
    return Fault{"metadata 'split.tensors.count': " + std::to_string(*split.tensors) +
                 " tensors, the parts hold " + std::to_string(tensors.size())};
  }
  if (const auto twin = sort_by_name(tensors)) return Fault{"tensor " + quote(*twin) + " lies in two parts"};
  return std::nullopt;
}

std::map<std::string, std::string> summary_of(const GgufMetadata::Values& values) {
  std::map<std::string, std::string> summary;
  for (const auto& [key, value] : values) {
    if (value.type() == GgufType::kArray) continue;
    const auto text = value.text();
    if (text && is_valid_utf8(*text)) summary.emplace(key, *text);
    if (!text) summary.emplace(key, describe(value));
  }
  return summary;
}

}  // namespace

std::vector<std::string> gguf_part_files(const std::string& path) {
  const int64_t parts = parts_of_name(path);
  std::vector<std::string> files{path};
  const std::string stem = path.substr(0, path.size() - std::min(path.size(), part_suffix(1, parts).size()));
  for (int64_t i = 2; i <= parts; ++i) files.push_back(stem + part_suffix(i, parts));
  return files;
}

GgufFile::GgufFile(std::shared_ptr<const Files> files, std::vector<NamedTensor> tensors, GgufMetadata values)
    : files_(std::move(files)),
      tensors_(std::move(tensors)),
      values_(std::move(values)),
      summary_(summary_of(values_.values())),
      path_(values_.path()) {}

Result<std::unique_ptr<GgufFile>> GgufFile::open(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.fault();
  return from_mapping(std::move(file).value(), path);
}

Result<std::unique_ptr<GgufFile>> GgufFile::from_mapping(MappedFile file, std::string path) {
  const std::span<const std::byte> bytes = file.bytes();
  Files files;
  files.push_back(std::move(file));
  return read(bytes, std::move(path), std::move(files));
}

Result<std::unique_ptr<GgufFile>> GgufFile::from_bytes(std::span<const std::byte> bytes, std::string path) {
  return read(bytes, std::move(path), {});
}

Result<std::unique_ptr<GgufFile>> GgufFile::read(std::span<const std::byte> bytes, std::string path,
                                                 Files files) {
  Result<GgufIndex> index = parse_gguf(bytes);
  if (!index) return index.fault();
  auto& [tensors, metadata] = index.value();
  const Result<Split> split = read_split(metadata);
  if (!split) return split.fault();
  if (split.value().count > 1) {
    if (files.empty())
      return Fault{"is a part of a split model, and there is no folder to look for the others"};
    if (auto fault = add_parts(path, split.value(), files, tensors)) return *fault;
  }
  auto owner = files.empty() ? nullptr : std::make_shared<const Files>(std::move(files));
  return std::unique_ptr<GgufFile>(
      new GgufFile(std::move(owner), std::move(tensors), GgufMetadata(std::move(metadata), std::move(path))));
}

void GgufFile::release(const HostView& view) const {
  if (files_ == nullptr) return;  // the caller's memory
  for (const MappedFile& file : *files_) file.release({view.data, static_cast<size_t>(view.bytes())});
}

}  // namespace volley
