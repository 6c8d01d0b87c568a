#pragma once

#include <string_view>

namespace volley {

// Of this build, "0.1.0".
std::string_view version();

}  // namespace volley
