#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "apps/sample_statistics.h"
#include "core/base/machine.h"

namespace volley::apps {

inline constexpr std::string_view kBenchSchema = "volley.bench/1";
inline constexpr int64_t kMaxBenchRows = 1000;

// The source of prompts that are not of a file.
inline constexpr std::string_view kBuiltInPrompts = "built-in";

enum class Better : uint8_t { kHigher, kLower };

// One measured quantity. Rows of one decoder share what stands before ": " in their names, and the row of
// just that name comes before them.
struct BenchRow {
  std::string name;
  std::string unit;
  Better better = Better::kLower;
  std::vector<double> samples;  // one a repetition
  std::string method;           // of a decoder's rows: all its options

  bool operator==(const BenchRow&) const = default;
};

struct BenchWeights {
  std::string role;  // "model", "draft", "heads"
  std::string name;
  int64_t bytes = 0;  // of the files
  std::string hash;   // SHA-256 of the files, as run records have it

  bool operator==(const BenchWeights&) const = default;
};

// What rows are measured with. Where one of these differs, rows of two files are of different things.
struct BenchSettings {
  std::string device;  // as --device takes it
  int64_t threads = 0;
  std::string dtype;
  int64_t prompt_tokens = 0;  // of the prompt that prefill is measured with; 0: it is not
  int64_t max_tokens = 0;     // of an answer
  double temperature = 0.0;   // of the sampled rows; 0: there are none
  int64_t top_k = 0;
  double top_p = 1.0;
  uint64_t seed = 0;
  std::string chat_format;  // empty: plain completion
  std::string prompts;      // where they come from: a file's name, or "built-in"
  int64_t prompt_count = 0;
  std::string prompt_hash;  // of the prompts' texts

  bool operator==(const BenchSettings&) const = default;
};

// What one `volley bench text` measured.
struct BenchResult {
  std::string volley;    // version
  std::string compiler;  // that built it
  bool is_optimized = true;
  MachineInfo machine;
  std::string device_description;
  std::string load_before, load_after;  // as load_average() has them
  BenchSettings settings;
  int64_t repeat = 0, warmup = 0;  // that were asked for
  std::vector<BenchWeights> weights;
  std::vector<BenchRow> rows;
  bool interrupted = false;

  bool operator==(const BenchResult&) const = default;
};

nlohmann::json to_json(const BenchResult& result);
// Throws Error "<subject>: key ...". Medians and intervals are those of the samples; a file that states
// others is refused.
BenchResult read_bench_result(const nlohmann::json& json, const std::string& subject);
// Reads a file of --save. Throws Error "<path>: ...".
BenchResult read_bench_file(const std::string& path);

}  // namespace volley::apps
