#pragma once

#include <string>

namespace CLI {
class App;
}

namespace volley::apps {

// Gives the flags of `verb` that the command line left out the values of the environment (VOLLEY_THREADS for
// --threads) or else of the configuration file: its section of the verb's name ([models.pull]), then its keys
// before any section, which every verb with such a flag takes. `config` is the file; empty:
// volley/config.toml under $XDG_CONFIG_HOME (~/.config), if it is there. Throws Error naming variable or file
// and key.
void apply_defaults(const CLI::App& program, CLI::App& verb, const std::string& config);

}  // namespace volley::apps
