// The "parameters" text of a PNG file as stable-diffusion-webui writes it and many programs read it.
// Ref: AUTOMATIC1111/stable-diffusion-webui, modules/infotext_utils.py (its reader takes a last line of at
// least three "Name: value" pairs, values with commas in quotes)
#include <charconv>

#include "image/picture_file.h"

namespace volley::image {
namespace {

std::string number(double value) {
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, end};
}

// A value that holds one of the line's own marks is written as a JSON string.
std::string quoted(const std::string& value) {
  if (value.find_first_of(",:\n\"") == std::string::npos) return value;
  return nlohmann::json(value).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string parameters_text(const RunRecord& record) {
  const ImageRequest& request = record.request;
  std::string prompt = request.prompt.empty() ? request.class_name : request.prompt;
  for (char& c : prompt) c = c == '\n' || c == '\r' ? ' ' : c;
  std::string sampler = request.decoder.name, steps;
  for (const auto& [option, value] : request.decoder.options) {
    if (option == "steps") {
      steps = value;
    } else {
      sampler += " " + option + "=" + value;
    }
  }
  std::string line;
  const auto add = [&](const std::string& name, const std::string& value) {
    line += (line.empty() ? "" : ", ") + name + ": " + quoted(value);
  };
  // A method without steps of its own gives what one token a step gives.
  add("Steps", steps.empty() ? std::to_string(record.tokens) : steps);
  add("Sampler", sampler);
  add("CFG scale", number(request.cfg));
  add("Seed", std::to_string(record.pictures.front().seed));
  add("Size", std::to_string(record.width) + "x" + std::to_string(record.height));
  // Readers take one: that of the transformer.
  for (const auto& [role, hash] : record.weights) {
    if (role == "llamagen" || role == "arpg") add("Model hash", hash.substr(0, 10));
  }
  add("Model", request.model);
  add("Version", "volley " + record.volley);
  return prompt + "\n" + line;
}

}  // namespace volley::image
