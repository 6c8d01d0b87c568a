#include "apps/command_tree.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>

namespace volley::apps {
namespace {

VerbInfo describe(const CLI::App& app, const std::vector<std::string>& words) {
  VerbInfo verb{.words = words, .summary = app.get_description(), .footer = app.get_footer()};
  for (const CLI::Option* option : app.get_options()) {
    FlagInfo flag{.type = option->get_items_expected_max() == 0 ? "" : option->get_type_name(),
                  .meaning = option->get_description(),
                  .is_required = option->get_required(),
                  .is_repeated = option->get_items_expected_max() > 1};
    for (const std::string& name : option->get_snames()) flag.names.push_back("-" + name);
    for (const std::string& name : option->get_lnames()) flag.names.push_back("--" + name);
    if (!flag.names.empty()) {
      verb.flags.push_back(std::move(flag));
    } else {
      flag.names = {option->get_name(true)};
      verb.positionals.push_back(std::move(flag));
    }
  }
  for (const CLI::App* below : app.get_subcommands([](const CLI::App*) { return true; })) {
    std::vector<std::string> longer = words;
    longer.push_back(below->get_name());
    verb.verbs.push_back(describe(*below, longer));
  }
  return verb;
}

void collect(const VerbInfo& verb, std::vector<const VerbInfo*>& all) {
  all.push_back(&verb);
  for (const VerbInfo& below : verb.verbs) collect(below, all);
}

std::vector<std::string> parts_of(const std::string& type) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= type.size();) {
    const size_t end = std::min(type.find('|', begin), type.size());
    parts.push_back(type.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

std::vector<std::string> FlagInfo::choices() const {
  // Names of kinds are in capitals, words are not.
  const auto is_capital = [](unsigned char c) { return std::isupper(c) != 0; };
  return type.empty() || std::ranges::any_of(type, is_capital) ? std::vector<std::string>() : parts_of(type);
}

std::vector<std::string> FlagInfo::plain_words() const {
  std::vector<std::string> words = parts_of(type);
  std::erase_if(words, [](const std::string& word) {
    return word.empty() || !std::ranges::all_of(word, [](unsigned char c) { return std::islower(c) != 0; });
  });
  return words;
}

std::string VerbInfo::joined(char between) const {
  std::string text = "volley";
  for (const std::string& word : words) text += between + word;
  return text;
}

VerbInfo describe_command(const CLI::App& program) {
  return describe(program, {});
}

std::vector<const VerbInfo*> all_verbs(const VerbInfo& verb) {
  std::vector<const VerbInfo*> all;
  collect(verb, all);
  return all;
}

}  // namespace volley::apps
