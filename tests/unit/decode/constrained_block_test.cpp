// DINGO's dynamic program against trying everything.
#include "core/decode/constrained_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "core/base/error.h"
#include "core/base/noise.h"
#include "core/decode/constrained_guess.h"
#include "tests/support/table_constraint.h"

namespace volley::test {
namespace {

using State = ConstrainedBlock::AutomatonState;
using End = ConstrainedBlock::End;

constexpr int64_t kVocab = 6;
constexpr double kImpossible = -1e9;

struct Case {
  std::shared_ptr<TableConstraint> constraint;
  std::vector<int32_t> stop_tokens;
  std::vector<float> distribution;
  std::vector<char> hidden;
  End end = End::kOpen;

  size_t places() const { return hidden.size(); }
};

// Follows one token; a broken one has no state and has not ended.
State follow(const Case& one, State state, int32_t token) {
  const bool is_stop = std::ranges::count(one.stop_tokens, token) > 0;
  if (state.has_ended) return {.has_ended = is_stop};
  if (state.state == Constraint::kBroken) return {};
  if (is_stop) return {.has_ended = one.constraint->accepts(state.state)};
  return {.state = one.constraint->next(state.state, token)};
}

bool goes_on(const Case& one, State state) {
  for (int32_t token = 0; token < kVocab; ++token) {
    if (follow(one, state, token) != State{}) return true;
  }
  return false;
}

// The best of all token strings.
double best_of_all(const Case& one, State state, size_t i) {
  if (state == State{}) return kImpossible;
  if (i == one.places()) {
    const bool is_whole = state.has_ended || one.constraint->accepts(state.state);
    return is_whole || (one.end == End::kOpen && goes_on(one, state)) ? 0.0 : kImpossible;
  }
  double best = kImpossible;
  for (int32_t token = 0; token < kVocab; ++token) {
    const float p = one.distribution[i * kVocab + static_cast<size_t>(token)];
    const double here = one.hidden[i] != 0 ? 0.0 : std::log(static_cast<double>(std::max(p, 1e-30f)));
    best = std::max(best, here + best_of_all(one, follow(one, state, token), i + 1));
  }
  return best;
}

// What the chosen tokens are worth, hidden places filled in the best way.
double value_of(const Case& one, State state, std::span<const int32_t> tokens, size_t i) {
  if (state == State{}) return kImpossible;
  if (i == one.places()) {
    const bool is_whole = state.has_ended || one.constraint->accepts(state.state);
    return is_whole || (one.end == End::kOpen && goes_on(one, state)) ? 0.0 : kImpossible;
  }
  if (tokens[i] >= 0) {
    const float p = one.distribution[i * kVocab + static_cast<size_t>(tokens[i])];
    return std::log(static_cast<double>(std::max(p, 1e-30f))) +
           value_of(one, follow(one, state, tokens[i]), tokens, i + 1);
  }
  double best = kImpossible;
  for (int32_t token = 0; token < kVocab; ++token)
    best = std::max(best, value_of(one, follow(one, state, token), tokens, i + 1));
  return best;
}

TEST(ConstrainedBlockTest, EqualsTryingEverything) {
  int64_t found = 0, impossible = 0, differs = 0, ended = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    TestRandom random(seed);
    Case one{.constraint = std::make_shared<TableConstraint>(),
             .end = seed % 2 == 0 ? End::kOpen : End::kWhole};
    one.constraint->vocab = kVocab;
    const int64_t states = 2 + random.below(4);
    for (Constraint::State state = 0; state < states; ++state) {
      if (random.uniform() < 0.3f) one.constraint->accepting.push_back(state);
      for (int32_t token = 0; token < kVocab; ++token) {
        if (random.uniform() < 0.35f)
          one.constraint->transitions[{state, token}] = static_cast<Constraint::State>(random.below(states));
      }
    }
    if (seed % 3 > 0) one.stop_tokens = {4, 2};
    one.hidden.resize(static_cast<size_t>(1 + random.below(4)));
    for (char& hidden : one.hidden) hidden = static_cast<char>(random.uniform() < 0.3f);
    for (size_t i = 0; i < one.places() * kVocab; ++i)
      one.distribution.push_back(random.uniform() < 0.1f ? 0.0f : random.uniform());

    ConstrainedBlock block(*one.constraint, one.stop_tokens, kVocab);
    bool hidden[4] = {};
    std::copy(one.hidden.begin(), one.hidden.end(), hidden);
    const ConstrainedBlock::Request request{.begin = block.begin(),
                                            .distribution = one.distribution,
                                            .hidden = std::span(hidden).first(one.places()),
                                            .end = one.end};
    const auto choice = block.solve(request);
    const double best = best_of_all(one, block.begin(), 0);
    ASSERT_EQ(choice.has_value(), best > kImpossible / 2) << "seed " << seed;
    if (!choice) {
      ++impossible;
      continue;
    }
    ++found;
    ended += choice->end.has_ended;
    ASSERT_NEAR(choice->log_probability, best, 1e-9) << "seed " << seed;
    ASSERT_NEAR(value_of(one, block.begin(), choice->tokens, 0), best, 1e-9) << "seed " << seed;
    for (size_t i = 0; i < one.places(); ++i) {
      ASSERT_EQ(choice->tokens[i] < 0, one.hidden[i] != 0);
      const float* row = one.distribution.data() + i * kVocab;
      differs += !hidden[i] && choice->tokens[i] != std::max_element(row, row + kVocab) - row;
    }
    const auto again = block.solve(request);  // by what it knows now
    ASSERT_EQ(again->tokens, choice->tokens);
  }
  EXPECT_GT(found, 150);
  EXPECT_GT(impossible, 20);
  EXPECT_GT(differs, 100) << "the likeliest tokens kept the constraint by themselves";
  EXPECT_GT(ended, 10);
}

// Fixed places stay, and what stands behind the block can always be filled; greedy and with noise.
TEST(ConstrainedBlockTest, GuessesAreTheBestOfAllThatCanBeFinished) {
  constexpr int32_t kMask = 5;
  int64_t found = 0, impossible = 0, differs = 0;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    TestRandom random(seed + 5000);
    Case one{.constraint = TableConstraint::random(seed, 3 + random.below(3), 0.2), .end = End::kWhole};
    one.constraint->vocab = kVocab;
    if (seed % 3 > 0) one.stop_tokens = {4};
    std::vector<int32_t> tokens(static_cast<size_t>(1 + random.below(3)), kMask);
    const int64_t behind = random.below(3);
    if (tokens.size() > 1 && random.uniform() < 0.6f)
      tokens[static_cast<size_t>(random.below(2))] = static_cast<int32_t>(random.below(5));
    const float temperature = seed % 2 == 0 ? 0.0f : 1.0f;
    std::vector<float> plain, drawn;
    for (size_t i = 0; i < tokens.size() * kVocab; ++i) {
      plain.push_back(0.01f + random.uniform());
      drawn.push_back(random.uniform() < 0.3f ? 0.0f : 0.01f + random.uniform());
    }
    std::vector<HiddenPlace> hidden;
    const auto row_of = [&](std::span<const float> all, size_t i) {
      return all.subspan(i * kVocab, static_cast<size_t>(kVocab));
    };
    // What a token is worth at a place, in logarithms.
    const auto value = [&](size_t i, int32_t token) {
      const auto t = static_cast<size_t>(token);
      if (tokens[i] != kMask) return tokens[i] == token ? 0.0 : kImpossible;
      if (token == kMask) return kImpossible;
      if (temperature == 0.0f) return std::log(static_cast<double>(row_of(plain, i)[t]));
      if (row_of(drawn, i)[t] == 0.0f)
        return std::log(1e-20) + std::log(static_cast<double>(row_of(plain, i)[t]));
      const NoiseKey key{.seed = seed, .position = static_cast<uint32_t>(i)};
      return std::log(static_cast<double>(row_of(drawn, i)[t])) +
             static_cast<double>(gumbel(key, static_cast<uint32_t>(token)));
    };
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] != kMask) continue;
      hidden.push_back(
          {.row = {.temperature = temperature, .seed = seed, .position = static_cast<uint32_t>(i)},
           .drawn = row_of(drawn, i),
           .plain = row_of(plain, i)});
    }
    const size_t places = tokens.size() + static_cast<size_t>(behind);
    const std::function<double(State, size_t, std::span<const int32_t>)> best_from =
        [&](State state, size_t i, std::span<const int32_t> given) {
          if (state == State{}) return kImpossible;
          if (i == places) return state.has_ended || one.constraint->accepts(state.state) ? 0.0 : kImpossible;
          double best = kImpossible;
          for (int32_t token = 0; token < kMask; ++token) {
            if (i < given.size() && given[i] != token) continue;
            best = std::max(best, (i < tokens.size() ? value(i, token) : 0.0) +
                                      best_from(follow(one, state, token), i + 1, given));
          }
          return best;
        };
    ConstrainedBlock block(*one.constraint, one.stop_tokens, kVocab, kMask);
    const double best = best_from(block.begin(), 0, {});
    const auto guess = [&] {
      return constrained_guesses(block, {.begin = block.begin(), .tokens = tokens, .behind = behind}, hidden,
                                 kMask);
    };
    if (hidden.empty()) continue;
    if (best < kImpossible / 2) {
      ++impossible;
      EXPECT_THROW(guess(), Error);
      continue;
    }
    ++found;
    std::vector<int32_t> chosen = tokens;
    size_t h = 0;
    const auto guesses = guess();
    for (size_t i = 0; i < chosen.size(); ++i) {
      if (chosen[i] != kMask) continue;
      chosen[i] = guesses[h++];
      int32_t likeliest = 0;
      for (int32_t token = 1; token < kMask; ++token)
        if (value(i, token) > value(i, likeliest)) likeliest = token;
      differs += chosen[i] != likeliest;
    }
    ASSERT_NEAR(best_from(block.begin(), 0, chosen), best, 1e-4) << "seed " << seed;
  }
  EXPECT_GT(found, 100);
  EXPECT_GT(impossible, 20);
  EXPECT_GT(differs, 50);
}

// A block goes on where the one before ended.
TEST(ConstrainedBlockTest, BlocksFollowEachOther) {
  TableConstraint constraint;  // 0 1 2 3, then a stop token
  constraint.vocab = kVocab;
  for (Constraint::State state = 0; state < 4; ++state) constraint.transitions[{state, state}] = state + 1;
  constraint.accepting = {4};
  const std::vector<int32_t> stop_tokens{5};
  ConstrainedBlock block(constraint, stop_tokens, kVocab);
  const std::vector<float> even(3 * kVocab, 1.0f / kVocab);
  const auto first = block.solve({.begin = block.begin(), .distribution = even});
  EXPECT_EQ(first->tokens, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(first->end, (State{.state = 3}));
  const auto second = block.solve({.begin = first->end, .distribution = even, .end = End::kWhole});
  EXPECT_EQ(second->tokens, (std::vector<int32_t>{3, 5, 5}));
  EXPECT_EQ(second->end, (State{.has_ended = true}));
  const auto third = block.solve({.begin = second->end, .distribution = even});
  EXPECT_EQ(third->tokens, (std::vector<int32_t>{5, 5, 5}));
  EXPECT_FALSE(block.solve({.begin = block.begin(), .distribution = even, .end = End::kWhole}).has_value());
}

}  // namespace
}  // namespace volley::test
