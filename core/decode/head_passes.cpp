#include "core/decode/head_passes.h"

#include "core/base/error.h"

namespace volley {

HeadPasses::HeadPasses(const DraftHeads& heads, const Backend& backend)
    : heads_(heads), queue_(backend.make_queue()), arena_(backend) {}

Indices HeadPasses::upload(std::span<const int32_t> values, Shape shape) {
  VOLLEY_ASSERT(shape.size() == static_cast<int64_t>(values.size()));
  const View<int32_t> device = arena_.indices(shape);
  queue_->upload(values.data(), device.data, static_cast<int64_t>(values.size_bytes()));
  return {device.data, shape};
}

void HeadPasses::begin(std::span<const float> hidden) {
  const int64_t dim = heads_.traits().dim;
  arena_.reset();
  hidden_ = arena_.tensor({static_cast<int64_t>(hidden.size()) / dim, dim});  // [G, dim]
  queue_->upload(hidden.data(), hidden_.data, hidden_.size() * 4);
}

std::vector<float> HeadPasses::logits(int64_t level, std::span<const HeadPath> paths) {
  const DraftHeadsTraits& traits = heads_.traits();
  const auto count = static_cast<int64_t>(paths.size());
  const Arena::Scope scope(arena_);
  std::vector<int32_t> sources, tokens;
  for (const HeadPath& path : paths) {
    sources.push_back(path.source);
    if (!traits.is_chained) continue;
    VOLLEY_ASSERT(std::ssize(path.tokens) == level + 1);
    sources.resize(sources.size() + path.tokens.size(), -1);
    tokens.push_back(-1);
    tokens.insert(tokens.end(), path.tokens.begin(), path.tokens.end());
  }
  const Tensor out = arena_.tensor({count, traits.candidates()});  // [N, V]
  if (traits.is_chained) {
    const Shape shape{count, level + 2};
    heads_.logits({.queue = *queue_,
                   .arena = arena_,
                   .level = level,
                   .hidden = hidden_,
                   .sources = upload(sources, shape),
                   .tokens = upload(tokens, shape)},
                  out);
  } else {
    const Tensor rows = arena_.tensor({count, traits.dim});  // [N, dim]
    queue_->gather_rows({.table = hidden_, .ids = upload(sources, {count}), .out = rows});
    heads_.logits({.queue = *queue_, .arena = arena_, .level = level, .hidden = rows}, out);
  }
  std::vector<float> values(static_cast<size_t>(out.size()));
  queue_->download(out.data, values.data(), out.size() * 4);
  ++statistics_.forwards;
  statistics_.rows += count;
  return values;
}

}  // namespace volley
