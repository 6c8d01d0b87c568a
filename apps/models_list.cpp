// volley models list: models in the box, pulled ones, those in the hub's cache, and what can be pulled.
#include <map>
#include <memory>

#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/models.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {
namespace {

constexpr size_t kNameWidth = 24;

struct Listing {
  nlohmann::json models = nlohmann::json::array();
  std::string text;

  void head(const std::string& line) { text += (text.empty() ? "" : "\n") + line + "\n"; }
  void line(const std::string& name, const std::string& about) {
    text += "  " + padded(printable(name, 100), kNameWidth) + about + "\n";
  }
};

std::string about(const image::PublishedModel& model) {
  std::string text = std::string(image::checkpoint_kind_name(model.kind));
  if (!model.size.empty()) text += " " + std::string(model.size);
  if (model.image_size > 0) text += ", " + std::to_string(model.image_size) + " px";
  return text + ", " + std::string(model.licence);
}

nlohmann::json to_json(const image::PublishedModel& model, const char* place) {
  nlohmann::json json{{"name", model.name},
                      {"place", place},
                      {"kind", image::checkpoint_kind_name(model.kind)},
                      {"repository", model.repository},
                      {"file", model.file},
                      {"licence", model.licence}};
  if (model.image_size > 0) json["image_size"] = model.image_size;
  if (!model.vq.empty()) json["needs"] = nlohmann::json::array({model.vq});
  return json;
}

void list_boxed(Listing& listing, Console& console) {
  const std::vector<BoxedModel> models = boxed_models();
  if (models.empty()) {
    std::string folders;
    for (const std::string& folder : model_folders()) folders += (folders.empty() ? "" : ", ") + folder;
    console.note("no models in the box; looked in " + folders);
    return;
  }
  listing.head("in the box");
  for (const BoxedModel& model : models) {
    nlohmann::json entry{{"name", model.name}, {"place", "box"}, {"path", model.path}};
    std::string what;
    try {
      const image::ImageCard card = image::read_image_card(model.path);
      what = std::to_string(card.image_size) + "x" + std::to_string(card.image_size) + " pictures of " +
             std::to_string(card.classes.size()) + " classes";
      entry["classes"] = card.classes.size();
      entry["image_size"] = card.image_size;
    } catch (const Error& error) {
      what = std::string("broken: ") + error.what();
      entry["error"] = error.what();
    }
    listing.line(model.name, what + "  " + printable(model.path, 1000));
    listing.models.push_back(std::move(entry));
  }
}

void list_published(Listing& listing) {
  std::map<const image::PublishedModel*, StoredModel> here;
  for (const StoredModel& stored : stored_models()) here.emplace(stored.model, stored);
  const auto list_stored = [&](StorePlace place, const char* name) {
    bool is_first = true;
    for (const image::PublishedModel& model : image::published_models()) {
      const auto stored = here.find(&model);
      if (stored == here.end() || stored->second.place != place) continue;
      if (std::exchange(is_first, false)) listing.head(name);
      nlohmann::json entry = to_json(model, name);
      entry["path"] = stored->second.path;
      listing.line(std::string(model.name), about(model) + "  " + printable(stored->second.path, 1000));
      listing.models.push_back(std::move(entry));
    }
  };
  list_stored(StorePlace::kPulled, "pulled");
  list_stored(StorePlace::kHubCache, "hub cache");
  listing.head("can be pulled (volley models pull NAME)");
  for (const image::PublishedModel& model : image::published_models()) {
    if (here.contains(&model)) continue;
    listing.line(std::string(model.name),
                 about(model) + "  " + std::string(model.repository) + " " + std::string(model.file));
    listing.models.push_back(to_json(model, "hub"));
  }
}

int list(const SharedFlags& flags, Console& console) {
  Listing listing;
  list_boxed(listing, console);
  list_published(listing);
  if (flags.json) {
    console.print_line(nlohmann::json{{"schema", kModelsSchema}, {"models", listing.models}}.dump());
  } else {
    console.print(listing.text);
  }
  return kExitDone;
}

}  // namespace

Verb add_models_list(CLI::App& models) {
  const auto flags = std::make_shared<SharedFlags>();
  CLI::App& verb = *models.add_subcommand("list", "models in the box, pulled ones, and what can be pulled");
  add_shared_flags(verb, *flags, {"json"});
  return {.parser = &verb,
          .schema = std::string(kModelsSchema),
          .flags = flags.get(),
          .run = [flags](Program& p) { return list(*flags, p.console); }};
}

}  // namespace volley::apps
