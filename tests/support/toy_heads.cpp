#include "tests/support/toy_heads.h"

#include <algorithm>

#include "core/base/noise.h"
#include "text/llama.h"

namespace volley::test {

using text::HeadsConfig;
using text::HeadsFamily;

namespace {

HeadsConfig config_of(const ToyHeadsSizes& sizes) {
  const bool is_hydra = sizes.family == HeadsFamily::kHydra;
  return {.family = sizes.family,
          .is_chained = is_hydra,
          .prefix = is_hydra ? "hydra_mlp." : "",
          .heads = sizes.heads,
          .layers = sizes.layers,
          .target_ids = sizes.target_ids};
}

}  // namespace

MemoryWeights toy_heads_weights(uint64_t seed, const ToyHeadsSizes& sizes) {
  TestRandom random(seed);
  MemoryWeights weights;
  const HeadsConfig config = config_of(sizes);
  const int64_t rows = sizes.target_ids.empty() ? sizes.vocab : std::ssize(sizes.target_ids);
  const auto linear = [&](const std::string& name, int64_t out, int64_t in, bool has_bias) {
    weights.add(name + ".weight", {out, in}, random, sizes.spread);
    if (has_bias) weights.add(name + ".bias", {out}, random, sizes.spread);
  };
  for (int64_t h = 0; h < sizes.heads; ++h) {
    const int64_t width = config.is_chained ? (h + 2) * sizes.dim : sizes.dim;
    for (int64_t l = 0; l < sizes.layers; ++l)
      linear(config.block(h, l) + ".linear", sizes.dim, l == 0 ? width : sizes.dim, true);
    if (config.is_chained) linear(config.block(h, 0) + ".res_connection", sizes.dim, width, true);
    linear(config.output(h), rows, sizes.dim, config.is_chained);
  }
  weights.finish();
  return weights;
}

std::unique_ptr<DraftHeads> make_toy_heads(const Backend& backend, uint64_t seed, const StepModel& target,
                                           const ToyHeadsSizes& sizes) {
  const MemoryWeights weights = toy_heads_weights(seed, sizes);
  return std::make_unique<text::ResidualHeads>(
      config_of(sizes),
      text::ResidualHeads::Target{.vocab_size = sizes.vocab,
                                  .dim = sizes.dim,
                                  .embedding = &dynamic_cast<const text::Llama&>(target).embeddings()},
      WeightLoader(weights, backend, WeightType::kF32));
}

void HiddenRecorder::begin(int64_t, const Generation&) {
  rows_.emplace_back();
}

DraftTree HiddenRecorder::propose(const ProposalContext&) {
  return {};
}

void HiddenRecorder::observe(const Verification& verification) {
  rows_[static_cast<size_t>(verification.generation)].emplace_back(verification.hidden.begin(),
                                                                   verification.hidden.end());
}

OracleHeads::OracleHeads(const ModelTraits& target, const Options& options)
    : options_(options),
      traits_{.family = "oracle",
              .heads = options.heads,
              .dim = target.dim,
              .vocab_size = target.vocab_size,
              .is_chained = options.is_chained} {}

void OracleHeads::learn(std::span<const std::vector<float>> hidden, const std::vector<int32_t>& tokens) {
  for (size_t i = 0; i < std::min(hidden.size(), tokens.size()); ++i)
    known_[hidden[i]].assign(tokens.begin() + static_cast<int64_t>(i), tokens.end());
}

std::vector<float> OracleHeads::guess(std::span<const float> hidden, std::span<const int32_t> path,
                                      int64_t level) const {
  std::vector<float> row(static_cast<size_t>(traits_.vocab_size), 0.0f);
  const auto found = known_.find({hidden.begin(), hidden.end()});
  if (found == known_.end() || (!path.empty() && path[0] != found->second[0])) {
    ++misses_;
    return row;
  }
  const std::vector<int32_t>& tokens = found->second;
  const auto place = static_cast<size_t>(level) + 1;
  // Behind wrong guesses it knows nothing.
  if (place >= tokens.size() || !std::equal(path.begin(), path.end(), tokens.begin())) return row;
  const float number = uniform({.seed = options_.seed, .position = static_cast<uint32_t>(level)},
                               static_cast<uint32_t>(tokens.size()));
  const int64_t off = number < static_cast<float>(options_.right) ? 0 : 1;
  row[static_cast<size_t>((tokens[place] + off) % traits_.vocab_size)] = 40.0f;
  return row;
}

void OracleHeads::logits(const DraftHeadsInputs& in, Tensor out) const {
  const auto download = [&](const auto* data, int64_t count) {
    std::vector<std::remove_cvref_t<decltype(*data)>> values(static_cast<size_t>(count));
    in.queue.download(data, values.data(), count * 4);
    return values;
  };
  const std::vector<float> hidden = download(in.hidden.data, in.hidden.size());
  std::vector<int32_t> sources, tokens;
  if (traits_.is_chained) {
    sources = download(in.sources.data, in.sources.size());
    tokens = download(in.tokens.data, in.tokens.size());
  }
  const auto dim = static_cast<size_t>(traits_.dim), parts = static_cast<size_t>(in.level) + 2;
  std::vector<float> all;
  for (size_t n = 0; n < static_cast<size_t>(out.shape[0]); ++n) {
    const size_t source = traits_.is_chained ? static_cast<size_t>(sources[n * parts]) : n;
    const std::span<const int32_t> path =
        traits_.is_chained ? std::span<const int32_t>(tokens).subspan(n * parts + 1, parts - 1)
                           : std::span<const int32_t>();
    const auto row = guess(std::span(hidden).subspan(source * dim, dim), path, in.level);
    all.insert(all.end(), row.begin(), row.end());
  }
  in.queue.upload(all.data(), out.data, out.size() * 4);
}

}  // namespace volley::test
