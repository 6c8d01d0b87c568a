// Draft heads: heads of any quality change nothing, good ones are believed, a level is one pass for all.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/decode/verify_loop.h"
#include "tests/property/methods.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/support/table_constraint.h"
#include "tests/support/toy_heads.h"

namespace volley::test {
namespace {

constexpr int64_t kTokens = 24, kVocab = 16;
constexpr uint64_t kSeeds = kSanitized ? 15 : 100;

using Outputs = std::vector<GenerationOutput>;

class HeadsTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = make_backend(GetParam(), 2);
    model_ = make_toy_llama(*backend_, 1);
  }

  Generation generation(uint64_t seed, float temperature) const {
    TestRandom random(seed + 1000);
    std::vector<int32_t> prompt(static_cast<size_t>(2 + random.below(9)));
    for (int32_t& token : prompt) token = static_cast<int32_t>(random.below(kVocab));
    Generation made{.prompt = token_prompt(*model_, prompt),
                    .chain = {.temperature = temperature},
                    .seed = seed,
                    .max_tokens = kTokens};
    if (seed % 4 == 1) made.chain.top_k = 5;
    if (seed % 4 == 2) made.chain.top_p = 0.8f;
    if (seed % 4 == 3) {
      made.unconditional =
          token_prompt(*model_, std::vector<int32_t>{static_cast<int32_t>(random.below(kVocab))});
      made.unconditional->rows[0].position = made.prompt.rows.back().position;
      made.chain.guidance.scale = 2.5f;
    }
    if (seed % 5 == 4) made.chain.repetition_penalty = 1.5f;
    return made;
  }

  static Session::Options options(size_t generations) {
    return {.sequences = 2 * static_cast<int64_t>(generations), .entries = 320};
  }

  Outputs run(const std::string& decoder, const DraftHeads* heads, std::span<const Generation> generations,
              Observer* observer = nullptr, Statistics* statistics = nullptr) const {
    Session session(*model_, backend_, options(generations.size()));
    auto outputs = make_decoder(parse_decoder_spec(decoder), {.heads = heads, .backend = backend_})
                       ->decode(session, generations, {.observer = observer});
    if (statistics != nullptr) *statistics = session.statistics();
    return outputs;
  }

  // Sequential decoding, which teaches `oracle` what will come.
  Outputs learn(std::span<const Generation> generations, OracleHeads& oracle) const {
    HiddenRecorder recorder;
    Session session(*model_, backend_, options(generations.size()));
    Outputs outputs = VerifyLoop{.proposer = recorder}.run(session, generations, {});
    for (size_t i = 0; i < generations.size(); ++i)
      oracle.learn(recorder.rows(static_cast<int64_t>(i)), outputs[i].tokens);
    return outputs;
  }

  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<StepModel> model_;
};

TEST_P(HeadsTest, RandomHeadsChangeNothing) {
  const std::vector<int32_t> some{0, 1, 3, 4, 7, 9, 10, 12, 15};
  std::vector<std::unique_ptr<DraftHeads>> all;
  for (const auto family : {text::HeadsFamily::kMedusa, text::HeadsFamily::kHydra}) {
    all.push_back(make_toy_heads(*backend_, 11, *model_, {.family = family, .layers = 2}));
    all.push_back(make_toy_heads(*backend_, 12, *model_, {.family = family, .target_ids = some}));
  }
  const std::vector<std::string> decoders{
      "heads", "heads:width=4,nodes=9,confidence=0.02", "heads:heads=1,width=3,confidence=0,copy=0",
      "heads:confidence=0,copy=0", "heads:confidence=0.02,further=0,copy=5,ngram=2"};
  for (const float temperature : {0.0f, 1.0f}) {
    std::vector<DraftCounter> counters(all.size() * decoders.size());
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Generation one = generation(seed, temperature);
      const auto truth = tokens_of(run("sequential", nullptr, {&one, 1}));
      for (size_t i = 0; i < counters.size(); ++i) {
        const std::string& decoder = decoders[i % decoders.size()];
        ASSERT_EQ(tokens_of(run(decoder, all[i / decoders.size()].get(), {&one, 1}, &counters[i])), truth)
            << decoder << ", heads " << i / decoders.size() << ", seed " << seed;
      }
    }
    for (size_t i = 0; i < counters.size(); ++i) {
      EXPECT_GT(counters[i].accepted, 0) << i;
      EXPECT_GT(counters[i].proposed, counters[i].accepted) << i;
    }
  }
}

// The oracle knows rows to the bit: each draft began from the row that chose its root, of the conditional
// sequence, whatever the step's tree and company were.
TEST_P(HeadsTest, GoodHeadsAreAcceptedAlways) {
  for (const bool is_chained : {false, true}) {
    for (const float temperature : {0.0f, 1.0f}) {
      for (uint64_t seed = 0; seed < kSeeds; seed += 4) {
        std::vector<Generation> generations;
        for (uint64_t i = 0; i < 4; ++i) {
          generations.push_back(generation(seed + i, temperature));
          generations.back().chain.repetition_penalty = 1.0f;
          generations.back().max_tokens = kTokens + static_cast<int64_t>(i);
        }
        OracleHeads oracle(model_->traits(), {.heads = 4, .is_chained = is_chained});
        const auto truth = tokens_of(learn(generations, oracle));
        ASSERT_EQ(tokens_of(run("sequential", nullptr, generations)), truth);
        const Outputs outputs = run("heads:copy=0", &oracle, generations);
        ASSERT_EQ(tokens_of(outputs), truth) << "seed " << seed;
        EXPECT_EQ(oracle.misses(), 0) << "seed " << seed;
        // The prompt's token, then 1 + 4 a step.
        for (const GenerationOutput& output : outputs)
          EXPECT_EQ(output.forwards, (std::ssize(output.tokens) - 1 + 4) / 5) << "seed " << seed;
      }
    }
  }
}

TEST_P(HeadsTest, HeadsOfAnyQualityChangeNothing) {
  for (const bool is_chained : {false, true}) {
    for (const std::string decoder :
         {"heads", "heads:copy=0", "heads:width=3,confidence=0.01", "heads:length=adaptive"}) {
      int64_t misses = 0;
      DraftCounter counter;
      for (uint64_t seed = 0; seed < kSeeds; ++seed) {
        Generation one = generation(seed, seed % 8 < 4 ? 0.0f : 1.0f);
        OracleHeads oracle(model_->traits(), {.is_chained = is_chained, .right = 0.7, .seed = seed});
        const auto truth = tokens_of(learn({&one, 1}, oracle));
        ASSERT_EQ(tokens_of(run(decoder, &oracle, {&one, 1}, &counter)), truth) << decoder << ", " << seed;
        misses += oracle.misses();
      }
      EXPECT_EQ(misses, 0) << decoder;
      EXPECT_GT(counter.accepted, 0) << decoder;
      EXPECT_GT(counter.proposed, counter.accepted) << decoder;
    }
  }
}

// Lengths by a clock that says anything. (Of random heads too few guesses are right to be tried often.)
TEST_P(HeadsTest, AdaptiveLengthsChangeNothingWhateverTheClockSays) {
  for (const float temperature : {0.0f, 1.0f}) {
    DraftCounter counter;
    constexpr uint64_t kRuns = kSanitized ? 60 : kSeeds;  // fewer do not come to all lengths
    for (uint64_t seed = 0; seed < kRuns; ++seed) {
      std::vector<Generation> generations;
      for (uint64_t i = 0; i <= seed % 3; ++i) {
        generations.push_back(generation(3 * seed + i, temperature));
        generations.back().max_tokens = kTokens + 40 * static_cast<int64_t>(i);
      }
      OracleHeads oracle(model_->traits(), {.heads = 5, .right = 0.8, .seed = seed});
      const auto truth = tokens_of(learn(generations, oracle));
      Session session(*model_, backend_, options(generations.size()));
      const auto outputs =
          make_decoder(parse_decoder_spec("heads:length=adaptive"), {.heads = &oracle, .backend = backend_})
              ->decode(session, generations, {.observer = &counter, .clock = OddClock(seed)});
      ASSERT_EQ(tokens_of(outputs), truth) << "seed " << seed;
    }
    EXPECT_GE(counter.steps.size(), 4u);
    EXPECT_GT(counter.steps[0], 0);
    EXPECT_GT(counter.accepted, static_cast<int64_t>(kRuns));
    EXPECT_GT(counter.proposed, counter.accepted);
  }
}

// What is drafted, and so each count, is the same in company.
TEST_P(HeadsTest, ABatchIsItsSinglesAndALevelIsOnePass) {
  for (const auto family : {text::HeadsFamily::kMedusa, text::HeadsFamily::kHydra}) {
    const auto heads = make_toy_heads(*backend_, 5, *model_, {.family = family});
    for (const std::string decoder :
         {"heads:confidence=0,copy=0", "heads:width=3,nodes=12,confidence=0.01,copy=0",
          "heads:confidence=0,copy=3"}) {
      std::vector<Generation> generations;
      for (uint64_t seed = 0; seed < 7; ++seed) {
        generations.push_back(generation(seed, 1.0f));
        generations.back().max_tokens = 9 + 3 * static_cast<int64_t>(seed);
      }
      Statistics together;
      const Outputs outputs = run(decoder, heads.get(), generations, nullptr, &together);
      int64_t single_passes = 0, single_rows = 0;
      for (size_t i = 0; i < generations.size(); ++i) {
        Statistics alone;
        const Outputs one = run(decoder, heads.get(), {&generations[i], 1}, nullptr, &alone);
        EXPECT_EQ(one[0].tokens, outputs[i].tokens);
        EXPECT_EQ(one[0].rows, outputs[i].rows);
        EXPECT_EQ(one[0].forwards, outputs[i].forwards);
        single_passes += alone.draft_forwards;
        single_rows += alone.draft_rows;
      }
      EXPECT_EQ(together.draft_rows, single_rows) << decoder;
      EXPECT_LT(together.draft_forwards, single_passes * 2 / 3) << decoder;
      // Three heads: at most three passes a step, however many drafts they are for.
      EXPECT_LE(together.draft_forwards, 3 * together.forwards) << decoder;
    }
  }
}

TEST_P(HeadsTest, OptionsBoundTheDrafts) {
  const auto heads = make_toy_heads(*backend_, 6, *model_, {.family = text::HeadsFamily::kHydra, .heads = 4});
  const auto most = [&](const std::string& decoder) {
    DraftCounter counter;
    for (uint64_t seed = 0; seed < 15; ++seed) {
      const Generation one = generation(seed, 0.0f);
      run("heads:" + decoder, heads.get(), {&one, 1}, &counter);
    }
    return counter.steps.rbegin()->first;
  };
  EXPECT_EQ(most("copy=0,confidence=0"), 4);
  EXPECT_EQ(most("copy=0,confidence=0,heads=2"), 2);
  EXPECT_EQ(most("copy=0,confidence=0,heads=200"), 4);
  EXPECT_EQ(most("copy=0,confidence=0,nodes=3"), 3);
  EXPECT_EQ(most("copy=0,confidence=0,width=3,nodes=100"), 3 + 3 * 9);
  EXPECT_EQ(most("copy=0,confidence=0,width=3,nodes=7"), 7);
  EXPECT_EQ(most("copy=0,confidence=1,width=3"), 0);
  // Copies, of which the same options are bounds.
  EXPECT_EQ(most("copy=6,ngram=9,confidence=1"), 6);
  EXPECT_EQ(most("copy=6,ngram=5,confidence=1"), 4);
  EXPECT_EQ(most("copy=6,ngram=9,confidence=1,nodes=5"), 5);
  EXPECT_EQ(most("copy=6,ngram=9,confidence=1,heads=3"), 3);
}

// Steps of one generation: what was drafted behind how many tokens.
struct DraftRecorder : Observer {
  void on_step(const StepEvent& event) override {
    if (event.source != "prompt") steps.push_back({event.done - std::ssize(event.tokens), event.proposed});
  }
  struct Step {
    int64_t before = 0;
    int64_t proposed = 0;
  };
  std::vector<Step> steps;
};

// Tokens behind the last two, where these occurred before, by the longest context; as many as `count`, and
// one less than the first context has.
std::vector<int32_t> copied(std::vector<int32_t> path, int64_t count, int64_t longest) {
  std::vector<int32_t> found;
  while (std::ssize(found) < count) {
    int64_t best = 1, next = -1;  // matches of one token are none
    for (int64_t end = std::ssize(path) - 1; end >= 2; --end) {
      int64_t n = 0;
      while (n < longest && n < end &&
             path[static_cast<size_t>(end - 1 - n)] == path[path.size() - 1 - static_cast<size_t>(n)])
        ++n;
      if (n > best) best = n, next = path[static_cast<size_t>(end)];
    }
    if (next < 0) break;
    if (found.empty()) count = std::min(count, best - 1);
    found.push_back(static_cast<int32_t>(next));
    path.push_back(static_cast<int32_t>(next));
  }
  return found;
}

// Where the text repeats itself what followed is tried, and no head runs; else one pass, as none is sure.
TEST_P(HeadsTest, WhatRepeatsItselfIsCopiedWithoutAPass) {
  const auto heads = make_toy_heads(*backend_, 6, *model_, {.family = text::HeadsFamily::kHydra});
  int64_t copies = 0, guesses = 0;
  for (uint64_t seed = 0; seed < kSeeds; seed += 3) {
    const Generation one = generation(seed, seed % 2 == 0 ? 0.0f : 1.0f);
    DraftRecorder recorder;
    Statistics statistics;
    const Outputs made =
        run("heads:confidence=1,copy=3,ngram=4", heads.get(), {&one, 1}, &recorder, &statistics);
    std::vector<int32_t> path;
    for (const StepRow& row : one.prompt.rows) path.push_back(row.token);
    const auto prompt = std::ssize(path);
    path.insert(path.end(), made[0].tokens.begin(), made[0].tokens.end());
    int64_t passes = 0;
    for (const DraftRecorder::Step& step : recorder.steps) {
      const int64_t most = std::min<int64_t>(3, kTokens - step.before - 1);
      const auto expected = copied({path.begin(), path.begin() + prompt + step.before}, most, 4);
      EXPECT_EQ(step.proposed, std::ssize(expected)) << "seed " << seed << ", behind " << step.before;
      copies += expected.empty() ? 0 : 1;
      passes += expected.empty() && most > 0 ? 1 : 0;
    }
    EXPECT_EQ(statistics.draft_forwards, passes) << "seed " << seed;
    guesses += passes;
  }
  EXPECT_GT(copies, 20);
  EXPECT_GT(guesses, 20);
}

// Only a guess that is so many times likelier than one worth a row is worth a pass of the next head.
TEST_P(HeadsTest, UnlikelyGuessesAreTriedButNotGuessedBehind) {
  const auto heads = make_toy_heads(*backend_, 6, *model_, {.family = text::HeadsFamily::kHydra});
  const auto passes = [&](const std::string& decoder, DraftCounter& counter) {
    const Generation one = generation(0, 0.0f);
    Statistics statistics;
    run("heads:copy=0,confidence=0.02," + decoder, heads.get(), {&one, 1}, &counter, &statistics);
    return statistics.draft_forwards;
  };
  DraftCounter all, some, none;
  const int64_t most = passes("further=0", all), middle = passes("further=20", some),
                least = passes("further=100", none);
  EXPECT_EQ(all.steps.rbegin()->first, 3);
  EXPECT_EQ(none.steps.rbegin()->first, 1);
  EXPECT_GT(none.steps[1], 0);
  EXPECT_LT(least, middle);
  EXPECT_LT(middle, most);
}

// Typical acceptance takes more than coupling does, and other tokens; greedy it is the same.
TEST_P(HeadsTest, TypicalAcceptanceIsLossyWhenSampling) {
  const auto heads = make_toy_heads(*backend_, 7, *model_, {.family = text::HeadsFamily::kHydra});
  const std::string rule = "heads:accept=typical,confidence=0.05,width=2,copy=0";
  int64_t differs = 0;
  DraftCounter typical, coupled;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Generation one = generation(seed, 1.0f);
    const Outputs made = run(rule, heads.get(), {&one, 1}, &typical);
    run("heads:confidence=0.05,width=2,copy=0", heads.get(), {&one, 1}, &coupled);
    EXPECT_EQ(std::ssize(made[0].tokens), kTokens);
    // The same seed, the same tokens.
    ASSERT_EQ(tokens_of(run(rule, heads.get(), {&one, 1})), tokens_of(made));
    differs += tokens_of(run("sequential", nullptr, {&one, 1})) != tokens_of(made);
    one.chain.temperature = 0.0f;
    ASSERT_EQ(tokens_of(run(rule, heads.get(), {&one, 1})), tokens_of(run("sequential", nullptr, {&one, 1})));
  }
  EXPECT_GT(differs, 0);
  EXPECT_GT(static_cast<double>(typical.accepted) / static_cast<double>(typical.proposed),
            static_cast<double>(coupled.accepted) / static_cast<double>(coupled.proposed));
}

// With a constraint, too: typical tokens are allowed ones.
TEST_P(HeadsTest, TypicalAcceptanceKeepsConstraints) {
  const auto heads = make_toy_heads(*backend_, 8, *model_);
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Generation one = generation(seed, 1.0f);
    one.constraint = TableConstraint::random(seed);
    const Outputs made = run("heads:accept=typical,confidence=0.05,width=3", heads.get(), {&one, 1});
    Constraint::State state = one.constraint->start();
    for (const int32_t token : made[0].tokens) state = one.constraint->next(state, token);
    ASSERT_NE(state, Constraint::kBroken) << "seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, HeadsTest, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
