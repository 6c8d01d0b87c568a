#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/decode/lane.h"
#include "core/decode/unmasking.h"

namespace volley {

// What a model guesses at hidden places of one output in a step, and how sure it is of each guess: rows that
// ask Session::sample, and its answer read. Certainty is of the model's own distribution (temperature 1,
// nothing filtered), whatever a guess was drawn from.
class HiddenGuesses {
 public:
  struct Questions {
    std::span<const int32_t> places;  // in the output
    std::span<const int32_t> wanted;  // of each place: which wanted row of the lane's step predicts it
    int64_t done = 0;                 // places that are filled, as the guidance schedule counts them
    int64_t step = 0;                 // of the output: every step draws noise of its own
  };

  // Adds a row for each place, then, unless guesses are the likeliest tokens anyway, rows for the plain
  // distributions. `lane` was added to the step whose logits are sampled.
  void ask(const Lane& lane, const Questions& questions, std::vector<SampleRow>& rows);

  // At each place, of the samples that `rows` gave.
  std::vector<int32_t> tokens(const Samples& samples) const;
  // What `certainty` names, of each place. `chosen`: of these tokens in place of the guesses; needs
  // distributions.
  std::vector<float> certainties(const Samples& samples, Certainty certainty,
                                 std::span<const int32_t> chosen = {}) const;
  // The likeliest token of the place that is not the mask itself, by the session's last step.
  int32_t likeliest_other(Session& session, size_t place) const;

  int64_t size() const { return std::ssize(places_); }
  const SampleRow& row(size_t place) const { return drawn_rows_[place]; }
  // Distributions that a guess is drawn from, and the model's own; they must have been wanted.
  std::span<const float> drawn_distribution(const Samples& samples, size_t place) const;
  std::span<const float> plain_distribution(const Samples& samples, size_t place) const;

  // What `certainties` reads, for all of a batch, and distributions where one has a constraint.
  static SampleWants wants(std::span<const Generation> generations, Certainty certainty);

 private:
  size_t first_plain() const { return first_ + (temperature_ > 0.0f ? places_.size() : 0); }
  float probability(const Samples& samples, size_t place) const;

  std::vector<int32_t> places_;
  std::vector<SampleRow> drawn_rows_, plain_rows_;  // of each place
  size_t first_ = 0;                                // of its rows among all of the batch
  float temperature_ = 0.0f;
  int32_t mask_token_ = -1;
  NoiseKey noise_;  // of Certainty::kRandom, but for the place
};

// What a method takes whose model guesses the places behind an output by masks, so many (`unit`: "blocks",
// "windows") under a mask of that kind. Throws Error kUsage for a model of another kind, and for generations
// of what such methods do not know: guidance, embeddings, places of their own, masks in the prompt.
struct GrowingMethod {
  std::string_view decoder, unit;
  MaskKind mask = MaskKind::kCausal;

  void check(const ModelTraits& traits, std::span<const Generation> generations) const;
};

}  // namespace volley
