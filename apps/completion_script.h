#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/command_tree.h"

namespace volley::apps {

// Scripts that complete the command's verbs, flags and values. Values that are not known here (models,
// classes) are asked of the program: `volley completion --list KIND`.
std::string bash_completion(const VerbInfo& program);
std::string zsh_completion(const VerbInfo& program);
std::string fish_completion(const VerbInfo& program);

// Where the values of a flag or positional come from.
enum class ValueSource : uint8_t {
  kNone,
  kChoices,  // one of the words
  kParts,    // several of the words, with commas between them
  kFiles,    // files, or one of the words
  kList,     // what `volley completion --list KIND` prints
  kVerbs,    // the command's verbs, word by word
};
struct ValueKind {
  ValueSource source = ValueSource::kNone;
  std::string list = {};  // KIND
  std::vector<std::string> words = {};
};
ValueKind value_kind(const VerbInfo& verb, const FlagInfo& flag);

}  // namespace volley::apps
