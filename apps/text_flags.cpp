// The flags of volley text that no other verb has.
#include "apps/text_flags.h"

#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

std::string chat_format_list() {
  std::string names;
  for (const std::string_view name : text::chat_format_names())
    names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

// The flags that are options of decoder diffusion.
void add_diffusion_flags(CLI::App& verb, TextFlags& flags) {
  auto& options = flags.method_options;
  const auto add_count = [&](const char* name, const char* option, const char* meaning) {
    add_integer(verb, {.names = name, .meaning = meaning, .low = 1, .high = 1 << 24},
                [&options, option](int64_t value) { options[option] = std::to_string(value); });
  };
  const auto add_words = [&](const char* name, const char* option, std::vector<std::string> words,
                             const char* meaning) {
    add_choice(verb, {.names = name, .choices = words, .meaning = meaning},
               [&options, option, words](size_t place) { options[option] = words[place]; });
  };
  const auto add_limit = [&](const char* name, const char* option, double high, const char* meaning) {
    add_number(verb, {.names = name, .meaning = meaning, .low = 0.0, .high = high},
               [&options, option](double value) { options[option] = shortest(value); });
  };
  add_count("--steps", "steps", "diffusion models: forwards of an answer [one for each token]");
  add_count("--block-length", "block_length", "diffusion models: places filled before the next ones [32]");
  add_words("--remasking", "remasking", {"low_confidence", "margin", "entropy", "random"},
            "diffusion models: what makes a place sure [low_confidence]");
  add_limit("--threshold", "threshold", 100.0,
            "diffusion models: fill all places at least so sure (entropy: at most), not by --steps");
  add_limit("--factor", "factor", 1e6,
            "diffusion models: fill the surest n places while (n + 1) (1 - probability) <= factor");
  add_words("--cache", "cache", {"off", "prefix", "dual"},
            "diffusion models: keep keys and values before the block (prefix), or around it (dual) [off]");
  add_number(verb,
             {.names = "--cfg-scale",
              .meaning = "diffusion models: lead away from what a hidden prompt gives; 0: do not [0]",
              .low = 0.0,
              .high = text::kMaxCfgScale},
             [&flags](double value) { flags.cfg_scale = value; });
}

}  // namespace

TextFlags::TextFlags() {
  const text::TextRequest defaults;
  shared.model_default = kPulledTextModel;
  shared.temperature_default = shortest(defaults.temperature) + "; of diffusion models 0";
  shared.top_k_default = std::to_string(defaults.top_k);
  shared.top_p_default = shortest(defaults.top_p);
}

void add_text_flags(CLI::App& verb, TextFlags& flags) {
  add_arguments(verb,
                {.names = "prompt",
                 .type = "WORDS",
                 .meaning = "what to answer, or with --raw to continue; words are joined"},
                flags.prompt);
  add_text(
      verb,
      {.names = "-f,--prompt-file",
       .type = "FILE|-",
       .meaning = "prompts, a line each: a text, or JSON with prompt, system, seed; - is standard input"},
      flags.prompt_file);
  add_switch(verb, "--chat", flags.chat,
             "talk: a line of standard input is said, answered and remembered; /clear forgets, /quit ends");
  add_switch(verb, "--raw", flags.raw,
             "continue the prompt as it is, in no chat format [if the model has none]");
  add_text(verb,
           {.names = "--system", .type = "TEXT", .meaning = "what the model is told before a conversation"},
           flags.system);
  add_text(verb,
           {.names = "--chat-format",
            .type = "NAME",
            .meaning = "of " + chat_format_list() + " [by the model's template]"},
           flags.chat_format);
  add_integer(
      verb,
      {.names = "--max-tokens",
       .meaning = "of an answer; the context may end it earlier [" + std::to_string(flags.max_tokens) + "]",
       .low = 1,
       .high = text::kMaxTokens},
      [&flags](int64_t value) { flags.max_tokens = value; });
  add_switch(verb, "--context-shift", flags.context_shift,
             "go on when the context is full: drop half of what stands behind --keep; of long prompts, too");
  add_integer(
      verb,
      {.names = "--keep",
       .meaning = "tokens of the prompt that --context-shift never drops; -1: all [its beginning, with "
                  "the system prompt]",
       .low = text::ShiftRule::kWholePrompt,
       .high = text::kMaxTokens},
      [&flags](int64_t value) { flags.keep = value; });
  add_texts(
      verb,
      {.names = "--stop", .type = "TEXT", .meaning = "end an answer before this text, may be given again"},
      [&flags](const std::string& stop) {
        if (stop.empty()) throw Error("--stop: is empty", ErrorKind::kUsage);
        if (!is_valid_utf8(stop)) throw Error("--stop " + quote(stop) + ": is not UTF-8", ErrorKind::kUsage);
        flags.stops.push_back(stop);
      });
  add_text(verb,
           {.names = "--regex",
            .type = "RE",
            .meaning = "every answer matches this regular expression as a whole"},
           [&flags](const std::string& pattern) {
             flags.regex = pattern;
             flags.has_regex = true;
           });
  add_text(verb,
           {.names = "--json-schema",
            .type = "FILE|JSON",
            .meaning = "every answer is JSON that is valid by this schema: a file, or the schema itself"},
           [&flags](const std::string& schema) {
             flags.json_schema = schema;
             flags.has_json_schema = true;
           });
  add_switch(verb, "--show-accept", flags.show_accept,
             "colour the tokens by the step that made them, as -o FILE.html does");
  add_text(verb,
           {.names = "-o,--out",
            .type = "FILE|-",
            .meaning = "file for the text; - is standard output, .html a page of tokens coloured as by "
                       "--show-accept [-]"},
           flags.shared.out);
  add_diffusion_flags(verb, flags);
}

}  // namespace volley::apps
