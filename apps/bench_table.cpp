#include "apps/bench_table.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "apps/console.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

constexpr size_t kNameWidth = 29, kMedianWidth = 10, kIntervalWidth = 18, kCountWidth = 4;
constexpr size_t kDiffNameWidth = 28, kDiffWidth = 15, kRatioWidth = 7;

std::string left(std::string text, size_t width) {
  text.resize(std::max(text.size(), width), ' ');
  return text;
}

std::string right(const std::string& text, size_t width) {
  return std::string(width > text.size() ? width - text.size() : 0, ' ') + text;
}

// The name in its column; one that is too long has a line to itself.
std::string name_column(const std::string& name, size_t width) {
  return name.size() <= width ? left(name, width) : name + "\n" + std::string(width, ' ');
}

std::string interval_text(const SampleSummary& summary) {
  return four_digits(summary.low) + ".." + four_digits(summary.high);
}

std::string lines_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

// Rows that one file has and the other has not; a decoder's are all told by their first.
std::string lone_rows(const std::string& file, const std::vector<std::string>& names) {
  std::string text, head;
  for (const std::string& name : names) {
    if (name_under(head, name) != name) continue;
    head = name;
    text += "only in the " + file + ": " + printable(name, 1000) + "\n";
  }
  return text;
}

}  // namespace

std::string four_digits(double value) {
  if (value == 0.0 || value >= 1000.0) return fixed(value, 0);
  const int whole = static_cast<int>(std::floor(std::log10(value))) + 1;  // digits before the point, if any
  return fixed(value, std::clamp(4 - whole, 0, 9));
}

std::string name_under(const std::string& head, const std::string& name) {
  const std::string prefix = head + ": ";
  return name.starts_with(prefix) ? "  " + name.substr(prefix.size()) : name;
}

std::vector<std::string> bench_caption(const BenchResult& result) {
  const BenchSettings& settings = result.settings;
  std::string models;
  for (const BenchWeights& weights : result.weights) {
    models += (models.empty()            ? ""
               : weights.role == "heads" ? " with heads "
                                         : " with draft model ") +
              weights.name + " (" + byte_count(weights.bytes) + ")";
  }
  std::string instructions;
  for (const std::string& name : result.machine.instructions)
    instructions += (instructions.empty() ? "" : " ") + name;
  const std::string prompts = plural(settings.prompt_count, "prompt");
  return {models + ", " + settings.dtype + " weights in memory, by volley " + result.volley +
              (result.is_optimized ? "" : ", built without optimisation"),
          result.machine.processor + ", " + plural(result.machine.physical_cores, "core") + ", " +
              byte_count(result.machine.memory_bytes),
          settings.device + ", " + plural(settings.threads, "thread") +
              (instructions.empty() ? "" : "; " + instructions),
          "load average " + result.load_before + " before, " + result.load_after + " behind it",
          settings.prompts == kBuiltInPrompts
              ? prompts + ", built in and synthetic: how drafts fare depends on the text (--prompts)"
              : prompts + " of " + settings.prompts,
          "answers of at most " + plural(settings.max_tokens, "token") + ", seed " +
              std::to_string(settings.seed)};
}

std::vector<std::string> interval_notes(const std::vector<BenchRow>& rows) {
  std::set<std::string> notes;
  for (const BenchRow& row : rows) {
    const SampleSummary summary = summarize(row.samples);
    const std::string count = "interval: of " + std::to_string(row.samples.size());
    notes.insert(summary.kind == IntervalKind::kConfidence
                     ? count + " samples, " + fixed(100.0 * summary.coverage, 1) +
                           " % confidence of the median by order statistics"
                 : row.samples.size() == 1 ? count + " sample alone: no spread, differences may be chance"
                                           : count + ", smallest to largest");
  }
  return {notes.begin(), notes.end()};
}

std::string bench_table(const BenchResult& result) {
  std::string text = lines_of(bench_caption(result));
  text += "\n" + left("", kNameWidth) + right("median", kMedianWidth) + "  " +
          left("interval", kIntervalWidth) + right("n", kCountWidth) + "  unit\n";
  std::string head;
  for (const BenchRow& row : result.rows) {
    const std::string name = name_under(head, row.name);
    if (name == row.name) head = row.name;
    const SampleSummary summary = summarize(row.samples);
    text += name_column(name, kNameWidth) + right(four_digits(summary.median), kMedianWidth) + "  " +
            left(interval_text(summary), kIntervalWidth) +
            right(std::to_string(row.samples.size()), kCountWidth) + "  " + row.unit + "\n";
  }
  return text + "\n" + lines_of(interval_notes(result.rows));
}

std::string comparison_table(const BenchComparison& comparison, const std::string& old_path,
                             const std::string& new_path) {
  std::string text = "old: " + printable(old_path, 1000) + "\nnew: " + printable(new_path, 1000) + "\n\n";
  text += left("", kDiffNameWidth) + right("old", kDiffWidth) + right("new", kDiffWidth) +
          right("ratio", kRatioWidth) + "\n";
  std::string head;
  std::vector<BenchRow> rows;
  for (const ComparedRow& row : comparison.rows) {
    const std::string name = name_under(head, row.before.name);
    if (name == row.before.name) head = name;
    text += name_column(printable(name, 1000), kDiffNameWidth) +
            right(four_digits(row.old_summary.median), kDiffWidth) +
            right(four_digits(row.new_summary.median), kDiffWidth) +
            right(row.ratio > 0.0 ? four_digits(row.ratio) : "-", kRatioWidth) + "  " +
            std::string(verdict_name(row.verdict)) + "\n" +
            left("    " + printable(row.before.unit, 100), kDiffNameWidth) +
            right(interval_text(row.old_summary), kDiffWidth) +
            right(interval_text(row.new_summary), kDiffWidth) + "\n";
    rows.push_back(row.before);
    rows.push_back(row.after);
  }
  text += lone_rows("old", comparison.only_old) + lone_rows("new", comparison.only_new);
  if (rows.empty()) return text + "no row is in both files\n";
  return text + "\n" + lines_of(interval_notes(rows)) + "no difference: the intervals overlap\n";
}

}  // namespace volley::apps
