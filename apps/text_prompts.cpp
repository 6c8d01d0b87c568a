#include "apps/text_prompts.h"

#include <algorithm>
#include <array>

#include "apps/prompt_file.h"
#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

void read_object(const nlohmann::json& json, TextLine& line) {
  const std::array<std::string_view, 3> known{"prompt", "system", "seed"};
  const JsonFields fields(json, "line");
  for (const auto& [key, value] : json.items()) {
    if (std::ranges::find(known, key) == known.end())
      throw Error("line: no key " + quote(key) + "; known are prompt, system, seed");
  }
  line.prompt = fields.text("prompt");
  line.system = fields.text_or("system", "");
  if (fields.has("seed")) line.seed = fields.natural("seed");
}

TextLine parse_line(const NumberedLine& from) {
  TextLine line{.line = from.number};
  if (!is_valid_utf8(from.text)) {
    line.fault = "is not UTF-8";
  } else if (!from.text.starts_with("{")) {
    line.prompt = from.text;
  } else {
    line.fault = fault_of_object(from.text, [&](const nlohmann::json& json) { read_object(json, line); });
  }
  return line;
}

}  // namespace

std::vector<TextLine> parse_text_lines(std::string_view text) {
  std::vector<TextLine> lines;
  for (const NumberedLine& line : numbered_lines(text)) lines.push_back(parse_line(line));
  return lines;
}

}  // namespace volley::apps
