// volley models: what is in the box, and what a checkpoint holds.
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>

#include "apps/model_info.h"
#include "apps/model_path.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/open_weights.h"
#include "core/io/untrusted_text.h"
#include "image/image_model.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSchema = "volley.models/1";

struct InfoFlags {
  SharedFlags shared;
  std::string path;
};

std::string padded(std::string text, size_t width) {
  text.resize(std::max(text.size() + 1, width), ' ');
  return text;
}

bool is_image_model(const std::string& path) {
  const fs::path config = fs::path(path) / "config.json";
  std::error_code code;
  if (!fs::exists(config, code)) return false;
  const nlohmann::json json = read_json_file(config.string());
  return json.is_object() && json.contains("format");
}

std::string weights_text(const WeightsInfo& info) {
  std::string types;
  for (const auto& [dtype, size] : info.dtypes) {
    types += (types.empty() ? "" : ", ") + dtype + " " + std::to_string(size);
  }
  return padded("family", 13) + (info.family.empty() ? "not recognised" : info.family) + "\n" +
         padded("tensors", 13) + std::to_string(info.tensors) + "\n" + padded("parameters", 13) +
         std::to_string(info.parameters) + "\n" + padded("elements", 13) + types + "\n" + padded("size", 13) +
         byte_count(info.bytes) + "\n";
}

int show_image_model(const std::string& path, const SharedFlags& flags, Console& console) {
  const image::ImageCard card = image::read_image_card(path);
  nlohmann::json json{{"schema", kSchema},
                      {"path", path},
                      {"name", card.name},
                      {"format", image::kImageModelFormat},
                      {"image_size", card.image_size},
                      {"grid", card.grid},
                      {"classes", card.classes},
                      {"weights", nlohmann::json::object()}};
  std::string text = padded("model", 13) + card.name + "\n" + padded("pictures", 13) +
                     std::to_string(card.image_size) + "x" + std::to_string(card.image_size) + " pixels of " +
                     std::to_string(card.grid) + "x" + std::to_string(card.grid) + " codes\n";
  const auto add = [&](const std::string& role, const std::string& file) {
    const auto weights = open_weights(file);
    const WeightsInfo info = describe_weights(*weights);
    nlohmann::json entry = to_json(info);
    entry["sha256"] = image::hash_file(file);
    text += padded(role, 13) + fs::path(file).filename().string() + ": " + std::to_string(info.parameters) +
            " parameters in " + plural(info.tensors, "tensor") + ", " + byte_count(info.bytes) + "\n" +
            padded("", 13) + "sha256 " + entry["sha256"].get<std::string>() + "\n";
    json["weights"][role] = std::move(entry);
  };
  add("vq", card.vq.file);
  if (card.llamagen) add("llamagen", card.llamagen->file);
  if (card.arpg) add("arpg", card.arpg->file);
  std::string names;
  for (const std::string& name : card.classes) names += (names.empty() ? "" : ", ") + printable(name, 100);
  text += padded("classes", 13) + std::to_string(card.classes.size()) + ": " + names + "\n";
  if (!card.names.empty()) {
    text += padded("prompts", 13) + plural(static_cast<int64_t>(card.names.size()), "name") + " such as " +
            printable(card.names.front().name, 100) + "\n";
  }
  if (flags.json) {
    console.print_line(json.dump());
  } else {
    console.print(text);
  }
  return kExitDone;
}

int show(const InfoFlags& flags, Console& console) {
  const std::string path = find_model(flags.path);
  if (is_image_model(path)) return show_image_model(path, flags.shared, console);
  const auto weights = open_weights(path);
  const WeightsInfo info = describe_weights(*weights);
  if (flags.shared.json) {
    console.print_line(
        nlohmann::json{{"schema", kSchema}, {"path", path}, {"weights", {{"model", to_json(info)}}}}.dump());
  } else {
    console.print(padded("weights", 13) + printable(path, 1000) + "\n" + weights_text(info));
  }
  return kExitDone;
}

int list(const SharedFlags& flags, Console& console) {
  nlohmann::json json{{"schema", kSchema}, {"models", nlohmann::json::array()}};
  std::string text;
  for (const BoxedModel& model : boxed_models()) {
    nlohmann::json entry{{"name", model.name}, {"path", model.path}};
    std::string about;
    try {
      const image::ImageCard card = image::read_image_card(model.path);
      about = std::to_string(card.image_size) + "x" + std::to_string(card.image_size) + " pictures of " +
              std::to_string(card.classes.size()) + " classes";
      entry["classes"] = card.classes.size();
      entry["image_size"] = card.image_size;
    } catch (const Error& error) {
      about = std::string("broken: ") + error.what();
      entry["error"] = error.what();
    }
    text += padded(printable(model.name, 100), 16) + about + "  " + printable(model.path, 1000) + "\n";
    json["models"].push_back(std::move(entry));
  }
  if (flags.json) {
    console.print_line(json.dump());
  } else if (text.empty()) {
    std::string folders;
    for (const std::string& folder : model_folders()) folders += (folders.empty() ? "" : ", ") + folder;
    console.note("no models in the box; looked in " + folders);
  } else {
    console.print(text);
  }
  return kExitDone;
}

}  // namespace

std::vector<Verb> add_models(CLI::App& program) {
  CLI::App& models = *program.add_subcommand("models", "list models and look into their files");
  models.require_subcommand(0, 1);

  const auto info_flags = std::make_shared<InfoFlags>();
  CLI::App& info = *models.add_subcommand("info", "what a model or checkpoint holds");
  info.add_option("path", info_flags->path, "model in the box, model folder, safetensors or PyTorch file")
      ->type_name("NAME|PATH")
      ->required();
  add_shared_flags(info, info_flags->shared, {"json"});

  const auto list_flags = std::make_shared<SharedFlags>();
  CLI::App& listing = *models.add_subcommand("list", "models in the box");
  add_shared_flags(listing, *list_flags, {"json"});

  return {{.parser = &info,
           .schema = std::string(kSchema),
           .flags = &info_flags->shared,
           .run = [info_flags](Program& p) { return show(*info_flags, p.console); }},
          {.parser = &listing,
           .schema = std::string(kSchema),
           .flags = list_flags.get(),
           .run = [list_flags](Program& p) { return list(*list_flags, p.console); }}};
}

}  // namespace volley::apps
