// Block and sequential diffusion under a constraint: every output keeps it, whatever the options, and one
// that forbids nothing changes nothing.
#include <array>
#include <map>
#include <vector>

#include "core/base/error.h"
#include "tests/property/constrained_outputs.h"
#include "tests/property/hidden_models.h"
#include "tests/support/sanitized.h"

namespace volley::test {
namespace {

constexpr int32_t kEnd = 14;
constexpr int32_t kSmallMask = 15;
constexpr int64_t kBlock = 4;

class ConstrainedGrowing : public testing::TestWithParam<std::string> {
 protected:
  struct Method {
    std::string name;
    std::unique_ptr<StepModel> small;  // 16 tokens
    std::unique_ptr<StepModel> large;  // 64
  };

  ConstrainedGrowing() {
    for (const auto& [name, kind] :
         {std::pair{"block-diffusion", text::ModelKind::kBlockDiffusion},
          std::pair{"sequential-diffusion", text::ModelKind::kSequentialDiffusion}}) {
      const auto model = [&, kind = kind](int64_t vocab, int32_t mask, float spread) {
        return make_toy_llama(
            *backend_, 17,
            {.vocab = vocab, .spread = spread, .mask_token = mask, .kind = kind, .mask_block = kBlock});
      };
      methods_.push_back({name, model(16, kSmallMask, 0.4f), model(64, kMask, 0.55f)});
    }
  }

  // Options of a method, any of them.
  static std::string options(const std::string& method, TestRandom& random) {
    const auto one_of = [&](const auto& words) {
      return std::string(words[static_cast<size_t>(random.below(std::ssize(words)))]);
    };
    if (method == "block-diffusion") {
      return "block-diffusion:threshold=" + one_of(std::array{"off", "0.12", "0"}) +
             ",cache=" + one_of(std::array{"off", "dual"}) +
             ",sub_block=" + one_of(std::array{"1", "2", "3", "4"});
    }
    return "sequential-diffusion:threshold=" + one_of(std::array{"0.9", "0.12", "0"}) +
           ",confidence=" + one_of(std::array{"probability", "entropy"});
  }

  static Generation generation(const StepModel& model, uint64_t seed, int64_t prompt, int64_t length,
                               float temperature, int32_t mask) {
    std::vector<int32_t> tokens = prompt_of(seed, prompt);
    for (int32_t& token : tokens) token %= kEnd;
    return {.prompt = token_prompt(model, tokens),
            .chain = {.temperature = temperature},
            .seed = seed,
            .max_tokens = length,
            .mask_token = mask,
            .mask_block = kBlock};
  }

  std::vector<GenerationOutput> run(const StepModel& model, const std::string& decoder,
                                    std::span<const Generation> generations) const {
    const auto method = make_decoder(parse_decoder_spec(decoder));
    Session::Options room{.sequences = std::ssize(generations)};
    for (const Generation& one : generations) room.entries = std::max(room.entries, method->entries(one));
    Session session(model, backend_, room);
    return method->decode(session, generations, {});
  }

  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::vector<Method> methods_;
};

TEST_P(ConstrainedGrowing, EveryOutputKeepsIt) {
  for (const Method& method : methods_) {
    int64_t kept = 0, impossible = 0, stopped = 0, full = 0, several = 0;
    for (uint64_t seed = 0; seed < (kSanitized ? 40 : 400); ++seed) {
      TestRandom random(seed);
      const auto table = TableConstraint::random(seed, 3 + random.below(8), seed % 2 == 0 ? 0.05 : 0.25);
      if (seed % 3 > 0) table->accepting = {static_cast<Constraint::State>(random.below(3))};
      const std::string decoder = options(method.name, random);
      Generation one = generation(*method.small, seed, 1 + random.below(10), 1 + random.below(20),
                                  random.uniform() < 0.5f ? 0.0f : 1.2f, kSmallMask);
      one.constraint = table;
      if (seed % 4 > 0) one.stop_tokens = {kEnd};
      if (random.uniform() < 0.3f) one.chain.top_k = 3;
      SCOPED_TRACE(decoder + ", seed " + std::to_string(seed) + ", length " + std::to_string(one.max_tokens));
      if (!is_possible(*table, one.stop_tokens, kSmallMask, one.max_tokens)) {
        ++impossible;
        EXPECT_THROW(run(*method.small, decoder, {&one, 1}), Error);
        continue;
      }
      const GenerationOutput output = run(*method.small, decoder, {&one, 1})[0];
      ASSERT_EQ(fault_of(one, *table, output), "");
      ++kept;
      stopped += output.tokens.back() == kEnd;
      full += std::ssize(output.tokens) == one.max_tokens;
      several += output.forwards < std::ssize(output.tokens);
    }
    EXPECT_GT(kept, impossible) << method.name;
    EXPECT_GT(impossible, 0) << method.name;
    EXPECT_GT(stopped, kept / 20) << method.name;
    EXPECT_GT(full, kept / 20) << method.name;
    EXPECT_GT(several, kept / 20) << method.name;
  }
}

// Without the mask among the guesses: where a model guesses it, the methods do what a constraint forbids.
TEST_P(ConstrainedGrowing, OneThatForbidsNothingChangesNothing) {
  for (const Method& method : methods_) {
    int64_t compared = 0;
    for (uint64_t seed = 0; seed < (kSanitized ? 8 : 60); ++seed) {
      TestRandom random(seed);
      const std::string decoder = options(method.name, random);
      const float temperature = std::array{0.0f, 0.8f, 1.5f}[static_cast<size_t>(random.below(3))];
      Generation one =
          generation(*method.large, seed, 1 + random.below(10), 1 + random.below(16), temperature, kMask);
      if (seed % 2 == 1) one.chain.top_p = 0.7f;
      const auto free = run(*method.large, decoder, {&one, 1})[0];
      one.constraint = anything(64);
      const auto kept = run(*method.large, decoder, {&one, 1})[0];
      if (kept.tokens == free.tokens && kept.forwards == free.forwards) ++compared;
    }
    // The mask is one of 64 tokens, and a run has up to 16 places.
    EXPECT_GT(compared, (kSanitized ? 8 : 60) * 3 / 4) << method.name;
  }
}

TEST_P(ConstrainedGrowing, BatchEqualsSingles) {
  const auto table = TableConstraint::random(5), other = TableConstraint::random(8);
  for (const Method& method : methods_) {
    for (uint64_t round = 0; round < (kSanitized ? 2 : 6); ++round) {
      TestRandom random(round);
      const std::string decoder = options(method.name, random);
      std::vector<Generation> generations;
      for (uint64_t seed = 0; seed < 6; ++seed) {
        generations.push_back(generation(*method.small, seed, 1 + static_cast<int64_t>(3 * seed), 14,
                                         seed % 2 == 0 ? 0.0f : 1.0f, kSmallMask));
        generations.back().stop_tokens = {kEnd};
        if (seed % 3 > 0) generations.back().constraint = seed == 4 ? other : table;
      }
      const auto together = run(*method.small, decoder, generations);
      for (size_t i = 0; i < generations.size(); ++i) {
        const auto alone = run(*method.small, decoder, {&generations[i], 1})[0];
        EXPECT_EQ(alone.tokens, together[i].tokens) << decoder << ", generation " << i;
        EXPECT_EQ(alone.forwards, together[i].forwards);
      }
    }
  }
}

TEST_P(ConstrainedGrowing, AnOutputEndsWhereNothingMayFollow) {
  for (const Method& method : methods_) {
    for (const int64_t prompt : {3, 4, 6}) {
      Generation one = generation(*method.small, 3, prompt, 12, 0.0f, kSmallMask);
      one.constraint = one_word(std::vector<int32_t>{1, 2, 3});
      one.stop_tokens = {kEnd};
      const auto output = run(*method.small, method.name, {&one, 1})[0];
      EXPECT_EQ(output.tokens, (std::vector<int32_t>{1, 2, 3})) << method.name;
      EXPECT_TRUE(output.is_complete);
      EXPECT_TRUE(output.is_whole);
    }
  }
}

TEST_P(ConstrainedGrowing, WhatNoOutputKeepsIsOneLine) {
  for (const Method& method : methods_) {
    Generation one = generation(*method.small, 3, 3, 4, 0.0f, kSmallMask);
    one.constraint = one_word(std::vector<int32_t>(5, 1));
    one.stop_tokens = {kEnd};
    try {
      run(*method.small, method.name, {&one, 1});
      FAIL() << method.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.what(),
                "--decoder " + method.name + ": constraint: needs at least 5 tokens, the output has 4");
    }
    one.max_tokens = 5;
    EXPECT_EQ(run(*method.small, method.name, {&one, 1})[0].tokens, std::vector<int32_t>(5, 1));
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, ConstrainedGrowing, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
