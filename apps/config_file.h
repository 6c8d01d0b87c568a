#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace volley::apps {

// A key of a configuration file, with the words of the section it stands in: {"models", "pull"}.
struct ConfigEntry {
  std::vector<std::string> section;
  std::string key;
  std::string value;  // without quotes
  int line = 0;
};

// Reads the part of TOML that flags need: [sections], and keys with one string, number or boolean. Throws
// Error
// "<path>:<line>: ..." for anything else, and for a key that stands twice.
std::vector<ConfigEntry> read_config_file(const std::string& path);
std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& path);

}  // namespace volley::apps
