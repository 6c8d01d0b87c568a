#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/catalogue.h"
#include "image/image_card.h"
#include "image/text_features.h"

namespace volley::apps {

struct SharedFlags;

// Weights in a folder of transformers' layout.
inline constexpr const char* kWholeWeights = "model.safetensors";
inline constexpr const char* kShardIndex = "model.safetensors.index.json";

// Where pulled models lie: volley/models under $XDG_DATA_HOME, by default ~/.local/share. Throws Error kUsage
// if the environment names no home.
std::string store_folder();

enum class StorePlace : uint8_t { kPulled, kHubCache };

// A published model that lies on this machine, whole.
struct StoredModel {
  CatalogueEntry entry;
  std::string path;  // what -m takes: its file, or its folder if it has several
  StorePlace place = StorePlace::kPulled;

  int64_t bytes() const;  // of its files
};
// Of every published model, the one that was pulled, else that of the hub's own cache; in the catalogue's
// order.
std::vector<StoredModel> stored_models();
std::optional<StoredModel> find_stored_model(std::string_view name);

// Where the pull of a model puts it: what -m takes then. Throws as store_folder does.
std::string pulled_path(const PublishedFiles& files);
// Whether all files of it that are needed, shards included, lie in a folder.
bool is_whole(const PublishedFiles& files, const std::string& folder);

// The card of --model, --vq and --image-size.
image::ImageCard open_card(const SharedFlags& flags, const std::string& path);
// The text features of a file, for a model that draws captions.
std::shared_ptr<const image::TextFeatures> read_features(const std::string& path,
                                                         const image::ImageCard& card);

}  // namespace volley::apps
