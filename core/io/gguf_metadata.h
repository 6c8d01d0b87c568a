#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "core/io/byte_reader.h"
#include "core/io/json.h"

namespace volley {

// How a value of a GGUF file is stored; the numbers are the file's.
enum class GgufType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// One value: its bytes in the file, checked when it was read, decoded when asked for. A view: the file's
// bytes must outlive it. The getters return nothing for a value of another type.
class GgufValue {
 public:
  GgufValue(GgufType type, std::span<const std::byte> bytes) : type_(type), bytes_(bytes) {}

  GgufType type() const { return type_; }
  // Any integer type; nothing beyond int64.
  std::optional<int64_t> integer() const;
  // Any integer or float type.
  std::optional<double> number() const;
  std::optional<bool> boolean() const;
  // The bytes as they lie: not necessarily UTF-8.
  std::optional<std::string_view> text() const;
  // The elements of an array, which may be arrays themselves.
  std::optional<std::vector<GgufValue>> items() const;

 private:
  GgufType type_;
  std::span<const std::byte> bytes_;
};

// What the reader takes at most, beyond the file's own end.
namespace gguf_limits {
inline constexpr int64_t kEntries = 100'000;       // metadata keys
inline constexpr int64_t kTensors = 1'000'000;     // of a file
inline constexpr int64_t kNameBytes = 65'535;      // of a key, of a tensor's name
inline constexpr int64_t kItems = 10'000'000;      // of one array
inline constexpr int64_t kStringBytes = 64 << 20;  // of one string
inline constexpr int64_t kDepth = 8;               // of arrays in arrays
inline constexpr int64_t kAlignment = int64_t{1} << 20;
inline constexpr int64_t kParts = 1000;  // of a split model
}  // namespace gguf_limits

// Reads a length and that many bytes; `what` names them in the fault.
Result<std::string_view> read_gguf_string(ByteReader& reader, std::string_view what, int64_t max_bytes);

// Reads a value's type and bytes and checks them to the last: strings and arrays end within the file,
// booleans are 0 or 1.
Result<GgufValue> read_gguf_value(ByteReader& reader);

// What a GGUF file says of itself, by key. Every getter throws Error
// "<path>: metadata 'KEY': expected ..., found ..."; the `_or` forms return the fallback for a key that is
// absent. Views into the file.
class GgufMetadata {
 public:
  using Values = std::map<std::string, GgufValue, std::less<>>;

  GgufMetadata() = default;
  GgufMetadata(Values values, std::string path) : values_(std::move(values)), path_(std::move(path)) {}

  const Values& values() const { return values_; }
  // Of the file, for messages.
  const std::string& path() const { return path_; }
  // Null if there is no such key.
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }
  int64_t integer(std::string_view key, IntRange range = {}) const;
  int64_t integer_or(std::string_view key, int64_t fallback, IntRange range = {}) const;
  double number(std::string_view key) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string_view text(std::string_view key) const;
  std::string_view text_or(std::string_view key, std::string_view fallback) const;
  std::vector<int64_t> integers(std::string_view key) const;
  std::vector<double> numbers(std::string_view key) const;
  std::vector<std::string_view> texts(std::string_view key) const;
  // Throws the Error of a key whose value is not what the caller can use.
  [[noreturn]] void fail(std::string_view key, std::string_view fault) const;

 private:
  const GgufValue& at(std::string_view key) const;
  template <typename Item, typename Get>
  std::vector<Item> list(std::string_view key, std::string_view expected, Get get) const;

  Values values_;
  std::string path_;
};

// A value in a few words, for messages: "3", "'llama'", "an array of 49152 strings".
std::string describe(const GgufValue& value);

}  // namespace volley
