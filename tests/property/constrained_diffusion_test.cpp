// Masked diffusion under a constraint: every output keeps it, whatever the rules, caches and temperatures,
// and one that forbids nothing changes nothing.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/error.h"
#include "core/decode/decoder.h"
#include "core/decode/lane.h"
#include "tests/property/constrained_outputs.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

class ConstrainedDiffusion : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int32_t kMask = 15;
  static constexpr int32_t kStop = 14;
  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::unique_ptr<StepModel> model_ =
      make_toy_llama(*backend_, 17, {.vocab = 16, .spread = 0.4f, .mask_token = kMask});

  static Generation generation(const StepModel& model, uint64_t seed, int64_t length, float temperature,
                               int32_t mask = kMask) {
    std::vector<int32_t> prompt;
    for (uint64_t i = 0; i < 2 + seed % 5; ++i)
      prompt.push_back(static_cast<int32_t>((7 * seed + 3 * i) % 14));
    return {.prompt = token_prompt(model, prompt),
            .chain = {.temperature = temperature},
            .seed = seed,
            .max_tokens = length,
            .mask_token = mask};
  }

  std::vector<GenerationOutput> run(const StepModel& model, const std::string& options,
                                    std::span<const Generation> generations,
                                    Observer* observer = nullptr) const {
    Session session(model, backend_,
                    {.sequences = 2 * static_cast<int64_t>(generations.size()), .entries = 64});
    return make_decoder(parse_decoder_spec("diffusion:" + options))
        ->decode(session, generations, {.observer = observer});
  }
};

const std::vector<std::string> kRules{"steps=0",
                                      "threshold=0.12",
                                      "threshold=0",
                                      "factor=2.5",
                                      "remasking=random",
                                      "remasking=margin",
                                      "remasking=entropy,threshold=2.6",
                                      "threshold=0.2,second_forward=always"};

TEST_P(ConstrainedDiffusion, EveryOutputKeepsIt) {
  int64_t kept = 0, impossible = 0, stopped = 0, full = 0;
  for (uint64_t seed = 0; seed < (kSanitized ? 12 : 120); ++seed) {
    TestRandom random(seed);
    const auto table = TableConstraint::random(seed, 3 + random.below(8), seed % 2 == 0 ? 0.05 : 0.25);
    if (seed % 3 > 0) table->accepting = {static_cast<Constraint::State>(random.below(3))};
    for (const std::string& rule : kRules) {
      const int64_t block = std::array{1, 3, 8, 32}[static_cast<size_t>(random.below(4))];
      const char* cache = std::array{"off", "prefix", "dual"}[static_cast<size_t>(random.below(3))];
      const std::string options = rule + ",block_length=" + std::to_string(block) + ",cache=" + cache;
      Generation one = generation(*model_, seed, 1 + random.below(20), random.uniform() < 0.5f ? 0.0f : 1.2f);
      one.constraint = table;
      if (seed % 4 > 0) one.stop_tokens = {kStop};
      if (random.uniform() < 0.3f) one.chain.top_k = 3;
      if (random.uniform() < 0.2f) {
        one.unconditional = one.prompt;
        for (StepRow& row : one.unconditional->rows) row.token = kMask;
        one.chain.guidance.scale = 2.0f;
      }
      SCOPED_TRACE(options + ", seed " + std::to_string(seed) + ", length " + std::to_string(one.max_tokens));
      if (!is_possible(*table, one.stop_tokens, kMask, one.max_tokens)) {
        ++impossible;
        EXPECT_THROW(run(*model_, options, {&one, 1}), Error);
        continue;
      }
      const GenerationOutput output = run(*model_, options, {&one, 1})[0];
      ASSERT_EQ(fault_of(one, *table, output), "");
      ++kept;
      stopped += output.tokens.back() == kStop;
      full += std::ssize(output.tokens) == one.max_tokens;
    }
  }
  EXPECT_GT(kept, impossible);
  EXPECT_GT(impossible, 0);
  EXPECT_GT(stopped, kept / 20);
  EXPECT_GT(full, kept / 20);
}

// Two places a step, or all: where the mask is guessed, fewer are filled, and nothing is compared.
TEST_P(ConstrainedDiffusion, OneThatForbidsNothingChangesNothing) {
  class Recorder : public Observer {
   public:
    explicit Recorder(int64_t expected) : expected_(expected) {}
    void on_step(const StepEvent& event) override {
      guessed_mask = guessed_mask || event.accepted != expected_;
    }
    bool guessed_mask = false;

   private:
    int64_t expected_;
  };
  constexpr int32_t kLargeMask = 63;
  const auto model = make_toy_llama(*backend_, 17, {.vocab = 64, .spread = 0.4f, .mask_token = kLargeMask});
  const auto all = anything(64);
  int64_t compared = 0;
  for (const char* rule :
       {"steps=8", "steps=8,remasking=margin,cache=prefix", "steps=8,remasking=entropy,cache=dual",
        "steps=8,remasking=random", "threshold=0"}) {
    for (const float temperature : {0.0f, 0.8f, 1.5f}) {
      for (uint64_t seed = 0; seed < (kSanitized ? 2 : 8); ++seed) {
        Generation one = generation(*model, seed, 16, temperature, kLargeMask);
        if (seed % 2 == 1) one.chain.top_p = 0.7f;
        const std::string options = std::string(rule) + ",block_length=8";
        Recorder recorder(rule == std::string("threshold=0") ? 8 : 2);
        const auto free = run(*model, options, {&one, 1}, &recorder)[0];
        if (recorder.guessed_mask) continue;
        one.constraint = all;
        const auto kept = run(*model, options, {&one, 1})[0];
        EXPECT_EQ(kept.tokens, free.tokens) << options << ", " << temperature << ", seed " << seed;
        EXPECT_EQ(kept.forwards, free.forwards);
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, kSanitized ? 10 : 60);
}

TEST_P(ConstrainedDiffusion, BatchEqualsSingles) {
  const auto table = TableConstraint::random(5), other = TableConstraint::random(8);
  for (const char* cache : {"off", "prefix", "dual"}) {
    const std::string options = std::string("block_length=4,threshold=0.15,cache=") + cache;
    std::vector<Generation> generations;
    for (uint64_t seed = 0; seed < 6; ++seed) {
      generations.push_back(generation(*model_, seed, 14, seed % 2 == 0 ? 0.0f : 1.0f));
      generations.back().stop_tokens = {kStop};
      if (seed % 3 > 0) generations.back().constraint = seed == 4 ? other : table;
    }
    const auto together = run(*model_, options, generations);
    for (size_t i = 0; i < generations.size(); ++i) {
      const auto alone = run(*model_, options, {&generations[i], 1})[0];
      EXPECT_EQ(alone.tokens, together[i].tokens) << cache << ", generation " << i;
      EXPECT_EQ(alone.forwards, together[i].forwards);
    }
  }
}

TEST_P(ConstrainedDiffusion, AnOutputEndsWhereNothingMayFollow) {
  Generation one = generation(*model_, 3, 12, 0.0f);
  one.constraint = one_word(std::vector<int32_t>{1, 2, 3});
  one.stop_tokens = {kStop};
  const auto output = run(*model_, "block_length=8", {&one, 1})[0];
  EXPECT_EQ(output.tokens, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_TRUE(output.is_complete);
  EXPECT_LE(output.forwards, 8);
}

TEST_P(ConstrainedDiffusion, WhatNoOutputKeepsIsOneLine) {
  const auto fault = [&](const std::shared_ptr<TableConstraint>& table, int64_t length,
                         std::vector<int32_t> stops) {
    Generation one = generation(*model_, 3, length, 0.0f);
    one.constraint = table;
    one.stop_tokens = std::move(stops);
    try {
      run(*model_, "block_length=4", {&one, 1});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  const auto word = one_word(std::vector<int32_t>(5, 1));
  EXPECT_EQ(fault(word, 4, {kStop}),
            "--decoder diffusion: constraint: needs at least 5 tokens, the output has 4");
  EXPECT_EQ(fault(word, 5, {kStop}), "none");
  EXPECT_EQ(fault(word, 5, {}), "none");
  EXPECT_EQ(fault(word, 6, {kStop}), "none");
  EXPECT_EQ(fault(word, 6, {}),
            "--decoder diffusion: constraint: no output of 6 tokens keeps it, and no stop token ends a "
            "shorter one");
  word->transitions.erase({4, 1});
  word->transitions[{4, kMask}] = 5;
  EXPECT_EQ(fault(word, 6, {kStop}),
            "--decoder diffusion: constraint: no tokens of the model's vocabulary keep it");
}

INSTANTIATE_TEST_SUITE_P(Backends, ConstrainedDiffusion, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
