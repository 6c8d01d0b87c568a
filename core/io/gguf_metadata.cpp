#include "core/io/gguf_metadata.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/io/untrusted_text.h"

namespace volley {
namespace {

struct TypeFacts {
  std::string_view name;
  int64_t bytes;  // of a value; of the least one for strings and arrays
};

constexpr std::array<TypeFacts, 13> kTypes{{{"u8", 1},
                                            {"i8", 1},
                                            {"u16", 2},
                                            {"i16", 2},
                                            {"u32", 4},
                                            {"i32", 4},
                                            {"f32", 4},
                                            {"boolean", 1},
                                            {"string", 8},
                                            {"array", 12},
                                            {"u64", 8},
                                            {"i64", 8},
                                            {"f64", 8}}};

const TypeFacts& facts_of(GgufType type) {
  return kTypes[static_cast<size_t>(type)];
}

bool is_number(GgufType type) {
  return type != GgufType::kString && type != GgufType::kArray && type != GgufType::kBool;
}

template <typename T>
T decode(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

struct ArrayHead {
  GgufType type = GgufType::kU8;
  int64_t count = 0;
};

Result<GgufType> read_type(ByteReader& reader) {
  uint32_t number = 0;
  if (!reader.read(number)) return Fault{"the file ends before its type"};
  if (number >= kTypes.size()) return Fault{"type " + std::to_string(number) + " is unknown"};
  return static_cast<GgufType>(number);
}

Result<ArrayHead> read_array_head(ByteReader& reader) {
  const Result<GgufType> type = read_type(reader);
  if (!type) return type.fault();
  uint64_t count = 0;
  if (!reader.read(count)) return Fault{"the file ends before an array's length"};
  if (count > static_cast<uint64_t>(gguf_limits::kItems)) {
    return Fault{"an array of " + std::to_string(count) + " values, the limit is " +
                 std::to_string(gguf_limits::kItems)};
  }
  const ArrayHead head{type.value(), static_cast<int64_t>(count)};
  if (count * static_cast<uint64_t>(facts_of(head.type).bytes) > reader.remaining()) {
    return Fault{"an array of " + std::to_string(count) + " values reaches past the end of the file"};
  }
  return head;
}

// Walks over a value and says what is wrong with it.
std::optional<Fault> skip_value(ByteReader& reader, GgufType type, int64_t depth) {
  if (type == GgufType::kString) {
    const auto text = read_gguf_string(reader, "a string", gguf_limits::kStringBytes);
    return text ? std::nullopt : std::optional(text.fault());
  }
  if (type == GgufType::kArray) {
    if (depth == gguf_limits::kDepth) {
      return Fault{"arrays nested deeper than " + std::to_string(gguf_limits::kDepth) + " levels"};
    }
    const Result<ArrayHead> head = read_array_head(reader);
    if (!head) return head.fault();
    const auto [item, count] = head.value();
    if (is_number(item)) {
      std::span<const std::byte> bytes;
      VOLLEY_ASSERT(reader.take(static_cast<uint64_t>(count * facts_of(item).bytes), bytes));
      return std::nullopt;
    }
    for (int64_t i = 0; i < count; ++i) {
      if (auto fault = skip_value(reader, item, depth + 1)) return fault;
    }
    return std::nullopt;
  }
  std::span<const std::byte> bytes;
  if (!reader.take(static_cast<uint64_t>(facts_of(type).bytes), bytes)) {
    return Fault{"the file ends within its value"};
  }
  if (type == GgufType::kBool && std::to_integer<int>(bytes[0]) > 1) {
    return Fault{"a boolean of value " + std::to_string(std::to_integer<int>(bytes[0])) +
                 ", expected 0 or 1"};
  }
  return std::nullopt;
}

// The value that the reader walks over next, which must be sound.
Result<GgufValue> take_value(ByteReader& reader, std::span<const std::byte> all, GgufType type,
                             int64_t depth) {
  const size_t begin = reader.position();
  if (auto fault = skip_value(reader, type, depth)) return *fault;
  return GgufValue(type, all.subspan(begin, reader.position() - begin));
}

}  // namespace

Result<std::string_view> read_gguf_string(ByteReader& reader, std::string_view what, int64_t max_bytes) {
  uint64_t length = 0;
  if (!reader.read(length)) return Fault{"the file ends before the length of " + std::string(what)};
  if (length > static_cast<uint64_t>(max_bytes)) {
    return Fault{std::string(what) + " of " + std::to_string(length) + " bytes, the limit is " +
                 std::to_string(max_bytes)};
  }
  std::span<const std::byte> bytes;
  if (!reader.take(length, bytes)) {
    return Fault{std::string(what) + " of " + std::to_string(length) +
                 " bytes reaches past the end of the file"};
  }
  return as_text(bytes);
}

Result<GgufValue> read_gguf_value(ByteReader& reader) {
  const Result<GgufType> type = read_type(reader);
  if (!type) return type.fault();
  // Its end is known only when it has been walked over.
  const ByteReader start = reader;
  if (auto fault = skip_value(reader, type.value(), 0)) return *fault;
  ByteReader again = start;
  std::span<const std::byte> bytes;
  VOLLEY_ASSERT(again.take(reader.position() - start.position(), bytes));
  return GgufValue(type.value(), bytes);
}

std::optional<int64_t> GgufValue::integer() const {
  switch (type_) {
    case GgufType::kU8:
      return decode<uint8_t>(bytes_);
    case GgufType::kI8:
      return decode<int8_t>(bytes_);
    case GgufType::kU16:
      return decode<uint16_t>(bytes_);
    case GgufType::kI16:
      return decode<int16_t>(bytes_);
    case GgufType::kU32:
      return decode<uint32_t>(bytes_);
    case GgufType::kI32:
      return decode<int32_t>(bytes_);
    case GgufType::kI64:
      return decode<int64_t>(bytes_);
    case GgufType::kU64: {
      const auto value = decode<uint64_t>(bytes_);
      return std::in_range<int64_t>(value) ? std::optional(static_cast<int64_t>(value)) : std::nullopt;
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> GgufValue::number() const {
  if (type_ == GgufType::kF32) return decode<float>(bytes_);
  if (type_ == GgufType::kF64) return decode<double>(bytes_);
  if (type_ == GgufType::kU64) return static_cast<double>(decode<uint64_t>(bytes_));
  const auto whole = integer();
  return whole ? std::optional(static_cast<double>(*whole)) : std::nullopt;
}

std::optional<bool> GgufValue::boolean() const {
  if (type_ != GgufType::kBool) return std::nullopt;
  return bytes_[0] != std::byte{0};
}

std::optional<std::string_view> GgufValue::text() const {
  if (type_ != GgufType::kString) return std::nullopt;
  return as_text(bytes_.subspan(sizeof(uint64_t)));
}

std::optional<std::vector<GgufValue>> GgufValue::items() const {
  if (type_ != GgufType::kArray) return std::nullopt;
  ByteReader reader(bytes_);
  const Result<ArrayHead> head = read_array_head(reader);
  VOLLEY_ASSERT(head.ok());
  std::vector<GgufValue> items;
  items.reserve(static_cast<size_t>(head.value().count));
  for (int64_t i = 0; i < head.value().count; ++i) {
    Result<GgufValue> item = take_value(reader, bytes_, head.value().type, 1);
    VOLLEY_ASSERT(item.ok());
    items.push_back(item.value());
  }
  return items;
}

std::string describe(const GgufValue& value) {
  if (const auto text = value.text()) return "'" + printable(*text, 60) + "'";
  if (const auto flag = value.boolean()) return *flag ? "true" : "false";
  if (const auto whole = value.integer()) return std::to_string(*whole);
  if (const auto number = value.number()) return nlohmann::json(*number).dump();
  const auto items = value.items();
  if (items->empty()) return "an empty array";
  return "an array of " + std::to_string(items->size()) + " of type " +
         std::string(facts_of(items->front().type()).name);
}

const GgufValue* GgufMetadata::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

void GgufMetadata::fail(std::string_view key, std::string_view fault) const {
  throw Error(path_ + ": metadata " + quote(key) + ": " + std::string(fault));
}

const GgufValue& GgufMetadata::at(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) throw Error(path_ + ": metadata " + quote(key) + " is missing");
  return *value;
}

int64_t GgufMetadata::integer(std::string_view key, IntRange range) const {
  const GgufValue& found = at(key);
  const auto value = found.integer();
  if (value && *value >= range.low && *value <= range.high) return *value;
  const IntRange all;
  const std::string expected =
      range.low == all.low && range.high == all.high
          ? "an integer"
          : "an integer in [" + std::to_string(range.low) + ", " + std::to_string(range.high) + "]";
  fail(key, "expected " + expected + ", found " + describe(found));
}

int64_t GgufMetadata::integer_or(std::string_view key, int64_t fallback, IntRange range) const {
  return has(key) ? integer(key, range) : fallback;
}

double GgufMetadata::number(std::string_view key) const {
  const GgufValue& found = at(key);
  const auto value = found.number();
  if (!value) fail(key, "expected a number, found " + describe(found));
  return *value;
}

double GgufMetadata::number_or(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool GgufMetadata::boolean_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  const GgufValue& found = at(key);
  const auto value = found.boolean();
  if (!value) fail(key, "expected true or false, found " + describe(found));
  return *value;
}

std::string_view GgufMetadata::text(std::string_view key) const {
  const GgufValue& found = at(key);
  const auto value = found.text();
  if (!value) fail(key, "expected a string, found " + describe(found));
  return *value;
}

std::string_view GgufMetadata::text_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? text(key) : fallback;
}

template <typename Item, typename Get>
std::vector<Item> GgufMetadata::list(std::string_view key, std::string_view expected, Get get) const {
  const GgufValue& found = at(key);
  std::vector<Item> values;
  if (const auto items = found.items()) {
    values.reserve(items->size());
    for (const GgufValue& item : *items) {
      if (const auto value = get(item)) values.push_back(*value);
    }
    if (values.size() == items->size()) return values;
  }
  fail(key, "expected an array of " + std::string(expected) + ", found " + describe(found));
}

std::vector<int64_t> GgufMetadata::integers(std::string_view key) const {
  return list<int64_t>(key, "integers", [](const GgufValue& item) { return item.integer(); });
}

std::vector<double> GgufMetadata::numbers(std::string_view key) const {
  return list<double>(key, "numbers", [](const GgufValue& item) { return item.number(); });
}

std::vector<std::string_view> GgufMetadata::texts(std::string_view key) const {
  return list<std::string_view>(key, "strings", [](const GgufValue& item) { return item.text(); });
}

}  // namespace volley
