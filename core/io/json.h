#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley {

struct JsonLimits {
  int64_t max_bytes = int64_t{64} << 20;
  int64_t max_depth = 64;
  int64_t max_values = 10'000'000;  // a value of two bytes of text takes some 60 bytes of memory
};

// Parses untrusted JSON text; never throws on its contents. Faults: bad syntax or UTF-8, a duplicate key,
// numbers that do not fit, text beyond the limits.
Result<nlohmann::json> parse_json(std::span<const std::byte> text, const JsonLimits& limits = {});
Result<nlohmann::json> parse_json(std::string_view text, const JsonLimits& limits = {});

// Parses a file. Throws Error "<path>: <fault>".
nlohmann::json read_json_file(const std::string& path);

struct IntRange {
  int64_t low = std::numeric_limits<int64_t>::min();
  int64_t high = std::numeric_limits<int64_t>::max();
};

struct NumberRange {
  double low = std::numeric_limits<double>::lowest();
  double high = std::numeric_limits<double>::max();
};

// Typed access to an object's keys, for configurations. Every getter throws Error
// "<subject>: key 'NAME': expected ..., found ..."; the `_or` forms return the fallback for a key that is
// absent or null. Holds a reference: the json value must outlive it.
class JsonFields {
 public:
  // Throws if `value` is no object.
  JsonFields(const nlohmann::json& value, std::string subject);

  bool has(std::string_view key) const;  // present and not null
  int64_t integer(std::string_view key, IntRange range = {}) const;
  int64_t integer_or(std::string_view key, int64_t fallback, IntRange range = {}) const;
  // 0 and up, all 64 bits.
  uint64_t natural(std::string_view key) const;
  double number(std::string_view key, NumberRange range = {}) const;
  double number_or(std::string_view key, double fallback, NumberRange range = {}) const;
  bool boolean(std::string_view key) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string text(std::string_view key) const;
  std::string text_or(std::string_view key, std::string fallback) const;
  std::vector<int64_t> integers(std::string_view key, IntRange range = {}) const;
  std::vector<std::string> texts(std::string_view key) const;
  JsonFields object(std::string_view key) const;

  const nlohmann::json& value() const { return *value_; }

 private:
  const nlohmann::json& at(std::string_view key) const;
  [[noreturn]] void fail(std::string_view key, std::string_view expected, const nlohmann::json& found) const;

  const nlohmann::json* value_;
  std::string subject_;
};

}  // namespace volley
