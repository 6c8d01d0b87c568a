#pragma once

#include <string>

#include "apps/command_tree.h"

namespace volley::apps {

// The manual page of a verb, in roff (man macros), section 1.
std::string man_page(const VerbInfo& verb);

}  // namespace volley::apps
