// volley: the command. Parses, calls a verb, turns whatever went wrong into one line and an exit code.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/defaults.h"
#include "apps/interrupt.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/base/version.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

// CLI11 takes a word "[a,b]" for a list where an option takes several values, as a prompt does, and behind a
// "--" takes flags for words only as long as words are wanting. So words that may look so are marked before
// it reads them, and every option takes the mark off again.
constexpr char kMark = '\x02';

std::string unmarked(std::string word) {
  return word.starts_with(kMark) ? word.substr(1) : word;
}

// Whether the word is a flag, of any verb, whose value is the next word.
bool takes_next(const CLI::App& app, const std::string& word) {
  const auto is_it = [&](const CLI::Option* option) {
    return option->check_name(word) && option->get_items_expected_max() > 0;
  };
  return std::ranges::any_of(app.get_options(), is_it) ||
         std::ranges::any_of(app.get_subcommands([](const CLI::App*) { return true; }),
                             [&](const CLI::App* verb) { return takes_next(*verb, word); });
}

// Takes the "--" away that ends the flags, if there is one, and returns its place.
size_t take_flags_end(const CLI::App& app, std::vector<std::string>& words) {
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] != "--" || (i > 0 && words[i - 1].starts_with('-') && takes_next(app, words[i - 1])))
      continue;
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(i));
    return i;
  }
  return words.size();
}

constexpr size_t kLongestMessage = 4000;

// A failure as the command line reports it.
struct Failure {
  std::string message;
  std::string kind;
  int exit_code = kExitFailed;
};

Failure failure_of(const Error& error) {
  switch (error.kind()) {
    case ErrorKind::kUsage:
      return {.message = error.what(), .kind = "usage", .exit_code = kExitUsage};
    case ErrorKind::kModelMissing:
      return {.message = error.what(), .kind = "model missing", .exit_code = kExitModelMissing};
    case ErrorKind::kFailed:
      break;
  }
  return {.message = error.what(), .kind = "failed"};
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(verb->get_name());
  return names;
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    for (const std::string& name : option->get_snames()) names.push_back("-" + name);
  }
  return names;
}

// What the parser could not place: unknown flags, verbs and words. Throws Error naming the nearest.
void refuse_extras(const CLI::App& app) {
  const std::vector<std::string> extras = app.remaining(false);
  if (!extras.empty()) {
    const std::string extra = unmarked(extras.front());
    const std::string where = app.get_parent() == nullptr ? "" : " of " + app.get_name();
    const bool is_plain = extra != extras.front();  // of a word that was marked
    if (extra.starts_with("-") && !is_plain) {
      const std::string flag = extra.substr(0, extra.find('='));
      const auto nearest = nearest_names(flag, flag_names(app), 1);
      throw Error(
          quote(flag) + ": no such flag" + where + (nearest.empty() ? "" : "; nearest is " + nearest.front()),
          ErrorKind::kUsage);
    }
    const auto nearest = nearest_names(extra, subcommand_names(app), 1);
    if (nearest.empty() || is_plain)
      throw Error(quote(extra) + ": one word too many for " + app.get_name(), ErrorKind::kUsage);
    throw Error(quote(extra) + ": no such verb" + where + "; nearest is " + nearest.front(),
                ErrorKind::kUsage);
  }
  for (const CLI::App* verb : app.get_subcommands()) refuse_extras(*verb);
}

// "models pull"
std::string verb_words(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  if (parent == nullptr || parent->get_parent() == nullptr) return app.get_name();
  return verb_words(*parent) + " " + app.get_name();
}

// Throws Error naming the first argument that is needed and not given, if there is one.
void refuse_missing(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_required() || option->count() > 0) continue;
    throw Error(verb_words(app) + ": " + option->get_name(true) + " is missing: " + option->get_description(),
                ErrorKind::kUsage);
  }
}

// The innermost parser that was reached.
const CLI::App& reached(const CLI::App& app) {
  const auto verbs = app.get_subcommands();
  return verbs.empty() ? app : reached(*verbs.front());
}

std::string one_line(std::string_view text) {
  return printable(text, kLongestMessage);
}

class CommandLine {
 public:
  explicit CommandLine(Console& console) : console_(console) {
    parser_.name("volley");
    parser_.require_subcommand(0, 1);
    parser_.add_flag("--version", shows_version_, "print the version");
    verbs_ = {add_image(parser_),  add_text(parser_),     add_info(parser_),
              add_verify(parser_), add_decoders(parser_), add_devices(parser_)};
    for (Verb& verb : add_bench(parser_)) verbs_.push_back(std::move(verb));
    for (Verb& verb : add_models(parser_)) verbs_.push_back(std::move(verb));
    verbs_.push_back(add_completion(parser_));
    verbs_.push_back(add_help(parser_));
    set_up(parser_);
  }

  int run(std::vector<std::string> words) {
    // Errors of parsing are wanted as JSON, too.
    const size_t end = take_flags_end(parser_, words);
    const auto flags_end = words.begin() + static_cast<std::ptrdiff_t>(end);
    wants_json_ = std::find(words.begin(), flags_end, "--json") != flags_end;
    for (size_t i = 0; i < words.size(); ++i) {
      std::string& word = words[i];
      if (i >= end || word.starts_with('[') || word.starts_with(kMark)) word.insert(word.begin(), kMark);
    }
    std::ranges::reverse(words);  // as CLI11 takes them
    try {
      parser_.parse(std::move(words));
    } catch (const CLI::CallForHelp&) {
      const CLI::App& app = reached(parser_);
      const CLI::App* parent = app.get_parent();
      std::string before;
      for (; parent != nullptr; parent = parent->get_parent()) before = parent->get_name() + " " + before;
      console_.print(app.help(before.substr(0, before.size() - (before.empty() ? 0 : 1))));
      return kExitDone;
    } catch (const CLI::ParseError& error) {
      refuse_extras(parser_);  // the likelier reason
      if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError))
        refuse_missing(reached(parser_));
      throw Error(std::string(error.what()), ErrorKind::kUsage);
    }
    refuse_extras(parser_);
    if (shows_version_) {
      console_.print_line("volley " + std::string(version()));
      return kExitDone;
    }
    const CLI::App& app = reached(parser_);
    for (const Verb& verb : verbs_) {
      if (verb.parser != &app) continue;
      if (verb.defaults == Defaults::kApplied) apply_defaults(parser_, *verb.parser, verb.flags->config);
      wants_json_ = wants_json_ || verb.flags->json;
      verb.flags->apply_to(console_);
      InterruptGuard guard;
      Program program{.console = console_, .stop = guard.token(), .interrupts = &guard};
      return verb.run(program);
    }
    std::string known;
    for (const std::string& name : subcommand_names(app)) known += (known.empty() ? "" : ", ") + name;
    throw Error("what to do? " + app.get_name() + " knows " + known + "; --help tells more",
                ErrorKind::kUsage);
  }

  // One line on standard error and, if asked for, an object on standard output.
  int report(const Failure& failure) {
    const std::string message = one_line(failure.message);
    console_.error(message);
    if (!wants_json_) return failure.exit_code;
    std::string schema = "volley.error/1";
    for (const Verb& verb : verbs_) {
      if (verb.parser == &reached(parser_)) schema = verb.schema;
    }
    const nlohmann::json json{
        {"schema", schema},
        {"error", {{"kind", failure.kind}, {"message", message}, {"exit_code", failure.exit_code}}}};
    try {
      console_.print_line(json.dump());
    } catch (const Error&) {
      // Standard output is gone; the line above has said what matters.
    }
    return failure.exit_code;
  }

 private:
  static void set_up(CLI::App& app) {
    app.allow_extras();
    app.get_formatter()->column_width(32);
    app.get_formatter()->label("SUBCOMMAND", "VERB");

    if (app.get_parent() != nullptr) app.group("Verbs");
    app.set_help_flag("-h,--help", "print this");
    for (CLI::Option* option : app.get_options([](const CLI::Option*) { return true; }))
      option->transform(unmarked);
    for (CLI::App* verb : app.get_subcommands([](CLI::App*) { return true; })) set_up(*verb);
  }

  Console& console_;
  CLI::App parser_{"Generative models that emit many tokens, pixels or frames per step."};
  std::vector<Verb> verbs_;
  bool shows_version_ = false;
  bool wants_json_ = false;
};

int run(int count, char** words) {
  prepare_process();
  Console console;
  std::optional<CommandLine> parser;
  try {
    parser.emplace(console);
  } catch (const std::bad_alloc&) {
    console.error("out of memory");
    return kExitFailed;
  }
  CommandLine& line = *parser;
  try {
    return line.run({words + 1, words + count});
  } catch (const Interrupted& error) {
    return line.report({.message = error.what(), .kind = "interrupted", .exit_code = kExitInterrupted});
  } catch (const Error& error) {
    return line.report(failure_of(error));
  } catch (const std::bad_alloc&) {
    return line.report({.message = "out of memory", .kind = "failed"});
  } catch (const std::exception& error) {
    return line.report({.message = error.what(), .kind = "failed"});
  }
}

}  // namespace
}  // namespace volley::apps

int main(int count, char** words) {
  return volley::apps::run(count, words);
}
