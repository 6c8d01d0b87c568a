#pragma once

#include <string>

#include "apps/flags.h"

namespace volley::apps {

// Throws Error if a file cannot be written there, or exists and --overwrite is not given: before the work
// whose result it will hold, not behind it.
void check_output_place(const std::string& path, const SharedFlags& flags);

}  // namespace volley::apps
