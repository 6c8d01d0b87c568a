// volley models list: models in the box, pulled ones, those in the hub's cache, and what can be pulled.
#include <memory>
#include <set>
#include <utility>

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

nlohmann::json to_json(const CatalogueEntry& entry, const char* place) {
  const PublishedFiles& files = entry.files;
  nlohmann::json json{{"name", entry.name()},
                      {"place", place},
                      {"use", entry.text != nullptr ? "text" : "image"},
                      {"kind", kind_of(entry)},
                      {"repository", files.repository},
                      {"licence", files.licence}};
  if (!files.is_folder()) json["file"] = files.files.front().name;
  if (files.wheel) json["package"] = files.wheel->project + " " + files.wheel->version;
  if (entry.image == nullptr) return json;
  if (entry.image->image_size > 0) json["image_size"] = entry.image->image_size;
  if (!entry.image->vq.empty()) json["needs"] = nlohmann::json::array({entry.image->vq});
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
  std::set<std::string> here;
  const std::vector<StoredModel> stored_here = stored_models();
  const auto list_stored = [&](StorePlace place, const char* name) {
    bool is_first = true;
    for (const StoredModel& stored : stored_here) {
      if (stored.place != place) continue;
      here.insert(stored.entry.name());
      if (std::exchange(is_first, false)) listing.head(name);
      nlohmann::json entry = to_json(stored.entry, name);
      entry["path"] = stored.path;
      entry["bytes"] = stored.bytes();
      listing.line(stored.entry.name(), about(stored.entry) + ", " + byte_count(stored.bytes()) + "  " +
                                            printable(stored.path, 1000));
      listing.models.push_back(std::move(entry));
    }
  };
  list_stored(StorePlace::kPulled, "pulled");
  list_stored(StorePlace::kHubCache, "hub cache");
  listing.head("can be pulled (volley models pull NAME)");
  for (const CatalogueEntry& entry : catalogue()) {
    if (here.contains(entry.name())) continue;
    const PublishedFiles& files = entry.files;
    listing.line(entry.name(), about(entry) + "  " + origin_of(files) +
                                   (files.is_folder() || files.wheel ? "" : " " + files.files.front().name));
    listing.models.push_back(to_json(entry, files.wheel ? "package index" : "hub"));
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
  CLI::App& verb = add_verb(models, "list", "models in the box, pulled ones, and what can be pulled");
  add_shared_flags(verb, *flags, {"json"});
  return {.parser = &verb,
          .schema = std::string(kModelsSchema),
          .flags = flags.get(),
          .run = [flags](Program& p) { return list(*flags, p.console); }};
}

}  // namespace volley::apps
