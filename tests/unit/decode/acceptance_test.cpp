#include "core/decode/acceptance.h"

#include <gtest/gtest.h>

#include <cmath>

namespace volley::test {
namespace {

// Hands out recorded numbers.
class Replay : public UniformSource {
 public:
  explicit Replay(std::vector<float> numbers) : numbers_(std::move(numbers)) {}
  float next(const OutputPlace&, int64_t, int64_t) override { return numbers_.at(used++); }
  size_t used = 0;

 private:
  std::vector<float> numbers_;
};

TEST(Acceptance, CoupledWalksToTheTargetsOwnTokens) {
  // root -> 5 (node 0) -> 7 (node 2); root -> 6 (node 1) -> 7 (node 3)
  DraftTree draft;
  draft.add(-1, 5);
  draft.add(-1, 6);
  draft.add(0, 7);
  draft.add(1, 7);
  const std::vector<int32_t> sampled{6, 1, 7, 2, 3};  // root, nodes 0..3
  const Decision decision = accept_coupled(draft, {.sampled = sampled});
  EXPECT_EQ(decision.accepted, (std::vector<int32_t>{1, 3}));
  EXPECT_EQ(decision.next_token, 3);
  const std::vector<int32_t> other{4, 1, 7, 2, 3};
  EXPECT_TRUE(accept_coupled(draft, {.sampled = other}).accepted.empty());
  EXPECT_EQ(accept_coupled(draft, {.sampled = other}).next_token, 4);
}

TEST(Acceptance, RejectionFollowsTheRatio) {
  const DraftTree draft = DraftTree::chain(std::vector<int32_t>{1, 2});
  const std::vector<float> p{0.2f, 0.5f, 0.3f, /**/ 0.1f, 0.1f, 0.8f, /**/ 1.0f, 0.0f, 0.0f};
  const std::vector<int32_t> sampled{0, 0, 0};
  const TargetView target{.sampled = sampled, .distribution = p, .vocab_size = 3};
  Replay both({0.49f, 0.79f});
  EXPECT_EQ(accept_rejection(draft, target, {}, both).accepted, (std::vector<int32_t>{0, 1}));
  Replay second_fails({0.49f, 0.81f});
  const Decision decision = accept_rejection(draft, target, {}, second_fails);
  EXPECT_EQ(decision.accepted, (std::vector<int32_t>{0}));
  EXPECT_NE(decision.next_token, 2) << "a refused token was drawn from the residual";
  Replay first_fails({0.51f});
  EXPECT_TRUE(accept_rejection(draft, target, {}, first_fails).accepted.empty());
  EXPECT_EQ(first_fails.used, 1u);
}

// Rounding may leave a token that is sure a little less than one: where it is refused all the same, nothing
// else can come.
TEST(Acceptance, ATokenWithoutAlternativesComesThoughItWasRefused) {
  const DraftTree draft = DraftTree::chain(std::vector<int32_t>{2});
  const float nearly = std::nextafter(1.0f, 0.0f);
  const std::vector<float> p{0.0f, 0.0f, nearly, /**/ 1.0f, 0.0f, 0.0f};
  const std::vector<int32_t> sampled{2, 0};
  Replay refused({nearly});
  const Decision decision =
      accept_rejection(draft, {.sampled = sampled, .distribution = p, .vocab_size = 3}, {}, refused);
  EXPECT_TRUE(decision.accepted.empty());
  EXPECT_EQ(decision.next_token, 2);
}

TEST(Acceptance, SiblingsAreTriedAgainstTheReducedTarget) {
  DraftTree draft;
  draft.add(-1, 0);
  draft.add(-1, 1);
  const std::vector<float> p{0.5f, 0.25f, 0.25f, /**/ 1.0f, 0.0f, 0.0f, /**/ 0.0f, 0.0f, 1.0f};
  const std::vector<int32_t> sampled{0, 0, 2};
  // After token 0 is refused token 1 has probability 1/2.
  Replay accepted({0.6f, 0.49f}), refused({0.6f, 0.51f});
  const TargetView target{.sampled = sampled, .distribution = p, .vocab_size = 3};
  EXPECT_EQ(accept_rejection(draft, target, {}, accepted).accepted, (std::vector<int32_t>{1}));
  const Decision decision = accept_rejection(draft, target, {}, refused);
  EXPECT_TRUE(decision.accepted.empty());
  EXPECT_EQ(decision.next_token, 2);
}

// By hand: p = (0.8, 0.2) has entropy 0.5004, exp(-0.5004) = 0.6063.
TEST(Acceptance, TypicalTokensAreLikelyEnoughForTheEntropy) {
  const DraftTree draft = DraftTree::chain(std::vector<int32_t>{1});
  const std::vector<float> p{0.8f, 0.2f, /**/ 0.5f, 0.5f};
  const std::vector<float> entropy{0.5004f, 0.6931f};
  const std::vector<int32_t> sampled{0, 1};
  const TargetView target{.sampled = sampled, .distribution = p, .entropy = entropy, .vocab_size = 2};
  const auto accepts = [&](float epsilon, float alpha) {
    const Decision decision = accept_typical(draft, target, {.epsilon = epsilon, .alpha = alpha});
    EXPECT_EQ(decision.next_token, decision.accepted.empty() ? 0 : 1);
    return !decision.accepted.empty();
  };
  EXPECT_TRUE(accepts(0.3f, 0.09f));    // 0.2 > 0.0546
  EXPECT_TRUE(accepts(0.3f, 0.329f));   // 0.2 > 0.1995
  EXPECT_FALSE(accepts(0.3f, 0.331f));  // 0.2 < 0.2007
  EXPECT_TRUE(accepts(0.19f, 1.0f));    // the smaller of the two counts
  EXPECT_FALSE(accepts(0.21f, 1.0f));
  EXPECT_FALSE(accepts(0.2f, 1.0f)) << "more than, not as much as";
  const std::vector<float> none{1.0f, 0.0f, /**/ 0.5f, 0.5f};
  const TargetView sure{.sampled = sampled, .distribution = none, .entropy = entropy, .vocab_size = 2};
  EXPECT_TRUE(accept_typical(draft, sure, {.epsilon = 0.0f, .alpha = 0.0f}).accepted.empty())
      << "what cannot come is never typical";
}

// Three branches: 0-0 of probability 0.4 * 0.3, 1-1 of 0.3 * 0.5 and 2-1-0, whose second token is not
// typical.
TEST(Acceptance, OfTypicalPathsTheLongestThenTheLikeliestIsTaken) {
  DraftTree draft;
  const int32_t a = draft.add(-1, 0), b = draft.add(-1, 1), c = draft.add(-1, 2);
  draft.add(a, 0);
  const int32_t bb = draft.add(b, 1);
  const int32_t cc = draft.add(c, 1);
  draft.add(cc, 0);
  const std::vector<float> p{
      0.4f,  0.3f,  0.3f,   // root
      0.3f,  0.3f,  0.4f,   // a
      0.25f, 0.5f,  0.25f,  // b
      0.9f,  0.05f, 0.05f,  // c
      1.0f,  0.0f,  0.0f,   // aa
      1.0f,  0.0f,  0.0f,   // bb
      1.0f,  0.0f,  0.0f,   // cc
      1.0f,  0.0f,  0.0f,   // ccc
  };
  const std::vector<float> entropy(8, 0.0f);
  const std::vector<int32_t> sampled{10, 11, 12, 13, 14, 15, 16, 17};
  const TargetView target{.sampled = sampled, .distribution = p, .entropy = entropy, .vocab_size = 3};
  Decision decision = accept_typical(draft, target, {.epsilon = 0.1f, .alpha = 1.0f});
  EXPECT_EQ(decision.accepted, (std::vector<int32_t>{b, bb}));
  EXPECT_EQ(decision.next_token, 15);
  // With a lower threshold the longest path wins, unlikely as it is.
  decision = accept_typical(draft, target, {.epsilon = 0.01f, .alpha = 1.0f});
  EXPECT_EQ(decision.accepted, (std::vector<int32_t>{c, cc, 6}));
  EXPECT_EQ(decision.next_token, 17);
  // With a higher one only the likeliest first token is left; then nothing.
  decision = accept_typical(draft, target, {.epsilon = 0.35f, .alpha = 1.0f});
  EXPECT_EQ(decision.accepted, (std::vector<int32_t>{a}));
  EXPECT_EQ(decision.next_token, 11);
  decision = accept_typical(draft, target, {.epsilon = 0.45f, .alpha = 1.0f});
  EXPECT_TRUE(decision.accepted.empty());
  EXPECT_EQ(decision.next_token, 10);
}

TEST(Acceptance, NoiseUniformsBelongToSeedPositionAndAttempt) {
  NoiseUniforms uniforms;
  const OutputPlace place{.seed = 3, .stream = 1};
  const float number = uniforms.next(place, 7, 0);
  EXPECT_EQ(uniforms.next(place, 7, 0), number);
  EXPECT_NE(uniforms.next(place, 8, 0), number);
  EXPECT_NE(uniforms.next(place, 7, 1), number);
  EXPECT_NE(uniforms.next({.seed = 4, .stream = 1}, 7, 0), number);
  EXPECT_NE(uniforms.next({.seed = 3, .stream = 2}, 7, 0), number);
}

}  // namespace
}  // namespace volley::test
