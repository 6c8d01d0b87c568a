// Models that were pulled, by volley or by the hub's own tools.
#include "apps/model_store.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "apps/flags.h"
#include "core/base/error.h"
#include "image/published_card.h"

namespace volley::apps {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Empty if the environment does not tell. By the XDG specification a relative path counts as none.
fs::path data_home() {
  const fs::path stated = environment("XDG_DATA_HOME");
  if (stated.is_absolute()) return stated;
  const fs::path home = environment("HOME");
  return home.empty() ? fs::path() : home / ".local" / "share";
}

// Ref: huggingface_hub, "Manage the cache": HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub.
fs::path hub_cache() {
  if (const std::string stated = environment("HF_HUB_CACHE"); !stated.empty()) return stated;
  if (const std::string home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  const std::string home = environment("HOME");
  return home.empty() ? fs::path() : fs::path(home) / ".cache" / "huggingface" / "hub";
}

bool is_file(const fs::path& path) {
  std::error_code code;
  return fs::is_regular_file(path, code);
}

// models--OWNER--NAME/snapshots/REVISION/FILE, the revision being that of branch main where it is known.
std::string cached_file(const fs::path& cache, const image::PublishedModel& model) {
  std::string folder = "models--" + std::string(model.repository);
  folder.replace(folder.find('/'), 1, "--");
  const fs::path snapshots = cache / folder / "snapshots";
  std::ifstream reference(cache / folder / "refs" / "main");
  std::string revision;
  if (std::getline(reference, revision) && revision.find('/') == std::string::npos) {
    if (const fs::path path = snapshots / revision / model.file; is_file(path)) return path.string();
  }
  std::vector<std::string> found;
  std::error_code code;
  for (fs::directory_iterator entry(snapshots, code), end; !code && entry != end; entry.increment(code)) {
    if (is_file(entry->path() / model.file)) found.push_back((entry->path() / model.file).string());
  }
  return found.empty() ? "" : *std::ranges::max_element(found);
}

std::optional<StoredModel> find_stored(const image::PublishedModel& model) {
  if (const fs::path home = data_home(); !home.empty()) {
    const fs::path path = home / "volley" / "models" / model.name / model.file;
    if (is_file(path)) return StoredModel{.model = &model, .path = path.string()};
  }
  const fs::path cache = hub_cache();
  if (cache.empty()) return std::nullopt;
  const std::string path = cached_file(cache, model);
  if (path.empty()) return std::nullopt;
  return StoredModel{.model = &model, .path = path, .place = StorePlace::kHubCache};
}

}  // namespace

std::string store_folder() {
  const fs::path home = data_home();
  if (home.empty()) {
    throw Error("neither XDG_DATA_HOME nor HOME is set, so there is no place for models", ErrorKind::kUsage);
  }
  return (home / "volley" / "models").string();
}

std::vector<StoredModel> stored_models() {
  std::vector<StoredModel> models;
  for (const image::PublishedModel& model : image::published_models()) {
    if (auto stored = find_stored(model)) models.push_back(std::move(*stored));
  }
  return models;
}

std::optional<StoredModel> find_stored_model(std::string_view name) {
  const image::PublishedModel* model = image::find_published_model(name);
  return model == nullptr ? std::nullopt : find_stored(*model);
}

image::ImageCard open_card(const SharedFlags& flags, const std::string& path) {
  image::ImageFiles files{.path = path, .vq = flags.vq, .image_size = flags.image_size};
  for (const StoredModel& stored : stored_models())
    files.vq_folders.push_back(fs::path(stored.path).parent_path().string());
  return image::open_image_card(files);
}

std::shared_ptr<const image::TextFeatures> read_features(const std::string& path,
                                                         const image::ImageCard& card) {
  const image::LlamaGenConfig& config = card.llamagen->config;
  return std::make_shared<const image::TextFeatures>(
      image::read_text_features(path, {.max_rows = config.cls_token_num, .width = config.caption_dim}));
}

}  // namespace volley::apps
