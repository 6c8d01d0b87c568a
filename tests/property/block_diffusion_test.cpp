// Block diffusion: the tokens of a plain loop that runs the whole sequence each time, what a run costs, and
// that an output does not depend on what is made beside it.
#include <map>
#include <set>
#include <tuple>

#include "core/base/error.h"
#include "core/decode/unmasking.h"
#include "tests/property/hidden_models.h"
#include "tests/support/sanitized.h"

namespace volley::test {
namespace {

constexpr int64_t kBlock = 8;

class BlockDiffusion : public HiddenModels {
 protected:
  BlockDiffusion() : HiddenModels(text::ModelKind::kBlockDiffusion, kBlock) {}

  // Without any cache: every forward runs all that there is.
  std::vector<int32_t> plain_loop(const std::vector<int32_t>& prompt, size_t length, size_t sub_block,
                                  double threshold) const {
    std::vector<int32_t> tokens = prompt;
    const auto all = [&] {
      std::vector<StepRow> rows;
      for (const int32_t token : tokens)
        rows.push_back({.token = token, .position = model_->position(std::ssize(rows))});
      return guesses(rows, {.kind = MaskKind::kBlockCausal, .block = kBlock}, rows.size());
    };
    while (tokens.size() < prompt.size() + length) {
      if (tokens.size() % kBlock == 0) tokens.push_back(all().back().other);
      const size_t begin = tokens.size() / kBlock * kBlock;
      if (begin == tokens.size()) continue;
      tokens.resize(begin + kBlock, kMask);
      for (size_t sub = begin; sub < begin + kBlock; sub += sub_block) {
        const size_t end = std::min(begin + kBlock, sub + sub_block);
        while (std::count(tokens.begin() + static_cast<long>(sub), tokens.begin() + static_cast<long>(end),
                          kMask) > 0) {
          const std::vector<Guess> made = all();
          std::vector<bool> was_hidden;
          for (size_t i = sub; i < end; ++i) was_hidden.push_back(tokens[i] == kMask);
          bool is_filled = false;
          size_t best = end;
          for (size_t i = sub; i < end; ++i) {
            if (tokens[i] != kMask) continue;
            if (best == end || made[i - 1].probability > made[best - 1].probability) best = i;
          }
          for (size_t i = sub; i < end; ++i) {
            if (tokens[i] == kMask && (i == best || made[i - 1].probability > threshold))
              tokens[i] = made[i - 1].token;
            is_filled |= tokens[i] != kMask && was_hidden[i - sub];
          }
          if (!is_filled) tokens[best] = made[best - 1].other;
        }
      }
    }
    return {tokens.begin() + std::ssize(prompt),
            tokens.begin() + std::ssize(prompt) + static_cast<long>(length)};
  }
};

TEST_P(BlockDiffusion, EqualsPlainLoopsOverWholeSequences) {
  std::set<int64_t> forwards;
  const std::vector<int64_t> prompts =
      kSanitized ? std::vector<int64_t>{5, 16} : std::vector<int64_t>{1, 7, 8, 9, 16, 21, 270};
  for (const int64_t prompt : prompts) {
    for (const auto& [options, sub_block, threshold] :
         std::vector<std::tuple<std::string, size_t, double>>{{"sub_block=4", 4, 1.0},
                                                              {"sub_block=4,threshold=0.4", 4, 0.4},
                                                              {"sub_block=3,threshold=0.3", 3, 0.3},
                                                              {"threshold=0.25", 8, 0.25}}) {
      const Generation one = generation(static_cast<uint64_t>(prompt), prompt, prompt > 200 ? 9 : 21);
      const auto output = run("block-diffusion:" + options, {&one, 1})[0];
      EXPECT_EQ(output.tokens, plain_loop(prompt_of(static_cast<uint64_t>(prompt), prompt),
                                          static_cast<size_t>(one.max_tokens), sub_block, threshold))
          << options << ", a prompt of " << prompt;
      forwards.insert(output.forwards);
    }
  }
  EXPECT_GT(forwards.size(), 3u) << "the thresholds fill different numbers of places";
}

TEST_P(BlockDiffusion, BatchEqualsSinglesAndSeedsTellApart) {
  for (const std::string method :
       {"block-diffusion:sub_block=4", "block-diffusion:sub_block=4,threshold=0.3,cache=dual",
        "block-diffusion:sub_block=3,threshold=0.5,cache=dual"}) {
    SCOPED_TRACE(method);
    std::vector<Generation> generations;
    for (uint64_t seed = 0; seed < 5; ++seed)
      generations.push_back(generation(seed,
                                       3 + 8 * static_cast<int64_t>(seed % 3) + static_cast<int64_t>(seed),
                                       13 + 3 * static_cast<int64_t>(seed), seed % 2 == 0 ? 1.1f : 0.0f));
    const auto together = run(method, generations);
    for (size_t i = 0; i < generations.size(); ++i) {
      const auto alone = run(method, {&generations[i], 1})[0];
      EXPECT_TRUE(alone.finished);
      EXPECT_EQ(std::ssize(alone.tokens), generations[i].max_tokens);
      EXPECT_EQ(alone.tokens, together[i].tokens) << "generation " << i;
      EXPECT_EQ(alone.forwards, together[i].forwards);
      EXPECT_EQ(alone.rows, together[i].rows);
    }
    Generation other = generations[0];
    other.seed = 77;
    EXPECT_NE(run(method, {&other, 1})[0].tokens, together[0].tokens);
  }
}

TEST_P(BlockDiffusion, ForwardsAndRowsAreAsTheMethodSays) {
  // Five places of the prompt's block, two more blocks and one place: 5 + (1 + 7) + (1 + 7) + 1 forwards, of
  // which the first place of each block comes from the one that commits the block before.
  const Generation one = generation(2, 8 + 3, 5 + 16 + 1);
  const auto off = run("block-diffusion:sub_block=4", {&one, 1})[0];
  EXPECT_EQ(off.forwards, 5 + 8 + 8 + 1);
  EXPECT_EQ(off.rows, kBlock * off.forwards);
  // One place a forward: a sub-block's first places take the block, its others, in some order, the sub-block
  // once the first is filled. A block's first forward always runs all of it.
  class Recorder : public Observer {
   public:
    void on_step(const StepEvent& event) override {
      const int64_t place = 11 + event.positions.front();
      if (event.source == "next row") {
        rows += kBlock;
        filled.insert(place);
        is_fresh = true;
        return;
      }
      rows += !is_fresh && filled.contains(place / 4 * 4) ? 4 : kBlock;
      is_fresh = false;
      filled.insert(place);
    }
    std::set<int64_t> filled{8, 9, 10};
    bool is_fresh = true;
    int64_t rows = 0;
  };
  Recorder recorder;
  const auto dual = run("block-diffusion:sub_block=4,cache=dual", {&one, 1}, &recorder)[0];
  EXPECT_EQ(dual.forwards, off.forwards);
  EXPECT_EQ(dual.rows, recorder.rows);
  EXPECT_LT(dual.rows, off.rows);
}

TEST_P(BlockDiffusion, EveryPlaceIsToldOnce) {
  class Recorder : public Observer {
   public:
    void on_step(const StepEvent& event) override {
      for (size_t i = 0; i < event.positions.size(); ++i)
        EXPECT_TRUE(filled.emplace(event.positions[i], event.tokens[i]).second) << "told twice";
      EXPECT_EQ(event.step, steps++);
      EXPECT_EQ(event.done, std::ssize(filled));
      EXPECT_EQ(event.accepted, std::ssize(event.positions));
      EXPECT_LE(event.accepted, event.proposed);
    }
    std::map<int32_t, int32_t> filled;
    int64_t steps = 0;
  };
  // The last block ends behind the output.
  for (const char* method : {"block-diffusion:threshold=0.3", "block-diffusion:sub_block=4,cache=dual"}) {
    for (const int64_t prompt : {5, 16}) {
      Recorder recorder;
      const Generation one = generation(6, prompt, 13, 0.8f);
      const auto output = run(method, {&one, 1}, &recorder)[0];
      ASSERT_EQ(output.tokens.size(), 13u);
      ASSERT_EQ(recorder.filled.size(), 13u) << "all of the output and no more";
      for (const auto& [position, token] : recorder.filled)
        EXPECT_EQ(output.tokens[static_cast<size_t>(position)], token);
    }
  }
}

TEST_P(BlockDiffusion, AnOutputEndsWithWhatEndsIt) {
  Generation one = generation(4, 13, 24);
  for (const char* method : {"block-diffusion:sub_block=4", "block-diffusion:sub_block=4,cache=dual"}) {
    const auto whole = run(method, {&one, 1})[0];
    for (const size_t at : {3u, 11u}) {  // the second is a block's first place
      Generation stopped = one;
      stopped.stop_tokens = {whole.tokens[at]};
      const auto first = std::ranges::find(whole.tokens, whole.tokens[at]) - whole.tokens.begin();
      const auto output = run(method, {&stopped, 1})[0];
      EXPECT_TRUE(output.finished);
      EXPECT_TRUE(
          std::ranges::equal(output.tokens, std::span(whole.tokens).first(static_cast<size_t>(first) + 1)));
      EXPECT_LT(output.forwards, whole.forwards);
    }
  }
}

TEST_P(BlockDiffusion, AGuessedMaskIsNoToken) {
  int64_t longer = 0;
  for (const auto kind : {text::ModelKind::kBlockDiffusion, text::ModelKind::kSequentialDiffusion}) {
    const auto model =
        make_toy_llama(*backend_, 5, {.vocab = 4, .mask_token = 2, .kind = kind, .mask_block = 4});
    const bool is_block = kind == text::ModelKind::kBlockDiffusion;
    const auto decoder = make_decoder(parse_decoder_spec(is_block ? "block-diffusion:threshold=0.2,cache=dual"
                                                                  : "sequential-diffusion:threshold=0.1"));
    for (uint64_t seed = 0; seed < 12; ++seed) {
      Session session(*model, backend_, {.entries = 64});
      const Generation one{
          .prompt = token_prompt(*model, std::vector<int32_t>{1, static_cast<int32_t>(seed % 2)}),
          .chain = {.temperature = seed < 6 ? 0.0f : 1.0f},
          .seed = seed,
          .max_tokens = 16,
          .mask_token = 2,
          .mask_block = 4};
      const auto output = decoder->decode(session, {&one, 1}, {})[0];
      ASSERT_EQ(output.tokens.size(), 16u);
      EXPECT_EQ(std::ranges::count(output.tokens, 2), 0);
      longer += output.forwards > (is_block ? 8 : 4);
    }
  }
  EXPECT_GT(longer, 0) << "no mask was guessed: the test shows nothing";
}

TEST_P(BlockDiffusion, WhatItCannotRunIsOneLine) {
  const auto refused = [&](const std::string& decoder, const Generation& one) {
    try {
      run(decoder, {&one, 1});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  const Generation one = generation(1, 5, 16);
  EXPECT_EQ(refused("block-diffusion:cache=prefix", one),
            "--decoder block-diffusion: cache=prefix: expected off or dual");
  EXPECT_EQ(refused("block-diffusion:threshold=2", one),
            "--decoder block-diffusion: threshold=2: expected off or a number from 0 to 1");
  EXPECT_EQ(refused("block-diffusion:sub_block=0", one),
            "--decoder block-diffusion: sub_block=0: expected a whole number from 1 to 16777216");
  EXPECT_EQ(refused("sequential-diffusion", one),
            "--decoder sequential-diffusion: model fast_dllm_v2 predicts no windows");
  Generation other = one;
  other.mask_block = 0;
  EXPECT_EQ(refused("block-diffusion", other), "--decoder block-diffusion: model fast_dllm_v2 has no blocks");
  other = one;
  other.unconditional = other.prompt;
  EXPECT_EQ(refused("block-diffusion", other), "--decoder block-diffusion: knows no guidance");
  other = one;
  other.chain.repetition_penalty = 1.2f;
  EXPECT_EQ(refused("block-diffusion", other), "--decoder block-diffusion: knows no repetition penalty");
  other = one;
  other.prompt.rows[2].token = other.mask_token;
  EXPECT_EQ(refused("block-diffusion", other), "--decoder block-diffusion: the prompt holds the mask");
  other = one;
  other.given = {{.position = 1, .token = 3}};
  EXPECT_EQ(refused("block-diffusion", other),
            "--decoder block-diffusion: an output begins behind its prompt, and none of it is given");
  other = one;
  other.first_index = 7;
  EXPECT_EQ(refused("block-diffusion", other),
            "--decoder block-diffusion: an output begins behind its prompt, and none of it is given");
  other = one;
  other.max_tokens = 2044;
  EXPECT_EQ(refused("block-diffusion", other),
            "--decoder block-diffusion: prompt and output have 2049 places, more than the model's 2048");
}

INSTANTIATE_TEST_SUITE_P(Backends, BlockDiffusion, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

TEST(UnmaskRule, AThresholdMayLeaveItsEndOut) {
  const std::vector<float> p{0.2f, 0.5f, 0.9f, 1.0f};
  using Places = std::vector<int32_t>;
  const auto above = [](double threshold) {
    return UnmaskRule{.threshold = threshold, .threshold_end = ThresholdEnd::kExcluded};
  };
  EXPECT_EQ(above(0.5).choose(p, 1), (Places{2, 3}));
  EXPECT_EQ(above(1.0).choose(p, 1), (Places{3})) << "the surest always";
  EXPECT_EQ(UnmaskRule{.threshold = 0.5}.choose(p, 1), (Places{1, 2, 3}));
}

}  // namespace
}  // namespace volley::test
