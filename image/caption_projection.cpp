#include "image/caption_projection.h"

#include "core/base/error.h"

namespace volley::image {

CaptionProjection::CaptionProjection(WeightLoader& loader, const std::string& prefix, const Sizes& sizes)
    : sizes_(sizes),
      fc1_(load_linear(loader, prefix + "cap_proj.fc1", sizes.dim, sizes.caption_dim)),
      fc2_(load_linear(loader, prefix + "cap_proj.fc2", sizes.dim, sizes.dim)),
      uncond_embedding_(loader.values(prefix + "uncond_embedding", {sizes.rows, sizes.caption_dim})) {}

std::vector<float> CaptionProjection::project(Queue& queue, Arena& arena,
                                              std::span<const float> features) const {
  VOLLEY_ASSERT(sizes_.caption_dim > 0 && static_cast<int64_t>(features.size()) % sizes_.caption_dim == 0);
  const int64_t rows = static_cast<int64_t>(features.size()) / sizes_.caption_dim;
  const Arena::Scope scope(arena);
  const Tensor x = arena.tensor({rows, sizes_.caption_dim});  // [L, caption_dim]
  const Tensor hidden = arena.tensor({rows, sizes_.dim});     // [L, dim]
  const Tensor projected = arena.tensor(hidden.shape);        // [L, dim]
  queue.upload(features.data(), x.data, x.size() * 4);
  fc1_.apply(queue, Phase::kEncoder, x, hidden);
  queue.activate({.activation = Activation::kGeluTanh, .x = hidden});
  fc2_.apply(queue, Phase::kEncoder, hidden, projected);
  std::vector<float> result(static_cast<size_t>(projected.size()));
  queue.download(projected.data, result.data(), projected.size() * 4);
  return result;
}

}  // namespace volley::image
