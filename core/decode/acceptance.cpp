#include "core/decode/acceptance.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/noise.h"

namespace volley {

float NoiseUniforms::next(const OutputPlace& place, int64_t position, int64_t attempt) {
  return uniform({.seed = place.seed,
                  .stream = place.stream,
                  .purpose = NoisePurpose::kAccept,
                  .position = static_cast<uint32_t>(position)},
                 static_cast<uint32_t>(attempt));
}

Decision accept_coupled(const DraftTree& draft, const TargetView& target) {
  Decision decision{.next_token = target.sampled[0]};
  for (int32_t node = -1;;) {
    const std::vector<int32_t> children = draft.children(node);
    const auto right = std::ranges::find_if(children, [&](int32_t child) {
      return draft.tokens[static_cast<size_t>(child)] == decision.next_token;
    });
    if (right == children.end()) return decision;
    node = *right;
    decision.accepted.push_back(node);
    decision.next_token = target.sampled[static_cast<size_t>(node) + 1];
  }
}

namespace {

// Draws from weights that need not sum to one, by the Gumbel rule on their logarithms; `fallback` where all
// are zero, as rounding may leave them.
int32_t draw(std::span<const float> weights, const OutputPlace& place, int64_t position, int32_t fallback) {
  const NoiseKey key{.seed = place.seed,
                     .stream = place.stream,
                     .purpose = NoisePurpose::kResidual,
                     .position = static_cast<uint32_t>(position)};
  int32_t best = fallback;
  float best_value = -std::numeric_limits<float>::infinity();
  for (size_t id = 0; id < weights.size(); ++id) {
    if (weights[id] <= 0.0f) continue;
    const float value = std::log(weights[id]) + gumbel(key, static_cast<uint32_t>(id));
    if (value > best_value) {
      best_value = value;
      best = static_cast<int32_t>(id);
    }
  }
  return best;
}

void normalize(std::vector<float>& weights) {
  double total = 0.0;
  for (float weight : weights) total += weight;
  if (total <= 0.0) return;
  const auto scale = static_cast<float>(1.0 / total);
  for (float& weight : weights) weight *= scale;
}

}  // namespace

Decision accept_rejection(const DraftTree& draft, const TargetView& target, const OutputPlace& place,
                          UniformSource& uniforms) {
  const auto vocab = static_cast<size_t>(target.vocab_size);
  const bool is_deterministic = draft.distribution.empty();
  Decision decision;
  for (int32_t node = -1;;) {
    const auto row = static_cast<size_t>(node + 1);
    const int64_t position = place.position + static_cast<int64_t>(decision.accepted.size());
    const auto row_begin = target.distribution.begin() + static_cast<int64_t>(row * vocab);
    std::vector<float> p(row_begin, row_begin + target.vocab_size);
    const std::vector<int32_t> children = draft.children(node);
    int32_t accepted = -1;
    std::vector<float> q;  // what the siblings were drawn from, without those already refused
    for (size_t attempt = 0; attempt < children.size() && accepted < 0; ++attempt) {
      const int32_t child = children[attempt];
      const auto token = static_cast<size_t>(draft.tokens[static_cast<size_t>(child)]);
      if (!is_deterministic && q.empty()) {
        const auto q_begin =
            draft.distribution.begin() + static_cast<int64_t>(static_cast<size_t>(child) * vocab);
        q.assign(q_begin, q_begin + target.vocab_size);
      }
      const float ratio = is_deterministic ? p[token] : (q[token] > 0.0f ? p[token] / q[token] : 0.0f);
      if (uniforms.next(place, position, static_cast<int64_t>(attempt)) < ratio) {
        accepted = child;
        break;
      }
      // The residual: what the refused draws have not covered.
      if (is_deterministic) {
        p[token] = 0.0f;
      } else {
        for (size_t id = 0; id < vocab; ++id) p[id] = std::max(0.0f, p[id] - q[id]);
        q[token] = 0.0f;  // siblings are drawn without replacement
        normalize(q);
      }
      normalize(p);
    }
    if (accepted < 0) {
      // Where nothing was refused the target's own choice stands; it was drawn from p itself.
      decision.next_token =
          children.empty() ? target.sampled[row] : draw(p, place, position, target.sampled[row]);
      return decision;
    }
    node = accepted;
    decision.accepted.push_back(node);
  }
}

Decision accept_typical(const DraftTree& draft, const TargetView& target, const TypicalRule& rule) {
  struct Path {
    bool is_typical = true;
    int64_t length = 0;
    double log_probability = 0.0;
  };
  std::vector<Path> paths{{}};  // [1 + nodes] that end at the root and at each node
  size_t best = 0;
  for (int32_t node = 0; node < draft.size(); ++node) {
    const auto parent = static_cast<size_t>(draft.parents[static_cast<size_t>(node)] + 1);
    const auto token = static_cast<size_t>(draft.tokens[static_cast<size_t>(node)]);
    const float p = target.distribution[parent * static_cast<size_t>(target.vocab_size) + token];
    const float least = std::min(rule.epsilon, rule.alpha * std::exp(-target.entropy[parent]));
    Path path = paths[parent];
    path.is_typical = path.is_typical && p > least;
    ++path.length;
    path.log_probability += std::log(static_cast<double>(p));
    paths.push_back(path);
    const Path& longest = paths[best];
    const bool is_better = path.length > longest.length ||
                           (path.length == longest.length && path.log_probability > longest.log_probability);
    if (path.is_typical && is_better) best = paths.size() - 1;
  }
  Decision decision{.next_token = target.sampled[best]};
  for (auto node = static_cast<int32_t>(best) - 1; node >= 0; node = draft.parents[static_cast<size_t>(node)])
    decision.accepted.push_back(node);
  std::ranges::reverse(decision.accepted);
  return decision;
}

}  // namespace volley
