#pragma once

#include <string>
#include <vector>

namespace volley::goldens {

// golden_check's command line without the program's name. Prints each case's differences and, last, how many
// passed; returns the exit code: 1 if any failed. Throws Error kUsage for flags it does not know.
int run_golden_check(const std::vector<std::string>& arguments);

}  // namespace volley::goldens
