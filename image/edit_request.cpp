// EditRequest as words and as JSON.
#include <charconv>

#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"
#include "image/edit.h"

namespace volley::image {
namespace {

SourceFile read_source(const JsonFields& fields, const std::string& key, const std::string& subject) {
  const JsonFields source = fields.object(key);
  SourceFile file{.name = source.text("file"), .sha256 = source.text("sha256")};
  if (file.sha256.size() != 64 || file.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw Error(subject + ": " + key + ": key 'sha256': expected a SHA-256, found " + quote(file.sha256));
  }
  return file;
}

nlohmann::json source_json(const SourceFile& file) {
  return {{"file", file.name}, {"sha256", file.sha256}};
}

}  // namespace

Margins parse_margins(const std::string& text, int64_t fallback) {
  Margins margins;
  const auto fail = [&](const std::string& fault) {
    throw Error("--outpaint " + text + ": " + fault, ErrorKind::kUsage);
  };
  std::string_view rest = text;
  while (true) {
    const std::string_view part = rest.substr(0, rest.find(','));
    const std::string name(part.substr(0, part.find('=')));
    int64_t* side = name == "left"    ? &margins.left
                    : name == "right" ? &margins.right
                    : name == "up"    ? &margins.up
                    : name == "down"  ? &margins.down
                                      : nullptr;
    if (side == nullptr) fail("expected left, right, up or down, or several as in left=4,right=4");
    if (*side != 0) fail("names " + name + " twice");
    *side = fallback;
    if (part.size() > name.size()) {
      const std::string_view number = part.substr(name.size() + 1);
      const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), *side);
      if (error != std::errc() || end != number.data() + number.size() || *side < 1 || *side > kMaxMargin) {
        fail("expected 1 to " + std::to_string(kMaxMargin) + " cells");
      }
    }
    if (part.size() == rest.size()) return margins;
    rest.remove_prefix(part.size() + 1);
  }
}

nlohmann::json to_json(const EditRequest& edit) {
  nlohmann::json json{{"init", source_json(edit.init)}, {"feather", edit.feather}};
  if (edit.mask) json["mask"] = source_json(*edit.mask);
  if (edit.strength > 0.0) json["strength"] = edit.strength;
  const Margins& margins = edit.outpaint;
  if (margins.any()) {
    json["outpaint"] = {
        {"left", margins.left}, {"right", margins.right}, {"up", margins.up}, {"down", margins.down}};
  }
  return json;
}

EditRequest read_edit(const JsonFields& fields, const std::string& subject) {
  EditRequest edit{.init = read_source(fields, "init", subject),
                   .strength = fields.number_or("strength", 0.0, {0.0, 1.0}),
                   .feather = fields.integer("feather", {0, kMaxFeather})};
  if (fields.has("mask")) edit.mask = read_source(fields, "mask", subject);
  if (fields.has("outpaint")) {
    const JsonFields sides = fields.object("outpaint");
    const IntRange range{0, kMaxMargin};
    edit.outpaint = {.left = sides.integer("left", range),
                     .right = sides.integer("right", range),
                     .up = sides.integer("up", range),
                     .down = sides.integer("down", range)};
  }
  return edit;
}

}  // namespace volley::image
