// Ref: JSON Schema, draft 2020-12, core and validation; json-schema.org. What a keyword means is that
// draft's; what is not written here is refused by name.
#include "text/constraint/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "core/io/untrusted_text.h"
#include "text/constraint/json_text.h"
#include "text/constraint/pattern.h"

namespace volley::text {
namespace {

using Json = nlohmann::ordered_json;  // properties keep their order
using Node = ByteGraph::Node;

constexpr int64_t kMaxDepth = 200;
constexpr int64_t kMaxCount = 10'000;

const std::set<std::string> kAnnotations{"$schema",     "$id",        "$comment",    "$defs",
                                         "definitions", "title",      "description", "default",
                                         "examples",    "deprecated", "readOnly",    "writeOnly"};
const std::set<std::string> kKeywords{"type",
                                      "enum",
                                      "const",
                                      "properties",
                                      "required",
                                      "additionalProperties",
                                      "items",
                                      "minItems",
                                      "maxItems",
                                      "minLength",
                                      "maxLength",
                                      "pattern",
                                      "anyOf",
                                      "oneOf",
                                      "$ref",
                                      "minimum",
                                      "maximum",
                                      "exclusiveMinimum",
                                      "exclusiveMaximum"};
const std::vector<std::string> kTypes{"null", "boolean", "integer", "number", "string", "array", "object"};

class Compiler {
 public:
  explicit Compiler(const Json& root) : root_(root) {}

  Result<ByteAutomaton> run() {
    try {
      const Node start = graph_.add_node();
      const Node accept = add_value(root_, "#", start);
      return graph_.determinize(start, accept);
    } catch (const Fault& fault) {
      return fault;
    }
  }

 private:
  [[noreturn]] static void fail(const std::string& place, const std::string& fault) {
    throw Fault{printable(place, 200) + ": " + fault};
  }

  // ---- What a schema says

  const Json& resolve(const Json& schema, const std::string& place) const {
    const Json& name = schema.at("$ref");
    if (!name.is_string()) fail(place, "$ref is not a text");
    const auto text = name.get<std::string>();
    if (!text.starts_with('#'))
      fail(place, "$ref " + quote(text) + ": only places in this schema can be named");
    try {
      return root_.at(Json::json_pointer(text.substr(1)));
    } catch (const nlohmann::json::exception&) {
      fail(place, "$ref " + quote(text) + " names nothing");
    }
  }

  static void check_keywords(const Json& schema, const std::string& place) {
    for (const auto& [key, value] : schema.items()) {
      if (!kAnnotations.contains(key) && !kKeywords.contains(key))
        fail(place, "keyword " + quote(key) + " is not supported");
    }
    // These say all that there is to say.
    for (const char* sole : {"$ref", "anyOf", "oneOf", "const", "enum"}) {
      if (!schema.contains(sole)) continue;
      const bool may_have_type = std::string_view(sole) == "const" || std::string_view(sole) == "enum";
      for (const auto& [key, value] : schema.items()) {
        if (key == sole || kAnnotations.contains(key) || (may_have_type && key == "type")) continue;
        fail(place, "keyword " + quote(key) + " beside " + quote(sole) + " is not supported");
      }
    }
  }

  static bool has_any(const Json& schema, std::initializer_list<const char*> keys) {
    return std::ranges::any_of(keys, [&](const char* key) { return schema.contains(key); });
  }

  // The types that `type` names; without one, what other keywords speak of. Empty: any.
  static std::vector<std::string> types_of(const Json& schema, const std::string& place) {
    std::vector<std::string> types;
    if (schema.contains("type")) {
      const Json& type = schema.at("type");
      if (type.is_array() && type.empty()) fail(place, "type names nothing");
      for (const Json& name : type.is_array() ? type : Json::array({type})) {
        if (!name.is_string() || std::ranges::count(kTypes, name.get<std::string>()) == 0)
          fail(place, "type " + quote(name.dump()) + " is none of JSON's");
        types.push_back(name.get<std::string>());
      }
      return types;
    }
    if (has_any(schema, {"properties", "required", "additionalProperties"})) types.emplace_back("object");
    if (has_any(schema, {"items", "minItems", "maxItems"})) types.emplace_back("array");
    if (has_any(schema, {"minLength", "maxLength", "pattern"})) types.emplace_back("string");
    if (has_any(schema, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}))
      fail(place, "minimum and maximum need a type: integer");
    return types;
  }

  static std::optional<int64_t> integer_of(const Json& schema, const char* key, const std::string& place) {
    if (!schema.contains(key)) return std::nullopt;
    const Json& value = schema.at(key);
    constexpr double kLimit = 1e15;
    const double number = value.is_number() ? value.get<double>() : 2 * kLimit;
    if (number < -kLimit || number > kLimit || number != std::floor(number)) {
      fail(place, std::string(key) + " is not a whole number within 10^15");
    }
    return static_cast<int64_t>(number);
  }

  static std::optional<int64_t> count_of(const Json& schema, const char* key, const std::string& place) {
    const std::optional<int64_t> count = integer_of(schema, key, place);
    if (count && (*count < 0 || *count > kMaxCount))
      fail(place, std::string(key) + " is not within 0 and " + std::to_string(kMaxCount));
    return count;
  }

  // ---- Values

  // Adds what a schema holds for. A node that nothing leads to stands for what cannot be.
  Node add_value(const Json& schema, const std::string& place, Node before) {
    const Node from = graph_.add_node();
    graph_.add_empty(before, from);
    if (schema.is_boolean()) return schema.get<bool>() ? text_.any(from, kFreeValueDepth) : graph_.add_node();
    if (!schema.is_object()) fail(place, "a schema is an object, true or false");
    if (depth_ >= kMaxDepth) fail(place, "schemas nest deeper than " + std::to_string(kMaxDepth));
    check_keywords(schema, place);
    ++depth_;
    const Node to = add_checked(schema, place, from);
    --depth_;
    return to;
  }

  Node add_checked(const Json& schema, const std::string& place, Node from) {
    if (schema.contains("$ref")) return add_reference(schema, place, from);
    if (schema.contains("anyOf")) return add_alternatives(schema.at("anyOf"), place + "/anyOf", from);
    if (schema.contains("oneOf")) {
      check_exclusive(schema.at("oneOf"), place + "/oneOf");
      return add_alternatives(schema.at("oneOf"), place + "/oneOf", from);
    }
    if (has_any(schema, {"const", "enum"})) return add_given(schema, place, from);
    const std::vector<std::string> types = types_of(schema, place);
    if (types.empty()) return text_.any(from, kFreeValueDepth);
    const Node to = graph_.add_node();
    for (const std::string& type : types) graph_.add_empty(add_type(schema, type, place, from), to);
    return to;
  }

  Node add_reference(const Json& schema, const std::string& place, Node from) {
    const Json& target = resolve(schema, place);
    const auto name = schema.at("$ref").get<std::string>();
    int64_t& uses = open_references_[name];
    if (uses > kMaxSchemaNesting) return graph_.add_node();
    ++uses;
    const Node to = add_value(target, name, from);
    --open_references_[name];
    return to;
  }

  Node add_alternatives(const Json& schemas, const std::string& place, Node from) {
    if (!schemas.is_array() || schemas.empty()) fail(place, "expected a list of schemas");
    const Node to = graph_.add_node();
    for (size_t i = 0; i < schemas.size(); ++i)
      graph_.add_empty(add_value(schemas[i], place + "/" + std::to_string(i), from), to);
    return to;
  }

  static bool is_of_type(const Json& value, const std::string& type) {
    if (type == "null") return value.is_null();
    if (type == "boolean") return value.is_boolean();
    if (type == "integer") return value.is_number_integer();
    if (type == "number") return value.is_number();
    if (type == "string") return value.is_string();
    return type == "array" ? value.is_array() : value.is_object();
  }

  static Json given_values(const Json& schema, const std::string& place) {
    if (schema.contains("const") && schema.contains("enum"))
      fail(place, "const beside enum is not supported");
    if (schema.contains("const")) return Json::array({schema.at("const")});
    const Json& values = schema.at("enum");
    if (!values.is_array() || values.empty()) fail(place + "/enum", "expected a list of values");
    return values;
  }

  Node add_given(const Json& schema, const std::string& place, Node from) {
    const std::vector<std::string> types =
        schema.contains("type") ? types_of(schema, place) : std::vector<std::string>();
    const Node to = graph_.add_node();
    for (const Json& value : given_values(schema, place)) {
      const auto fits = [&](const std::string& type) { return is_of_type(value, type); };
      if (!types.empty() && std::ranges::none_of(types, fits)) continue;
      graph_.add_empty(graph_.add_text(from, value.dump()), to);
    }
    return to;
  }

  Node add_type(const Json& schema, const std::string& type, const std::string& place, Node from) {
    if (type == "null") return graph_.add_text(from, "null");
    if (type == "boolean") return text_.boolean(from);
    if (type == "string") return add_string(schema, place, from);
    if (type == "array") return add_array(schema, place, from);
    if (type == "object") return add_object(schema, place, from);
    if (type == "integer") return add_integer(schema, place, from);
    if (has_any(schema, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}))
      fail(place, "minimum and maximum are supported for type integer only");
    return text_.number(from);
  }

  Node add_integer(const Json& schema, const std::string& place, Node from) {
    std::optional<int64_t> low = integer_of(schema, "minimum", place);
    std::optional<int64_t> high = integer_of(schema, "maximum", place);
    if (const auto above = integer_of(schema, "exclusiveMinimum", place))
      low = std::max(low.value_or(*above + 1), *above + 1);
    if (const auto below = integer_of(schema, "exclusiveMaximum", place))
      high = std::min(high.value_or(*below - 1), *below - 1);
    return text_.integer(from, low, high);
  }

  Node add_string(const Json& schema, const std::string& place, Node from) {
    const std::optional<int64_t> low = count_of(schema, "minLength", place);
    const std::optional<int64_t> high = count_of(schema, "maxLength", place);
    if (!schema.contains("pattern")) return text_.string(from, low.value_or(0), high);
    if (low || high) fail(place, "pattern beside minLength or maxLength is not supported");
    const Json& source = schema.at("pattern");
    if (!source.is_string()) fail(place, "pattern is not a text");
    const Result<Pattern> pattern = Pattern::parse(source.get<std::string>(), Pattern::Extent::kSearch);
    if (!pattern) fail(place + "/pattern", pattern.fault().message);
    const Node to = pattern.value().add_to(graph_, graph_.add_text(from, "\""), Spelling::kJsonString);
    return graph_.add_text(to, "\"");
  }

  Node add_array(const Json& schema, const std::string& place, Node from) {
    const int64_t low = count_of(schema, "minItems", place).value_or(0);
    const std::optional<int64_t> high = count_of(schema, "maxItems", place);
    const auto add_item = [&](Node before) {
      if (!schema.contains("items")) return text_.any(before, kFreeValueDepth - 1);
      return add_value(schema.at("items"), place + "/items", before);
    };
    return text_.array(from, low, high, add_item);
  }

  Node add_object(const Json& schema, const std::string& place, Node from) {
    std::set<std::string> required;
    if (schema.contains("required")) {
      if (!schema.at("required").is_array()) fail(place + "/required", "expected a list of names");
      for (const Json& name : schema.at("required")) {
        if (!name.is_string()) fail(place + "/required", "expected a list of names");
        required.insert(name.get<std::string>());
      }
    }
    const Json none = Json::object();
    const Json& properties = schema.contains("properties") ? schema.at("properties") : none;
    if (!properties.is_object()) fail(place + "/properties", "expected an object");
    for (const std::string& name : required) {
      if (!properties.contains(name)) fail(place + "/required", quote(name) + " is not among the properties");
    }
    if (!schema.contains("properties")) {
      const Json* others =
          schema.contains("additionalProperties") ? &schema.at("additionalProperties") : nullptr;
      return text_.map(from, [&](Node before) {
        if (others == nullptr) return text_.any(before, kFreeValueDepth - 1);
        return add_value(*others, place + "/additionalProperties", before);
      });
    }
    std::vector<JsonText::Property> listed;
    for (const auto& [name, value] : properties.items()) {
      listed.push_back({.name = name,
                        .is_required = required.contains(name),
                        .add_value = [&, this, name = name](Node before) {
                          return add_value(properties.at(name), place + "/properties/" + name, before);
                        }});
    }
    return text_.object(from, listed);
  }

  // ---- oneOf

  // What can be told of a schema's values at a glance.
  const Json& followed(const Json& schema, const std::string& place) const {
    const Json* at = &schema;
    for (int64_t i = 0; at->is_object() && at->contains("$ref"); ++i) {
      if (i == kMaxDepth) fail(place, "references that only lead to each other");
      at = &resolve(*at, place);
    }
    return *at;
  }

  std::set<std::string> possible_types(const Json& schema, const std::string& place) const {
    std::set<std::string> types;
    if (!schema.is_object() || has_any(schema, {"anyOf", "oneOf"})) return {kTypes.begin(), kTypes.end()};
    if (has_any(schema, {"const", "enum"})) {
      for (const Json& value : given_values(schema, place)) {
        for (const std::string& type : kTypes) {
          if (is_of_type(value, type)) types.insert(type);
        }
      }
    } else {
      const std::vector<std::string> named = types_of(schema, place);
      types = named.empty() ? std::set<std::string>{kTypes.begin(), kTypes.end()}
                            : std::set<std::string>{named.begin(), named.end()};
    }
    if (types.contains("integer")) types.insert("number");
    if (types.contains("number")) types.insert("integer");
    return types;
  }

  // Whether it is plain that no value is of both.
  bool are_exclusive(const Json& a, const Json& b, const std::string& place, int64_t depth = 0) const {
    const Json &left = followed(a, place), &right = followed(b, place);
    if (left == false || right == false) return true;
    std::vector<std::string> shared;
    std::ranges::set_intersection(possible_types(left, place), possible_types(right, place),
                                  std::back_inserter(shared));
    if (shared.empty()) return true;
    if (!left.is_object() || !right.is_object() || depth > kMaxDepth) return false;
    if (has_any(left, {"const", "enum"}) && has_any(right, {"const", "enum"})) {
      const Json of_left = given_values(left, place), of_right = given_values(right, place);
      return std::ranges::none_of(of_left, [&](const Json& value) {
        // Objects are equal in any order of their keys.
        return std::ranges::any_of(
            of_right, [&](const Json& other) { return nlohmann::json(value) == nlohmann::json(other); });
      });
    }
    if (shared != std::vector<std::string>{"object"}) return false;
    // One property that both must have, and never alike.
    const auto properties = [](const Json& schema) {
      return schema.contains("properties") ? schema.at("properties") : Json::object();
    };
    const auto requires_it = [](const Json& schema, const std::string& name) {
      return schema.contains("required") && std::ranges::count(schema.at("required"), Json(name)) > 0;
    };
    const Json of_left = properties(left), of_right = properties(right);
    for (const auto& [name, value] : of_left.items()) {
      if (of_right.contains(name) && requires_it(left, name) && requires_it(right, name) &&
          are_exclusive(value, of_right.at(name), place, depth + 1)) {
        return true;
      }
    }
    return false;
  }

  void check_exclusive(const Json& schemas, const std::string& place) const {
    if (!schemas.is_array()) fail(place, "expected a list of schemas");
    for (size_t i = 0; i < schemas.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        if (are_exclusive(schemas[j], schemas[i], place)) continue;
        fail(place, "a value may be of " + std::to_string(j) + " and of " + std::to_string(i) +
                        "; only alternatives that differ in type or in a required constant are supported, "
                        "anyOf takes any");
      }
    }
  }

  const Json& root_;
  ByteGraph graph_;
  JsonText text_{graph_};
  std::map<std::string, int64_t> open_references_;
  int64_t depth_ = 0;
};

}  // namespace

Result<ByteAutomaton> compile_json_schema(std::string_view schema) {
  const Result<nlohmann::json> checked =
      parse_json(schema, {.max_bytes = int64_t{1} << 20, .max_values = 100'000});
  if (!checked) return checked.fault();
  return Compiler(Json::parse(schema)).run();
}

}  // namespace volley::text
