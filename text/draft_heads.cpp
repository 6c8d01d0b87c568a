// Draft heads on a target's last hidden row.
// Ref: Cai et al. 2024, "Medusa", github.com/FasterDecoding/Medusa; Ankner et al. 2024, "Hydra",
// github.com/zankner/Hydra (HydraMLP); names of tensors are theirs. `d2t`, the offsets from candidates to
// tokens, is EAGLE-3's (Li et al. 2025).
#include "text/draft_heads.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/nn/packed_weights.h"

namespace volley::text {
namespace {

constexpr int64_t kMostHeads = 255, kMostLayers = 64;
constexpr const char* kOffsets = "d2t";  // token = candidate + offset
constexpr const char* kMembers = "t2d";  // whether a token is a candidate: says nothing more

bool has(const WeightSource& source, const std::string& name) {
  return stored_shape(source, name).has_value();
}

std::vector<int32_t> read_target_ids(const WeightSource& source, int64_t vocab_size) {
  const HostView* view = source.find(kOffsets);
  if (view == nullptr) return {};
  const auto fail = [&](const std::string& fault) {
    throw Error(source.path() + ": tensor " + kOffsets + ": " + fault);
  };
  if (view->dtype != DType::kI64)
    fail("expected 64-bit integers, found " + std::string(dtype_name(view->dtype)));
  if (view->shape.rank() != 1 || view->shape[0] < 1 || view->shape[0] > vocab_size) {
    fail("expected 1 to " + std::to_string(vocab_size) + " offsets, found shape " + view->shape.to_string());
  }
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < view->shape[0]; ++i) {
    int64_t offset = 0;
    std::memcpy(&offset, view->data + i * 8, 8);
    const int64_t low = ids.empty() ? 0 : ids.back() + 1;
    // Said of the offset, which may be any number, before it is added.
    if (offset < low - i || offset >= vocab_size - i) {
      fail("offset " + std::to_string(i) + " is " + std::to_string(offset) +
           ": tokens must increase and be below " + std::to_string(vocab_size));
    }
    ids.push_back(static_cast<int32_t>(i + offset));
  }
  return ids;
}

}  // namespace

std::string HeadsConfig::block(int64_t head, int64_t layer) const {
  return prefix + std::to_string(head) + "." + std::to_string(layer);
}

std::string HeadsConfig::output(int64_t head) const {
  return family == HeadsFamily::kHydra ? "hydra_lm_head." + std::to_string(head) : block(head, layers);
}

HeadsConfig recognise_heads(const WeightSource& source, int64_t vocab_size) {
  HeadsConfig config;
  const auto is_there = [&](HeadsFamily family, const std::string& prefix) {
    config.family = family;
    config.prefix = prefix;
    return has(source, config.block(0, 0) + ".linear.weight") ||
           (family == HeadsFamily::kMedusa && has(source, config.block(0, 0) + ".weight"));
  };
  for (const NamedTensor& tensor : source.tensors()) {
    if (!tensor.name.starts_with("prefix_embeding_layer.")) continue;
    throw Error(source.path() + ": tensor " + tensor.name +
                ": a layer before the heads (Hydra++) is not supported");
  }
  if (!is_there(HeadsFamily::kMedusa, "") && !is_there(HeadsFamily::kMedusa, "medusa_head.") &&
      !is_there(HeadsFamily::kHydra, "hydra_mlp.")) {
    throw Error(source.path() +
                ": holds no draft heads: expected tensor 0.0.linear.weight (Medusa) or "
                "hydra_mlp.0.0.linear.weight (Hydra)");
  }
  while (config.layers < kMostLayers && has(source, config.block(0, config.layers) + ".linear.weight"))
    ++config.layers;
  while (config.heads < kMostHeads && has(source, config.output(config.heads) + ".weight")) ++config.heads;
  // What is missing of the first head is the loader's to name.
  config.heads = std::max<int64_t>(config.heads, 1);
  config.is_chained = has(source, config.block(0, 0) + ".res_connection.weight");
  config.target_ids = read_target_ids(source, vocab_size);
  return config;
}

ResidualHeads::ResidualHeads(HeadsConfig config, const Target& target, WeightLoader loader)
    : traits_{.family = config.family == HeadsFamily::kHydra ? "hydra" : "medusa",
              .heads = config.heads,
              .dim = target.dim,
              .vocab_size = target.vocab_size,
              .target_ids = config.target_ids,
              .is_chained = config.is_chained},
      embedding_(target.embedding) {
  VOLLEY_ASSERT(!config.is_chained || embedding_ != nullptr);
  const int64_t dim = target.dim;
  for (int64_t h = 0; h < config.heads; ++h) {
    const int64_t width = config.is_chained ? (h + 2) * dim : dim;
    Head& head = heads_.emplace_back();
    for (int64_t l = 0; l < config.layers; ++l) {
      head.blocks.push_back(
          load_linear(loader, config.block(h, l) + ".linear", dim, l == 0 ? width : dim, Bias::kLoaded));
    }
    if (config.is_chained)
      head.shortcut = load_linear(loader, config.block(h, 0) + ".res_connection", dim, width, Bias::kLoaded);
    // Hydra's have a bias, Medusa's do not.
    const std::string output = config.output(h);
    head.output = load_linear(loader, output, traits_.candidates(), dim,
                              loader.has(output + ".bias") ? Bias::kLoaded : Bias::kNone);
  }
  loader.ignore(kOffsets);
  loader.ignore(kMembers);
  loader.finish();
}

void ResidualHeads::logits(const DraftHeadsInputs& in, Tensor out) const {
  const Arena::Scope scope(in.arena);
  const Head& head = heads_[static_cast<size_t>(in.level)];
  const int64_t count = out.shape[0], dim = traits_.dim;
  ConstTensor x = in.hidden;  // [N, dim]
  if (traits_.is_chained) {
    const int64_t parts = in.level + 2;
    const Tensor joined = in.arena.tensor({count * parts, dim});
    in.queue.gather_rows({.table = in.hidden, .ids = in.sources.reshape({count * parts}), .out = joined});
    gather_rows(in.queue, *embedding_, in.tokens.reshape({count * parts}), joined);
    x = joined.reshape({count, parts * dim});
  }
  for (size_t l = 0; l < head.blocks.size(); ++l) {
    const Tensor raised = in.arena.tensor({count, dim});  // [N, dim]
    head.blocks[l].apply(in.queue, Phase::kDecode, x, raised);
    in.queue.activate({.activation = Activation::kSilu, .x = raised});
    if (l == 0 && head.shortcut) {
      head.shortcut->apply(in.queue, Phase::kDecode, x, raised, Accumulate::kAdd);
    } else {
      in.queue.add({.a = x, .b = raised, .out = raised});
    }
    x = raised;
  }
  head.output.apply(in.queue, Phase::kDecode, x, out);
}

}  // namespace volley::text
