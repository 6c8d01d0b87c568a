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

}  // namespace

TextFlags::TextFlags() {
  const text::TextRequest defaults;
  shared.temperature_default = shortest(defaults.temperature);
  shared.top_k_default = std::to_string(defaults.top_k);
  shared.top_p_default = shortest(defaults.top_p);
}

void add_text_flags(CLI::App& verb, TextFlags& flags) {
  verb.add_option("prompt", flags.prompt, "what to answer, or with --raw to continue; words are joined")
      ->type_name("WORDS");
  add_text(
      verb,
      {.names = "-f,--prompt-file",
       .type = "FILE|-",
       .meaning = "prompts, a line each: a text, or JSON with prompt, system, seed; - is standard input"},
      flags.prompt_file);
  verb.add_flag(
      "--chat", flags.chat,
      "talk: a line of standard input is said, answered and remembered; /clear forgets, /quit ends");
  verb.add_flag("--raw", flags.raw,
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
  verb.add_option_function<std::vector<std::string>>(
          "--stop",
          [&flags](const std::vector<std::string>& stops) {
            for (const std::string& stop : stops) {
              if (stop.empty()) throw Error("--stop: is empty", ErrorKind::kUsage);
              if (!is_valid_utf8(stop))
                throw Error("--stop " + quote(stop) + ": is not UTF-8", ErrorKind::kUsage);
              flags.stops.push_back(stop);
            }
          },
          "end an answer before this text, may be given again")
      ->type_name("TEXT")
      ->expected(1)
      ->take_all();
  verb.add_option_function<std::string>(
          "--regex",
          [&flags](const std::string& pattern) {
            flags.regex = pattern;
            flags.has_regex = true;
          },
          "every answer matches this regular expression as a whole")
      ->type_name("RE");
  verb.add_option_function<std::string>(
          "--json-schema",
          [&flags](const std::string& schema) {
            flags.json_schema = schema;
            flags.has_json_schema = true;
          },
          "every answer is JSON that is valid by this schema: a file, or the schema itself")
      ->type_name("FILE|JSON");
  verb.add_flag("--show-accept", flags.show_accept,
                "colour the tokens by the step that made them; in -o FILE.html, too");
  add_text(verb,
           {.names = "-o,--out",
            .type = "FILE|-",
            .meaning = "file for the text; - is standard output, .html a page of --show-accept [-]"},
           flags.shared.out);
}

}  // namespace volley::apps
