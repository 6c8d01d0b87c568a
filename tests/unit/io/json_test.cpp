#include "core/io/json.h"

#include <gtest/gtest.h>

namespace volley::test {
namespace {

using nlohmann::json;

TEST(Json, BuildsWhatTheLibraryBuilds) {
  for (const char* text :
       {"null", "true", "-1", "18446744073709551615", "1.5e3", "\"x\\u00fc\"", "[]", "{}", "[[],{},[1,[2]]]",
        R"({"a":{"b":[1,{"c":null}],"d":{}},"e":[{"a":1},{"a":2}],"f":false})", " [1 , 2 ] ",
        "\xef\xbb\xbf[1]"}) {
    const Result<json> parsed = parse_json(text);
    ASSERT_TRUE(parsed.ok()) << text << ": " << parsed.fault().message;
    EXPECT_EQ(parsed.value(), json::parse(text)) << text;
  }
}

TEST(Json, LimitsAreTheCallers) {
  EXPECT_TRUE(parse_json("[[1]]", {.max_depth = 2}).ok());
  EXPECT_EQ(parse_json("[[1]]", {.max_depth = 1}).fault().message, "JSON: nested deeper than 1 levels");
  EXPECT_TRUE(parse_json("[1,2]", {.max_values = 3}).ok());
  EXPECT_EQ(parse_json("[1,2]", {.max_values = 2}).fault().message, "JSON: more than 2 values");
  EXPECT_EQ(parse_json("[1,[]]", {.max_values = 2}).fault().message, "JSON: more than 2 values");
  EXPECT_TRUE(parse_json("[1]", {.max_bytes = 3}).ok());
  EXPECT_EQ(parse_json("[12]", {.max_bytes = 3}).fault().message, "JSON: text of 4 bytes, the limit is 3");
  EXPECT_TRUE(parse_json(std::string(64, '[') + std::string(64, ']')).ok());
}

TEST(Json, SyntaxErrorsSayWhere) {
  EXPECT_EQ(parse_json("{\"a\": }").fault().message.substr(0, 44),
            "JSON: parse error at line 1, column 7: synta");
}

const json kConfig = json::parse(R"({
  "dim": 64, "big": 9223372036854775808, "negative": -3, "whole": 64.0, "scale": 1.5, "tied": true, "name": "arpg",
  "nothing": null, "sizes": [1, 2, 3], "mixed": [1, "2"], "names": ["a", "b"], "inner": {"dim": 7}, "long": ")" +
                                 std::string(500, 'x') + "\"}");

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(JsonFields, ValuesAndFallbacks) {
  const JsonFields fields(kConfig, "config.json");
  EXPECT_EQ(fields.integer("dim", {1, 64}), 64);
  EXPECT_EQ(fields.integer("negative"), -3);
  EXPECT_EQ(fields.integer_or("absent", 5), 5);
  EXPECT_EQ(fields.integer_or("nothing", 5), 5);
  EXPECT_EQ(fields.integer_or("dim", 5), 64);
  EXPECT_EQ(fields.number("scale"), 1.5);
  EXPECT_EQ(fields.number("dim"), 64.0);
  EXPECT_EQ(fields.number_or("absent", 2.5), 2.5);
  EXPECT_EQ(fields.number_or("scale", 2.5), 1.5);
  EXPECT_TRUE(fields.boolean("tied"));
  EXPECT_TRUE(fields.boolean_or("tied", false));
  EXPECT_FALSE(fields.boolean_or("absent", false));
  EXPECT_EQ(fields.text("name"), "arpg");
  EXPECT_EQ(fields.text_or("absent", "x"), "x");
  EXPECT_EQ(fields.integers("sizes", {1, 3}), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(fields.texts("names"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(fields.object("inner").integer("dim"), 7);
  EXPECT_TRUE(fields.has("dim"));
  EXPECT_FALSE(fields.has("nothing"));
  EXPECT_FALSE(fields.has("absent"));
}

TEST(JsonFields, ErrorsNameKeyExpectedAndFound) {
  const JsonFields fields(kConfig, "config.json");
  EXPECT_EQ(message_of([&] { fields.integer("absent"); }), "config.json: key 'absent' is missing");
  EXPECT_EQ(message_of([&] {
              fields.integer("dim", {1, 63});
            }),
            "config.json: key 'dim': expected an integer in [1, 63], found 64");
  EXPECT_EQ(message_of([&] { fields.integer("negative", {.low = 0}); }),
            "config.json: key 'negative': expected an integer of at least 0, found -3");
  EXPECT_EQ(message_of([&] { fields.integer("whole"); }),
            "config.json: key 'whole': expected an integer, found 64.0");
  EXPECT_EQ(message_of([&] { fields.integer("big"); }),
            "config.json: key 'big': expected an integer, found 9223372036854775808");
  EXPECT_EQ(message_of([&] { fields.integer("nothing"); }),
            "config.json: key 'nothing': expected an integer, found null");
  EXPECT_EQ(message_of([&] {
              fields.number("scale", {0, 1});
            }),
            "config.json: key 'scale': expected a number in [0.0, 1.0], found 1.5");
  EXPECT_EQ(message_of([&] { fields.number("name"); }),
            "config.json: key 'name': expected a number, found \"arpg\"");
  EXPECT_EQ(message_of([&] { fields.boolean("dim"); }),
            "config.json: key 'dim': expected true or false, found 64");
  EXPECT_EQ(message_of([&] { fields.text("tied"); }),
            "config.json: key 'tied': expected a string, found true");
  EXPECT_EQ(message_of([&] { fields.integers("mixed"); }),
            "config.json: key 'mixed': expected a list, each an integer, found [1,\"2\"]");
  EXPECT_EQ(message_of([&] { fields.integers("dim"); }),
            "config.json: key 'dim': expected a list, each an integer, found 64");
  EXPECT_EQ(message_of([&] { fields.texts("mixed"); }),
            "config.json: key 'mixed': expected a list of strings, found [1,\"2\"]");
  EXPECT_EQ(message_of([&] { fields.texts("dim"); }),
            "config.json: key 'dim': expected a list of strings, found 64");
  EXPECT_EQ(message_of([&] { fields.object("sizes"); }),
            "config.json: key 'sizes': expected an object, found [1,2,3]");
  EXPECT_EQ(message_of([&] { fields.object("inner").text("dim"); }),
            "config.json: 'inner': key 'dim': expected a string, found 7");
  EXPECT_EQ(message_of([&] { JsonFields(json::array(), "config.json"); }),
            "config.json: expected a JSON object, found array");
  EXPECT_LT(message_of([&] { fields.integer("long"); }).size(), 160u);
}

}  // namespace
}  // namespace volley::test
