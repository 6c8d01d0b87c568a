#include "apps/man_page.h"

#include <cctype>

#include "core/base/version.h"

namespace volley::apps {
namespace {

// Text that roff leaves as it is: a backslash would start an escape, a hyphen become a typographic one, a dot
// or apostrophe at the start of a line a request.
std::string escaped(const std::string& text) {
  std::string result;
  bool starts_line = true;
  for (char c : text) {
    if (starts_line && (c == '.' || c == '\'')) result += "\\&";
    if (c == '\\') {
      result += "\\e";
    } else if (c == '-') {
      result += "\\-";
    } else {
      result += c;
    }
    starts_line = c == '\n';
  }
  return result;
}

std::string bold(const std::string& text) {
  return "\\fB" + escaped(text) + "\\fR";
}
std::string italic(const std::string& text) {
  return "\\fI" + escaped(text) + "\\fR";
}

// In brackets what may be left out, with dots what may come again.
std::string synopsis(const FlagInfo& positional) {
  const std::string text = italic(positional.type) + (positional.is_repeated ? " ..." : "");
  return positional.is_required ? text : "[" + text + "]";
}

std::string options(const VerbInfo& verb) {
  std::string text;
  for (const FlagInfo& flag : verb.positionals) {
    text += ".TP\n" + italic(flag.type.empty() ? flag.names.front() : flag.type) + "\n" +
            escaped(flag.meaning) + "\n";
  }
  for (const FlagInfo& flag : verb.flags) {
    std::string names;
    for (const std::string& name : flag.names) names += (names.empty() ? "" : ", ") + bold(name);
    text += ".TP\n" + names + (flag.type.empty() ? "" : " " + italic(flag.type)) + "\n" +
            escaped(flag.meaning) + "\n";
  }
  return text;
}

}  // namespace

std::string man_page(const VerbInfo& verb) {
  const std::string name = verb.joined('-');
  std::string title = name;
  for (char& c : title) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  std::string text = ".TH " + title + " 1 \"\" \"volley " + std::string(version()) + "\" \"volley manual\"\n";
  text += ".SH NAME\n" + escaped(name) + " \\- " + escaped(verb.summary) + "\n";
  text += ".SH SYNOPSIS\n" + bold(verb.joined(' '));
  if (!verb.flags.empty()) text += " [" + italic("OPTIONS") + "]";
  for (const FlagInfo& flag : verb.positionals) text += " " + synopsis(flag);
  if (!verb.verbs.empty()) text += " " + italic("VERB");
  text += "\n";
  if (!verb.verbs.empty()) {
    text += ".SH VERBS\n";
    for (const VerbInfo& below : verb.verbs) {
      text += ".TP\n" + bold(below.words.back()) + "\n" + escaped(below.summary) + "; see " +
              bold(below.joined('-')) + "(1)\n";
    }
  }
  if (!verb.flags.empty() || !verb.positionals.empty()) text += ".SH OPTIONS\n" + options(verb);
  if (!verb.footer.empty()) text += ".SH NOTES\n.nf\n" + escaped(verb.footer) + "\n.fi\n";
  text += ".SH ENVIRONMENT\n.TP\n" + bold("VOLLEY_") + italic("FLAG") +
          "\nvalue of a flag that is not given, such as VOLLEY_THREADS for " + bold("--threads") + "\n.TP\n" +
          bold("VOLLEY_MODEL_PATH") + "\nmore folders of models, with colons between them\n";
  text += ".SH FILES\n.TP\n" + italic("$XDG_CONFIG_HOME/volley/config.toml") +
          "\nvalues of flags that neither the command line nor the environment gives\n.TP\n" +
          italic("$XDG_DATA_HOME/volley/models") + "\npulled models\n.TP\n" +
          italic("$XDG_STATE_HOME/volley/chat_history") +
          "\nwhat was typed in conversations (volley text --chat)\n";
  return text;
}

}  // namespace volley::apps
