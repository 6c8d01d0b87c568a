// The part of JSON Schema (draft 2020-12) that docs/schema uses.
#include "tests/unit/apps/json_schema.h"

#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <stdexcept>

namespace volley::test {
namespace {

using nlohmann::json;

const json& load(const std::string& file) {
  static std::map<std::string, json> loaded;
  const auto found = loaded.find(file);
  if (found != loaded.end()) return found->second;
  std::ifstream stream(std::string(VOLLEY_SCHEMAS) + "/" + file);
  if (!stream) throw std::runtime_error("no schema " + file);
  return loaded[file] = json::parse(stream);
}

bool has_type(const json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  throw std::runtime_error("schema type " + type);
}

class Validator {
 public:
  std::string fault(const json& value, const json& schema, const std::string& file,
                    const std::string& where) {
    static const std::set<std::string> kNoRules{"$schema", "title", "description", "$defs"};
    std::string found;
    for (const auto& [keyword, rule] : schema.items()) {
      if (kNoRules.contains(keyword)) continue;
      found = check(value, keyword, rule, schema, file, where);
      if (!found.empty()) return found;
    }
    return {};
  }

 private:
  std::string check(const json& value, const std::string& keyword, const json& rule, const json& schema,
                    const std::string& file, const std::string& where) {
    const auto fail = [&](const std::string& what) {
      return where + ": " + what + ", found " + value.dump().substr(0, 200);
    };
    if (keyword == "$ref") return follow(value, rule.get<std::string>(), file, where);
    if (keyword == "anyOf") {
      std::string faults;
      for (const json& choice : rule) {
        const std::string one = fault(value, choice, file, where);
        if (one.empty()) return {};
        faults += (faults.empty() ? "" : " | ") + one;
      }
      return where + ": fits none of: " + faults;
    }
    if (keyword == "type") return has_type(value, rule) ? "" : fail("expected " + rule.dump());
    if (keyword == "const") return value == rule ? "" : fail("expected " + rule.dump());
    if (keyword == "enum") {
      for (const json& choice : rule) {
        if (value == choice) return {};
      }
      return fail("expected one of " + rule.dump());
    }
    if (keyword == "minimum")
      return !value.is_number() || value.get<double>() >= rule.get<double>() ? "" : fail("too small");
    if (keyword == "maximum")
      return !value.is_number() || value.get<double>() <= rule.get<double>() ? "" : fail("too large");
    if (keyword == "pattern") {
      if (!value.is_string()) return {};
      return std::regex_search(value.get<std::string>(), std::regex(rule.get<std::string>()))
                 ? ""
                 : fail("expected " + rule.dump());
    }
    if (keyword == "minItems")
      return !value.is_array() || value.size() >= rule.get<size_t>() ? "" : fail("too short");
    if (keyword == "items") {
      if (!value.is_array()) return {};
      for (size_t i = 0; i < value.size(); ++i) {
        const std::string one = fault(value[i], rule, file, where + "/" + std::to_string(i));
        if (!one.empty()) return one;
      }
      return {};
    }
    if (keyword == "required") {
      for (const json& key : rule) {
        if (value.is_object() && !value.contains(key.get<std::string>())) return fail("lacks " + key.dump());
      }
      return {};
    }
    if (keyword == "properties" || keyword == "additionalProperties") {
      if (!value.is_object()) return {};
      for (const auto& [key, member] : value.items()) {
        const bool is_named = schema.contains("properties") && schema["properties"].contains(key);
        if (is_named != (keyword == "properties")) continue;
        const json& member_rule = is_named ? rule[key] : rule;
        if (member_rule.is_boolean()) {
          if (!member_rule.get<bool>()) return fail("has unknown key " + key);
          continue;
        }
        const std::string one = fault(member, member_rule, file, where + "/" + key);
        if (!one.empty()) return one;
      }
      return {};
    }
    throw std::runtime_error(file + ": keyword " + keyword + " is not known here");
  }

  std::string follow(const json& value, const std::string& reference, const std::string& file,
                     const std::string& where) {
    const size_t hash = reference.find('#');
    const std::string other = reference.substr(0, hash);
    const std::string target = other.empty() ? file : other;
    const json& root = load(target);
    if (hash == std::string::npos) return fault(value, root, target, where);
    return fault(value, root.at(json::json_pointer(reference.substr(hash + 1))), target, where);
  }
};

}  // namespace

std::string schema_fault(const json& value, const std::string& schema_file) {
  return Validator().fault(value, load(schema_file), schema_file, "");
}

}  // namespace volley::test
