// volley completion: scripts for shells, and the values they ask for. volley help: help texts and manual
// pages.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <system_error>

#include "apps/completion_script.h"
#include "apps/man_page.h"
#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "core/decode/options.h"
#include "core/io/atomic_file.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

// ---- completion

struct CompletionFlags {
  SharedFlags shared{.model = std::string(kDefaultModel)};
  std::string shell;
  std::string list;
};

std::vector<std::string> list_values(const CompletionFlags& flags) {
  std::vector<std::string> values;
  if (flags.list == "decoders") {
    for (const DecoderInfo& decoder : decoder_registry()) values.push_back(decoder.name);
  } else if (flags.list == "devices") {
    values = {"auto"};
    for (const std::string& device : device_names()) values.push_back(device);
  } else if (flags.list == "published") {
    values = published_names();
  } else if (flags.list == "models") {
    for (const BoxedModel& model : boxed_models()) values.push_back(model.name);
    for (const StoredModel& stored : stored_models()) values.push_back(stored.entry.name());
  } else {
    values = open_card(flags.shared, find_model(flags.shared.model)).classes;
  }
  return values;
}

int complete(const CLI::App& program, const CompletionFlags& flags, Console& console) {
  if (flags.shell.empty() == flags.list.empty()) {
    throw Error("completion: name a shell, bash, zsh or fish, or give --list", ErrorKind::kUsage);
  }
  std::string text;
  if (!flags.list.empty()) {
    for (const std::string& value : list_values(flags)) text += printable(value, 1000) + "\n";
  } else {
    const VerbInfo command = describe_command(program);
    text = flags.shell == "bash"  ? bash_completion(command)
           : flags.shell == "zsh" ? zsh_completion(command)
                                  : fish_completion(command);
  }
  console.print(text);
  return kExitDone;
}

// ---- help

struct HelpFlags {
  SharedFlags shared;
  std::vector<std::string> verb;
  bool man = false;
  std::string man_dir;
};

const CLI::App& find_verb(const CLI::App& program, const std::vector<std::string>& words) {
  const CLI::App* app = &program;
  for (const std::string& word : words) {
    const CLI::App* found = nullptr;
    std::vector<std::string> names;
    for (const CLI::App* verb : app->get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(verb->get_name());
      if (verb->get_name() == word) found = verb;
    }
    if (found == nullptr) {
      const auto nearest = nearest_names(word, names, 1);
      throw Error("help: " + quote(word) + ": no such verb" +
                      (nearest.empty() ? "" : "; nearest is " + nearest.front()),
                  ErrorKind::kUsage);
    }
    app = found;
  }
  return *app;
}

int write_man_pages(const VerbInfo& command, const std::string& folder, Console& console) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (code) throw Error(folder + ": cannot make the folder: " + code.message());
  for (const VerbInfo* verb : all_verbs(command)) {
    const std::string path = (std::filesystem::path(folder) / (verb->joined('-') + ".1")).string();
    AtomicFile file(path);
    file.write(man_page(*verb));
    file.commit();
    console.detail(path);
  }
  return kExitDone;
}

int help(const CLI::App& program, const HelpFlags& flags, Console& console) {
  const VerbInfo command = describe_command(program);
  if (!flags.man_dir.empty()) return write_man_pages(command, flags.man_dir, console);
  const CLI::App& app = find_verb(program, flags.verb);
  if (!flags.man) {
    std::string name = app.get_name();
    for (const CLI::App* parent = app.get_parent(); parent != nullptr; parent = parent->get_parent())
      name = parent->get_name() + " " + name;
    // App::help would speak of the verb that was reached, which is this one.
    console.print(app.get_formatter()->make_help(&app, name, CLI::AppFormatMode::Normal));
    return kExitDone;
  }
  for (const VerbInfo* verb : all_verbs(command)) {
    if (verb->words == flags.verb) console.print(man_page(*verb));
  }
  return kExitDone;
}

}  // namespace

Verb add_completion(CLI::App& program) {
  const auto flags = std::make_shared<CompletionFlags>();
  CLI::App& verb = add_verb(program, "completion", "print a script that completes the command in a shell");
  add_footer(verb,
             "Examples:\n"
             "  source <(volley completion bash)\n"
             "  volley completion zsh > ~/.zfunc/_volley\n"
             "  volley completion fish > ~/.config/fish/completions/volley.fish");
  add_choice(verb, {.names = "shell", .choices = {"bash", "zsh", "fish"}, .meaning = "the shell"},
             flags->shell);
  add_choice(verb,
             {.names = "--list",
              .choices = {"models", "published", "classes", "decoders", "devices"},
              .meaning = "print values of a kind instead, one a line"},
             flags->list);
  add_shared_flags(verb, flags->shared, {"model", "vq", "image-size"});
  return {.parser = &verb,
          .schema = "volley.error/1",
          .flags = &flags->shared,
          .defaults = Defaults::kNone,
          .run = [flags, &program](Program& p) { return complete(program, *flags, p.console); }};
}

Verb add_help(CLI::App& program) {
  const auto flags = std::make_shared<HelpFlags>();
  CLI::App& verb = add_verb(program, "help", "print help or manual pages");
  add_arguments(verb, {.names = "verb", .type = "VERB", .meaning = "the verb, such as image or models pull"},
                flags->verb);
  add_switch(verb, "--man", flags->man, "as a manual page in roff");
  add_text(
      verb,
      {.names = "--man-dir", .type = "DIR", .meaning = "write the manual pages of all verbs into a folder"},
      flags->man_dir);
  add_shared_flags(verb, flags->shared, {});
  return {.parser = &verb,
          .schema = "volley.error/1",
          .flags = &flags->shared,
          .defaults = Defaults::kNone,
          .run = [flags, &program](Program& p) { return help(program, *flags, p.console); }};
}

}  // namespace volley::apps
