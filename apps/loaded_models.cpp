#include "apps/loaded_models.h"

#include <future>

#include "apps/flags.h"

namespace volley::apps {

std::vector<const image::ImageModel*> LoadedModels::pointers() const {
  std::vector<const image::ImageModel*> pointers;
  for (const auto& model : all) pointers.push_back(model.get());
  return pointers;
}

std::string LoadedModels::devices() const {
  std::string text;
  for (size_t i = 0; i < all.size(); ++i)
    text += (i == 0 ? "" : i + 1 < all.size() ? ", " : " and ") + all[i]->backend()->info().name;
  return text;
}

LoadedModels load_models(const image::ImageCard& card,
                         std::span<const std::shared_ptr<const Backend>> backends,
                         const LoadOptions& options) {
  LoadedModels models;
  models.all.push_back(std::make_unique<const image::ImageModel>(
      card,
      image::ImageModel::Options{.backend = backends.front(),
                                 .weight_type = weight_type_for({options.dtype, card, *backends.front()}),
                                 .transformer = image::transformer_for(options.decoder)}));
  std::vector<std::future<std::unique_ptr<const image::ImageModel>>> others;
  for (const auto& backend : backends.subspan(1)) {
    others.push_back(std::async(std::launch::async, [&models, backend] {
      return std::make_unique<const image::ImageModel>(models.first(), backend);
    }));
  }
  for (auto& other : others) other.wait();  // as they read from the first
  for (auto& other : others) models.all.push_back(other.get());
  return models;
}

}  // namespace volley::apps
