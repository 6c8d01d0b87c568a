// Sequential diffusion: the tokens of a plain loop that runs the whole sequence each time, what a run costs,
// and that an output does not depend on what is made beside it.
#include <cmath>
#include <set>

#include "core/decode/unmasking.h"
#include "tests/property/hidden_models.h"
#include "tests/support/sanitized.h"

namespace volley::test {
namespace {

constexpr int64_t kWindow = 4;

class SequentialDiffusion : public HiddenModels {
 protected:
  SequentialDiffusion() : HiddenModels(text::ModelKind::kSequentialDiffusion, kWindow) {}

  // Without any cache: the whole text causally, then the window, hidden from the text's last row.
  std::vector<int32_t> plain_loop(std::vector<int32_t> known, size_t length, bool is_entropy,
                                  double threshold) const {
    const size_t prompt = known.size();
    while (known.size() < prompt + length) {
      std::vector<StepRow> rows;
      for (const int32_t token : known)
        rows.push_back({.token = token, .position = model_->position(std::ssize(rows))});
      const auto last = static_cast<int64_t>(known.size()) - 1;
      for (int64_t i = 0; i < kWindow; ++i)
        rows.push_back({.token = i == 0 ? known.back() : kMask, .position = model_->position(last + i)});
      Visibility visibility{.kind = MaskKind::kBits};
      for (int64_t i = 0; i < std::ssize(rows); ++i) {
        for (int64_t j = 0; j < std::ssize(rows); ++j)
          visibility.bits.push_back(i > last ? j != last : j <= i);
      }
      const std::vector<Guess> made = guesses(rows, visibility, kWindow);
      for (size_t i = 0; i < made.size(); ++i) {
        const double sure =
            is_entropy ? 1.0 - static_cast<double>(made[i].entropy) / std::log(64.0) : made[i].probability;
        if (i > 0 && sure <= threshold) break;
        if (i > 0 && made[i].token == kMask) break;
        known.push_back(i == 0 ? made[i].other : made[i].token);
        if (sure <= threshold) break;
      }
    }
    return {known.begin() + static_cast<long>(prompt), known.begin() + static_cast<long>(prompt + length)};
  }
};

TEST_P(SequentialDiffusion, EqualsPlainLoopsOverWholeSequences) {
  std::set<int64_t> forwards;
  const std::vector<int64_t> prompts =
      kSanitized ? std::vector<int64_t>{1, 5} : std::vector<int64_t>{1, 2, 7, 64, 257};
  for (const int64_t prompt : prompts) {
    for (const double threshold : {0.2, 0.45, 0.9}) {
      for (const bool is_entropy : {false, true}) {
        const Generation one = generation(static_cast<uint64_t>(prompt), prompt, 17);
        const auto output = run("sequential-diffusion:threshold=" + std::to_string(threshold) +
                                    (is_entropy ? ",confidence=entropy" : ""),
                                {&one, 1})[0];
        EXPECT_EQ(output.tokens,
                  plain_loop(prompt_of(static_cast<uint64_t>(prompt), prompt), 17, is_entropy, threshold))
            << "a prompt of " << prompt << ", threshold " << threshold;
        forwards.insert(output.forwards);
      }
    }
  }
  EXPECT_GT(forwards.size(), 3u) << "the thresholds keep different numbers of tokens";
}

TEST_P(SequentialDiffusion, BatchEqualsSinglesAndSeedsTellApart) {
  const std::string method = "sequential-diffusion:threshold=0.3";
  std::vector<Generation> generations;
  for (uint64_t seed = 0; seed < 5; ++seed)
    generations.push_back(generation(seed, 1 + 5 * static_cast<int64_t>(seed),
                                     13 + 3 * static_cast<int64_t>(seed), seed % 2 == 0 ? 1.1f : 0.0f));
  const auto together = run(method, generations);
  for (size_t i = 0; i < generations.size(); ++i) {
    const auto alone = run(method, {&generations[i], 1})[0];
    EXPECT_EQ(std::ssize(alone.tokens), generations[i].max_tokens);
    EXPECT_EQ(alone.tokens, together[i].tokens) << "generation " << i;
    EXPECT_EQ(alone.forwards, together[i].forwards);
    EXPECT_EQ(alone.rows, together[i].rows);
    // Each forward runs the window and the tokens that came before its first, but those of the last one.
    EXPECT_LE(alone.rows, kWindow * alone.forwards + generations[i].max_tokens - 2);
  }
  Generation other = generations[0];
  other.seed = 77;
  EXPECT_NE(run(method, {&other, 1})[0].tokens, together[0].tokens);
}

TEST_P(SequentialDiffusion, RowsAreWindowsAndTheTokensThatWait) {
  class Recorder : public Observer {
   public:
    void on_step(const StepEvent& event) override { taken.push_back(event.accepted); }
    std::vector<int64_t> taken;
  };
  Recorder recorder;
  const Generation one = generation(3, 7, 30);
  const auto output = run("sequential-diffusion:threshold=0.3", {&one, 1}, &recorder)[0];
  ASSERT_EQ(std::ssize(recorder.taken), output.forwards);
  EXPECT_GT(std::ranges::max(recorder.taken), 1);
  // The first of an output's tokens but one have a row of their own in the window of the next step.
  int64_t rows = kWindow * output.forwards - 1;
  for (size_t i = 0; i + 1 < recorder.taken.size(); ++i) rows += recorder.taken[i];
  EXPECT_EQ(output.rows, rows);
}

// Near the end of what the model knows, blocks and windows are as long as there is room.
TEST_P(SequentialDiffusion, AnswersReachTheLastPosition) {
  for (const auto kind : {text::ModelKind::kBlockDiffusion, text::ModelKind::kSequentialDiffusion}) {
    const auto model = make_toy_llama(
        *backend_, 3, {.vocab = 64, .max_position = 30, .mask_token = kMask, .kind = kind, .mask_block = 8});
    const auto decoder = make_decoder(parse_decoder_spec(
        kind == text::ModelKind::kBlockDiffusion ? "block-diffusion:cache=dual" : "sequential-diffusion"));
    const Generation one{.prompt = token_prompt(*model, prompt_of(1, 9)),
                         .chain = {.temperature = 0.0f},
                         .max_tokens = 21,
                         .mask_token = kMask,
                         .mask_block = 8};
    Session session(*model, backend_, {.entries = decoder->entries(one)});
    EXPECT_EQ(decoder->decode(session, {&one, 1}, {})[0].tokens.size(), 21u);
  }
}

TEST_P(SequentialDiffusion, WhatItCannotRunIsOneLine) {
  const auto refused = [&](const Generation& one) {
    try {
      run("sequential-diffusion", {&one, 1});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const Generation one = generation(1, 5, 16);
  EXPECT_EQ(refused(one), "no error");
  Generation other = one;
  other.mask_block = 0;
  EXPECT_EQ(refused(other), "--decoder sequential-diffusion: model sdlm has no windows");
  other = one;
  other.prompt.rows[2].token = other.mask_token;
  EXPECT_EQ(refused(other), "--decoder sequential-diffusion: the prompt holds the mask");
  for (const bool is_given : {false, true}) {
    other = one;
    if (is_given) {
      other.given = {{.position = 1, .token = 3}};
    } else {
      other.first_index = 7;
    }
    EXPECT_EQ(refused(other),
              "--decoder sequential-diffusion: an output begins behind its prompt, and none of it is given");
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, SequentialDiffusion, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

TEST(ConfidentPrefix, EndsBeforeTheFirstThatIsNotSure) {
  EXPECT_EQ(confident_prefix(std::vector<float>{0.9f, 0.8f, 0.2f, 0.9f}, 0.5), 2);
  EXPECT_EQ(confident_prefix(std::vector<float>{0.9f, 0.5f, 0.6f}, 0.5), 1) << "above, not at";
  EXPECT_EQ(confident_prefix(std::vector<float>{0.1f, 0.9f}, 0.5), 1) << "one always";
  EXPECT_EQ(confident_prefix(std::vector<float>{0.6f, 0.9f}, 0.5), 2);
  EXPECT_EQ(confident_prefix({}, 0.5), 0);
}

}  // namespace
}  // namespace volley::test
