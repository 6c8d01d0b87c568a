// What volley bench measured, as the object of schema volley.bench/1, both ways.
#include "apps/bench_result.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "core/io/byte_reader.h"
#include "core/io/json.h"
#include "core/io/mapped_file.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

// Far more than a benchmark writes.
constexpr JsonLimits kFileLimits{.max_bytes = int64_t{16} << 20, .max_depth = 16, .max_values = 1'100'000};
constexpr size_t kLongestText = 1000;  // of a name

std::string_view kind_name(IntervalKind kind) {
  return kind == IntervalKind::kConfidence ? "confidence" : "range";
}

nlohmann::json row_json(const BenchRow& row) {
  const SampleSummary summary = summarize(row.samples);
  nlohmann::json interval{{"kind", kind_name(summary.kind)}, {"low", summary.low}, {"high", summary.high}};
  if (summary.kind == IntervalKind::kConfidence) interval["coverage"] = summary.coverage;
  nlohmann::json json{{"name", row.name},
                      {"unit", row.unit},
                      {"better", row.better == Better::kHigher ? "higher" : "lower"},
                      {"samples", row.samples},
                      {"median", summary.median},
                      {"interval", interval}};
  if (!row.method.empty()) json["method"] = row.method;
  return json;
}

nlohmann::json machine_json(const MachineInfo& machine) {
  return {{"processor", machine.processor},
          {"instructions", machine.instructions},
          {"physical_cores", machine.physical_cores},
          {"logical_cores", machine.logical_cores},
          {"memory_bytes", machine.memory_bytes}};
}

nlohmann::json settings_json(const BenchSettings& settings) {
  nlohmann::json json{
      {"device", settings.device},
      {"threads", settings.threads},
      {"dtype", settings.dtype},
      {"prompt_tokens", settings.prompt_tokens},
      {"max_tokens", settings.max_tokens},
      {"temperature", settings.temperature},
      {"top_k", settings.top_k},
      {"top_p", settings.top_p},
      {"seed", settings.seed},
      {"prompts",
       {{"source", settings.prompts}, {"count", settings.prompt_count}, {"hash", settings.prompt_hash}}}};
  if (!settings.chat_format.empty()) json["chat_format"] = settings.chat_format;
  return json;
}

std::string short_text(const JsonFields& fields, const char* key, const std::string& subject) {
  std::string text = fields.text(key);
  if (text.size() > kLongestText) {
    throw Error(subject + ": key '" + key + "': of " + std::to_string(text.size()) + " bytes, expected " +
                std::to_string(kLongestText) + " at most");
  }
  return text;
}

const nlohmann::json& list(const JsonFields& fields, const char* key, const std::string& subject,
                           int64_t most) {
  const auto found = fields.value().find(key);
  if (found == fields.value().end() || !found->is_array())
    throw Error(subject + ": key '" + key + "': expected a list");
  if (std::ssize(*found) > most) {
    throw Error(subject + ": key '" + key + "': expected at most " + std::to_string(most) + ", found " +
                std::to_string(found->size()));
  }
  return *found;
}

std::vector<double> read_samples(const JsonFields& fields, const std::string& subject) {
  std::vector<double> samples;
  for (const nlohmann::json& entry : list(fields, "samples", subject, kMaxSamples)) {
    const double value = entry.is_number() ? entry.get<double>() : -1.0;
    if (!std::isfinite(value) || value < 0.0)
      throw Error(subject + ": key 'samples': expected numbers of at least 0, found " +
                  printable(entry.dump(), 60));
    samples.push_back(value);
  }
  if (samples.empty()) throw Error(subject + ": key 'samples': is empty");
  return samples;
}

// What a file says of its samples must be so.
void check_summary(const JsonFields& fields, const BenchRow& row, const std::string& subject) {
  const SampleSummary summary = summarize(row.samples);
  const JsonFields interval = fields.object("interval");
  const auto check = [&](const JsonFields& of, const char* key, double expected) {
    const double found = of.number(key);
    if (std::abs(found - expected) <= 1e-9 * std::abs(expected)) return;
    throw Error(subject + ": key '" + key + "': expected " + nlohmann::json(expected).dump() +
                " by the samples, found " + nlohmann::json(found).dump());
  };
  check(fields, "median", summary.median);
  check(interval, "low", summary.low);
  check(interval, "high", summary.high);
  if (interval.text("kind") != kind_name(summary.kind))
    throw Error(subject + ": key 'kind': expected '" + std::string(kind_name(summary.kind)) + "' by the " +
                std::to_string(row.samples.size()) + " samples, found " + quote(interval.text("kind")));
}

BenchRow read_row(const nlohmann::json& json, const std::string& place) {
  const JsonFields fields(json, place);
  BenchRow row{.name = short_text(fields, "name", place)};
  const std::string subject = place + " " + quote(row.name);
  const JsonFields named(json, subject);
  row.unit = short_text(named, "unit", subject);
  const std::string better = named.text("better");
  if (better != "higher" && better != "lower")
    throw Error(subject + ": key 'better': expected 'higher' or 'lower', found " + quote(better));
  row.better = better == "higher" ? Better::kHigher : Better::kLower;
  row.samples = read_samples(named, subject);
  if (named.has("method")) row.method = short_text(named, "method", subject);
  check_summary(named, row, subject);
  return row;
}

MachineInfo read_machine(const JsonFields& fields, const std::string& subject) {
  return {.processor = short_text(fields, "processor", subject),
          .instructions = fields.texts("instructions"),
          .physical_cores = fields.integer("physical_cores", {.low = 1}),
          .logical_cores = fields.integer("logical_cores", {.low = 1}),
          .memory_bytes = fields.integer("memory_bytes", {.low = 0})};
}

BenchSettings read_settings(const JsonFields& fields, const std::string& subject) {
  const JsonFields prompts = fields.object("prompts");
  const std::string of_prompts = subject + ": 'prompts'";
  return {.device = short_text(fields, "device", subject),
          .threads = fields.integer("threads", {.low = 1}),
          .dtype = short_text(fields, "dtype", subject),
          .prompt_tokens = fields.integer("prompt_tokens", {.low = 0}),
          .max_tokens = fields.integer("max_tokens", {.low = 1}),
          .temperature = fields.number("temperature", {.low = 0.0}),
          .top_k = fields.integer("top_k", {.low = 0}),
          .top_p = fields.number("top_p", {.low = 0.0, .high = 1.0}),
          .seed = fields.natural("seed"),
          .chat_format = fields.has("chat_format") ? short_text(fields, "chat_format", subject) : "",
          .prompts = short_text(prompts, "source", of_prompts),
          .prompt_count = prompts.integer("count", {.low = 1}),
          .prompt_hash = short_text(prompts, "hash", of_prompts)};
}

}  // namespace

nlohmann::json to_json(const BenchResult& result) {
  nlohmann::json json{{"schema", kBenchSchema},
                      {"verb", "text"},
                      {"volley", result.volley},
                      {"build", {{"compiler", result.compiler}, {"optimized", result.is_optimized}}},
                      {"machine", machine_json(result.machine)},
                      {"device_description", result.device_description},
                      {"load_average", {result.load_before, result.load_after}},
                      {"settings", settings_json(result.settings)},
                      {"repeat", result.repeat},
                      {"warmup", result.warmup},
                      {"weights", nlohmann::json::array()},
                      {"rows", nlohmann::json::array()},
                      {"interrupted", result.interrupted}};
  for (const BenchWeights& weights : result.weights) {
    json["weights"].push_back(
        {{"role", weights.role}, {"name", weights.name}, {"bytes", weights.bytes}, {"hash", weights.hash}});
  }
  for (const BenchRow& row : result.rows) json["rows"].push_back(row_json(row));
  return json;
}

BenchResult read_bench_result(const nlohmann::json& json, const std::string& subject) {
  const JsonFields fields(json, subject);
  const std::string schema = fields.text("schema");
  if (schema != kBenchSchema) {
    throw Error(subject + ": key 'schema': expected " + std::string(kBenchSchema) + ", found " +
                quote(schema));
  }
  if (!fields.has("verb") || fields.text("verb") != "text")
    throw Error(subject + ": holds no measurements of volley bench text");
  const JsonFields build = fields.object("build");
  const nlohmann::json& load = list(fields, "load_average", subject, 2);
  if (load.size() != 2 || !load[0].is_string() || !load[1].is_string())
    throw Error(subject + ": key 'load_average': expected two strings");
  BenchResult result{.volley = short_text(fields, "volley", subject),
                     .compiler = short_text(build, "compiler", subject + ": 'build'"),
                     .is_optimized = build.boolean("optimized"),
                     .machine = read_machine(fields.object("machine"), subject + ": 'machine'"),
                     .device_description = short_text(fields, "device_description", subject),
                     .load_before = load[0].get<std::string>(),
                     .load_after = load[1].get<std::string>(),
                     .settings = read_settings(fields.object("settings"), subject + ": 'settings'"),
                     .repeat = fields.integer("repeat", {.low = 1}),
                     .warmup = fields.integer("warmup", {.low = 0}),
                     .interrupted = fields.boolean("interrupted")};
  const std::string of_weights = subject + ": weights";
  for (const nlohmann::json& entry : list(fields, "weights", subject, 16)) {
    const JsonFields weights(entry, of_weights);
    result.weights.push_back({.role = short_text(weights, "role", of_weights),
                              .name = short_text(weights, "name", of_weights),
                              .bytes = weights.integer("bytes", {.low = 0}),
                              .hash = short_text(weights, "hash", of_weights)});
  }
  std::set<std::string> names;
  for (const nlohmann::json& entry : list(fields, "rows", subject, kMaxBenchRows)) {
    BenchRow row = read_row(entry, subject + ": row");
    if (!names.insert(row.name).second) throw Error(subject + ": row " + quote(row.name) + " stands twice");
    result.rows.push_back(std::move(row));
  }
  if (result.rows.empty()) throw Error(subject + ": key 'rows': is empty");
  return result;
}

BenchResult read_bench_file(const std::string& path) {
  const MappedFile file = MappedFile::open(path).value_or_throw(path);
  return read_bench_result(parse_json(file.bytes(), kFileLimits).value_or_throw(path), path);
}

}  // namespace volley::apps
