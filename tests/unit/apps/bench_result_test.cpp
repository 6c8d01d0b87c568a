// What volley bench writes, reads and compares: fixed samples, nothing is measured here.
#include "apps/bench_result.h"

#include <gtest/gtest.h>

#include <regex>

#include "apps/bench.h"
#include "apps/bench_chart.h"
#include "apps/bench_comparison.h"
#include "apps/bench_table.h"
#include "core/base/error.h"

namespace volley::apps {
namespace {

const std::string kHash(64, 'a');

BenchResult fixed_result() {
  return {.volley = "0.1.0",
          .compiler = "g++ 12",
          .machine = {.processor = "Some <Processor>",
                      .instructions = {"avx2", "amx_int8"},
                      .physical_cores = 2,
                      .logical_cores = 4,
                      .memory_bytes = int64_t{16} << 30},
          .device_description = "Some <Processor>, 2 threads",
          .load_before = "0.10 0.20 0.30",
          .load_after = "1.00 0.50 0.40",
          .settings = {.device = "cpu",
                       .threads = 2,
                       .dtype = "f32",
                       .prompt_tokens = 512,
                       .max_tokens = 128,
                       .temperature = 0.8,
                       .top_k = 40,
                       .top_p = 0.95,
                       .seed = 7,
                       .chat_format = "chatml",
                       .prompts = "p.txt",
                       .prompt_count = 3,
                       .prompt_hash = kHash},
          .repeat = 6,
          .warmup = 1,
          .weights = {{.role = "model", .name = "talker", .bytes = 5 << 20, .hash = kHash}},
          .rows = {{.name = "load", .unit = "s", .samples = {0.5, 0.4, 0.6}},
                   {.name = "lookup greedy",
                    .unit = "tokens/s",
                    .better = Better::kHigher,
                    .samples = {60, 61, 62, 63, 64, 65},
                    .method = "lookup:draft=4"},
                   {.name = "lookup greedy: tokens a forward",
                    .unit = "tokens/forward",
                    .better = Better::kHigher,
                    .samples = {1.5, 1.5, 1.5, 1.5, 1.5, 1.5},
                    .method = "lookup:draft=4"},
                   {.name = "peak memory", .unit = "MiB", .samples = {100, 110, 120}}}};
}

std::string fault_of(const nlohmann::json& json) {
  try {
    read_bench_result(json, "a.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(BenchResult, IsReadAsItWasWritten) {
  const BenchResult result = fixed_result();
  const nlohmann::json json = to_json(result);
  EXPECT_EQ(read_bench_result(json, "a.json"), result);
  EXPECT_EQ(json["rows"][0]["median"], 0.5);
  EXPECT_EQ(json["rows"][0]["interval"], (nlohmann::json{{"kind", "range"}, {"low", 0.4}, {"high", 0.6}}));
  EXPECT_EQ(json["rows"][1]["interval"]["kind"], "confidence");
  EXPECT_EQ(json["rows"][1]["interval"]["coverage"], 0.96875);
  EXPECT_FALSE(json["rows"][0].contains("method"));
}

TEST(BenchResult, FaultsAreNamed) {
  const auto fault = [](const char* pointer, const nlohmann::json& value) {
    nlohmann::json json = to_json(fixed_result());
    json[nlohmann::json::json_pointer(pointer)] = value;
    return fault_of(json);
  };
  EXPECT_EQ(fault_of(nlohmann::json::array()), "a.json: expected a JSON object, found array");
  EXPECT_EQ(fault("/schema", "volley.text/1"),
            "a.json: key 'schema': expected volley.bench/1, found 'volley.text/1'");
  EXPECT_EQ(fault("/verb", "diff"), "a.json: holds no measurements of volley bench text");
  EXPECT_EQ(fault("/rows", nlohmann::json::array()), "a.json: key 'rows': is empty");
  EXPECT_EQ(fault("/rows", 3), "a.json: key 'rows': expected a list");
  EXPECT_EQ(fault("/rows/0/samples", nlohmann::json::array()), "a.json: row 'load': key 'samples': is empty");
  EXPECT_EQ(fault("/rows/0/samples/1", nullptr),
            "a.json: row 'load': key 'samples': expected numbers of at least 0, found null");
  EXPECT_EQ(fault("/rows/0/samples/1", -1.0),
            "a.json: row 'load': key 'samples': expected numbers of at least 0, found -1.0");
  EXPECT_EQ(fault("/rows/0/samples", std::vector<double>(1001, 1.0)),
            "a.json: row 'load': key 'samples': expected at most 1000, found 1001");
  EXPECT_EQ(fault("/rows/0/median", 0.7),
            "a.json: row 'load': key 'median': expected 0.5 by the samples, found 0.7");
  EXPECT_EQ(fault("/rows/0/interval/low", 0.5),
            "a.json: row 'load': key 'low': expected 0.4 by the samples, found 0.5");
  EXPECT_EQ(fault("/rows/0/interval/kind", "confidence"),
            "a.json: row 'load': key 'kind': expected 'range' by the 3 samples, found 'confidence'");
  EXPECT_EQ(fault("/rows/0/better", "sideways"),
            "a.json: row 'load': key 'better': expected 'higher' or 'lower', found 'sideways'");
  EXPECT_EQ(fault("/rows/1/name", "load"), "a.json: row 'load' stands twice");
  EXPECT_EQ(fault("/rows/1/name", std::string(1001, 'x')),
            "a.json: row: key 'name': of 1001 bytes, expected 1000 at most");
  EXPECT_EQ(fault("/rows", nlohmann::json(1001, 0)), "a.json: key 'rows': expected at most 1000, found 1001");
  EXPECT_EQ(fault("/settings/threads", 0),
            "a.json: 'settings': key 'threads': expected an integer of at least 1, found 0");
  EXPECT_EQ(fault("/load_average", {"1"}), "a.json: key 'load_average': expected two strings");
  // Every key is needed, at every depth.
  const nlohmann::json whole = to_json(fixed_result());
  for (const char* object : {"", "/build", "/machine", "/settings", "/settings/prompts", "/weights/0",
                             "/rows/0", "/rows/0/interval"}) {
    const nlohmann::json::json_pointer place(object);
    for (const auto& [key, value] : whole[place].items()) {
      if (key == "chat_format") continue;
      nlohmann::json json = whole;
      json[place].erase(key);
      EXPECT_NE(fault_of(json), "none") << object << "/" << key;
    }
  }
}

TEST(BenchComparison, IntervalsThatOverlapAreNoDifference) {
  const auto verdict = [](const BenchRow& row, std::vector<double> after) {
    BenchResult before = fixed_result(), changed = fixed_result();
    before.rows = changed.rows = {row};
    changed.rows.front().samples = std::move(after);
    return compare(before, changed).rows.front().verdict;
  };
  const BenchRow seconds{.name = "load", .unit = "s", .samples = {4, 5, 6}};
  EXPECT_EQ(verdict(seconds, {4, 5, 6}), Verdict::kNoDifference);
  EXPECT_EQ(verdict(seconds, {6, 7, 8}), Verdict::kNoDifference) << "they touch";
  EXPECT_EQ(verdict(seconds, {6.01, 7, 8}), Verdict::kSlower);
  EXPECT_EQ(verdict(seconds, {1, 2, 3.99}), Verdict::kFaster);
  const BenchRow rate{.name = "r", .unit = "tokens/s", .better = Better::kHigher, .samples = {4, 5, 6}};
  EXPECT_EQ(verdict(rate, {7, 8, 9}), Verdict::kFaster);
  EXPECT_EQ(verdict(rate, {1, 2, 3}), Verdict::kSlower);
  const BenchRow memory{.name = "m", .unit = "MiB", .samples = {4, 4}};
  EXPECT_EQ(verdict(memory, {5, 5}), Verdict::kWorse);
  EXPECT_EQ(verdict(memory, {3}), Verdict::kBetter);
  EXPECT_EQ(verdict(memory, {4}), Verdict::kNoDifference);
  const BenchRow share{.name = "x", .unit = "x", .better = Better::kHigher, .samples = {0}};
  EXPECT_EQ(verdict(share, {1}), Verdict::kBetter);
}

TEST(BenchComparison, RowsAreMatchedByName) {
  BenchResult before = fixed_result(), after = fixed_result();
  std::swap(after.rows[0], after.rows[3]);
  after.rows[3].samples = {0.2, 0.2};
  before.rows.push_back({.name = "tree greedy", .unit = "tokens/s", .samples = {1}});
  after.rows.push_back({.name = "draft greedy", .unit = "tokens/s", .samples = {1}});
  const BenchComparison comparison = compare(before, after);
  ASSERT_EQ(comparison.rows.size(), 4u);
  EXPECT_EQ(comparison.rows[0].before.name, "load");
  EXPECT_EQ(comparison.rows[0].ratio, 0.4);
  EXPECT_EQ(comparison.rows[0].verdict, Verdict::kFaster);
  EXPECT_EQ(comparison.only_old, std::vector<std::string>{"tree greedy"});
  EXPECT_EQ(comparison.only_new, std::vector<std::string>{"draft greedy"});
  EXPECT_TRUE(comparison.differences.empty());
  after.rows[3].unit = "ms";
  EXPECT_THROW(compare(before, after), Error);
}

TEST(BenchComparison, WhatMakesRowsIncomparableIsNamed) {
  const auto difference = [](const std::function<void(BenchResult&)>& change) {
    BenchResult after = fixed_result();
    change(after);
    const auto all = compare(fixed_result(), after).differences;
    return all.size() == 1 ? all.front() : std::to_string(all.size()) + " differences";
  };
  EXPECT_EQ(difference([](BenchResult& r) { r.machine.processor = "Other"; }),
            "processor Some <Processor> and Other");
  EXPECT_EQ(difference([](BenchResult& r) { r.machine.instructions = {}; }),
            "instructions avx2 amx_int8 and none");
  EXPECT_EQ(difference([](BenchResult& r) { r.machine.physical_cores = 8; }), "physical cores 2 and 8");
  EXPECT_EQ(difference([](BenchResult& r) { r.machine.logical_cores = 8; }), "logical cores 4 and 8");
  EXPECT_EQ(difference([](BenchResult& r) { r.machine.memory_bytes *= 2; }), "GiB of memory 16 and 32");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.device = "cuda:0"; }), "device cpu and cuda:0");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.threads = 1; }), "threads 2 and 1");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.dtype = "q8_0"; }), "dtype f32 and q8_0");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.prompt_tokens = 64; }), "prompt tokens 512 and 64");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.max_tokens = 64; }), "tokens 128 and 64");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.temperature = 0.0; }), "temperature 0.8 and 0");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.top_k = 1; }), "top-k 40 and 1");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.top_p = 1; }), "top-p 0.95 and 1");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.seed = 8; }), "seed 7 and 8");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.chat_format = ""; }), "chat format chatml and none");
  EXPECT_EQ(difference([](BenchResult& r) { r.settings.prompt_hash = std::string(64, 'b'); }),
            "prompts p.txt (3 prompts, SHA-256 aaaaaaaa) and p.txt (3 prompts, SHA-256 bbbbbbbb)");
  EXPECT_EQ(difference([](BenchResult& r) { r.weights[0].hash = std::string(64, 'b'); }),
            "weights of the model talker (SHA-256 aaaaaaaa) and talker (SHA-256 bbbbbbbb)");
  EXPECT_EQ(
      difference([](BenchResult& r) { r.weights.push_back({.role = "draft", .name = "s", .hash = kHash}); }),
      "weights of the draft none and s (SHA-256 aaaaaaaa)");
  // What may change between two versions of one machine, and what a restart changes.
  EXPECT_EQ(difference([](BenchResult& r) {
              r.volley = "0.2.0";
              r.compiler = "clang";
              r.load_after = "9 9 9";
              r.repeat = 9;
              r.warmup = 0;
              r.settings.prompts = "moved.txt";
              r.weights[0].name = "renamed";
              r.machine.memory_bytes -= 5 << 20;
              r.interrupted = true;
            }),
            "0 differences");
}

TEST(BenchTable, IsAlignedWithinEightyColumns) {
  BenchResult result = fixed_result();
  result.rows[1].samples = {12345, 12346, 12347, 12348, 12349, 12350};
  const auto check = [](const std::string& table) {
    std::istringstream lines(table);
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
  };
  const std::string table = bench_table(result);
  check(table);
  EXPECT_NE(table.find("\nload                             0.5000  0.4000..0.6000       3  s\n"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("\n  tokens a forward                1.500  1.500..1.500         6  tokens/forward\n"),
            std::string::npos)
      << table;
  EXPECT_NE(table.find("96.9 % confidence of the median by order statistics"), std::string::npos) << table;
  EXPECT_NE(table.find("of 3, smallest to largest"), std::string::npos) << table;
  const std::string compared = comparison_table(compare(fixed_result(), result), "a.json", "b.json");
  check(compared);
  EXPECT_NE(compared.find("\nlookup greedy                         62.50          12348  197.6  faster\n"),
            std::string::npos)
      << compared;
}

TEST(BenchTable, OneSampleIsSaidToHaveNoSpread) {
  EXPECT_EQ(interval_notes({{.name = "a", .unit = "s", .samples = {1}}, {.name = "b", .samples = {1, 2}}}),
            (std::vector<std::string>{"interval: of 1 sample alone: no spread, differences may be chance",
                                      "interval: of 2, smallest to largest"}));
  EXPECT_TRUE(interval_notes({}).empty());
}

TEST(BenchTable, FourDigitsCount) {
  EXPECT_EQ(four_digits(0.0), "0");
  EXPECT_EQ(four_digits(0.21337), "0.2134");
  EXPECT_EQ(four_digits(0.0021337), "0.002134");
  EXPECT_EQ(four_digits(2.1337), "2.134");
  EXPECT_EQ(four_digits(62.126), "62.13");
  EXPECT_EQ(four_digits(264.61), "264.6");
  EXPECT_EQ(four_digits(12345.6), "12346");
  EXPECT_EQ(four_digits(1.6e308).size(), 63u) << "cut, but no overrun";
}

TEST(BenchChart, IsOneFileWithoutScriptsAndWithTextEscaped) {
  BenchResult result = fixed_result();
  result.rows[0].name = "a<b>&\"c\"\x01";
  for (const std::string& svg :
       {bench_svg(result), comparison_svg(compare(result, result), "x<y>.json", "z.json")}) {
    EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\" "));
    for (const char* part :
         {"<script", "href", "url(", "https:", "@import", "<b>", "<y>", "<Processor>", "\x01"})
      EXPECT_EQ(svg.find(part), std::string::npos) << part;
    EXPECT_NE(svg.find("a&lt;b&gt;&amp;&quot;c&quot;\\x01"), std::string::npos) << svg;
    EXPECT_EQ(svg.find("nan"), std::string::npos);
  }
  const auto count = [](const std::string& svg, const std::string& part) {
    const std::regex pattern(part);
    return std::distance(std::sregex_iterator(svg.begin(), svg.end(), pattern), std::sregex_iterator());
  };
  EXPECT_EQ(count(bench_svg(result), "<rect x="), 4);
  EXPECT_EQ(count(bench_svg(result), "class=\"w\""), 4);
  EXPECT_EQ(count(comparison_svg(compare(result, result), "a", "b"), "<rect x="), 8);
}

// A bar is as long as its median is large, its whiskers stand where the interval ends.
TEST(BenchChart, LengthsAreTheValues) {
  BenchResult result = fixed_result();
  result.rows = {{.name = "a", .unit = "s", .samples = {1, 2, 4}},
                 {.name = "b", .unit = "s", .samples = {1}}};
  const std::string svg = bench_svg(result);
  EXPECT_NE(svg.find("width=\"160.0\" height=\"14.0\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("width=\"80.0\" height=\"14.0\""), std::string::npos) << svg;
  EXPECT_NE(svg.find("H600.0M360.0 "), std::string::npos) << svg;
}

TEST(BenchFlags, DecodersAreSplitAtTheRightCommas) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(split_decoders("auto"), Words{"auto"});
  EXPECT_EQ(split_decoders("lookup,tree"), (Words{"lookup", "tree"}));
  EXPECT_EQ(split_decoders("lookup:draft=4,length=fixed,tree,lookahead:W=5,N=3"),
            (Words{"lookup:draft=4,length=fixed", "tree", "lookahead:W=5,N=3"}));
  EXPECT_EQ(split_decoders("tree:widths=2x2,lookup:draft=2"), (Words{"tree:widths=2x2", "lookup:draft=2"}));
  EXPECT_EQ(split_decoders("a,"), (Words{"a", ""}));
  EXPECT_EQ(split_decoders(""), Words{""});
}

}  // namespace
}  // namespace volley::apps
