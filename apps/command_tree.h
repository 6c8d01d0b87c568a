#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace volley::apps {

// What the parser knows of the command, as completion scripts and manual pages need it.
struct FlagInfo {
  std::vector<std::string> names;  // "-m", "--model"
  std::string type;                // "NAME|PATH"; empty: a switch
  std::string meaning;
  bool is_required = false;
  bool is_repeated = false;  // takes as many as there are

  // Words it takes, if it takes no others: "auto", "f32", "bf16".
  std::vector<std::string> choices() const;
  // Words it takes besides others: "term" of FILE|term.
  std::vector<std::string> plain_words() const;
};
struct VerbInfo {
  std::vector<std::string> words;  // {"models", "pull"}; empty: the program
  std::string summary;
  std::string footer;
  std::vector<FlagInfo> positionals;  // one name each
  std::vector<FlagInfo> flags;
  std::vector<VerbInfo> verbs;

  // "volley models pull" with another character between the words.
  std::string joined(char between) const;
};

VerbInfo describe_command(const CLI::App& program);
// The verb and those below it, parents first.
std::vector<const VerbInfo*> all_verbs(const VerbInfo& verb);

}  // namespace volley::apps
