#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

// CLI11, which costs the compiler seconds in every source that includes it: verbs are defined by the
// functions below.
namespace CLI {
class App;
}

namespace volley::apps {

CLI::App& add_verb(CLI::App& parent, const std::string& name, const std::string& summary);
// A verb that is the first word of others.
CLI::App& add_verb_group(CLI::App& parent, const std::string& name, const std::string& summary);
// What --help says below the flags.
void add_footer(CLI::App& verb, const std::string& text);

// A flag without a value.
void add_switch(CLI::App& verb, const std::string& names, bool& target, const std::string& meaning);

// A flag that takes text; without dashes the argument of that name.
struct TextFlag {
  std::string names;  // "-m,--model"
  std::string type;   // "FILE"
  std::string meaning;
};
// Text may not be empty: Error kUsage.
void add_text(CLI::App& verb, const TextFlag& flag, std::string& target);
// Any text. `store` may throw.
void add_text(CLI::App& verb, const TextFlag& flag, std::function<void(const std::string&)> store);
// Any text, in a flag that may be given again. `store` gets one at a time and may throw.
void add_texts(CLI::App& verb, const TextFlag& flag, std::function<void(const std::string&)> store);

// Text that the command line must have, or may.
enum class Argument : uint8_t { kRequired, kOptional };
void add_argument(CLI::App& verb, const TextFlag& argument, Argument presence, std::string& target);
// What is left of the command line, if anything.
void add_arguments(CLI::App& verb, const TextFlag& argument, std::vector<std::string>& target);

// A flag that takes one of a few words.
struct ChoiceFlag {
  std::string names;
  std::vector<std::string> choices;
  std::string meaning;
};
// `store` gets the word's place among them. Others are Error kUsage.
void add_choice(CLI::App& verb, const ChoiceFlag& flag, std::function<void(size_t)> store);
void add_choice(CLI::App& verb, const ChoiceFlag& flag, std::string& target);

// A flag that takes a number. Values outside the range are Error kUsage.
struct NumberFlag {
  std::string names;  // "-s,--seed"
  std::string meaning;
  double low = 0.0;
  double high = 0.0;
};
void add_integer(CLI::App& verb, const NumberFlag& flag, std::function<void(int64_t)> store);
void add_number(CLI::App& verb, const NumberFlag& flag, std::function<void(double)> store);

// Only the command line gives the flag, no environment variable and no configuration file.
void take_no_default(CLI::App& verb, const std::string& name);

}  // namespace volley::apps
