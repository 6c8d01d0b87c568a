#include "core/io/json.h"

#include <optional>
#include <utility>

#include "core/io/byte_reader.h"
#include "core/io/mapped_file.h"
#include "core/io/untrusted_text.h"

namespace volley {
namespace {

using nlohmann::json;

// Builds the value as nlohmann's own handler does, but stops at a duplicate key or a nesting too deep,
// which that one cannot without throwing.
class ValueBuilder : public nlohmann::json_sax<json> {
 public:
  explicit ValueBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return put(nullptr) != nullptr; }
  bool boolean(bool value) override { return put(value) != nullptr; }
  bool number_integer(int64_t value) override { return put(value) != nullptr; }
  bool number_unsigned(uint64_t value) override { return put(value) != nullptr; }
  bool number_float(double value, const std::string&) override { return put(value) != nullptr; }
  bool string(std::string& value) override { return put(std::move(value)) != nullptr; }
  bool binary(json::binary_t&) override { return fail("binary value"); }
  bool start_object(size_t) override { return open(json::object()); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (open_.back()->contains(name)) return fail("duplicate key " + quote(name));
    key_ = std::move(name);
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    std::string_view text = error.what();  // "[json.exception.parse_error.101] parse error at line ..."
    if (const size_t end = text.find("] "); end != text.npos) text.remove_prefix(end + 2);
    return fail(printable(text, 200));
  }

  json take() { return std::move(root_); }
  const std::optional<Fault>& fault() const { return fault_; }

 private:
  // Puts a value where the innermost open container, or the root, wants it. Null at the limit of values.
  json* put(json value) {
    if (++count_ > limits_.max_values) {
      fail("more than " + std::to_string(limits_.max_values) + " values");
      return nullptr;
    }
    if (open_.empty()) return &(root_ = std::move(value));
    json& parent = *open_.back();
    if (parent.is_object()) return &(parent[key_] = std::move(value));
    parent.push_back(std::move(value));
    return &parent.back();
  }

  bool open(json container) {
    if (std::ssize(open_) >= limits_.max_depth) {
      return fail("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    }
    json* placed = put(std::move(container));
    if (placed == nullptr) return false;
    open_.push_back(placed);
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  bool fail(std::string message) {
    fault_ = Fault{"JSON: " + std::move(message)};
    return false;
  }

  JsonLimits limits_;
  int64_t count_ = 0;
  json root_;
  // Pointers stay valid: a container grows only while it is the innermost one.
  std::vector<json*> open_;
  std::string key_;
  std::optional<Fault> fault_;
};

std::string describe(const IntRange& range) {
  const IntRange all;
  if (range.low == all.low && range.high == all.high) return "an integer";
  if (range.high == all.high) return "an integer of at least " + std::to_string(range.low);
  return "an integer in [" + std::to_string(range.low) + ", " + std::to_string(range.high) + "]";
}

std::string describe(const NumberRange& range) {
  const NumberRange all;
  if (range.low == all.low && range.high == all.high) return "a number";
  return "a number in [" + json(range.low).dump() + ", " + json(range.high).dump() + "]";
}

// An integer within the range, or nothing. A float is none, even if whole.
std::optional<int64_t> integer_in(const json& value, const IntRange& range) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return std::nullopt;
  }
  const auto number = value.get<int64_t>();
  if (number < range.low || number > range.high) return std::nullopt;
  return number;
}

}  // namespace

Result<json> parse_json(std::span<const std::byte> text, const JsonLimits& limits) {
  return parse_json(as_text(text), limits);
}

Result<json> parse_json(std::string_view text, const JsonLimits& limits) {
  if (std::ssize(text) > limits.max_bytes) {
    return Fault{"JSON: text of " + std::to_string(text.size()) + " bytes, the limit is " +
                 std::to_string(limits.max_bytes)};
  }
  ValueBuilder builder(limits);
  if (!json::sax_parse(text, &builder)) {
    return builder.fault() ? *builder.fault() : Fault{"JSON: not well-formed"};
  }
  return builder.take();
}

json read_json_file(const std::string& path) {
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  return parse_json(file.bytes()).value_or_throw(path);
}

JsonFields::JsonFields(const json& value, std::string subject)
    : value_(&value), subject_(std::move(subject)) {
  if (!value.is_object()) throw Error(subject_ + ": expected a JSON object, found " + value.type_name());
}

bool JsonFields::has(std::string_view key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

int64_t JsonFields::integer(std::string_view key, IntRange range) const {
  const json& found = at(key);
  const std::optional<int64_t> number = integer_in(found, range);
  if (!number) fail(key, describe(range), found);
  return *number;
}

int64_t JsonFields::integer_or(std::string_view key, int64_t fallback, IntRange range) const {
  return has(key) ? integer(key, range) : fallback;
}

uint64_t JsonFields::natural(std::string_view key) const {
  const json& found = at(key);
  return found.is_number_unsigned() ? found.get<uint64_t>() : static_cast<uint64_t>(integer(key, {.low = 0}));
}

double JsonFields::number(std::string_view key, NumberRange range) const {
  const json& found = at(key);
  if (!found.is_number()) fail(key, describe(range), found);
  const auto number = found.get<double>();
  if (!(number >= range.low && number <= range.high)) fail(key, describe(range), found);
  return number;
}

double JsonFields::number_or(std::string_view key, double fallback, NumberRange range) const {
  return has(key) ? number(key, range) : fallback;
}

bool JsonFields::boolean(std::string_view key) const {
  const json& found = at(key);
  if (!found.is_boolean()) fail(key, "true or false", found);
  return found.get<bool>();
}

bool JsonFields::boolean_or(std::string_view key, bool fallback) const {
  return has(key) ? boolean(key) : fallback;
}

std::string JsonFields::text(std::string_view key) const {
  const json& found = at(key);
  if (!found.is_string()) fail(key, "a string", found);
  return found.get<std::string>();
}

std::string JsonFields::text_or(std::string_view key, std::string fallback) const {
  return has(key) ? text(key) : std::move(fallback);
}

std::vector<int64_t> JsonFields::integers(std::string_view key, IntRange range) const {
  const json& found = at(key);
  if (!found.is_array()) fail(key, "a list, each " + describe(range), found);
  std::vector<int64_t> numbers;
  for (const json& item : found) {
    const std::optional<int64_t> number = integer_in(item, range);
    if (!number) fail(key, "a list, each " + describe(range), found);
    numbers.push_back(*number);
  }
  return numbers;
}

std::vector<std::string> JsonFields::texts(std::string_view key) const {
  const json& found = at(key);
  if (!found.is_array()) fail(key, "a list of strings", found);
  std::vector<std::string> strings;
  for (const json& item : found) {
    if (!item.is_string()) fail(key, "a list of strings", found);
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

JsonFields JsonFields::object(std::string_view key) const {
  const json& found = at(key);
  if (!found.is_object()) fail(key, "an object", found);
  return JsonFields(found, subject_ + ": " + quote(key));
}

const json& JsonFields::at(std::string_view key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) throw Error(subject_ + ": key " + quote(key) + " is missing");
  return *found;
}

void JsonFields::fail(std::string_view key, std::string_view expected, const json& found) const {
  // Strings of a parsed value are UTF-8, but a caller's own value may hold anything.
  const std::string shown = found.dump(-1, ' ', false, json::error_handler_t::replace);
  throw Error(subject_ + ": key " + quote(key) + ": expected " + std::string(expected) + ", found " +
              printable(shown, 60));
}

}  // namespace volley
