#include "apps/bench_comparison.h"

#include <algorithm>
#include <optional>

#include "apps/console.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

constexpr size_t kShown = 60;  // bytes of a value in a message

class Differences {
 public:
  void text(const std::string& what, const std::string& before, const std::string& after) {
    if (before == after) return;
    const auto shown = [](const std::string& value) {
      return value.empty() ? std::string("none") : printable(value, kShown);
    };
    all.push_back(what + " " + shown(before) + " and " + shown(after));
  }
  void count(const std::string& what, int64_t before, int64_t after) {
    text(what, std::to_string(before), std::to_string(after));
  }
  void number(const std::string& what, double before, double after) {
    text(what, shortest(before), shortest(after));
  }

  std::vector<std::string> all;
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// Memory counts in whole GiB: what the system keeps for itself is not the same after every start.
int64_t gibibytes(int64_t bytes) {
  return ((bytes >> 20) + 512) >> 10;
}

const BenchWeights* of_role(const BenchResult& result, const std::string& role) {
  const auto found = std::ranges::find(result.weights, role, &BenchWeights::role);
  return found == result.weights.end() ? nullptr : &*found;
}

std::string about(const BenchWeights* weights) {
  return weights == nullptr ? "" : weights->name + " (SHA-256 " + weights->hash.substr(0, 8) + ")";
}

std::vector<std::string> differences_of(const BenchResult& before, const BenchResult& after) {
  Differences found;
  const MachineInfo &old_machine = before.machine, &new_machine = after.machine;
  found.text("processor", old_machine.processor, new_machine.processor);
  found.text("instructions", joined(old_machine.instructions), joined(new_machine.instructions));
  found.count("physical cores", old_machine.physical_cores, new_machine.physical_cores);
  found.count("logical cores", old_machine.logical_cores, new_machine.logical_cores);
  found.count("GiB of memory", gibibytes(old_machine.memory_bytes), gibibytes(new_machine.memory_bytes));
  found.text("device", before.settings.device, after.settings.device);
  found.text("device", before.device_description, after.device_description);
  found.count("threads", before.settings.threads, after.settings.threads);
  for (const std::string role : {"model", "draft", "heads"}) {
    const BenchWeights *old_weights = of_role(before, role), *new_weights = of_role(after, role);
    if ((old_weights == nullptr ? "" : old_weights->hash) !=
        (new_weights == nullptr ? "" : new_weights->hash))
      found.text("weights of the " + role, about(old_weights), about(new_weights));
  }
  const BenchSettings &a = before.settings, &b = after.settings;
  found.text("dtype", a.dtype, b.dtype);
  found.count("prompt tokens", a.prompt_tokens, b.prompt_tokens);
  found.count("tokens", a.max_tokens, b.max_tokens);
  found.number("temperature", a.temperature, b.temperature);
  found.count("top-k", a.top_k, b.top_k);
  found.number("top-p", a.top_p, b.top_p);
  found.text("seed", std::to_string(a.seed), std::to_string(b.seed));
  found.text("chat format", a.chat_format, b.chat_format);
  if (a.prompt_hash != b.prompt_hash) {
    const auto prompts = [](const BenchSettings& settings) {
      return settings.prompts + " (" + plural(settings.prompt_count, "prompt") + ", SHA-256 " +
             settings.prompt_hash.substr(0, 8) + ")";
    };
    found.text("prompts", prompts(a), prompts(b));
  }
  for (const BenchRow& row : before.rows) {
    const auto other = std::ranges::find(after.rows, row.name, &BenchRow::name);
    if (other != after.rows.end()) found.text("method of row " + quote(row.name), row.method, other->method);
  }
  return found.all;
}

Verdict verdict_of(const ComparedRow& row) {
  const SampleSummary &before = row.old_summary, &after = row.new_summary;
  if (before.median == after.median || (before.low <= after.high && after.low <= before.high))
    return Verdict::kNoDifference;
  const bool is_gain = (after.median > before.median) == (row.before.better == Better::kHigher);
  const std::string& unit = row.before.unit;
  const bool is_speed = unit == "s" || unit.ends_with("/s");
  if (is_speed) return is_gain ? Verdict::kFaster : Verdict::kSlower;
  return is_gain ? Verdict::kBetter : Verdict::kWorse;
}

ComparedRow compare_rows(const BenchRow& before, const BenchRow& after) {
  if (before.unit != after.unit || before.better != after.better) {
    throw Error("row " + quote(before.name) + ": is in " + quote(before.unit) + " in one file and in " +
                quote(after.unit) + " in the other, or has another direction");
  }
  ComparedRow row{.before = before,
                  .after = after,
                  .old_summary = summarize(before.samples),
                  .new_summary = summarize(after.samples)};
  if (row.old_summary.median > 0.0) row.ratio = row.new_summary.median / row.old_summary.median;
  row.verdict = verdict_of(row);
  return row;
}

nlohmann::json summary_json(const SampleSummary& summary, size_t samples) {
  return {{"median", summary.median}, {"low", summary.low}, {"high", summary.high}, {"samples", samples}};
}

}  // namespace

std::string_view verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kNoDifference:
      return "no difference";
    case Verdict::kFaster:
      return "faster";
    case Verdict::kSlower:
      return "slower";
    case Verdict::kBetter:
      return "better";
    case Verdict::kWorse:
      return "worse";
  }
  return "?";
}

BenchComparison compare(const BenchResult& before, const BenchResult& after) {
  BenchComparison comparison{.differences = differences_of(before, after)};
  for (const BenchRow& row : before.rows) {
    const auto found = std::ranges::find(after.rows, row.name, &BenchRow::name);
    if (found == after.rows.end()) {
      comparison.only_old.push_back(row.name);
    } else {
      comparison.rows.push_back(compare_rows(row, *found));
    }
  }
  for (const BenchRow& row : after.rows) {
    if (std::ranges::find(before.rows, row.name, &BenchRow::name) == before.rows.end())
      comparison.only_new.push_back(row.name);
  }
  return comparison;
}

nlohmann::json to_json(const BenchComparison& comparison, const std::string& old_path,
                       const std::string& new_path) {
  nlohmann::json json{{"schema", kBenchSchema},
                      {"verb", "diff"},
                      {"old", printable(old_path, 1000)},
                      {"new", printable(new_path, 1000)},
                      {"differences", comparison.differences},
                      {"rows", nlohmann::json::array()},
                      {"only_old", comparison.only_old},
                      {"only_new", comparison.only_new}};
  for (const ComparedRow& row : comparison.rows) {
    json["rows"].push_back({{"name", row.before.name},
                            {"unit", row.before.unit},
                            {"better", row.before.better == Better::kHigher ? "higher" : "lower"},
                            {"old", summary_json(row.old_summary, row.before.samples.size())},
                            {"new", summary_json(row.new_summary, row.after.samples.size())},
                            {"ratio", row.ratio},
                            {"verdict", verdict_name(row.verdict)}});
  }
  return json;
}

}  // namespace volley::apps
