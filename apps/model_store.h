#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "image/image_card.h"
#include "image/published_models.h"
#include "image/text_features.h"

namespace volley::apps {

struct SharedFlags;

// Where pulled models lie: volley/models under $XDG_DATA_HOME, by default ~/.local/share. Throws Error kUsage
// if the environment names no home.
std::string store_folder();

enum class StorePlace : uint8_t { kPulled, kHubCache };

// A published checkpoint that lies on this machine.
struct StoredModel {
  const image::PublishedModel* model = nullptr;
  std::string path;  // of its file
  StorePlace place = StorePlace::kPulled;
};
// Of every published model, the one that was pulled, else that of the hub's own cache; in the registry's
// order.
std::vector<StoredModel> stored_models();
std::optional<StoredModel> find_stored_model(std::string_view name);

// The card of --model, --vq and --image-size.
image::ImageCard open_card(const SharedFlags& flags, const std::string& path);
// The text features of a file, for a model that draws captions.
std::shared_ptr<const image::TextFeatures> read_features(const std::string& path,
                                                         const image::ImageCard& card);

}  // namespace volley::apps
