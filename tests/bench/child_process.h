#pragma once

#include <string>
#include <vector>

namespace volley {

// Runs this program again with other arguments and returns what it printed; its errors go to ours. Throws
// Error when it fails.
std::string run_self(const std::vector<std::string>& arguments);

}  // namespace volley
