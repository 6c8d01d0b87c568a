// Models that were pulled, by volley or by the hub's own tools.
#include "apps/model_store.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "apps/flags.h"
#include "core/base/error.h"
#include "core/io/safetensors.h"
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

bool has_safetensors(const fs::path& folder) {
  if (is_file(folder / kWholeWeights)) return true;
  const fs::path index = folder / kShardIndex;
  if (!is_file(index)) return false;
  const auto shards = shard_files(index.string());
  return shards.ok() &&
         std::ranges::all_of(shards.value(), [](const std::string& shard) { return is_file(shard); });
}

// In the hub's cache files keep their folders, in volley's they do not.
bool holds_all(const PublishedFiles& files, const fs::path& folder, StorePlace place) {
  const auto is_there = [&](const PublishedFile& file) {
    const fs::path name = file.name;
    return file.need == PublishedFile::Need::kIfThere ||
           is_file(folder / (place == StorePlace::kPulled ? name.filename() : name));
  };
  return std::ranges::all_of(files.files, is_there) && (!files.has_safetensors || has_safetensors(folder));
}

// models--OWNER--NAME/snapshots/REVISION, the revision being that of branch main where it is known; empty if
// the model is not there.
std::string cached_folder(const fs::path& cache, const PublishedFiles& files) {
  if (files.wheel) return "";
  std::string folder = "models--" + files.repository;
  folder.replace(folder.find('/'), 1, "--");
  const fs::path snapshots = cache / folder / "snapshots";
  const auto is_here = [&](const fs::path& path) { return holds_all(files, path, StorePlace::kHubCache); };
  std::ifstream reference(cache / folder / "refs" / "main");
  std::string revision;
  if (std::getline(reference, revision) && revision.find('/') == std::string::npos) {
    if (is_here(snapshots / revision)) return (snapshots / revision).string();
  }
  std::vector<std::string> found;
  std::error_code code;
  for (fs::directory_iterator entry(snapshots, code), end; !code && entry != end; entry.increment(code)) {
    if (is_here(entry->path())) found.push_back(entry->path().string());
  }
  return found.empty() ? "" : *std::ranges::max_element(found);
}

// What -m takes, of a model in this folder.
std::string path_in(const PublishedFiles& files, const fs::path& folder, StorePlace place) {
  if (files.is_folder()) return folder.string();
  const fs::path name = files.files.front().name;
  return (folder / (place == StorePlace::kPulled ? name.filename() : name)).string();
}

std::optional<StoredModel> find_stored(CatalogueEntry entry) {
  const PublishedFiles& files = entry.files;
  if (const fs::path home = data_home(); !home.empty()) {
    const fs::path folder = home / "volley" / "models" / files.name;
    if (is_whole(files, folder.string())) {
      std::string path = path_in(files, folder, StorePlace::kPulled);
      return StoredModel{.entry = std::move(entry), .path = std::move(path)};
    }
  }
  const fs::path cache = hub_cache();
  if (cache.empty()) return std::nullopt;
  const std::string folder = cached_folder(cache, files);
  if (folder.empty()) return std::nullopt;
  std::string path = path_in(files, folder, StorePlace::kHubCache);
  return StoredModel{.entry = std::move(entry), .path = std::move(path), .place = StorePlace::kHubCache};
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
  for (CatalogueEntry& entry : catalogue()) {
    if (auto stored = find_stored(std::move(entry))) models.push_back(std::move(*stored));
  }
  return models;
}

std::optional<StoredModel> find_stored_model(std::string_view name) {
  return is_published(name) ? find_stored(find_published(std::string(name))) : std::nullopt;
}

std::string pulled_path(const PublishedFiles& files) {
  return path_in(files, fs::path(store_folder()) / files.name, StorePlace::kPulled);
}

bool is_whole(const PublishedFiles& files, const std::string& folder) {
  return holds_all(files, folder, StorePlace::kPulled);
}

int64_t StoredModel::bytes() const {
  std::error_code code;
  if (!entry.files.is_folder()) return static_cast<int64_t>(fs::file_size(path, code));
  int64_t total = 0;
  for (fs::directory_iterator file(path, code), end; !code && file != end; file.increment(code)) {
    if (file->path().filename().string().starts_with('.')) continue;  // what pulling keeps for itself
    std::error_code of_file;
    const uintmax_t size = fs::file_size(file->path(), of_file);
    if (!of_file) total += static_cast<int64_t>(size);
  }
  return total;
}

image::ImageCard open_card(const SharedFlags& flags, const std::string& path) {
  image::ImageFiles files{.path = path, .vq = flags.vq, .image_size = flags.image_size};
  for (const StoredModel& stored : stored_models()) {
    if (stored.entry.image != nullptr)
      files.vq_folders.push_back(fs::path(stored.path).parent_path().string());
  }
  return image::open_image_card(files);
}

std::shared_ptr<const image::TextFeatures> read_features(const std::string& path,
                                                         const image::ImageCard& card) {
  const image::LlamaGenConfig& config = card.llamagen->config;
  return std::make_shared<const image::TextFeatures>(
      image::read_text_features(path, {.max_rows = config.cls_token_num, .width = config.caption_dim}));
}

}  // namespace volley::apps
