#pragma once

#include <string>

#include "apps/command_tree.h"

namespace volley::apps {

// Scripts that complete the command's verbs, flags and values. Values that are not known here (models,
// classes) are asked of the program: `volley completion --list KIND`.
std::string bash_completion(const VerbInfo& program);
std::string zsh_completion(const VerbInfo& program);
std::string fish_completion(const VerbInfo& program);

// Where the values of a flag or positional come from.
enum class ValueSource : uint8_t { kNone, kChoices, kFiles, kList };
struct ValueKind {
  ValueSource source = ValueSource::kNone;
  std::string list;  // for kList: KIND
};
ValueKind value_kind(const VerbInfo& verb, const FlagInfo& flag);

}  // namespace volley::apps
