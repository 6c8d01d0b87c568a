// volley info: the run record of a picture.
#include <algorithm>
#include <memory>

#include "apps/picture_record.h"
#include "apps/verbs.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

constexpr std::string_view kSchema = "volley.info/1";

struct InfoFlags {
  SharedFlags shared;
  std::string file;
};

int run(const InfoFlags& flags, Console& console) {
  const RecordedPicture made = read_recorded_picture(flags.file);
  const bool is_animation = made.file.shows == image::Shows::kAnimation;
  if (flags.shared.json) {
    nlohmann::json json{
        {"schema", kSchema},   {"file", flags.file},    {"shows", image::shows_name(made.file.shows)},
        {"width", made.width}, {"height", made.height}, {"record", image::to_json(made.record)}};
    if (is_animation) json["frames"] = made.file.animation.frames;
    console.print_line(json.dump());
    return kExitDone;
  }
  const image::RunRecord& record = made.record;
  const image::ImageRequest& request = record.request;
  std::string text;
  // Whatever the record says is shown as text fit for a terminal.
  const auto line = [&](std::string name, const std::string& value) {
    name.resize(std::max<size_t>(13, name.size() + 1), ' ');
    text += name + printable(value, 400) + "\n";
  };
  line("file", flags.file);
  if (made.file.shows != image::Shows::kPicture) {
    line("shows", std::string(image::shows_name(made.file.shows)) + " of " +
                      (is_animation ? plural(made.file.animation.frames, "frame") + ", " : "") +
                      std::to_string(made.width) + "x" + std::to_string(made.height) + " pixels");
  }
  const bool is_picture = made.file.shows == image::Shows::kPicture;
  const int64_t width = is_picture ? made.width : record.width;
  const int64_t height = is_picture ? made.height : record.height;
  line("picture", std::to_string(width) + "x" + std::to_string(height) + " pixels, " +
                      std::to_string(record.layout.columns) + "x" + std::to_string(record.layout.rows) +
                      " grid of " + plural(static_cast<int64_t>(record.pictures.size()), "picture"));
  line("made by", "volley " + record.volley + " on " + record.device + " in " + record.dtype);
  line("model", request.model);
  for (const auto& [role, hash] : record.weights) line("  " + role, hash);
  if (!request.prompt.empty()) line("prompt", request.prompt);
  if (!request.features_hash.empty()) {
    line("text", "features " + request.features_hash);
  } else if (!request.is_text()) {
    line("class", request.class_name + " (" + std::to_string(request.class_id) + ")");
  }
  if (request.edit) {
    const image::EditRequest& edit = *request.edit;
    line("init", edit.init.name + " " + edit.init.sha256);
    if (edit.mask) line("mask", edit.mask->name + " " + edit.mask->sha256);
    if (edit.strength > 0.0) line("strength", shortest(edit.strength));
    const image::Margins& margins = edit.outpaint;
    if (margins.any()) {
      line("outpaint", "left " + std::to_string(margins.left) + ", right " + std::to_string(margins.right) +
                           ", up " + std::to_string(margins.up) + ", down " + std::to_string(margins.down));
    }
    line("feather", std::to_string(edit.feather));
  }
  line("decoder", image::decoder_text(request.decoder));
  line("  class", std::string(decoder_class_name(decoder_class(request.decoder))));
  line("cfg", shortest(request.cfg) + " " + std::string(image::guidance_name(request.guidance)));
  line("temperature", shortest(request.temperature));
  line("top-k", std::to_string(request.top_k));
  line("top-p", shortest(request.top_p));
  line("seed", std::to_string(request.seed) + ", " + plural(request.count, "picture") + " in the run");
  for (const image::RecordedPicture& picture : record.pictures) {
    line("  picture " + std::to_string(picture.index),
         "seed " + std::to_string(picture.seed) + ", tokens " + picture.token_hash);
  }
  console.print(text);
  return kExitDone;
}

}  // namespace

Verb add_info(CLI::App& program) {
  const auto flags = std::make_shared<InfoFlags>();
  CLI::App& verb = add_verb(program, "info", "print the run record of a picture");
  add_argument(
      verb, {.names = "file", .type = "FILE", .meaning = "picture, animation or step map that volley made"},
      Argument::kRequired, flags->file);
  add_shared_flags(verb, flags->shared, {"json"});
  return {
      .parser = &verb, .schema = std::string(kSchema), .flags = &flags->shared, .run = [flags](Program& p) {
        return run(*flags, p.console);
      }};
}

}  // namespace volley::apps
