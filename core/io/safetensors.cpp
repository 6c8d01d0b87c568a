#include "core/io/safetensors.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "core/io/byte_reader.h"
#include "core/io/checked_shape.h"
#include "core/io/json.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the official reader's limit
constexpr size_t kMaxTensors = 1'000'000;

constexpr std::array<std::pair<std::string_view, DType>, 10> kDTypes{{{"F64", DType::kF64},
                                                                      {"F32", DType::kF32},
                                                                      {"F16", DType::kF16},
                                                                      {"BF16", DType::kBF16},
                                                                      {"I64", DType::kI64},
                                                                      {"I32", DType::kI32},
                                                                      {"I16", DType::kI16},
                                                                      {"I8", DType::kI8},
                                                                      {"U8", DType::kU8},
                                                                      {"BOOL", DType::kBool}}};

// Where a tensor's bytes lie in the data part.
struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;
  std::string_view name;
};

std::string to_string(const Extent& extent) {
  std::string text = "[";
  return text.append(std::to_string(extent.begin))
      .append(", ")
      .append(std::to_string(extent.end))
      .append("]");
}

Result<DType> read_dtype(const json& entry) {
  const auto field = entry.find("dtype");
  if (field == entry.end() || !field->is_string()) return Fault{"dtype is missing or no string"};
  const auto& name = field->get_ref<const std::string&>();
  const auto found = std::ranges::find(kDTypes, name, &std::pair<std::string_view, DType>::first);
  if (found == kDTypes.end()) return Fault{"dtype " + quote(name) + " is not supported"};
  return found->second;
}

Result<Shape> read_shape(const json& entry, DType dtype) {
  const auto field = entry.find("shape");
  if (field == entry.end() || !field->is_array()) return Fault{"shape is missing or no list"};
  std::vector<int64_t> extents;
  for (const json& item : *field) {
    const bool integer = item.is_number_integer();
    if (!integer || (item.is_number_unsigned() && item.get<uint64_t>() > INT64_MAX)) {
      return Fault{"shape holds " + printable(item.dump(), 40) + ", expected integers below 2^63"};
    }
    extents.push_back(item.get<int64_t>());
  }
  return checked_shape(extents, dtype);
}

Result<Extent> read_extent(const json& entry, uint64_t data_bytes) {
  const auto field = entry.find("data_offsets");
  if (field == entry.end() || !field->is_array() || field->size() != 2 || !(*field)[0].is_number_unsigned() ||
      !(*field)[1].is_number_unsigned()) {
    return Fault{"data_offsets must be two non-negative integers"};
  }
  const Extent extent{(*field)[0].get<uint64_t>(), (*field)[1].get<uint64_t>(), {}};
  if (extent.begin > extent.end) return Fault{"data_offsets " + to_string(extent) + " run backwards"};
  if (extent.end > data_bytes) {
    return Fault{"data_offsets " + to_string(extent) + " reach past the data, which has " +
                 std::to_string(data_bytes) + " bytes"};
  }
  return extent;
}

// One header entry: the view it describes and where it lies.
Result<std::pair<HostView, Extent>> read_entry(const json& entry, std::span<const std::byte> data) {
  if (!entry.is_object()) return Fault{"expected an object"};
  const Result<DType> dtype = read_dtype(entry);
  if (!dtype) return dtype.fault();
  const Result<Shape> shape = read_shape(entry, dtype.value());
  if (!shape) return shape.fault();
  const Result<Extent> extent = read_extent(entry, data.size());
  if (!extent) return extent.fault();
  const Extent& where = extent.value();
  const HostView view{data.data() + where.begin, dtype.value(), shape.value()};
  if (static_cast<uint64_t>(view.bytes()) != where.end - where.begin) {
    return Fault{std::string(dtype_name(view.dtype)) + " " + view.shape.to_string() + " needs " +
                 std::to_string(view.bytes()) + " bytes, data_offsets " + to_string(where) + " hold " +
                 std::to_string(where.end - where.begin)};
  }
  return std::pair(view, where);
}

// The data part must be covered once: bytes that no tensor owns could smuggle in another format.
std::optional<Fault> check_coverage(std::vector<Extent> extents, uint64_t data_bytes) {
  std::ranges::sort(extents, {}, [](const Extent& e) { return std::pair(e.begin, e.end); });
  uint64_t cursor = 0;
  for (const Extent& extent : extents) {
    const char* what = extent.begin < cursor ? "overlaps the tensor before it" : "leaves a hole before it";
    if (extent.begin != cursor) {
      return Fault{"tensor " + quote(extent.name) + " " + what + ": begins at " +
                   std::to_string(extent.begin) + ", expected " + std::to_string(cursor)};
    }
    cursor = extent.end;
  }
  if (cursor == data_bytes) return std::nullopt;
  return Fault{std::to_string(data_bytes - cursor) + " bytes follow the last tensor"};
}

std::optional<Fault> read_metadata(const json& entry, std::map<std::string, std::string>& metadata) {
  if (!entry.is_object()) return Fault{"__metadata__ is no object"};
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) return Fault{"__metadata__: value of " + quote(key) + " is no string"};
    metadata.emplace(key, value.get<std::string>());
  }
  return std::nullopt;
}

}  // namespace

Result<SafetensorsIndex> parse_safetensors(std::span<const std::byte> file) {
  ByteReader reader(file);
  uint64_t header_bytes = 0;
  if (!reader.read(header_bytes)) {
    return Fault{"file of " + std::to_string(file.size()) + " bytes is too short for a safetensors header"};
  }
  if (header_bytes > kMaxHeaderBytes) {
    return Fault{"header length " + std::to_string(header_bytes) + " is over the limit of " +
                 std::to_string(kMaxHeaderBytes)};
  }
  std::span<const std::byte> header;
  if (!reader.take(header_bytes, header)) {
    return Fault{"header length " + std::to_string(header_bytes) + " reaches past the end of the file (" +
                 std::to_string(file.size()) + " bytes)"};
  }
  if (header.empty() || header[0] != std::byte{'{'}) return Fault{"header does not begin with '{'"};
  const Result<json> entries = parse_json(header, {.max_bytes = kMaxHeaderBytes});
  if (!entries) return Fault{"header: " + entries.fault().message};
  if (entries.value().size() > kMaxTensors) return Fault{"header names more than 1000000 tensors"};

  SafetensorsIndex index;
  std::vector<Extent> extents;
  const std::span<const std::byte> data = file.subspan(reader.position());
  for (const auto& [name, entry] : entries.value().items()) {  // in order of name
    if (name == "__metadata__") {
      if (auto fault = read_metadata(entry, index.metadata)) return *fault;
      continue;
    }
    const auto read = read_entry(entry, data);
    if (!read) return Fault{"tensor " + quote(name) + ": " + read.fault().message};
    index.tensors.push_back({name, read.value().first});
    extents.push_back(read.value().second);
  }
  // Named only now: the strings move while the vector grows.
  for (size_t i = 0; i < extents.size(); ++i) extents[i].name = index.tensors[i].name;
  if (auto fault = check_coverage(std::move(extents), data.size())) return *fault;
  return index;
}

SafetensorsFile::SafetensorsFile(MappedFile file, SafetensorsIndex index, std::string path)
    : file_(std::make_shared<const MappedFile>(std::move(file))),
      index_(std::move(index)),
      path_(std::move(path)) {}

Result<std::unique_ptr<SafetensorsFile>> SafetensorsFile::open(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.fault();
  return from_mapping(std::move(file).value(), path);
}

Result<std::unique_ptr<SafetensorsFile>> SafetensorsFile::from_mapping(MappedFile file, std::string path) {
  Result<SafetensorsIndex> index = parse_safetensors(file.bytes());
  if (!index) return index.fault();
  return std::unique_ptr<SafetensorsFile>(
      new SafetensorsFile(std::move(file), std::move(index).value(), std::move(path)));
}

}  // namespace volley
