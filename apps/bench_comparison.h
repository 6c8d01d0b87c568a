#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "apps/bench_result.h"

namespace volley::apps {

// How a row of two files came out. Of times and rates faster or slower, of the rest better or worse.
enum class Verdict : uint8_t {
  kNoDifference,  // the intervals overlap, or the medians are equal
  kFaster,
  kSlower,
  kBetter,
  kWorse,
};
// "no difference", "faster", ...
std::string_view verdict_name(Verdict verdict);

struct ComparedRow {
  BenchRow before;
  BenchRow after;
  SampleSummary old_summary;
  SampleSummary new_summary;
  double ratio = 0.0;  // of the new median to the old; 0 where the old is 0
  Verdict verdict = Verdict::kNoDifference;
};

struct BenchComparison {
  std::vector<std::string> differences;  // of machine, weights and settings: "threads 2 and 4"
  std::vector<ComparedRow> rows;         // in the old file's order
  std::vector<std::string> only_old;     // names of rows
  std::vector<std::string> only_new;
};

// Rows are matched by name. Throws Error "row ..." where two of one name have not one unit and direction.
BenchComparison compare(const BenchResult& before, const BenchResult& after);

// The `--json` object of volley bench diff; the paths are the files'.
nlohmann::json to_json(const BenchComparison& comparison, const std::string& old_path,
                       const std::string& new_path);

}  // namespace volley::apps
