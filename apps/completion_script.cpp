#include "apps/completion_script.h"

#include <map>

namespace volley::apps {
namespace {

std::string words(const std::vector<std::string>& list, const char* between = " ") {
  std::string text;
  for (const std::string& word : list) text += (text.empty() ? "" : between) + word;
  return text;
}

std::string verb_text(const VerbInfo& verb) {
  return words(verb.words);
}

// For a shell, between single quotes; fish reads a backslash within them as an escape.
std::string quoted(const std::string& text, const char* quote_escape, bool is_fish) {
  std::string result = "'";
  for (char c : text) {
    if (c == '\'') {
      result += quote_escape;
    } else if (c == '\\' && is_fish) {
      result += "\\\\";
    } else {
      result += c;
    }
  }
  return result + "'";
}
std::string sh_quoted(const std::string& text) {
  return quoted(text, "'\\''", false);
}
std::string fish_quoted(const std::string& text) {
  return quoted(text, "\\'", true);
}

std::vector<std::string> first_words(const VerbInfo& verb) {
  std::vector<std::string> all;
  for (const VerbInfo& below : verb.verbs) all.push_back(below.words.back());
  for (const FlagInfo& flag : verb.flags) all.insert(all.end(), flag.names.begin(), flag.names.end());
  return all;
}

// What differs between bash and zsh: how candidates are handed over. Each takes lines of text.
struct Dialect {
  const char* offer;    // function of newline-separated candidates
  const char* parts;    // the same, for what stands behind the last comma
  const char* files;    // offers files
  const char* current;  // the words before the cursor, by index
  const char* first;    // index of the word behind the program's name
  const char* end;      // index of the word under the cursor
};

// `case` branches that set $verb to the verb that the words before the cursor name.
std::string verb_walk(const VerbInfo& program, const Dialect& d) {
  std::string text = "  local verb='' i\n  for ((i = " + std::string(d.first) + "; i < " + d.end +
                     "; ++i)); do\n" + "    case \"$verb/${" + d.current + "[i]}\" in\n";
  for (const VerbInfo* verb : all_verbs(program)) {
    if (verb->words.empty()) continue;
    std::string parent;
    for (size_t i = 0; i + 1 < verb->words.size(); ++i) parent += (i > 0 ? " " : "") + verb->words[i];
    text += "      " + sh_quoted(parent + "/" + verb->words.back()) +
            ") verb=" + sh_quoted(verb_text(*verb)) + " ;;\n";
  }
  return text + "    esac\n  done\n";
}

std::string offer_lines(const Dialect& d, const std::vector<std::string>& list) {
  return std::string(d.offer) + " " + sh_quoted(words(list, "\n"));
}

std::string offer_value(const VerbInfo& verb, const FlagInfo& flag, const Dialect& d) {
  const ValueKind kind = value_kind(verb, flag);
  switch (kind.source) {
    case ValueSource::kChoices:
      return offer_lines(d, kind.words);
    case ValueSource::kParts:
      return std::string(d.parts) + " " + sh_quoted(words(kind.words, "\n"));
    case ValueSource::kFiles:
      return kind.words.empty() ? d.files : offer_lines(d, kind.words) + "; " + d.files;
    case ValueSource::kList:
      return std::string(d.offer) + " \"$(_volley_list " + kind.list + ")\"";
    case ValueSource::kVerbs:  // sh_body offers them
    case ValueSource::kNone:
      break;
  }
  return ":";
}

std::vector<std::string> verbs_below(const VerbInfo& verb) {
  std::vector<std::string> names;
  for (const VerbInfo& below : verb.verbs) names.push_back(below.words.back());
  return names;
}

// `case` branches by the word before the cursor, of a verb whose arguments name a verb.
std::string verb_branches(const VerbInfo& program, const VerbInfo& taker, const Dialect& d) {
  std::string text;
  for (const VerbInfo& verb : program.verbs) {
    if (verb.words == taker.words || verb.verbs.empty()) continue;
    text += "        " + verb.words.back() + ") " + offer_lines(d, verbs_below(verb)) + "; return ;;\n";
  }
  return text + "        " + taker.words.back() + ") " + offer_lines(d, verbs_below(program)) + " ;;\n";
}

std::string sh_body(const VerbInfo& program, const Dialect& d) {
  std::string text = verb_walk(program, d) + "  local before=\"${" + d.current + "[" + d.end +
                     "-1]}\"\n  case \"$verb\" in\n";
  for (const VerbInfo* verb : all_verbs(program)) {
    text += "    " + sh_quoted(verb_text(*verb)) + ")\n      case \"$before\" in\n";
    for (const FlagInfo& flag : verb->flags) {
      if (flag.type.empty()) continue;
      text += "        " + words(flag.names, "|") + ") " + offer_value(*verb, flag, d) + "; return ;;\n";
    }
    for (const FlagInfo& positional : verb->positionals) {
      if (value_kind(*verb, positional).source == ValueSource::kVerbs)
        text += verb_branches(program, *verb, d);
    }
    text += "      esac\n      " + offer_lines(d, first_words(*verb)) + "\n";
    for (const FlagInfo& positional : verb->positionals) {
      if (const std::string offer = offer_value(*verb, positional, d); offer != ":")
        text += "      " + offer + "\n";
    }
    text += "      ;;\n";
  }
  return text + "  esac\n";
}

// The classes are those of the model named before.
std::string list_function(const Dialect& d) {
  return "  local model='' k\n  for ((k = " + std::string(d.first) + "; k + 1 < " + d.end +
         "; ++k)); do\n    case \"${" + d.current + "[k]}\" in -m|--model) model=\"${" + d.current +
         "[k+1]}\" ;; esac\n  done\n  volley completion --list \"$1\" ${model:+-m \"$model\"} 2>/dev/null\n";
}

// Of a `switch` over the word before the cursor: the verbs that may follow it.
std::string fish_verb_cases(const VerbInfo& program) {
  std::string text;
  const auto add = [&](const std::string& before, const VerbInfo& verb) {
    text += "    case " + before + "\n      printf '%s\\n' " + words(verbs_below(verb)) + "\n";
  };
  for (const VerbInfo& verb : program.verbs) {
    if (!verb.verbs.empty()) add(verb.words.back(), verb);
  }
  add("help", program);
  return text;
}

}  // namespace

ValueKind value_kind(const VerbInfo& verb, const FlagInfo& flag) {
  static const std::map<std::string, std::string> kLists{
      {"--model", "models"}, {"--decoder", "decoders"}, {"--device", "devices"}, {"--class", "classes"}};
  // Flags whose type says that they take a list, and not of what.
  static const std::map<std::string, std::vector<std::string>> kParts{
      {"--format", {"png", "jpg", "webp"}}, {"--outpaint", {"left", "right", "up", "down"}}};
  const std::string& name = flag.names.back();
  if (!flag.choices().empty()) return {.source = ValueSource::kChoices, .words = flag.choices()};
  if (const auto list = kLists.find(name); list != kLists.end())
    return {.source = ValueSource::kList, .list = list->second};
  if (const auto parts = kParts.find(name); parts != kParts.end())
    return {.source = ValueSource::kParts, .words = parts->second};
  const std::string verb_name = verb_text(verb);
  if (verb_name == "help" && name == "verb") return {.source = ValueSource::kVerbs};
  if (verb_name == "models pull" && name == "name")
    return {.source = ValueSource::kList, .list = "published"};
  if (flag.type == "NAME|PATH" || (verb_name == "models remove" && name == "name"))
    return {.source = ValueSource::kList, .list = "models"};
  for (const char* kind : {"FILE", "PATH", "DIR"}) {
    if (flag.type.find(kind) != std::string::npos)
      return {.source = ValueSource::kFiles, .words = flag.plain_words()};
  }
  return {};
}

std::string bash_completion(const VerbInfo& program) {
  const Dialect d{.offer = "_volley_offer",
                  .parts = "_volley_parts",
                  .files = "_volley_files",
                  .current = "COMP_WORDS",
                  .first = "1",
                  .end = "COMP_CWORD"};
  return "# bash completion of volley, made by `volley completion bash`\n"
         "_volley_list() {\n" +
         list_function(d) +
         "}\n"
         "_volley_offer() {\n"
         "  local word\n"
         "  while IFS= read -r word; do\n"
         "    [[ -n $word && $word == \"${COMP_WORDS[COMP_CWORD]}\"* ]] && COMPREPLY+=(\"$(printf '%q' "
         "\"$word\")\")\n"
         "  done <<< \"$1\"\n"
         "}\n"
         "_volley_parts() {\n"
         "  local before=\"${COMP_WORDS[COMP_CWORD]}\" word\n"
         "  before=\"${before%\"${before##*,}\"}\"\n"
         "  while IFS= read -r word; do\n"
         "    [[ $before$word == \"${COMP_WORDS[COMP_CWORD]}\"* ]] && COMPREPLY+=(\"$before$word\")\n"
         "  done <<< \"$1\"\n"
         "}\n"
         "_volley_files() {\n"
         "  local IFS=$'\\n'\n"
         "  compopt -o filenames 2>/dev/null\n"
         "  COMPREPLY+=($(compgen -f -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\n"
         "_volley() {\n"
         "  COMPREPLY=()\n" +
         sh_body(program, d) +
         "}\n"
         "complete -F _volley volley\n";
}

std::string zsh_completion(const VerbInfo& program) {
  const Dialect d{.offer = "_volley_offer",
                  .parts = "_volley_parts",
                  .files = "_files",
                  .current = "words",
                  .first = "2",
                  .end = "CURRENT"};
  return "#compdef volley\n"
         "# zsh completion of volley, made by `volley completion zsh`\n"
         "_volley_list() {\n" +
         list_function(d) +
         "}\n"
         "_volley_offer() {\n"
         "  local -a candidates\n"
         "  candidates=(\"${(@f)1}\")\n"
         "  compadd -a candidates\n"
         "}\n"
         "_volley_parts() {\n"
         "  compset -P '*,'\n"
         "  _volley_offer \"$1\"\n"
         "}\n"
         "_volley() {\n" +
         sh_body(program, d) +
         "}\n"
         "if [ \"$funcstack[1]\" = \"_volley\" ]; then\n"
         "  _volley \"$@\"\n"
         "else\n"
         "  compdef _volley volley\n"
         "fi\n";
}

std::string fish_completion(const VerbInfo& program) {
  std::string text =
      "# fish completion of volley, made by `volley completion fish`\n"
      "function __volley_verb\n"
      "  set -l verb\n"
      "  for word in (commandline -opc)[2..-1]\n"
      "    switch \"$verb/$word\"\n";
  for (const VerbInfo* verb : all_verbs(program)) {
    if (verb->words.empty()) continue;
    std::string parent;
    for (size_t i = 0; i + 1 < verb->words.size(); ++i) parent += (i > 0 ? " " : "") + verb->words[i];
    text += "      case " + fish_quoted(parent + "/" + verb->words.back()) + "\n        set verb " +
            fish_quoted(verb_text(*verb)) + "\n";
  }
  text +=
      "    end\n"
      "  end\n"
      "  test \"$verb\" = \"$argv[1]\"\n"
      "end\n"
      "function __volley_list\n"
      "  set -l words (commandline -opc)\n"
      "  set -l model\n"
      "  for i in (seq (math (count $words) - 1))\n"
      "    contains -- $words[$i] -m --model; and set model -m $words[(math $i + 1)]\n"
      "  end\n"
      "  volley completion --list $argv[1] $model 2>/dev/null\n"
      "end\n"
      "function __volley_parts\n"
      "  set -l before (string match -r '.*,' -- (commandline -ct))\n"
      "  set -q before[1]; or set before ''\n"
      "  printf '%s\\n' $before$argv\n"
      "end\n"
      "function __volley_verbs\n"
      "  switch (commandline -opc)[-1]\n" +
      fish_verb_cases(program) +
      "  end\n"
      "end\n"
      "complete -c volley -f\n";
  for (const VerbInfo* verb : all_verbs(program)) {
    const std::string at = "complete -c volley -n \"__volley_verb " + fish_quoted(verb_text(*verb)) + "\"";
    for (const VerbInfo& below : verb->verbs) {
      text += at + " -a " + below.words.back() + " -d " + fish_quoted(below.summary) + "\n";
    }
    const auto values = [&](const FlagInfo& flag) -> std::string {
      const ValueKind kind = value_kind(*verb, flag);
      const std::string offered = kind.words.empty() ? "" : " -a " + fish_quoted(words(kind.words));
      switch (kind.source) {
        case ValueSource::kChoices:
          return offered;
        case ValueSource::kParts:
          return " -a '(__volley_parts " + words(kind.words) + ")'";
        case ValueSource::kFiles:
          return " -F" + offered;
        case ValueSource::kList:
          return " -a '(__volley_list " + kind.list + ")'";
        case ValueSource::kVerbs:
          return " -a '(__volley_verbs)'";
        case ValueSource::kNone:
          break;
      }
      return "";
    };
    for (const FlagInfo& flag : verb->flags) {
      text += at;
      for (const std::string& name : flag.names)
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (!flag.type.empty()) text += " -r" + values(flag);
      text += " -d " + fish_quoted(flag.meaning) + "\n";
    }
    for (const FlagInfo& positional : verb->positionals) {
      if (const std::string offered = values(positional); !offered.empty()) text += at + offered + "\n";
    }
  }
  return text;
}

}  // namespace volley::apps
