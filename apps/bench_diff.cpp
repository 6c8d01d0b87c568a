// volley bench diff: two files of volley bench text, row by row.
#include <memory>

#include "apps/bench.h"
#include "apps/bench_chart.h"
#include "apps/bench_comparison.h"
#include "apps/bench_table.h"
#include "apps/output_place.h"
#include "apps/picture_writer.h"
#include "core/base/error.h"

namespace volley::apps {
namespace {

struct DiffFlags {
  SharedFlags shared;
  std::string before;
  std::string after;
  bool is_forced = false;
  std::string svg;
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : "; ") + word;
  return text;
}

int run(const DiffFlags& flags, Program& program) {
  Console& console = program.console;
  if (flags.before.empty() || flags.after.empty())
    throw Error("bench diff: name two files of volley bench text --save", ErrorKind::kUsage);
  if (!flags.svg.empty()) check_output_place(flags.svg, flags.shared);
  const BenchResult before = read_bench_file(flags.before), after = read_bench_file(flags.after);
  const BenchComparison comparison = compare(before, after);
  if (!comparison.differences.empty()) {
    const std::string what =
        flags.before + " and " + flags.after + ": measured otherwise: " + joined(comparison.differences);
    if (!flags.is_forced) throw Error(what + "; --force compares them nevertheless");
    console.note(what);
  }
  if (!flags.svg.empty()) {
    write_file(flags.svg, comparison_svg(comparison, flags.before, flags.after),
               flags.shared.overwrite ? Existing::kReplace : Existing::kKeep);
  }
  if (flags.shared.json) {
    console.print_line(to_json(comparison, flags.before, flags.after).dump());
  } else {
    console.print(comparison_table(comparison, flags.before, flags.after));
  }
  return kExitDone;
}

}  // namespace

Verb add_bench_diff(CLI::App& bench) {
  const auto flags = std::make_shared<DiffFlags>();
  CLI::App& verb = add_verb(bench, "diff", "compare two files of volley bench text --save");
  add_footer(
      verb,
      "Example:\n"
      "  volley bench diff before.json after.json --svg change.svg\n"
      "Rows are matched by name. Where the intervals of the two medians overlap, there is no difference.\n"
      "Files of other machines, weights or settings are refused.\n"
      "Exit codes: 0 done, whatever became faster or slower; 1 failed or refused, 2 usage.");
  add_argument(verb, {.names = "old", .type = "FILE", .meaning = "what was saved before"},
               Argument::kOptional, flags->before);
  add_argument(verb, {.names = "new", .type = "FILE", .meaning = "what was saved after"}, Argument::kOptional,
               flags->after);
  add_switch(verb, "--force", flags->is_forced, "compare though machine, weights or settings differ");
  add_text(verb, {.names = "--svg", .type = "FILE.svg", .meaning = "write a chart of it"}, flags->svg);
  add_shared_flags(verb, flags->shared, {"overwrite", "json"});
  return {.parser = &verb,
          .schema = std::string(kBenchSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
