#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace volley {

// The report of image_bench for people: one Markdown table of all cases, then a profile of each that has one.
std::string image_table(const nlohmann::json& result);

}  // namespace volley
