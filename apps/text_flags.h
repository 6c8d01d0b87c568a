#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "apps/flags.h"
#include "text/text_request.h"

namespace volley::apps {

// What `volley text` takes.
struct TextFlags {
  TextFlags();

  SharedFlags shared;
  std::vector<std::string> prompt;
  std::string prompt_file;
  bool chat = false;
  bool raw = false;
  std::string system;
  std::string chat_format;
  int64_t max_tokens = text::TextRequest{}.max_tokens;
  bool context_shift = false;
  std::optional<int64_t> keep;  // of context_shift
  std::vector<std::string> stops;
  std::string regex;
  std::string json_schema;  // a file's name or the schema itself
  bool has_regex = false, has_json_schema = false;
  bool show_accept = false;
  double cfg_scale = 0.0;
  std::map<std::string, std::string> method_options;  // of decoder diffusion, by their names there
};

// Adds them to the verb's parser.
void add_text_flags(CLI::App& verb, TextFlags& flags);

}  // namespace volley::apps
