// JSON schemas as automata: what they match is JSON and valid, and what is valid in the documented form is
// matched.
#include "text/constraint/json_schema.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/sanitized.h"
#include "tests/support/toy_models.h"
#include "tests/unit/text/schema_check.h"

namespace volley::text {
namespace {

using nlohmann::json;

ByteAutomaton compiled(const std::string& schema) {
  Result<ByteAutomaton> made = compile_json_schema(schema);
  EXPECT_TRUE(made.ok()) << schema << ": " << made.fault().message;
  return std::move(made).value_or_throw(schema);
}

std::string fault_of(const std::string& schema) {
  const Result<ByteAutomaton> made = compile_json_schema(schema);
  return made.ok() ? "no fault" : made.fault().message;
}

// Steps to the nearest accepting state, by state.
std::vector<int64_t> distances(const ByteAutomaton& automaton) {
  std::vector<int64_t> distance(static_cast<size_t>(automaton.states()), INT64_MAX - 1);
  for (bool changed = true; changed;) {
    changed = false;
    for (auto state = static_cast<ByteAutomaton::State>(automaton.states() - 1); state >= 0; --state) {
      auto& best = distance[static_cast<size_t>(state)];
      const int64_t before = best;
      if (automaton.accepts(state)) best = 0;
      for (int byte = 0; byte < 256 && best > 0; ++byte) {
        const auto next = automaton.next(state, static_cast<unsigned char>(byte));
        if (next != ByteAutomaton::kBroken) best = std::min(best, distance[static_cast<size_t>(next)] + 1);
      }
      changed = changed || best != before;
    }
  }
  return distance;
}

// A text that the automaton matches: at random at first, then the shortest way to an end.
std::string random_text(const ByteAutomaton& automaton, const std::vector<int64_t>& distance,
                        test::TestRandom& random) {
  std::string text;
  ByteAutomaton::State state = automaton.start();
  const int64_t wild = random.below(120);
  while (true) {
    std::vector<unsigned char> choices;
    int64_t nearest = INT64_MAX;
    for (int byte = 0; byte < 256; ++byte) {
      const auto next = automaton.next(state, static_cast<unsigned char>(byte));
      if (next == ByteAutomaton::kBroken) continue;
      const int64_t there = distance[static_cast<size_t>(next)];
      if (std::ssize(text) >= wild && there > nearest) continue;
      if (std::ssize(text) >= wild && there < nearest) choices.clear();
      nearest = there;
      choices.push_back(static_cast<unsigned char>(byte));
    }
    const bool may_end = automaton.accepts(state);
    if (choices.empty() || (may_end && (std::ssize(text) >= wild || random.below(4) == 0))) return text;
    // ASCII more often than the many bytes of other characters.
    unsigned char byte = choices[static_cast<size_t>(random.below(std::ssize(choices)))];
    if (byte >= 0x80 && random.below(4) > 0) byte = choices[0];
    text += static_cast<char>(byte);
    state = automaton.next(state, byte);
  }
}

const std::vector<std::string> kSchemas{
    R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0,
        "maximum": 150}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 3}},
        "required": ["name", "age"]})",
    R"({"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}, "c": {"const": 1}}})",
    R"({"type": "number"})",
    R"({"type": "integer", "exclusiveMinimum": -120, "maximum": 1007})",
    R"({"type": "integer", "maximum": -17})",
    R"({"type": ["string", "null"], "minLength": 2, "maxLength": 3})",
    R"({"type": "string", "pattern": "^[A-Z]{2}-\\d+(\"|\\\\|\\n)?$"})",
    R"({"type": "string", "pattern": "ab+c"})",
    R"({"enum": ["red", "a\"b", 3, 2.5, null, true, [1, {"x": "y"}], "世"]})",
    R"({"enum": ["x", 1, null], "type": ["string", "null"]})",
    R"({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4})",
    R"({"type": "array", "minItems": 1, "items": {"type": "array", "maxItems": 0}})",
    R"({"type": "array", "minItems": 3, "items": {"enum": [1, 2]}})",
    R"({"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "number"}}]})",
    R"({"oneOf": [{"type": "object", "properties": {"kind": {"const": "a"}, "x": {"type": "number"}},
        "required": ["kind"], "additionalProperties": false},
        {"type": "object", "properties": {"kind": {"enum": ["b", "c"]}}, "required": ["kind"]},
        {"type": "null"}]})",
    R"({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}, "required": ["v"]}}})",
    R"({"type": "object", "additionalProperties": {"type": "integer"}})",
    R"({"type": "object"})",
    R"({"type": "object", "properties": {}, "additionalProperties": false})",
    R"({"title": "anything", "description": "at all"})",
    R"(true)",
    R"({"properties": {"deep": {"properties": {"er": {"items": {"pattern": "^x*$"}}}}}})",
    R"({"type": "object", "properties": {"free": true, "never": false}})",
};

TEST(JsonSchema, WhatIsMatchedParsesAndIsValid) {
  const int rounds = test::kSanitized ? 20 : 300;
  test::TestRandom random(5);
  for (const std::string& source : kSchemas) {
    const json schema = json::parse(source);
    const ByteAutomaton automaton = compiled(source);
    const std::vector<int64_t> distance = distances(automaton);
    std::set<std::string> texts;
    for (int i = 0; i < rounds; ++i) {
      const std::string text = random_text(automaton, distance, random);
      ASSERT_TRUE(automaton.matches(text)) << text;
      texts.insert(text);
      json value;
      ASSERT_NO_THROW(value = json::parse(text)) << source << "\n" << text;
      ASSERT_TRUE(test::is_valid(value, schema, schema)) << source << "\n" << text;
    }
    EXPECT_GT(texts.size(), source.find("false}") == source.npos ? 1u : 0u) << source;
  }
}

TEST(JsonSchema, TextsOfTheDocumentedFormAreMatched) {
  const std::vector<std::tuple<size_t, std::string, bool>> cases{
      {0, R"({"name": "Ann", "age": 0})", true},
      {0, R"({"name":"Ann","age":150,"tags":[]})", true},
      {0, R"({"name":"Ann", "age":15,"tags": ["a", "b","c"]})", true},
      {0, R"({"name":"Ann","age":151})", false},
      {0, R"({"name":"Ann","age":015})", false},
      {0, R"({"age":1,"name":"Ann"})", false},  // another order
      {0, R"({"name":"Ann"})", false},
      {0, R"({"name":"Ann","age":1,"tags":["abcde"]})", false},
      {0, R"({"name":"Ann","age":1,"tags":["a","b","c","d"]})", false},
      {0, R"({"name":"Ann","age":1,})", false},
      {0, R"({"name":"Ann",  "age":1})", false},  // two spaces
      {0, R"( {"name":"Ann","age":1})", false},
      {0, "{\"name\":\"A\nn\",\"age\":1}", false},
      {0, R"({"name":"A\n\"\\\tn é 世 😀","age":1})", true},
      {0, R"({"name":"\u0041","age":1})", false},  // one way to write each character
      {0, R"({"name":"\x","age":1})", false},
      {1, R"({})", true},
      {1, R"({"b": true})", true},
      {1, R"({"a":null,"c":1})", true},
      {1, R"({,"c":1})", false},
      {1, R"({"c":1,"a":null})", false},
      {2, "-0.5", true},
      {2, "0", true},
      {2, "-12.25e-10", true},
      {2, "1E+5", true},
      {2, "01", false},
      {2, ".5", false},
      {2, "1.", false},
      {2, "1e400", false},
      {2, "+1", false},
      {3, "-119", true},
      {3, "-120", false},
      {3, "1007", true},
      {3, "1008", false},
      {3, "-0", false},
      {4, "-17", true},
      {4, "-999999999999999", true},
      {4, "-16", false},
      {4, "17", false},
      {5, R"("ab")", true},
      {5, R"("世界人")", true},
      {5, R"("\n\"")", true},
      {5, R"("a")", false},
      {5, R"("abcd")", false},
      {5, "null", true},
      {6, R"("AB-12")", true},
      {6, R"("AB-12\"")", true},
      {6, R"("AB-12\n")", true},
      {6, R"("AB-")", false},
      {7, R"("xxabbbcyy")", true},
      {7, R"("xac")", false},
      {8, R"("a\"b")", true},
      {8, R"([1,{"x":"y"}])", true},
      {8, "2.5", true},
      {8, R"("green")", false},
      {9, R"("x")", true},
      {9, "1", false},
      {10, "[true,false]", true},
      {10, "[true]", false},
      {10, "[true,true,true,true,true]", false},
      {11, "[[],[], []]", true},
      {11, "[]", false},
      {12, "[1,2,1,2,1]", true},
      {12, "[1,2]", false},
      {13, "[1.5]", true},
      {13, "1.5", false},
      {14, R"({"kind":"a","x":1})", true},
      {14, R"({"kind":"c"})", true},
      {14, R"({"kind":"d"})", false},
      {15, R"({"v":1,"children":[{"v":2,"children":[]}, {"v":3}]})", true},
      {15, R"({"v":1,"children":[{"children":[]}]})", false},
      {16, R"({"x": 1, "y":2})", true},
      {16, R"({"x":"1"})", false},
      {17, R"({"x":{"y":[1,{"z":null}]}})", false},  // deeper than free values go
      {17, R"({"x":{"y":[1,2]}})", true},
      {18, "{}", true},
      {18, R"({"x":1})", false},
      {19, R"([1,"a",{"b":[]}])", true},
      {22, R"({"free": [1]})", true},
      {22, R"({"never":1})", false},
  };
  std::map<size_t, ByteAutomaton> made;
  for (const auto& [index, text, expected] : cases) {
    if (!made.contains(index)) made.emplace(index, compiled(kSchemas[index]));
    EXPECT_EQ(made.at(index).matches(text), expected) << kSchemas[index] << "\n" << text;
  }
}

// Every range of integers, by every number near it.
TEST(JsonSchema, IntegersKeepTheirLimits) {
  test::TestRandom random(3);
  for (int i = 0; i < (test::kSanitized ? 15 : 150); ++i) {
    const int64_t low = random.below(2400) - 1200, high = low + random.below(i % 2 == 0 ? 30 : 1500);
    const ByteAutomaton automaton =
        compiled(json{{"type", "integer"}, {"minimum", low}, {"maximum", high}}.dump());
    for (int64_t n = -1300; n <= 2800; ++n)
      ASSERT_EQ(automaton.matches(std::to_string(n)), n >= low && n <= high)
          << low << " " << n << " " << high;
  }
  EXPECT_EQ(fault_of(R"({"type":"integer","minimum":3,"maximum":2})"), "matches nothing");
}

TEST(JsonSchema, ReferencesWithinThemselvesNestSoDeep) {
  const ByteAutomaton automaton = compiled(R"({"type": "array", "items": {"$ref": "#"}})");
  std::string text = "[]";
  for (int64_t depth = 1; depth <= kMaxSchemaNesting + 1; ++depth, text = "[" + text + "]")
    EXPECT_TRUE(automaton.matches(text)) << text;
  EXPECT_FALSE(automaton.matches("[" + text + "]"));
  EXPECT_EQ(fault_of(R"({"$ref": "#"})"), "matches nothing");
  EXPECT_EQ(fault_of(R"({"type":"object","properties":{"x":{"$ref":"#"}},"required":["x"]})"),
            "matches nothing");
}

TEST(JsonSchema, FaultsNameThePlace) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"type":"object","properties":{"a":{"type":"string","format":"date"}}})",
       "#/properties/a: keyword 'format' is not supported"},
      {R"({"allOf":[]})", "#: keyword 'allOf' is not supported"},
      {R"({"items":{"not":{}}})", "#/items: keyword 'not' is not supported"},
      {R"({"type":"number","multipleOf":2})", "#: keyword 'multipleOf' is not supported"},
      {R"({"type":"number","minimum":2})", "#: minimum and maximum are supported for type integer only"},
      {R"({"type":"text"})", "#: type '\"text\"' is none of JSON's"},
      {R"({"$ref":"#/$defs/x"})", "#: $ref '#/$defs/x' names nothing"},
      {R"({"$ref":"http://x/y"})", "#: $ref 'http://x/y': only places in this schema can be named"},
      {R"({"$ref":"#","type":"null"})", "#: keyword 'type' beside '$ref' is not supported"},
      {R"({"anyOf":[{"type":"null"},{"pattern":"("}]})", "#/anyOf/1/pattern: character 1: '(' without ')'"},
      {R"({"pattern":"a","maxLength":3})", "#: pattern beside minLength or maxLength is not supported"},
      {R"({"required":["x"],"properties":{}})", "#/required: 'x' is not among the properties"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})",
       "#/oneOf: a value may be of 0 and of 1; only alternatives that differ in type or in a required "
       "constant "
       "are supported, anyOf takes any"},
      {R"({"enum":[]})", "#/enum: expected a list of values"},
      {R"({"enum":[1],"type":"string"})", "matches nothing"},
      {R"({"minItems":-1})", "#: minItems is not within 0 and 10000"},
      {R"({"minItems":1.5})", "#: minItems is not a whole number within 10^15"},
      {R"({"minItems":1e300})", "#: minItems is not a whole number within 10^15"},
      {R"({"minItems":2,"maxItems":1})", "matches nothing"},
      {"false", "matches nothing"},
      {"3", "#: a schema is an object, true or false"},
  };
  for (const auto& [schema, message] : cases) EXPECT_EQ(fault_of(schema), message) << schema;
  for (const char* broken : {"", "{", "{\"a\":1,\"a\":2}", "{} x"}) {
    EXPECT_NE(fault_of(broken), "no fault") << broken;
    EXPECT_EQ(fault_of(broken).find('\n'), std::string::npos);
  }
  const std::string large = fault_of(R"({"minItems":3,"items":{"type":"string","minLength":10000}})");
  EXPECT_TRUE(large.starts_with("is too large: more than ")) << large;
  // References that double at each of many levels.
  json bomb{{"$ref", "#/$defs/0"}, {"$defs", json::object()}};
  for (int i = 0; i < 60; ++i) {
    const json next{{"$ref", "#/$defs/" + std::to_string(i + 1)}};
    bomb["$defs"][std::to_string(i)] = json{{"anyOf", json::array({next, next})}};
  }
  bomb["$defs"]["60"] = true;
  EXPECT_TRUE(fault_of(bomb.dump()).starts_with("is too large")) << fault_of(bomb.dump());
}

TEST(JsonSchema, OneOfNeedsAlternativesThatExcludeEachOther) {
  const auto fault = [](const std::string& alternatives) {
    return fault_of("{\"oneOf\":" + alternatives + "}");
  };
  EXPECT_EQ(fault(R"([{"type":"string"},{"type":"null"},{"type":"array"}])"), "no fault");
  EXPECT_EQ(fault(R"([{"const":1},{"enum":[2,"1"]}])"), "no fault");
  EXPECT_NE(fault(R"([{"const":1},{"const":1.0}])"), "no fault");
  EXPECT_NE(fault(R"([{"const":{"a":1,"b":2}},{"const":{"b":2,"a":1}}])"), "no fault");
  EXPECT_NE(fault(R"([{"const":"a"},{"type":"string"}])"), "no fault");
  EXPECT_NE(fault(R"([{},{"type":"null"}])"), "no fault");
  EXPECT_NE(fault(R"([{"properties":{"k":{"const":1}}},{"properties":{"k":{"const":2}}}])"), "no fault");
}

}  // namespace
}  // namespace volley::text
