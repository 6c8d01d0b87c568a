#include "core/decode/hidden_guesses.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/base/error.h"

namespace volley {
namespace {

std::span<const float> distribution(const Samples& samples, size_t row) {
  const size_t vocab = samples.distribution.size() / samples.tokens.size();
  return std::span(samples.distribution).subspan(row * vocab, vocab);
}

}  // namespace

void HiddenGuesses::ask(const Lane& lane, const Questions& questions, std::vector<SampleRow>& rows) {
  const Generation& generation = lane.generation();
  places_.assign(questions.places.begin(), questions.places.end());
  first_ = rows.size();
  temperature_ = generation.chain.temperature;
  mask_token_ = generation.mask_token;
  noise_ = {.seed = generation.seed,
            .stream = generation.stream,
            .purpose = NoisePurpose::kMask,
            .draw = static_cast<uint32_t>(questions.step)};
  drawn_rows_.clear();
  plain_rows_.clear();
  const LogitsChain plain{.guidance = generation.chain.guidance, .temperature = 0.0f};
  for (size_t i = 0; i < places_.size(); ++i) {
    const OutputPlace place = lane.place(places_[i], questions.done);
    const LogitsRows logits = lane.logits_rows(questions.wanted[i]);
    drawn_rows_.push_back(make_sample_row(generation.chain, place, logits));
    plain_rows_.push_back(make_sample_row(plain, place, logits));
    drawn_rows_.back().draw = plain_rows_.back().draw = static_cast<uint32_t>(questions.step);
  }
  rows.insert(rows.end(), drawn_rows_.begin(), drawn_rows_.end());
  if (temperature_ > 0.0f) rows.insert(rows.end(), plain_rows_.begin(), plain_rows_.end());
}

std::vector<int32_t> HiddenGuesses::tokens(const Samples& samples) const {
  const auto first = samples.tokens.begin() + static_cast<std::ptrdiff_t>(first_);
  return {first, first + std::ssize(places_)};
}

std::vector<float> HiddenGuesses::certainties(const Samples& samples, Certainty certainty,
                                              std::span<const int32_t> chosen) const {
  std::vector<float> values;
  for (size_t i = 0; i < places_.size(); ++i) {
    const size_t plain = first_plain() + i;
    switch (certainty) {
      case Certainty::kProbability:
        values.push_back(chosen.empty() ? probability(samples, i)
                                        : distribution(samples, plain)[static_cast<size_t>(chosen[i])]);
        break;
      case Certainty::kMargin:
        values.push_back(samples.top_probability[2 * plain] - samples.top_probability[2 * plain + 1]);
        break;
      case Certainty::kEntropy:
        values.push_back(samples.entropy[plain]);
        break;
      case Certainty::kRandom: {
        NoiseKey key = noise_;
        key.position = static_cast<uint32_t>(places_[i]);
        values.push_back(uniform(key, 0));
        break;
      }
    }
  }
  return values;
}

// The guess's probability in the plain distribution. It is drawn from one at another temperature, in which
// its ratio to the likeliest token is the plain ratio to the power of 1 / temperature.
float HiddenGuesses::probability(const Samples& samples, size_t place) const {
  const size_t guess = first_ + place, plain = first_plain() + place;
  if (guess == plain || samples.tokens[guess] == samples.tokens[plain]) return samples.probability[plain];
  const float ratio = samples.probability[guess] / samples.top_probability[2 * guess];
  return samples.probability[plain] * std::pow(ratio, temperature_);
}

int32_t HiddenGuesses::likeliest_other(Session& session, size_t place) const {
  const std::vector<int32_t> top = session.sample({&plain_rows_[place], 1}, {}, {.top = 2}).top_tokens;
  return top[0] == mask_token_ ? top[1] : top[0];
}

std::span<const float> HiddenGuesses::drawn_distribution(const Samples& samples, size_t place) const {
  return distribution(samples, first_ + place);
}

std::span<const float> HiddenGuesses::plain_distribution(const Samples& samples, size_t place) const {
  return distribution(samples, first_plain() + place);
}

SampleWants HiddenGuesses::wants(std::span<const Generation> generations, Certainty certainty) {
  const bool is_sampled = std::ranges::any_of(
      generations, [](const Generation& generation) { return generation.chain.temperature > 0.0f; });
  const bool is_ratio = is_sampled && certainty == Certainty::kProbability;
  const bool is_constrained = std::ranges::any_of(
      generations, [](const Generation& generation) { return generation.constraint != nullptr; });
  return {.certainty = true,
          .distribution = is_constrained,
          .top = certainty == Certainty::kMargin || is_ratio ? 2 : 0};
}

void GrowingMethod::check(const ModelTraits& traits, std::span<const Generation> generations) const {
  const auto refuse = [&](const std::string& fault) {
    throw Error("--decoder " + std::string(decoder) + ": " + fault, ErrorKind::kUsage);
  };
  const std::string model = "model " + traits.family, units(unit);
  check_generations(generations);
  if (traits.logit_shift != 1 || std::ranges::count(traits.masks, mask) == 0)
    refuse(model + " predicts no " + units);
  for (const Generation& generation : generations) {
    if (generation.mask_token < 0) refuse(model + " has no mask token");
    if (generation.mask_block < 1) refuse(model + " has no " + units);
    const auto rows = std::ssize(generation.prompt.rows);
    if (const int64_t places = rows + generation.max_tokens; places > traits.max_position) {
      refuse("prompt and output have " + std::to_string(places) + " places, more than the model's " +
             std::to_string(traits.max_position));
    }
    if (generation.unconditional) refuse("knows no guidance");
    if (generation.chain.repetition_penalty != 1.0f) refuse("knows no repetition penalty");
    if (!generation.prompt.embeddings.empty()) refuse("a prompt is tokens");
    if (std::ranges::count(generation.prompt.rows, generation.mask_token, &StepRow::token) > 0)
      refuse("the prompt holds the mask");
    if (!generation.given.empty() || (generation.first_index >= 0 && generation.first_index != rows))
      refuse("an output begins behind its prompt, and none of it is given");
  }
}

}  // namespace volley
