#include "core/decode/constrained_guess.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/backend/sampling.h"
#include "core/base/error.h"

namespace volley {
namespace {

// Of a token that the filters took out, beside any that they left in.
constexpr float kFiltered = 1e-20f;

void check_length(ConstrainedBlock& block, int64_t places, std::string_view decoder) {
  if (block.can_end(block.begin(), places)) return;
  const auto refuse = [&](const std::string& fault) {
    throw Error("--decoder " + std::string(decoder) + ": constraint: " + fault, ErrorKind::kUsage);
  };
  const auto least = block.least_places(block.begin());
  if (!least) refuse("no tokens of the model's vocabulary keep it");
  if (*least > places) {
    refuse("needs at least " + std::to_string(*least) + " tokens, the output has " + std::to_string(places));
  }
  refuse("no output of " + std::to_string(places) + " tokens keeps it, and no stop token ends a shorter one");
}

}  // namespace

std::vector<int32_t> constrained_guesses(ConstrainedBlock& block, const BlockState& state,
                                         std::span<const HiddenPlace> hidden, int32_t mask) {
  VOLLEY_ASSERT(std::ranges::count(state.tokens, mask) == std::ssize(hidden));
  if (hidden.empty()) return {};
  const size_t vocab = hidden.front().plain.size();
  std::vector<int32_t> fixed(state.tokens.begin(), state.tokens.end());
  std::vector<float> weights(fixed.size() * vocab);  // [places, vocab]
  size_t h = 0;
  for (size_t i = 0; i < fixed.size(); ++i) {
    if (fixed[i] != mask) continue;
    fixed[i] = -1;
    const HiddenPlace& place = hidden[h++];
    float* row = weights.data() + i * vocab;
    if (place.row.temperature <= 0.0f) {
      std::ranges::copy(place.plain, row);
      continue;
    }
    const NoiseKey key = sampling::noise_key(place.row);
    for (size_t id = 0; id < vocab; ++id) {
      row[id] = place.drawn[id] > 0.0f ? place.drawn[id] * std::exp(gumbel(key, static_cast<uint32_t>(id)))
                                       : kFiltered * place.plain[id];
    }
  }
  const auto choice = block.solve({.begin = state.begin,
                                   .distribution = weights,
                                   .fixed = fixed,
                                   .end = ConstrainedBlock::End::kWhole,
                                   .behind = state.behind});
  // What was filled came from such a choice, too.
  if (!choice) throw Error("constraint: no tokens fit those that are filled");
  std::vector<int32_t> guesses;
  for (size_t i = 0; i < fixed.size(); ++i) {
    if (fixed[i] < 0) guesses.push_back(choice->tokens[i]);
  }
  return guesses;
}

std::vector<std::shared_ptr<ConstrainedBlock>> constrained_blocks(std::span<const Generation> generations,
                                                                  int64_t vocab, std::string_view decoder) {
  std::vector<std::shared_ptr<ConstrainedBlock>> blocks;
  for (const Generation& generation : generations) {
    std::shared_ptr<ConstrainedBlock> block;
    if (generation.constraint) {
      for (size_t j = 0; j < blocks.size() && !block; ++j) {
        const Generation& other = generations[j];
        if (other.constraint == generation.constraint && other.stop_tokens == generation.stop_tokens &&
            other.mask_token == generation.mask_token)
          block = blocks[j];
      }
      if (!block) {
        block = std::make_shared<ConstrainedBlock>(*generation.constraint, generation.stop_tokens, vocab,
                                                   generation.mask_token);
      }
      check_length(*block, generation.max_tokens, decoder);
    }
    blocks.push_back(std::move(block));
  }
  return blocks;
}

FilledOutput::FilledOutput(const Generation& generation, std::shared_ptr<ConstrainedBlock> block)
    : generation_(&generation),
      block_(std::move(block)),
      cursor_(generation.constraint.get(), generation.stop_tokens) {
  output_.is_whole = cursor_.accepts();
}

void FilledOutput::add(int32_t token) {
  output_.tokens.push_back(token);
  const ConstraintCursor next = cursor_.after(token);
  output_.is_whole = next.is_broken() ? cursor_.accepts() : next.accepts();
  cursor_ = next;
  output_.is_complete = cursor_.is_complete();
  output_.finished = generation_->ends_at(token, std::ssize(output_.tokens)) || output_.is_complete;
}

FilledOutput::Guesses FilledOutput::guess(const HiddenGuesses& asked, const Samples& samples,
                                          std::span<const int32_t> places, Certainty certainty) const {
  Guesses guesses{.tokens = guessed_tokens(asked, samples, places)};
  guesses.certainty = asked.certainties(
      samples, certainty,
      is_constrained() ? std::span<const int32_t>(guesses.tokens) : std::span<const int32_t>());
  return guesses;
}

std::vector<int32_t> FilledOutput::guessed_tokens(const HiddenGuesses& asked, const Samples& samples,
                                                  std::span<const int32_t> places) const {
  std::vector<int32_t> tokens = asked.tokens(samples);
  if (!is_constrained()) return tokens;
  const auto count = static_cast<size_t>(std::ranges::count(places, generation_->mask_token));
  VOLLEY_ASSERT(count <= tokens.size());
  std::vector<HiddenPlace> hidden;
  for (size_t i = 0; i < count; ++i) {
    hidden.push_back({.row = asked.row(i),
                      .drawn = asked.drawn_distribution(samples, i),
                      .plain = asked.plain_distribution(samples, i)});
  }
  const auto done = std::ssize(output_.tokens);
  const BlockState state{.begin = {.state = cursor_.state()},
                         .tokens = places,
                         .behind = generation_->max_tokens - done - std::ssize(places)};
  std::ranges::copy(constrained_guesses(*block_, state, hidden, generation_->mask_token), tokens.begin());
  return tokens;
}

}  // namespace volley
