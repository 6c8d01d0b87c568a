#include "core/io/gguf.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "core/io/byte_reader.h"
#include "core/io/checked_shape.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

constexpr uint32_t kMaxDims = 4;
constexpr int64_t kDefaultAlignment = 32;

// The file's number of a type, its name for messages, and what it is here, if anything.
struct StoredType {
  uint32_t number;
  std::string_view name;
  std::optional<DType> dtype;
};

constexpr std::array kStoredTypes{StoredType{0, "f32", DType::kF32},    StoredType{1, "f16", DType::kF16},
                                  StoredType{2, "q4_0", DType::kQ4_0},  StoredType{3, "q4_1", DType::kQ4_1},
                                  StoredType{6, "q5_0", DType::kQ5_0},  StoredType{7, "q5_1", DType::kQ5_1},
                                  StoredType{8, "q8_0", DType::kQ8_0},  StoredType{9, "q8_1", {}},
                                  StoredType{10, "q2_k", {}},           StoredType{11, "q3_k", {}},
                                  StoredType{12, "q4_k", DType::kQ4_K}, StoredType{13, "q5_k", DType::kQ5_K},
                                  StoredType{14, "q6_k", DType::kQ6_K}, StoredType{15, "q8_k", {}},
                                  StoredType{16, "iq2_xxs", {}},        StoredType{17, "iq2_xs", {}},
                                  StoredType{18, "iq3_xxs", {}},        StoredType{19, "iq1_s", {}},
                                  StoredType{20, "iq4_nl", {}},         StoredType{21, "iq3_s", {}},
                                  StoredType{22, "iq2_s", {}},          StoredType{23, "iq4_xs", {}},
                                  StoredType{24, "i8", DType::kI8},     StoredType{25, "i16", DType::kI16},
                                  StoredType{26, "i32", DType::kI32},   StoredType{27, "i64", DType::kI64},
                                  StoredType{28, "f64", DType::kF64},   StoredType{29, "iq1_m", {}},
                                  StoredType{30, "bf16", DType::kBF16}, StoredType{34, "tq1_0", {}},
                                  StoredType{35, "tq2_0", {}},          StoredType{39, "mxfp4", {}}};

struct Header {
  uint64_t tensors = 0;
  uint64_t entries = 0;
};

// A tensor as the file describes it: where its data begin, counted from the data part.
struct Entry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t offset = 0;

  uint64_t bytes() const { return static_cast<uint64_t>(dtype_bytes(dtype, shape.size())); }
};

Result<Header> read_header(ByteReader& reader) {
  std::span<const std::byte> magic;
  uint32_t version = 0;
  Header header;
  const size_t size = reader.remaining();
  if (!reader.take(4, magic) || !reader.read_all(version, header.tensors, header.entries)) {
    return Fault{"file of " + std::to_string(size) + " bytes is too short for a GGUF header"};
  }
  if (as_text(magic) != "GGUF") return Fault{"GGUF file does not begin with 'GGUF'"};
  if (version != 2 && version != 3) {
    const bool swapped = __builtin_bswap32(version) <= 3;
    return Fault{"GGUF version " + std::to_string(version) + (swapped ? " (a big-endian file)" : "") +
                 ", expected 2 or 3 in little-endian order"};
  }
  if (header.entries > static_cast<uint64_t>(gguf_limits::kEntries)) {
    return Fault{"GGUF header promises " + std::to_string(header.entries) +
                 " metadata entries, the limit is " + std::to_string(gguf_limits::kEntries)};
  }
  if (header.tensors > static_cast<uint64_t>(gguf_limits::kTensors)) {
    return Fault{"GGUF header promises " + std::to_string(header.tensors) + " tensors, the limit is " +
                 std::to_string(gguf_limits::kTensors)};
  }
  return header;
}

// The name of a key or tensor; `what` is which.
Result<std::string> read_name(ByteReader& reader, const std::string& what) {
  const auto name = read_gguf_string(reader, "its name", gguf_limits::kNameBytes);
  if (!name) return Fault{what + ": " + name.fault().message};
  if (name.value().empty()) return Fault{what + " has no name"};
  if (!is_valid_utf8(name.value())) return Fault{what + ": name " + quote(name.value()) + " is not UTF-8"};
  return std::string(name.value());
}

std::string number_of(uint64_t index, uint64_t count) {
  return std::to_string(index + 1) + " of " + std::to_string(count);
}

Result<GgufMetadata::Values> read_metadata(ByteReader& reader, uint64_t count) {
  GgufMetadata::Values values;
  for (uint64_t i = 0; i < count; ++i) {
    Result<std::string> key = read_name(reader, "metadata entry " + number_of(i, count));
    if (!key) return key.fault();
    const Result<GgufValue> value = read_gguf_value(reader);
    if (!value) return Fault{"metadata " + quote(key.value()) + ": " + value.fault().message};
    if (!values.emplace(key.value(), value.value()).second) {
      return Fault{"metadata " + quote(key.value()) + " occurs twice"};
    }
  }
  return values;
}

Result<int64_t> read_alignment(const GgufMetadata::Values& values) {
  const auto found = values.find("general.alignment");
  if (found == values.end()) return kDefaultAlignment;
  const auto alignment = found->second.integer();
  const bool fits = alignment && *alignment >= 8 && *alignment <= gguf_limits::kAlignment &&
                    (*alignment & (*alignment - 1)) == 0;
  if (fits) return *alignment;
  return Fault{"metadata 'general.alignment': expected a power of two from 8 to " +
               std::to_string(gguf_limits::kAlignment) + ", found " + describe(found->second)};
}

Result<DType> read_dtype(uint32_t number) {
  const auto found = std::ranges::find(kStoredTypes, number, &StoredType::number);
  if (found == kStoredTypes.end()) return Fault{"type " + std::to_string(number) + " is unknown"};
  if (found->dtype) return *found->dtype;
  return Fault{"type " + std::string(found->name) + " is not supported"};
}

// What follows a tensor's name. The file states extents from the fastest to the slowest.
std::optional<Fault> read_description(ByteReader& reader, uint64_t alignment, Entry& entry) {
  uint32_t dims = 0;
  if (!reader.read(dims)) return Fault{"the file ends within its description"};
  if (dims > kMaxDims) return Fault{"has " + std::to_string(dims) + " dimensions, at most 4 are allowed"};
  std::array<int64_t, kMaxDims> extents{};
  for (uint32_t i = 0; i < dims; ++i) {
    uint64_t extent = 0;
    if (!reader.read(extent)) return Fault{"the file ends within its description"};
    if (!std::in_range<int64_t>(extent)) {
      return Fault{"extent " + std::to_string(extent) + " is beyond 63 bits"};
    }
    extents[dims - 1 - i] = static_cast<int64_t>(extent);
  }
  uint32_t type = 0;
  if (!reader.read_all(type, entry.offset)) return Fault{"the file ends within its description"};
  const Result<DType> dtype = read_dtype(type);
  if (!dtype) return dtype.fault();
  entry.dtype = dtype.value();
  const Result<Shape> shape = checked_shape(std::span(extents).first(dims), entry.dtype);
  if (!shape) return shape.fault();
  entry.shape = shape.value();
  if (entry.offset % alignment == 0) return std::nullopt;
  return Fault{"data offset " + std::to_string(entry.offset) + " is no multiple of the alignment " +
               std::to_string(alignment)};
}

Result<std::vector<Entry>> read_entries(ByteReader& reader, uint64_t count, uint64_t alignment) {
  std::vector<Entry> entries;
  for (uint64_t i = 0; i < count; ++i) {
    Result<std::string> name = read_name(reader, "tensor " + number_of(i, count));
    if (!name) return name.fault();
    Entry entry{.name = std::move(name).value()};
    if (auto fault = read_description(reader, alignment, entry)) {
      return Fault{"tensor " + quote(entry.name) + ": " + fault->message};
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

// Every tensor lies in the data part, and no two share bytes. Padding, and holes, are the writer's business.
std::optional<Fault> check_extents(const std::vector<Entry>& entries, uint64_t data_bytes) {
  std::vector<const Entry*> order;
  for (const Entry& entry : entries) {
    if (entry.offset > data_bytes || entry.bytes() > data_bytes - entry.offset) {
      return Fault{"tensor " + quote(entry.name) + ": " + std::string(dtype_name(entry.dtype)) + " " +
                   entry.shape.to_string() + " at offset " + std::to_string(entry.offset) + " takes " +
                   std::to_string(entry.bytes()) + " bytes, which reach past the data of " +
                   std::to_string(data_bytes) + " bytes"};
    }
    if (entry.bytes() > 0) order.push_back(&entry);
  }
  std::ranges::sort(order, {}, &Entry::offset);
  for (size_t i = 1; i < order.size(); ++i) {
    const Entry &before = *order[i - 1], &entry = *order[i];
    if (entry.offset < before.offset + before.bytes()) {
      return Fault{"tensor " + quote(entry.name) + ": data at offset " + std::to_string(entry.offset) +
                   " overlap those of tensor " + quote(before.name)};
    }
  }
  return std::nullopt;
}

}  // namespace

Result<GgufIndex> parse_gguf(std::span<const std::byte> file) {
  ByteReader reader(file);
  const Result<Header> header = read_header(reader);
  if (!header) return header.fault();
  Result<GgufMetadata::Values> metadata = read_metadata(reader, header.value().entries);
  if (!metadata) return metadata.fault();
  const Result<int64_t> stated = read_alignment(metadata.value());
  if (!stated) return stated.fault();
  const auto alignment = static_cast<uint64_t>(stated.value());
  const Result<std::vector<Entry>> entries = read_entries(reader, header.value().tensors, alignment);
  if (!entries) return entries.fault();

  // A file without tensors may end before its padding does.
  const uint64_t described = (reader.position() + alignment - 1) / alignment * alignment;
  const auto data = file.subspan(std::min<size_t>(described, file.size()));
  if (auto fault = check_extents(entries.value(), data.size())) return *fault;
  GgufIndex index{.metadata = std::move(metadata).value()};
  for (const Entry& entry : entries.value()) {
    index.tensors.push_back({entry.name, {data.data() + entry.offset, entry.dtype, entry.shape}});
  }
  if (const auto twin = sort_by_name(index.tensors)) return Fault{"tensor " + quote(*twin) + " occurs twice"};
  return index;
}

}  // namespace volley
