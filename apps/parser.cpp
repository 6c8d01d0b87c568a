// Verbs and flags by CLI11.
#include "apps/parser.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <utility>

#include "apps/console.h"
#include "core/base/error.h"

namespace volley::apps {
namespace {

std::string long_name(const std::string& names) {
  return names.substr(names.rfind(',') + 1);
}

// Whole numbers in full.
std::string bound_text(double bound) {
  if (bound >= 9e18) return "9223372036854775807";
  const auto whole = static_cast<int64_t>(bound);
  return static_cast<double>(whole) == bound ? std::to_string(whole) : shortest(bound);
}

template <typename T>
void add_parsed(CLI::App& verb, const NumberFlag& flag, const char* kind, std::function<void(T)> store) {
  const auto parse = [flag, kind, store = std::move(store)](const std::string& text) {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() ||
        !(static_cast<double>(value) >= flag.low) || !(static_cast<double>(value) <= flag.high)) {
      throw Error(long_name(flag.names) + " " + text + ": expected " + kind + " from " +
                      bound_text(flag.low) + " to " + bound_text(flag.high),
                  ErrorKind::kUsage);
    }
    store(value);
  };
  verb.add_option_function<std::string>(flag.names, parse, flag.meaning)
      ->type_name(std::is_integral_v<T> ? "N" : "X");
}

}  // namespace

CLI::App& add_verb(CLI::App& parent, const std::string& name, const std::string& summary) {
  return *parent.add_subcommand(name, summary);
}

CLI::App& add_verb_group(CLI::App& parent, const std::string& name, const std::string& summary) {
  return *add_verb(parent, name, summary).require_subcommand(0, 1);
}

void add_footer(CLI::App& verb, const std::string& text) {
  verb.footer(text);
}

void add_switch(CLI::App& verb, const std::string& names, bool& target, const std::string& meaning) {
  verb.add_flag(names, target, meaning);
}

void add_text(CLI::App& verb, const TextFlag& flag, std::string& target) {
  add_text(verb, flag, [name = long_name(flag.names), &target](const std::string& text) {
    if (text.empty()) throw Error(name + ": is empty", ErrorKind::kUsage);
    target = text;
  });
}

void add_text(CLI::App& verb, const TextFlag& flag, std::function<void(const std::string&)> store) {
  verb.add_option_function<std::string>(flag.names, store, flag.meaning)->type_name(flag.type);
}

void add_texts(CLI::App& verb, const TextFlag& flag, std::function<void(const std::string&)> store) {
  const auto store_each = [store = std::move(store)](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) store(text);
  };
  verb.add_option_function<std::vector<std::string>>(flag.names, store_each, flag.meaning)
      ->type_name(flag.type)
      ->expected(1)
      ->allow_extra_args(false)
      ->take_all();
}

void add_argument(CLI::App& verb, const TextFlag& argument, Argument presence, std::string& target) {
  verb.add_option(argument.names, target, argument.meaning)
      ->type_name(argument.type)
      ->required(presence == Argument::kRequired);
}

void add_arguments(CLI::App& verb, const TextFlag& argument, std::vector<std::string>& target) {
  verb.add_option(argument.names, target, argument.meaning)->type_name(argument.type);
}

void add_choice(CLI::App& verb, const ChoiceFlag& flag, std::function<void(size_t)> store) {
  std::string type;
  for (const std::string& choice : flag.choices) type += (type.empty() ? "" : "|") + choice;
  const auto parse = [flag, type, store = std::move(store)](const std::string& text) {
    for (size_t i = 0; i < flag.choices.size(); ++i) {
      if (text == flag.choices[i]) return store(i);
    }
    throw Error(flag.names + " " + text + ": expected " + type, ErrorKind::kUsage);
  };
  verb.add_option_function<std::string>(flag.names, parse, flag.meaning)->type_name(type);
}

void add_choice(CLI::App& verb, const ChoiceFlag& flag, std::string& target) {
  add_choice(verb, flag, [choices = flag.choices, &target](size_t i) { target = choices[i]; });
}

void add_integer(CLI::App& verb, const NumberFlag& flag, std::function<void(int64_t)> store) {
  add_parsed<int64_t>(verb, flag, "a whole number", std::move(store));
}

void add_number(CLI::App& verb, const NumberFlag& flag, std::function<void(double)> store) {
  add_parsed<double>(verb, flag, "a number", std::move(store));
}

void take_no_default(CLI::App& verb, const std::string& name) {
  verb.get_option(name)->configurable(false);
}

}  // namespace volley::apps
