// volley bench text: what a text model does a second on this machine.
#include <memory>

#include "apps/bench.h"
#include "apps/bench_chart.h"
#include "apps/bench_table.h"
#include "apps/output_place.h"
#include "apps/picture_writer.h"
#include "core/base/error.h"

namespace volley::apps {
namespace {

constexpr int64_t kMostRepeats = kMaxSamples;

void check_places(const BenchFlags& flags) {
  if (!flags.save.empty() && flags.save == flags.svg)
    throw Error("--svg " + flags.svg + ": is also the file of --save", ErrorKind::kUsage);
  for (const std::string* path : {&flags.save, &flags.svg}) {
    if (!path->empty()) check_output_place(*path, flags.shared);
  }
}

int run(const BenchFlags& flags, Program& program) {
  Console& console = program.console;
  check_places(flags);
  const BenchPlan plan = plan_bench(flags);
  for (const std::string& line : bench_caption(plan.result)) console.detail(line);
  const BenchResult result = run_bench(flags, plan, program);
  if (result.rows.empty()) throw Interrupted("bench text: interrupted before anything was measured");
  const nlohmann::json json = to_json(result);
  if (flags.shared.json) {
    console.print_line(json.dump());
  } else {
    console.print(bench_table(result));
  }
  // What was measured is shown first: a file that came meanwhile stays, and ours is not written.
  const Existing existing = flags.shared.overwrite ? Existing::kReplace : Existing::kKeep;
  if (!flags.save.empty()) write_file(flags.save, json.dump(1) + "\n", existing);
  if (!flags.svg.empty()) write_file(flags.svg, bench_svg(result), existing);
  if (!result.interrupted) return kExitDone;
  console.error("interrupted: what was measured is kept");
  return kExitInterrupted;
}

void add_count(CLI::App& verb, const char* name, const char* meaning, int64_t low, int64_t high,
               int64_t& target) {
  add_integer(verb,
              {.names = name,
               .meaning = std::string(meaning) + " [" + std::to_string(target) + "]",
               .low = static_cast<double>(low),
               .high = static_cast<double>(high)},
              [&target](int64_t value) { target = value; });
}

}  // namespace

BenchFlags::BenchFlags() {
  const text::TextRequest defaults;
  shared.model_default = kPulledTextModel;
  shared.temperature_default = "0; another adds rows of sampled answers to the greedy ones";
  shared.top_k_default = std::to_string(defaults.top_k);
  shared.top_p_default = shortest(defaults.top_p);
}

Verb add_bench_text(CLI::App& bench) {
  const auto flags = std::make_shared<BenchFlags>();
  CLI::App& verb = add_verb(bench, "text", "load, prefill, first token, and tokens a second by decoder");
  add_footer(
      verb,
      "Examples:\n"
      "  volley bench text -m model.gguf --save before.json\n"
      "  volley bench text -m model.gguf --decoder lookup:draft=4,tree,lookahead -f prompts.txt --svg a.svg\n"
      "  volley bench text -m model.gguf --prompt-tokens 2048 --tokens 64 --temperature 0.8 --repeat 9 "
      "--json\n"
      "A row is the median over the repetitions, one answer at a time. interval: from 6 samples on, at least "
      "95 % confidence of the median by order statistics; of fewer, the smallest and the largest.\n"
      "Exit codes: 0 done, 1 failed, 2 usage, 4 model missing, 130 interrupted with what was measured kept.");
  add_count(verb, "--prompt-tokens", "of the prompt that prefill and first token are measured with", 1,
            1 << 20, flags->prompt_tokens);
  add_count(verb, "--tokens", "of an answer; the model or the context may end it earlier", 2,
            text::kMaxTokens, flags->tokens);
  add_text(verb,
           {.names = "--decoder",
            .type = "LIST",
            .meaning = "decoders beside sequential, NAME[:k=v,..] with commas between them [auto; draft by a "
                       "draft model]"},
           flags->decoders);
  add_count(verb, "--repeat", "repetitions that count, each loads the model anew", 1, kMostRepeats,
            flags->repeat);
  add_count(verb, "--warmup", "repetitions before them", 0, kMostRepeats, flags->warmup);
  add_text(
      verb,
      {.names = "-f,--prompt-file,--prompts",
       .type = "FILE",
       .meaning = "prompts of the decoders, a line each as volley text takes them [one that is built in]"},
      flags->prompt_file);
  add_switch(verb, "--raw", flags->raw, "continue the prompts as they are, in no chat format");
  add_text(verb,
           {.names = "--chat-format", .type = "NAME", .meaning = "as volley text [by the model's template]"},
           flags->chat_format);
  add_text(verb,
           {.names = "--save", .type = "FILE.json", .meaning = "write what --json prints, for bench diff"},
           flags->save);
  add_text(verb, {.names = "--svg", .type = "FILE.svg", .meaning = "write a chart of it"}, flags->svg);
  add_shared_flags(verb, flags->shared,
                   {"model", "overwrite", "device", "dtype", "threads", "draft-model", "heads", "draft-max",
                    "seed", "temperature", "top-k", "top-p", "json", "no-progress"});
  return {.parser = &verb,
          .schema = std::string(kBenchSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
