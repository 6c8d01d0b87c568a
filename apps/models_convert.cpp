// volley models convert: weights packed for this device's products, to be mapped at load.
#include <memory>

#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/models.h"
#include "core/base/error.h"
#include "image/convert_model.h"
#include "image/run_record.h"

namespace volley::apps {
namespace {

struct ConvertFlags {
  SharedFlags shared;
  std::string out;
};

int run(const ConvertFlags& flags, Program& program) {
  const SharedFlags& shared = flags.shared;
  if (shared.dtype == "f32") {
    throw Error("--dtype f32: weights are packed as bf16, q8_0 or q4_1", ErrorKind::kUsage);
  }
  const std::string path = find_model(shared.model);
  if (is_text_model(path)) {
    throw Error(path + ": a text model, which volley text reads as it is; only image models are converted",
                ErrorKind::kUsage);
  }
  const image::ImageCard card = open_card(shared, path);
  const auto backend = backend_for(shared);
  const WeightType type = shared.dtype == "auto" ? WeightType::kBF16 : weight_type_of(shared.dtype, *backend);
  std::vector<image::ConvertedFile> files;
  try {
    files = image::convert_image_model(
        {.card = card, .backend = *backend, .type = type, .folder = flags.out, .stop = program.stop});
  } catch (const Error&) {
    if (program.stop.stop_requested()) throw Interrupted("convert: interrupted; nothing was written");
    throw;
  }
  const std::string dtype(image::weight_type_name(type));
  nlohmann::json json{{"schema", kConvertSchema},
                      {"model", card.name},
                      {"path", flags.out},
                      {"dtype", dtype},
                      {"layout", backend->packed_layout()},
                      {"files", nlohmann::json::array()}};
  std::string text;
  for (const image::ConvertedFile& file : files) {
    json["files"].push_back({{"role", file.role}, {"file", file.file}, {"bytes", file.bytes}});
    text += padded(file.role, 13) + file.file + ", " + byte_count(file.bytes) + "\n";
  }
  if (shared.json) {
    program.console.print_line(json.dump());
  } else {
    program.console.print(text);
    program.console.note(card.name + " in " + dtype + ": volley image -m " + flags.out);
  }
  return kExitDone;
}

}  // namespace

Verb add_models_convert(CLI::App& models) {
  const auto flags = std::make_shared<ConvertFlags>();
  flags->shared.model = std::string(kDefaultModel);
  CLI::App& verb = add_verb(models, "convert", "pack a model's weights into a folder that loads at once");
  add_argument(verb, {.names = "-o,--out", .type = "DIR", .meaning = "folder to make"}, Argument::kRequired,
               flags->out);
  add_footer(
      verb,
      "The folder is a model for -m. It is mapped and used as it lies: nothing is packed or copied at load.\n"
      "--dtype auto is bf16.");
  add_shared_flags(verb, flags->shared, {"model", "vq", "image-size", "device", "dtype", "threads", "json"});
  return {.parser = &verb,
          .schema = std::string(kConvertSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
