#include "core/decode/head_guesses.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/base/noise.h"
#include "tests/support/table_constraint.h"

namespace volley::test {
namespace {

constexpr OutputPlace kPlace{.seed = 5, .stream = 2, .position = 7};

std::vector<int32_t> tokens_of(const std::vector<HeadGuess>& guesses) {
  std::vector<int32_t> tokens;
  for (const HeadGuess& guess : guesses) tokens.push_back(guess.token);
  return tokens;
}

float noise_of(int32_t token) {
  return gumbel({.seed = 5, .stream = 2, .purpose = NoisePurpose::kToken, .position = 7},
                static_cast<uint32_t>(token));
}

TEST(HeadGuesses, GreedyGuessesFollowTheLogits) {
  const DraftHeadsTraits heads{.vocab_size = 4};
  const LogitsChain chain{.temperature = 0.0f};
  const std::vector<float> logits{1.0f, 3.0f, 3.0f, 0.0f};
  const auto guesses = best_guesses(heads, logits, {.chain = chain, .output = kPlace}, 3);
  EXPECT_EQ(tokens_of(guesses), (std::vector<int32_t>{1, 2, 0})) << "ties go to the lowest id";
  const double total = 2.0 + std::exp(-2.0) + std::exp(-3.0);
  EXPECT_NEAR(guesses[0].probability, 1.0 / total, 1e-6);
  EXPECT_NEAR(guesses[2].probability, std::exp(-2.0) / total, 1e-6);
  EXPECT_EQ(best_guesses(heads, logits, {.chain = chain, .output = kPlace}, 9).size(), 4u);
}

// As many that most are summed by vectors; from the likeliest to what adds nothing.
TEST(HeadGuesses, ProbabilitiesAreThoseOfASoftmaxOverManyCandidates) {
  constexpr int64_t kCandidates = 64 * 5 + 7;
  const DraftHeadsTraits heads{.vocab_size = kCandidates};
  const LogitsChain chain{.temperature = 0.0f};
  for (const double slope : {0.001, 0.05, 0.4}) {  // down to -131
    std::vector<float> logits;
    double total = 0.0;
    for (int64_t i = 0; i < kCandidates; ++i) {
      logits.push_back(static_cast<float>(2.0 - slope * static_cast<double>(i * 100 % kCandidates)));
      total += std::exp(static_cast<double>(logits.back()) - 2.0);
    }
    logits[9] = -INFINITY;
    total -= std::exp(-slope * static_cast<double>(900 % kCandidates));
    const auto guesses = best_guesses(heads, logits, {.chain = chain, .output = kPlace}, 2);
    ASSERT_EQ(guesses[0].token, 0);
    EXPECT_NEAR(guesses[0].probability * total, 1.0, 1e-6) << slope;
  }
}

// The noise is the target's own at this place, by the target's token ids.
TEST(HeadGuesses, SampledGuessesFollowLogitsAndTheTargetsNoise) {
  for (const bool is_reduced : {false, true}) {
    const std::vector<int32_t> ids{2, 3, 11};
    const DraftHeadsTraits heads{.vocab_size = is_reduced ? 12 : 3,
                                 .target_ids = is_reduced ? ids : std::vector<int32_t>()};
    const LogitsChain chain{.temperature = 0.5f};
    const std::vector<float> logits{0.2f, -0.1f, 0.3f};
    std::vector<std::pair<double, int32_t>> scores;
    double total = 0.0;
    for (int64_t i = 0; i < 3; ++i) {
      const int32_t token = is_reduced ? ids[static_cast<size_t>(i)] : static_cast<int32_t>(i);
      scores.emplace_back(-(2.0 * logits[static_cast<size_t>(i)] + noise_of(token)), token);
      total += std::exp(-scores.back().first);
    }
    std::ranges::sort(scores);
    const auto guesses = best_guesses(heads, logits, {.chain = chain, .output = kPlace}, 3);
    ASSERT_EQ(guesses.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(guesses[i].token, scores[i].second);
      EXPECT_NEAR(guesses[i].probability, std::exp(-scores[i].first) / total, 1e-5);
    }
    const auto plain =
        best_guesses(heads, logits, {.chain = chain, .output = kPlace, .noise = GuessNoise::kNone}, 3);
    EXPECT_EQ(tokens_of(plain),
              is_reduced ? (std::vector<int32_t>{11, 2, 3}) : (std::vector<int32_t>{2, 0, 1}));
  }
}

TEST(HeadGuesses, FiltersAndPenaltyAreTheChains) {
  const std::vector<int32_t> ids{1, 4, 5, 6};
  const DraftHeadsTraits heads{.vocab_size = 8, .target_ids = ids};
  const std::vector<float> logits{4.0f, 3.0f, 2.0f, -1.0f};
  const LogitsChain two{.top_k = 2};
  EXPECT_EQ(best_guesses(heads, logits, {.chain = two, .output = kPlace}, 4).size(), 2u);
  // 4 is halved to 2, -1 doubled to -2; tokens that are no candidates count for nothing.
  const LogitsChain penalty{.temperature = 0.0f, .repetition_penalty = 2.0f};
  const std::vector<int32_t> path{1, 6, 7, 0, 6};
  const auto guesses = best_guesses(heads, logits, {.chain = penalty, .output = kPlace, .path = path}, 4);
  EXPECT_EQ(tokens_of(guesses), (std::vector<int32_t>{4, 1, 5, 6}));
  EXPECT_NEAR(guesses[3].probability / guesses[0].probability, std::exp(-5.0), 1e-6);
}

TEST(HeadGuesses, WhatTheConstraintForbidsIsNotGuessed) {
  const DraftHeadsTraits heads{.vocab_size = 16};
  const LogitsChain chain{.temperature = 0.0f};
  const std::vector<float> logits(16, 1.0f);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const auto constraint = TableConstraint::random(seed);
    const ConstraintCursor cursor(constraint.get(), {});
    std::vector<int32_t> allowed;
    for (int32_t token = 0; token < 16; ++token) {
      if (cursor.allows(token)) allowed.push_back(token);
    }
    EXPECT_EQ(
        tokens_of(best_guesses(heads, logits, {.chain = chain, .output = kPlace, .cursor = cursor}, 16)),
        allowed);
    EXPECT_TRUE(
        best_guesses(heads, logits, {.chain = chain, .output = kPlace, .cursor = cursor.after(-1)}, 16)
            .empty())
        << "behind what is broken";
  }
}

TEST(HeadGuesses, LogitsThatAreNoNumbersAreNotGuessed) {
  const DraftHeadsTraits heads{.vocab_size = 3};
  const LogitsChain chain{.temperature = 0.0f};
  EXPECT_EQ(tokens_of(best_guesses(heads, std::vector<float>{NAN, 1.0f, INFINITY},
                                   {.chain = chain, .output = kPlace}, 3)),
            (std::vector<int32_t>{1}));
  EXPECT_TRUE(
      best_guesses(heads, std::vector<float>{NAN, NAN, NAN}, {.chain = chain, .output = kPlace}, 3).empty());
}

}  // namespace
}  // namespace volley::test
