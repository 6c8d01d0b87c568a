// volley text: answers to prompts, and conversations.
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>

#include "apps/model_path.h"
#include "apps/prompt_file.h"
#include "apps/text_chat.h"
#include "apps/text_prompts.h"
#include "apps/text_renderer.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "text/text_job.h"

namespace volley::apps {
namespace {

using text::TextPrompt;
using text::TextRequest;
using text::TextResult;

struct LineFailure {
  int64_t line = 0;
  std::string message;
};

// What is to be done, apart from what someone says in a conversation.
struct Plan {
  TextRequest request;
  std::vector<std::string> sources;  // of the prompts: "FILE:LINE"
  std::vector<LineFailure> failures;
};

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

uint64_t first_seed(const SharedFlags& shared) {
  if (shared.seed >= 0) return static_cast<uint64_t>(shared.seed);
  std::random_device source;
  return (uint64_t{source()} << 31) ^ source();
}

void refuse_contradictions(const TextFlags& flags) {
  const auto refuse = [](const std::string& message) { throw Error(message, ErrorKind::kUsage); };
  if (flags.shared.model.empty()) refuse("text: name a model: -m PATH");
  if (flags.raw && flags.chat) refuse("--raw: does not go with --chat");
  if (flags.raw && !flags.system.empty()) refuse("--raw: does not go with --system");
  if (flags.raw && !flags.chat_format.empty()) refuse("--raw: does not go with --chat-format");
  if (flags.chat && !flags.prompt_file.empty()) refuse("--chat: does not go with --prompt-file");
  if (!flags.prompt_file.empty() && !flags.prompt.empty())
    refuse("--prompt-file " + flags.prompt_file + ": does not go with a prompt");
  if (flags.prompt_file.empty() && flags.prompt.empty() && !flags.chat)
    refuse("text: say something: a prompt, --prompt-file or --chat");
}

TextPrompt make_prompt(const TextRequest& request, const std::string& words, const std::string& system) {
  TextPrompt prompt;
  if (!request.chat_format) {
    if (!system.empty()) {
      throw Error("--system: model " + request.model + " has no chat format; --chat-format names one",
                  ErrorKind::kUsage);
    }
    prompt.text = words;
    return prompt;
  }
  if (!system.empty()) prompt.messages.push_back({.role = "system", .content = system});
  prompt.messages.push_back({.role = "user", .content = words});
  return prompt;
}

TextRequest common_request(const TextFlags& flags, const text::TextCheckpoint& checkpoint) {
  const image::MethodChoices& method = flags.shared.method;
  TextRequest request{.model = checkpoint.name,
                      .max_tokens = flags.max_tokens,
                      .stops = flags.stops,
                      .check = flags.shared.check ? text::Check::kYes : text::Check::kNo};
  if (!flags.raw) {
    try {
      request.chat_format = choose_chat_format(checkpoint, flags.chat_format);
    } catch (const Error& error) {
      const bool is_template = flags.chat_format.empty();
      throw Error((is_template ? "" : "--chat-format: ") + std::string(error.what()) +
                      (is_template ? " by --chat-format, or continue plain text by --raw" : ""),
                  ErrorKind::kUsage);
    }
  }
  if (flags.chat && !request.chat_format) {
    throw Error("--chat: model " + checkpoint.name + " has no chat template; --chat-format names a format",
                ErrorKind::kUsage);
  }
  request.temperature = method.temperature.value_or(request.temperature);
  request.top_k = method.top_k.value_or(request.top_k);
  request.top_p = method.top_p.value_or(request.top_p);
  choose_decoder(method.decoder, request);
  return request;
}

Plan make_plan(const TextFlags& flags, const text::TextCheckpoint& checkpoint) {
  Plan plan{.request = common_request(flags, checkpoint)};
  TextRequest& request = plan.request;
  const uint64_t seed = first_seed(flags.shared);
  if (flags.prompt_file.empty()) {
    TextPrompt prompt = make_prompt(request, joined(flags.prompt), flags.system);
    prompt.seed = seed;
    if (!flags.chat) encode_prompt(checkpoint, request, prompt);
    request.prompts.push_back(std::move(prompt));
    return plan;
  }
  const std::string input = read_prompt_text(flags.prompt_file);
  uint64_t index = 0;
  for (const TextLine& line : parse_text_lines(input)) {
    const std::string source = flags.prompt_file + ":" + std::to_string(line.line);
    const uint64_t own_seed = line.seed.value_or(seed + index++);
    try {
      if (!line.fault.empty()) throw Error(line.fault);
      TextPrompt prompt = make_prompt(request, line.prompt, line.system.empty() ? flags.system : line.system);
      prompt.seed = own_seed;
      encode_prompt(checkpoint, request, prompt);
      if (std::ssize(request.prompts) == text::kMaxPrompts)
        throw Error("more than " + std::to_string(text::kMaxPrompts) + " prompts");
      request.prompts.push_back(std::move(prompt));
      plan.sources.push_back(source);
    } catch (const Error& error) {
      plan.failures.push_back({.line = line.line, .message = source + ": " + error.what()});
    }
  }
  const std::string name = prompt_source(flags.prompt_file);
  if (request.prompts.empty())
    throw Error(plan.failures.empty() ? name + ": holds no prompt" : plan.failures.front().message);
  return plan;
}

std::string method_line(const TextRequest& request) {
  const std::string seed = "seed " + std::to_string(request.prompts.front().seed);
  const std::string sampling = request.temperature == 0.0
                                   ? "greedy"
                                   : "temperature " + shortest(request.temperature) + ", top-k " +
                                         std::to_string(request.top_k) + ", top-p " +
                                         shortest(request.top_p) + ", " + seed;
  return decoder_text(request.decoder) + " (" +
         std::string(decoder_class_name(decoder_class(request.decoder))) + "), " + sampling + ", " +
         (request.chat_format ? "chat format " + std::string(name_of(*request.chat_format))
                              : std::string("plain completion")) +
         ", at most " + plural(request.max_tokens, "token");
}

std::string per_second(int64_t count, double seconds) {
  return seconds > 0.0 ? fixed(static_cast<double>(count) / seconds, 1) + " tokens/s" : "";
}

void summarize(const TextResult& result, Console& console) {
  if (result.answers.empty()) return;
  const auto ratio = [](int64_t part, int64_t whole) {
    return fixed(static_cast<double>(part) / static_cast<double>(std::max<int64_t>(whole, 1)), 2);
  };
  const double prompt_seconds = result.statistics.prompt_seconds;
  console.note(console.faint(plural(result.tokens(), "token") + " in " + fixed(result.answer_seconds(), 2) +
                             " s, " + per_second(result.forward_tokens(), result.answer_seconds()) + ": " +
                             plural(result.forwards(), "forward") + ", " +
                             ratio(result.forward_tokens(), result.forwards()) + " tokens and " +
                             ratio(result.rows(), result.forwards()) + " rows a forward; prompt " +
                             plural(result.prompt_tokens(), "token") + " in " + fixed(prompt_seconds, 2) +
                             " s, " + per_second(result.prompt_tokens(), prompt_seconds)));
  const Statistics& statistics = result.statistics;
  console.detail("seconds: load " + fixed(result.load_seconds, 2) + ", prompt " + fixed(prompt_seconds, 2) +
                 ", decode " + fixed(statistics.decode_seconds, 2) + ", sample " +
                 fixed(statistics.sample_seconds, 2) + ", check " + fixed(result.check_seconds, 2) +
                 "; peak memory " + byte_count(statistics.peak_bytes));
  std::string histogram;
  for (const auto& [length, times] : statistics.accepted)
    histogram += " " + std::to_string(length) + ":" + std::to_string(times);
  console.detail("tokens a step, and how often:" + histogram);
}

// What answers are made with.
struct Workshop {
  const TextFlags& flags;
  Program& program;
  const text::TextModel& model;
  TextOutput& output;
  EventFile* events = nullptr;
};

TextResult answer(const Workshop& workshop, const TextRequest& request,
                  const std::vector<std::string>& sources) {
  TextRenderer renderer({.request = request,
                         .console = workshop.program.console,
                         .output = workshop.output,
                         .events = workshop.events,
                         .sources = sources});
  TextResult result =
      run_text(workshop.model, request, {.observer = &renderer, .stop = workshop.program.stop});
  result.threads = threads_for(workshop.flags.shared);
  renderer.finish(result);
  summarize(result, workshop.program.console);
  return result;
}

// A conversation: each line is said, answered and remembered.
std::vector<TextResult> converse(const Workshop& workshop, TextRequest request) {
  Console& console = workshop.program.console;
  const bool is_typed = ::isatty(STDIN_FILENO) == 1;
  LineReader lines(workshop.program.stop);
  TextPrompt& talk = request.prompts.front();
  std::optional<std::string> said = talk.messages.back().content;  // the command line's words
  talk.messages.pop_back();
  const std::vector<text::ChatMessage> beginning = talk.messages;
  if (said->empty()) said.reset();
  if (is_typed) console.note(console.faint("/clear forgets what was said, /quit or Ctrl-D ends"));
  std::vector<TextResult> turns;
  while (!workshop.program.stop.stop_requested()) {
    if (!said) {
      if (is_typed) console.ask("> ");
      said = lines.next();
    }
    if (!said || *said == "/quit") break;
    const std::string words = *std::exchange(said, std::nullopt);
    if (words.empty()) continue;
    if (words == "/clear") {
      talk.messages = beginning;
      continue;
    }
    talk.messages.push_back({.role = "user", .content = words});
    try {
      turns.push_back(answer(workshop, request, {}));
    } catch (const Error& error) {
      if (!is_typed || error.kind() != ErrorKind::kUsage) throw;
      console.error(error.what());  // what was said is not; the conversation goes on
      talk.messages.pop_back();
      continue;
    }
    if (turns.back().answers.empty()) break;
    talk.messages.push_back({.role = "assistant", .content = turns.back().answers.front().text});
    ++talk.seed;
  }
  return turns;
}

int finish(const Workshop& workshop, const Plan& plan, const std::vector<TextResult>& results) {
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
  const bool is_interrupted = std::ranges::any_of(results, &TextResult::interrupted);
  if (is_interrupted || (workshop.flags.chat && workshop.program.stop.stop_requested())) {
    console.error("interrupted: what was made is kept");
    return kExitInterrupted;
  }
  return plan.failures.empty() ? kExitDone : kExitSomeFailed;
}

int tell_plan(const TextFlags& flags, const Plan& plan, Console& console) {
  const TextRequest& request = plan.request;
  if (flags.shared.json) {
    console.print_line(
        nlohmann::json{{"schema", text::kTextSchema}, {"dry_run", true}, {"request", to_json(request)}}
            .dump());
  } else {
    for (const TextPrompt& prompt : request.prompts) {
      console.print_line(flags.chat ? "would talk with " + request.model
                                    : "would answer " + quote(last_words(prompt)) + " with " + request.model);
    }
    console.print_line("by " + method_line(request));
  }
  return plan.failures.empty() ? kExitDone : kExitSomeFailed;
}

WeightType weight_type_of(const std::string& dtype, const Backend& backend) {
  if (dtype == "auto") return backend.info().has_bf16 ? WeightType::kBF16 : WeightType::kF32;
  for (const WeightType type : {WeightType::kBF16, WeightType::kQ8_0}) {
    if (dtype == weight_type_name(type)) return type;
  }
  return WeightType::kF32;
}

int run(const TextFlags& flags, Program& program) {
  Console& console = program.console;
  const SharedFlags& shared = flags.shared;
  refuse_contradictions(flags);
  double load_seconds = 0.0;
  std::optional<StopWatch> watch(std::in_place, load_seconds);
  text::TextCheckpoint checkpoint = text::open_text_checkpoint(find_model(shared.model));
  const Plan plan = make_plan(flags, checkpoint);
  for (const LineFailure& failure : plan.failures) console.error(printable(failure.message, 1000));
  if (shared.dry_run) return tell_plan(flags, plan, console);
  if (!shared.events.empty() && shared.events == shared.out)
    throw Error("--events " + shared.events + ": is also where the text goes", ErrorKind::kUsage);
  TextOutput output(flags, console);
  const auto backend = backend_for(shared);
  const text::TextModel model(std::move(checkpoint),
                              {.backend = backend,
                               .weight_type = weight_type_of(shared.dtype, *backend),
                               .hash = shared.json ? text::HashWeights::kYes : text::HashWeights::kNo});
  watch.reset();
  std::optional<EventFile> events;
  if (!shared.events.empty()) {
    events.emplace(shared.events,
                   shared.overwrite ? EventFile::Existing::kReplace : EventFile::Existing::kRefuse);
  }
  console.note(console.faint(plan.request.model + " on " + backend->info().name + " (" +
                             std::string(weight_type_name(model.weight_type())) + ", " +
                             plural(threads_for(shared), "thread") + "): " + method_line(plan.request)));
  const Workshop workshop{.flags = flags,
                          .program = program,
                          .model = model,
                          .output = output,
                          .events = events ? &*events : nullptr};
  std::vector<TextResult> results;
  if (flags.chat) {
    results = converse(workshop, plan.request);
  } else {
    results.push_back(answer(workshop, plan.request, plan.sources));
  }
  if (!results.empty()) results.front().load_seconds = load_seconds;
  return finish(workshop, plan, results);
}

}  // namespace

Verb add_text(CLI::App& program) {
  const auto flags = std::make_shared<TextFlags>();
  CLI::App& verb = *program.add_subcommand("text", "answer prompts and talk, several tokens a step");
  verb.footer(
      "Examples:\n"
      "  volley text -m SmolLM2-135M-Instruct.gguf \"What is the capital of France?\"\n"
      "  volley text -m model.gguf --temperature 0 --max-tokens 64 --check Name three rivers.\n"
      "  volley text -m folder --raw --stop . \"Once upon a time\"\n"
      "  volley text -m model.gguf --chat --system \"Answer in one sentence.\"\n"
      "  volley text -m model.gguf -f prompts.txt --json\n"
      "  volley text -m model.gguf --show-accept -o steps.html \"Count to twenty.\"\n"
      "Exit codes: 0 done, 1 failed, 2 usage, 3 some lines of the prompt file failed, 4 model missing, 130 "
      "interrupted with what was made kept.");
  add_text_flags(verb, *flags);
  add_shared_flags(verb, flags->shared,
                   {"model", "overwrite", "device", "dtype", "threads", "decoder", "seed", "temperature",
                    "top-k", "top-p", "json", "events", "check", "dry-run"});
  return {.parser = &verb,
          .schema = std::string(text::kTextSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
