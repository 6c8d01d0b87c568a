// Defaults of flags from outside the command line: flag, then environment, then file, then the verb's own.
#include "apps/defaults.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <system_error>

#include "apps/config_file.h"
#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

// Empty for what has no long name, asks about the program rather than for work, or was marked by its verb.
std::string key_of(const CLI::Option& option) {
  const std::vector<std::string>& names = option.get_lnames();
  if (names.empty() || !option.get_configurable() || names.front() == "help" || names.front() == "config")
    return "";
  return names.front();
}

std::string variable_of(std::string key) {
  std::ranges::transform(key, key.begin(), [](unsigned char c) { return c == '-' ? '_' : std::toupper(c); });
  return "VOLLEY_" + key;
}

std::string default_path() {
  if (const char* path = std::getenv("VOLLEY_CONFIG"); path != nullptr && *path != '\0') return path;
  const char* stated = std::getenv("XDG_CONFIG_HOME");
  fs::path folder = stated == nullptr ? "" : stated;
  if (!folder.is_absolute()) {
    const char* home = std::getenv("HOME");
    if (home == nullptr || *home == '\0') return "";
    folder = fs::path(home) / ".config";
  }
  const fs::path path = folder / "volley" / "config.toml";
  std::error_code code;
  return fs::exists(path, code) ? path.string() : "";
}

std::vector<std::string> words_of(const CLI::App& verb) {
  std::vector<std::string> words;
  for (const CLI::App* app = &verb; app->get_parent() != nullptr; app = app->get_parent())
    words.insert(words.begin(), app->get_name());
  return words;
}

std::vector<const CLI::App*> verbs_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

// The verb of a section, null if there is none.
const CLI::App* find_verb(const CLI::App& program, const std::vector<std::string>& section) {
  const CLI::App* app = &program;
  for (const std::string& word : section) {
    const std::vector<const CLI::App*> verbs = verbs_of(*app);
    const auto found = std::ranges::find(verbs, word, [](const CLI::App* verb) { return verb->get_name(); });
    if (found == verbs.end()) return nullptr;
    app = *found;
  }
  return app;
}

// Keys of a verb and of those below it.
void collect_keys(const CLI::App& app, std::vector<std::string>& keys) {
  for (const CLI::Option* option : app.get_options()) {
    if (const std::string key = key_of(*option); !key.empty()) keys.push_back(key);
  }
  for (const CLI::App* verb : verbs_of(app)) collect_keys(*verb, keys);
}

std::string nearest_of(const std::string& name, const std::vector<std::string>& names) {
  const std::vector<std::string> nearest = nearest_names(name, names, 1);
  return nearest.empty() ? "" : "; nearest is " + nearest.front();
}

void check_entry(const CLI::App& program, const ConfigEntry& entry, const std::string& path) {
  const std::string subject = path + ":" + std::to_string(entry.line) + ": ";
  const CLI::App* verb = find_verb(program, entry.section);
  if (verb == nullptr) {
    std::vector<std::string> names;
    for (const CLI::App* known : verbs_of(program)) names.push_back(known->get_name());
    std::string section;
    for (const std::string& word : entry.section) section += (section.empty() ? "" : ".") + word;
    throw Error(subject + "section " + quote(section) + ": no such verb" + nearest_of(section, names),
                ErrorKind::kUsage);
  }
  std::vector<std::string> keys;
  collect_keys(*verb, keys);
  if (std::ranges::find(keys, entry.key) != keys.end()) return;
  throw Error(subject + "key " + quote(entry.key) + ": no such flag" +
                  (entry.section.empty() ? "" : " of " + verb->get_name()) + nearest_of(entry.key, keys),
              ErrorKind::kUsage);
}

struct Default {
  std::string value;
  std::string subject;  // where it comes from
};

void apply(CLI::Option& option, const Default& given) {
  const bool is_switch = option.get_items_expected_max() == 0;
  if (is_switch && given.value != "true" && given.value != "false") {
    throw Error(given.subject + ": expected true or false, found " + quote(given.value), ErrorKind::kUsage);
  }
  if (is_switch && given.value == "false") return;
  try {
    option.add_result(given.value);
    option.run_callback();
  } catch (const Error& error) {
    throw Error(given.subject + ": " + error.what(), error.kind());
  } catch (const CLI::Error& error) {
    throw Error(given.subject + ": " + error.what(), ErrorKind::kUsage);
  }
}

}  // namespace

void apply_defaults(const CLI::App& program, CLI::App& verb, const std::string& config) {
  const std::string path = config.empty() ? default_path() : config;
  const std::vector<ConfigEntry> entries = path.empty() ? std::vector<ConfigEntry>() : read_config_file(path);
  for (const ConfigEntry& entry : entries) check_entry(program, entry, path);
  const std::vector<std::string> words = words_of(verb);
  // The entry whose section is the longest start of the verb's words.
  const auto in_file = [&](const std::string& key) -> std::optional<Default> {
    const ConfigEntry* best = nullptr;
    for (const ConfigEntry& entry : entries) {
      const bool is_start = entry.section.size() <= words.size() &&
                            std::equal(entry.section.begin(), entry.section.end(), words.begin());
      if (entry.key != key || !is_start) continue;
      if (best == nullptr || best->section.size() < entry.section.size()) best = &entry;
    }
    if (best == nullptr) return std::nullopt;
    return Default{.value = best->value,
                   .subject = path + ":" + std::to_string(best->line) + ": key '" + key + "'"};
  };
  for (CLI::Option* option : verb.get_options()) {
    const std::string key = key_of(*option);
    if (key.empty() || option->count() > 0) continue;
    const std::string variable = variable_of(key);
    if (const char* value = std::getenv(variable.c_str()); value != nullptr && *value != '\0') {
      apply(*option, {.value = value, .subject = variable});
    } else if (const auto given = in_file(key)) {
      apply(*option, *given);
    }
  }
}

}  // namespace volley::apps
