// volley text: answers to prompts, and conversations.
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "apps/line_editor.h"
#include "apps/memory_check.h"
#include "apps/model_path.h"
#include "apps/text_chat.h"
#include "apps/text_plan.h"
#include "apps/text_renderer.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "text/memory_plan.h"
#include "text/text_job.h"

namespace volley::apps {
namespace {

using text::TextPrompt;
using text::TextRequest;
using text::TextResult;

std::string per_second(int64_t count, double seconds) {
  return seconds > 0.0 ? fixed(static_cast<double>(count) / seconds, 1) + " tokens/s" : "";
}

// What was drafted: ", 2.1 drafted of which 45 % right, off in 40 % of steps".
std::string drafts_text(const Statistics& statistics) {
  if (statistics.drafted_tokens == 0 && statistics.steps_off == 0) return "";
  const auto share = [](int64_t part, int64_t whole) {
    return fixed(100.0 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1)), 0) +
           " %";
  };
  const double drafted =
      static_cast<double>(statistics.drafted_tokens) / static_cast<double>(statistics.steps);
  std::string text = ", " + fixed(drafted, 2) + " drafted";
  if (statistics.drafted_tokens > 0)
    text += " of which " + share(statistics.right_tokens, statistics.drafted_tokens) + " right";
  if (statistics.steps_off > 0)
    text += ", off in " + share(statistics.steps_off, statistics.steps) + " of steps";
  return text;
}

void summarize(const TextResult& result, Console& console) {
  if (result.answers.empty()) return;
  const auto ratio = [](int64_t part, int64_t whole) {
    return fixed(static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1)), 2);
  };
  const double prompt_seconds = result.statistics.prompt_seconds;
  const int64_t kept = result.statistics.prompt_rows_kept;
  const std::string prompt =
      result.statistics.prompt_forwards == 0  // masked models: it is part of every forward
          ? ""
          : "; prompt " + plural(result.prompt_tokens(), "token") +
                (kept > 0 ? ", " + std::to_string(kept) + " of them kept," : "") + " in " +
                fixed(prompt_seconds, 2) + " s, " + per_second(result.statistics.prompt_rows, prompt_seconds);
  console.note(console.faint(plural(result.tokens(), "token") + " in " + fixed(result.answer_seconds(), 2) +
                             " s, " + per_second(result.forward_tokens(), result.answer_seconds()) + ": " +
                             plural(result.forwards(), "forward") + ", " +
                             ratio(result.forward_tokens(), result.forwards()) + " tokens and " +
                             ratio(result.rows(), result.forwards()) + " rows a forward" +
                             drafts_text(result.statistics) + prompt));
  const Statistics& statistics = result.statistics;
  console.detail("seconds: load " + fixed(result.load_seconds, 2) + ", prompt " + fixed(prompt_seconds, 2) +
                 ", decode " + fixed(statistics.decode_seconds, 2) + ", sample " +
                 fixed(statistics.sample_seconds, 2) + ", check " + fixed(result.check_seconds, 2) +
                 "; peak memory " + byte_count(statistics.peak_bytes));
  std::string histogram;
  for (const auto& [length, times] : statistics.accepted)
    histogram += " " + std::to_string(length) + ":" + std::to_string(times);
  console.detail("tokens a step, and how often:" + histogram);
  if (!result.request.heads.empty()) {
    console.detail("heads: " + plural(statistics.draft_forwards, "forward") + ", " +
                   plural(statistics.draft_rows, "row") + "; " + fixed(statistics.draft_seconds, 2) + " s");
  }
  if (result.request.draft_model.empty()) return;
  console.detail("draft model: " + plural(statistics.draft_forwards, "forward") + ", " +
                 plural(statistics.draft_rows, "row") + "; prompt " +
                 plural(statistics.draft_prompt_rows, "row") + "; " + fixed(statistics.draft_seconds, 2) +
                 " s");
}

// What answers are made with.
struct Workshop {
  const TextFlags& flags;
  Program& program;
  text::TextRunner& runner;
  TextOutput& output;
  EventFile* events = nullptr;
  const std::vector<std::string>& sources;  // of the prompts
  double load_seconds = 0.0;
};

TextResult answer(const Workshop& workshop, const TextRequest& request, double load_seconds,
                  const std::stop_token& stop) {
  TextRenderer renderer({.request = request,
                         .console = workshop.program.console,
                         .output = workshop.output,
                         .events = workshop.events,
                         .sources = workshop.sources});
  TextResult result = workshop.runner.run(request, {.observer = &renderer, .stop = stop});
  result.threads = threads_for(workshop.flags.shared);
  result.load_seconds = load_seconds;
  renderer.finish(result);
  summarize(result, workshop.program.console);
  return result;
}

constexpr const char* kCommands = "Ctrl-C ends an answer, /clear forgets what was said, /quit or Ctrl-D ends";

// What someone types to the program rather than to the model: "/help", but not "/usr/bin holds what?".
bool is_command(const std::string& words) {
  return words.size() > 1 && words.front() == '/' &&
         std::all_of(words.begin() + 1, words.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

struct Talk {
  std::vector<TextResult> turns;
  bool is_interrupted = false;  // that is how it ended
};

// A conversation: each line is said, answered and remembered. Where someone types, an interruption ends the
// answer, of which what was said is remembered; at the prompt it ends the conversation.
Talk converse(const Workshop& workshop, TextRequest request) {
  Console& console = workshop.program.console;
  const bool is_typed = ::isatty(STDIN_FILENO) == 1;
  // Keys and echo are the editor's where someone types and sees it.
  std::optional<LineEditor> editor;
  if (is_typed && ::isatty(STDERR_FILENO) == 1) editor.emplace("> ", chat_history_path());
  LineReader lines;
  std::stop_token stop = workshop.program.stop;
  TextPrompt& talk = request.prompts.front();
  std::optional<std::string> said = talk.messages.back().content;  // the command line's words
  talk.messages.pop_back();
  const std::vector<text::ChatMessage> beginning = talk.messages;
  if (said->empty()) said.reset();
  if (is_typed) console.note(console.faint(kCommands));
  std::vector<TextResult> turns;
  while (!stop.stop_requested()) {
    if (!said) {
      if (is_typed) console.ask(editor ? "" : "> ");
      said = editor ? editor->next(stop) : lines.next(stop);
      if (!said && is_typed) console.ask("\n");  // what comes next does not stand behind the prompt
    }
    if (!said || *said == "/quit") break;
    const std::string words = *std::exchange(said, std::nullopt);
    if (words.empty()) continue;
    if (words == "/clear") {
      talk.messages = beginning;
      continue;
    }
    if (is_typed && is_command(words)) {
      console.error(words + ": no such command; " + kCommands);
      continue;
    }
    talk.messages.push_back({.role = "user", .content = words});
    try {
      turns.push_back(answer(workshop, request, turns.empty() ? workshop.load_seconds : 0.0, stop));
    } catch (const Error& error) {
      if (!is_typed || error.kind() != ErrorKind::kUsage) throw;
      console.error(error.what());  // what was said is not; the conversation goes on
      talk.messages.pop_back();
      continue;
    }
    if (turns.back().answers.empty()) break;
    if (const std::string& text = turns.back().answers.front().text; text.empty()) {
      talk.messages.pop_back();
    } else {
      talk.messages.push_back({.role = "assistant", .content = text});
    }
    ++talk.seed;
    InterruptGuard* interrupts = workshop.program.interrupts;
    if (turns.back().interrupted && is_typed && interrupts != nullptr)
      stop = interrupts->go_on().value_or(stop);
  }
  return {std::move(turns), stop.stop_requested()};
}

int finish(const Workshop& workshop, const TextPlan& plan, const std::vector<TextResult>& results,
           bool is_interrupted) {
  Console& console = workshop.program.console;
  const SharedFlags& shared = workshop.flags.shared;
  workshop.output.commit(plan.request.model + ": " + method_line(plan.request));
  if (shared.json) {
    nlohmann::json json;
    if (workshop.flags.chat) {
      json = {{"schema", text::kTextSchema}, {"turns", nlohmann::json::array()}};
      for (const TextResult& result : results) json["turns"].push_back(to_json(result));
    } else {
      json = to_json(results.front());
    }
    if (!workshop.flags.prompt_file.empty()) {
      for (nlohmann::json& answer : json["answers"])
        answer["line"] = plan.lines[answer["index"].get<size_t>()];
      json["failures"] = nlohmann::json::array();
      for (const LineFailure& failure : plan.failures)
        json["failures"].push_back({{"line", failure.line}, {"message", printable(failure.message, 1000)}});
    }
    console.print_line(json.dump());
  }
  if (!std::ranges::all_of(results, &TextResult::is_check_equal)) {
    console.error("--check: " + plan.request.decoder.name + " did not give sequential decoding's tokens");
    return kExitFailed;
  }
  if (is_interrupted) {
    const bool is_empty =
        std::ranges::all_of(results, [](const TextResult& made) { return made.tokens() == 0; });
    console.error(is_empty ? "interrupted: nothing was made" : "interrupted: what was made is kept");
    return kExitInterrupted;
  }
  int64_t answers = 0, cut_off = 0;
  for (const TextResult& result : results) {
    answers += std::ssize(result.answers);
    if (!result.interrupted) cut_off += std::ranges::count(result.answers, false, &text::TextAnswer::matches);
  }
  if (cut_off > 0) {
    console.error(std::string(flag_of(plan.request.constraint->kind)) + ": " + std::to_string(cut_off) +
                  " of " + plural(answers, "answer") +
                  " ended before it matched; --max-tokens or the context was too small");
    return kExitSomeFailed;
  }
  return plan.failures.empty() ? kExitDone : kExitSomeFailed;
}

// There are first words, and the model takes them; else the conversation says what is wrong with them.
bool can_be_asked(const text::TextCheckpoint& checkpoint, const TextRequest& request) {
  if (last_words(request.prompts.front()).empty()) return false;
  try {
    check_prompt(checkpoint, request, request.prompts.front());
    return true;
  } catch (const Error&) {
    return false;
  }
}

// A conversation is planned by its first turn, or by none of its words: later ones may need a larger cache.
MemoryCheck check_memory(const TextFlags& flags, const text::TextCheckpoint& checkpoint, const TextPlan& plan,
                         const std::shared_ptr<const Backend>& backend, const std::stop_token& stop) {
  const auto storage = [&](const text::TextCheckpoint& of) {
    return storage_of(flags.shared.dtype, of, *backend);
  };
  TextRequest request = plan.request;
  if (flags.chat && !can_be_asked(checkpoint, request)) request.prompts.front().messages.back().content = "?";
  const WeightStorage weights = storage(checkpoint);
  MemoryCheck check{.plan = plan_memory({.model = checkpoint,
                                         .draft = plan.draft ? &*plan.draft : nullptr,
                                         .heads = plan.heads ? &*plan.heads : nullptr},
                                        request,
                                        {.backend = backend,
                                         .storage = weights,
                                         .draft_storage = plan.draft ? storage(*plan.draft) : weights,
                                         .stop = stop}),
                    .devices = devices_of({&backend, 1})};
  if (request.max_tokens > 1)
    check.smaller_caches = "--max-tokens below " + std::to_string(request.max_tokens);
  if (!weights.keeps_blocks) check.smaller_types = smaller_types_than(weights.floats);
  return check;
}

int tell_plan(const TextFlags& flags, const TextPlan& plan, const MemoryCheck& memory, Console& console) {
  const TextRequest& request = plan.request;
  if (flags.shared.json) {
    console.print_line(nlohmann::json{
        {"schema", text::kTextSchema},
        {"dry_run", true},
        {"memory", memory.json()},
        {"request",
         to_json(request)}}.dump());
  } else {
    for (const TextPrompt& prompt : request.prompts) {
      console.print_line(flags.chat ? "would talk with " + request.model
                                    : "would answer " + quote(last_words(prompt)) + " with " + request.model);
    }
    console.print_line("by " + method_line(request));
    for (const std::string& line : memory.lines()) console.print_line(line);
  }
  return plan.failures.empty() ? kExitDone : kExitSomeFailed;
}

int run(const TextFlags& flags, Program& program) {
  Console& console = program.console;
  const SharedFlags& shared = flags.shared;
  refuse_contradictions(flags);
  double load_seconds = 0.0;
  std::optional<StopWatch> watch(std::in_place, load_seconds);
  text::TextCheckpoint checkpoint = text::open_text_checkpoint(
      shared.model.empty() ? default_text_model("text") : find_model(shared.model));
  TextPlan plan = make_plan(flags, checkpoint);
  for (const LineFailure& failure : plan.failures) console.error(printable(failure.message, 1000));
  for (const std::string& note : plan.notes) console.note(printable(note, 1000));
  const auto backend = backend_for(shared);
  const MemoryCheck memory = check_memory(flags, checkpoint, plan, backend, program.stop);
  if (shared.dry_run) return tell_plan(flags, plan, memory, console);
  for (const std::string& line : memory.lines()) console.detail(line);
  memory.require();
  if (!shared.events.empty() && shared.events == shared.out)
    throw Error("--events " + shared.events + ": is also where the text goes", ErrorKind::kUsage);
  TextOutput output(flags, console);
  const auto load = [&](text::TextCheckpoint&& opened) {
    const WeightStorage storage = storage_of(shared.dtype, opened, *backend);
    return text::TextModel(std::move(opened),
                           {.backend = backend,
                            .storage = storage,
                            .hash = shared.json ? text::HashWeights::kYes : text::HashWeights::kNo});
  };
  const text::TextModel model = load(std::move(checkpoint));
  std::optional<text::TextModel> draft;
  if (plan.draft) draft.emplace(load(std::move(*plan.draft)));
  std::optional<text::TextHeads> heads;
  if (plan.heads) {
    heads.emplace(std::move(*plan.heads), model,
                  shared.json ? text::HashWeights::kYes : text::HashWeights::kNo);
  }
  text::TextRunner runner(
      {.model = model, .draft = draft ? &*draft : nullptr, .heads = heads ? &*heads : nullptr});
  watch.reset();
  std::optional<EventFile> events;
  if (!shared.events.empty()) {
    events.emplace(shared.events,
                   shared.overwrite ? EventFile::Existing::kReplace : EventFile::Existing::kRefuse);
  }
  console.note(console.faint(plan.request.model + " on " + backend->info().name + " (" +
                             std::string(model.storage().name()) + ", " +
                             plural(threads_for(shared), "thread") + "): " + method_line(plan.request)));
  const Workshop workshop{.flags = flags,
                          .program = program,
                          .runner = runner,
                          .output = output,
                          .events = events ? &*events : nullptr,
                          .sources = plan.sources,
                          .load_seconds = load_seconds};
  std::vector<TextResult> results;
  bool is_interrupted = false;
  if (flags.chat) {
    Talk talk = converse(workshop, plan.request);
    results = std::move(talk.turns);
    is_interrupted = talk.is_interrupted;
  } else {
    results.push_back(answer(workshop, plan.request, load_seconds, program.stop));
    is_interrupted = results.back().interrupted;
  }
  return finish(workshop, plan, results, is_interrupted);
}

}  // namespace

Verb add_text(CLI::App& program) {
  const auto flags = std::make_shared<TextFlags>();
  CLI::App& verb = add_verb(program, "text", "answer prompts and talk, several tokens a step");
  add_footer(
      verb,
      "Examples:\n"
      "  volley models pull smollm2-135m-q4_1 && volley text --temperature 0 \"Name three fruits.\"\n"
      "  volley text -m model.gguf --temperature 0 --max-tokens 64 --check Name three rivers.\n"
      "  volley text -m folder --raw --stop . \"Once upon a time\"\n"
      "  volley text -m model.gguf --chat --system \"Answer in one sentence.\"\n"
      "  volley text -m model.gguf -f prompts.txt --json\n"
      "  volley text -m model.gguf --draft-model small.gguf \"Tell me of the sea.\"\n"
      "  volley text -m LLaDA-8B-Instruct --max-tokens 128 --threshold 0.9 --cache dual \"Tell me of the "
      "sea.\"\n"
      "  volley text -m model.gguf --show-accept -o steps.html \"Count to twenty.\"\n"
      "  volley text -m model.gguf --json-schema '{\"enum\": [\"yes\", \"no\"]}' \"Is the sea deep?\"\n"
      "Exit codes: 0 done, 1 failed, 2 usage, 3 some lines of the prompt file failed or answers ended before "
      "they matched --regex or --json-schema, 4 model missing, 130 interrupted with what was made kept.");
  add_text_flags(verb, *flags);
  add_shared_flags(
      verb, flags->shared,
      {"model", "overwrite", "device", "dtype", "threads", "decoder", "draft-model", "heads", "draft-max",
       "seed", "temperature", "top-k", "top-p", "json", "events", "check", "dry-run"});
  return {.parser = &verb,
          .schema = std::string(text::kTextSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
