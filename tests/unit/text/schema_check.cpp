#include "tests/unit/text/schema_check.h"

#include <algorithm>
#include <cmath>
#include <regex>
#include <set>
#include <stdexcept>

namespace volley::test {
namespace {

using nlohmann::json;

bool has_type(const json& value, const std::string& type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "string") return value.is_string();
  if (type == "array") return value.is_array();
  if (type == "object") return value.is_object();
  if (type == "number") return value.is_number();
  return value.is_number() && value.get<double>() == std::floor(value.get<double>());
}

size_t characters(const std::string& text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; }));
}

bool holds(const std::string& key, const json& rule, const json& value, const json& schema,
           const json& root) {
  const auto valid = [&](const json& part, const json& by) { return is_valid(part, by, root); };
  const auto fits = [&](const json& by) { return valid(value, by); };
  if (key == "$ref") return valid(value, root.at(json::json_pointer(rule.get<std::string>().substr(1))));
  if (key == "anyOf") return std::ranges::any_of(rule, fits);
  if (key == "oneOf") return std::ranges::count_if(rule, fits) == 1;
  if (key == "const") return value == rule;
  if (key == "enum") return std::ranges::count(rule, value) > 0;
  if (key == "type") {
    if (rule.is_string()) return has_type(value, rule);
    return std::ranges::any_of(rule, [&](const json& type) { return has_type(value, type); });
  }
  if (key == "minimum") return !value.is_number() || value >= rule;
  if (key == "maximum") return !value.is_number() || value <= rule;
  if (key == "exclusiveMinimum") return !value.is_number() || value > rule;
  if (key == "exclusiveMaximum") return !value.is_number() || value < rule;
  if (key == "minLength") return !value.is_string() || characters(value) >= rule;
  if (key == "maxLength") return !value.is_string() || characters(value) <= rule;
  if (key == "pattern") {
    return !value.is_string() ||
           std::regex_search(value.get<std::string>(), std::regex(rule.get<std::string>()));
  }
  if (key == "minItems") return !value.is_array() || value.size() >= rule;
  if (key == "maxItems") return !value.is_array() || value.size() <= rule;
  if (key == "items")
    return !value.is_array() ||
           std::ranges::all_of(value, [&](const json& item) { return valid(item, rule); });
  if (key == "required") {
    return !value.is_object() || std::ranges::all_of(rule, [&](const json& name) {
      return value.contains(name.get<std::string>());
    });
  }
  if (key == "properties" || key == "additionalProperties") {
    if (!value.is_object()) return true;
    for (const auto& [name, member] : value.items()) {
      const bool is_named = schema.contains("properties") && schema["properties"].contains(name);
      if (is_named != (key == "properties")) continue;
      if (!valid(member, is_named ? rule.at(name) : rule)) return false;
    }
    return true;
  }
  throw std::runtime_error("keyword " + key);
}

}  // namespace

bool is_valid(const json& value, const json& schema, const json& root) {
  if (schema.is_boolean()) return schema.get<bool>();
  static const std::set<std::string> kNoRules{"$schema", "title", "description", "$defs", "default"};
  return std::ranges::all_of(schema.items(), [&](const auto& entry) {
    return kNoRules.contains(entry.key()) || holds(entry.key(), entry.value(), value, schema, root);
  });
}

}  // namespace volley::test
