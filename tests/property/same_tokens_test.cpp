// Same-tokens methods return sequential decoding's tokens, greedy and sampled, whatever the drafts.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/decode/verify_loop.h"
#include "tests/property/drafters.h"
#include "tests/property/methods.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_heads.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int64_t kTokens = 24;

// Backends under test: what a gtest parameter names.
class SameTokens : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = make_backend(GetParam(), 2);
    model_ = make_toy_llama(*backend_, 1);
    draft_model_ = make_toy_llama(*backend_, 1, {.noise = 0.03f});
    heads_ = make_toy_heads(*backend_, 3, *model_);
  }

  Generation generation(uint64_t seed, float temperature) const {
    TestRandom random(seed + 1000);
    std::vector<int32_t> prompt(static_cast<size_t>(1 + random.below(9)));
    for (int32_t& token : prompt) token = static_cast<int32_t>(random.below(16));
    Generation made{.prompt = token_prompt(*model_, prompt),
                    .chain = {.temperature = temperature},
                    .seed = seed,
                    .max_tokens = kTokens};
    switch (seed % 4) {
      case 1:
        made.chain.top_k = 5;
        break;
      case 2:
        made.chain.top_p = 0.8f;
        break;
      case 3: {  // guidance: the partner saw another prompt
        made.unconditional =
            token_prompt(*model_, std::vector<int32_t>{static_cast<int32_t>(random.below(16))});
        made.unconditional->rows[0].position = made.prompt.rows.back().position;
        made.chain.guidance = {
            .kind = seed % 8 == 3 ? GuidanceSchedule::Kind::kConstant : GuidanceSchedule::Kind::kInterval,
            .scale = 2.5f,
            .interval = 6};
        break;
      }
      default:
        break;
    }
    return made;
  }

  std::vector<std::vector<int32_t>> run(const std::string& decoder,
                                        std::span<const Generation> generations) const {
    Session session(*model_, backend_, options(generations.size()));
    return tokens_of(decoder_of(decoder)->decode(session, generations, {}));
  }

  // Methods that need a draft model get one that is nearly the target; those that need heads, random ones.
  std::unique_ptr<Decoder> decoder_of(const std::string& decoder) const {
    return make_decoder(parse_decoder_spec(decoder),
                        {.model = draft_model_.get(), .heads = heads_.get(), .backend = backend_});
  }

  std::vector<std::vector<int32_t>> run(
      Proposer& proposer, std::span<const Generation> generations,
      std::function<void(std::vector<int32_t>&, int64_t)> tamper = {}) const {
    Session session(*model_, backend_, options(generations.size()));
    return tokens_of(
        VerifyLoop{.proposer = proposer, .tamper_commit = std::move(tamper)}.run(session, generations, {}));
  }

  static Session::Options options(size_t generations) {
    return {.sequences = 2 * static_cast<int64_t>(generations), .entries = 320};
  }

  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<StepModel> model_;
  std::unique_ptr<StepModel> draft_model_;
  std::unique_ptr<DraftHeads> heads_;
};

TEST_P(SameTokens, DraftsOfAnyQualityChangeNothing) {
  for (const float temperature : {0.0f, 1.0f}) {
    for (const double right : {0.0, 0.7, 1.0}) {
      for (const int64_t siblings : {int64_t{1}, int64_t{3}}) {
        int64_t accepted = 0, rejected = 0;
        for (uint64_t seed = 0; seed < (kSanitized ? 20 : 200); ++seed) {
          const Generation one = generation(seed, temperature);
          const auto truth = run("sequential", {&one, 1});
          QualityProposer proposer({.right = right,
                                    .length = 1 + static_cast<int64_t>(seed % 6),
                                    .siblings = siblings,
                                    .seed = seed},
                                   truth);
          ASSERT_EQ(run(proposer, {&one, 1}), truth) << "seed " << seed << ", right " << right;
          accepted += proposer.accepted();
          rejected += proposer.rejected();
        }
        EXPECT_GT(accepted, 0);
        if (right < 1.0 || siblings > 1) {
          EXPECT_GT(rejected, 0);
        }
      }
    }
  }
}

TEST_P(SameTokens, RegisteredMethodsEqualSequential) {
  std::vector<std::string> decoders = same_tokens_methods();
  for (const char* other :
       {"lookup:draft=3,ngram=1", "lookup:pool=300", "lookup:ngram=1,pool=9", "tree:widths=4x3,ngram=1",
        "tree:ngram=2,pool=300", "jacobi:window=5,init=random", "jacobi:window=40", "lookahead:W=1,N=2,G=1",
        "lookahead:W=5,N=3,G=2", "lookahead:W=12,N=6,G=12", "draft:draft=3,length=fixed", "draft:draft=1",
        "heads:width=3,confidence=0.05"}) {
    decoders.emplace_back(other);
  }
  for (const float temperature : {0.0f, 1.0f}) {
    for (uint64_t seed = 0; seed < (kSanitized ? 20 : 200); ++seed) {
      const Generation one = generation(seed, temperature);
      const auto truth = run("sequential", {&one, 1});
      for (const std::string& decoder : decoders) {
        ASSERT_EQ(run(decoder, {&one, 1}), truth) << decoder << ", seed " << seed;
      }
    }
  }
}

TEST_P(SameTokens, MethodsAcceptAndRejectDrafts) {
  // The equality above means something only if drafts were both kept and thrown away.
  for (const std::string& decoder : same_tokens_methods()) {
    if (decoder == "sequential") continue;
    for (const float temperature : {0.0f, 1.0f}) {
      std::vector<Generation> generations;
      for (uint64_t seed = 0; seed < 16; ++seed) generations.push_back(generation(seed, temperature));
      DraftCounter counter;
      Session session(*model_, backend_, options(generations.size()));
      decoder_of(decoder)->decode(session, generations, {.observer = &counter});
      EXPECT_GT(counter.accepted, 0) << decoder << " accepted nothing";
      EXPECT_GT(counter.proposed, counter.accepted) << decoder << " threw nothing away";
    }
  }
}

// Lengths by a clock that says anything: other steps, the same tokens.
TEST_P(SameTokens, AdaptiveDraftsChangeNothingWhateverTheClockSays) {
  constexpr int64_t kSeeds = kSanitized ? 40 : 150;
  for (const std::string& decoder : adaptive_decoders()) {
    DraftCounter counter;
    for (const float temperature : {0.0f, 1.0f}) {
      for (uint64_t seed = 0; seed < uint64_t{kSeeds}; ++seed) {
        std::vector<Generation> generations;
        for (uint64_t i = 0; i <= seed % 3; ++i) {
          generations.push_back(generation(3 * seed + i, temperature));
          generations.back().max_tokens = kTokens + 40 * static_cast<int64_t>(i);
        }
        const auto truth = run("sequential", generations);
        Session session(*model_, backend_, options(generations.size()));
        const auto outputs = decoder_of(decoder)->decode(session, generations,
                                                         {.observer = &counter, .clock = OddClock(seed)});
        ASSERT_EQ(tokens_of(outputs), truth) << decoder << ", seed " << seed;
        const Statistics& statistics = session.statistics();
        int64_t forwards = 0, rows = 0;
        for (const GenerationOutput& output : outputs) {
          forwards += output.forwards;
          rows += output.rows;
        }
        EXPECT_EQ(statistics.steps, forwards);
        EXPECT_EQ(statistics.steps + statistics.drafted_tokens, rows);
        EXPECT_LE(statistics.steps_off, statistics.steps);
      }
    }
    // The clock did make it draft and stop drafting, at several lengths.
    EXPECT_GE(counter.steps.size(), 4u) << decoder;
    EXPECT_GT(counter.steps[0], 2 * kSeeds) << decoder;
    EXPECT_GT(counter.accepted, kSeeds) << decoder;
    EXPECT_GT(counter.proposed, counter.accepted) << decoder;
  }
}

// Pools that other texts filled, with room for all of them and for hardly any.
TEST_P(SameTokens, PoolsOfOtherTextsChangeNothing) {
  for (const char* decoder :
       {"lookup:pool=100000", "lookup:pool=25,ngram=2,draft=3", "lookup:pool=100000,ngram=5,length=adaptive",
        "tree:pool=100000", "tree:pool=40,widths=4x3,ngram=1"}) {
    for (const float temperature : {0.0f, 1.0f}) {
      DraftPool pool;
      DraftCounter counter;
      for (uint64_t seed = 0; seed < (kSanitized ? 30 : 120); ++seed) {
        std::vector<Generation> generations;
        for (uint64_t i = 0; i <= seed % 3; ++i) generations.push_back(generation(3 * seed + i, temperature));
        Session session(*model_, backend_, options(generations.size()));
        const auto outputs = decoder_of(decoder)->decode(
            session, generations, {.observer = &counter, .clock = OddClock(seed), .pool = &pool});
        ASSERT_EQ(tokens_of(outputs), run("sequential", generations)) << decoder << ", seed " << seed;
      }
      EXPECT_GT(counter.accepted, 0) << decoder;
      EXPECT_GT(counter.proposed, counter.accepted) << decoder;
    }
  }
}

// What a pool knows saves forwards, and how many is a function of what ran before, batches included.
TEST_P(SameTokens, PoolsSaveForwardsAndCountsRepeat) {
  const auto course = [&](const std::string& decoder) {
    DraftPool pool;
    std::vector<std::vector<int64_t>> forwards;
    for (int round = 0; round < 2; ++round) {
      std::vector<Generation> generations;
      for (uint64_t seed = 0; seed < 7; ++seed) {
        if (seed % 4 != 3) generations.push_back(generation(seed, 1.0f));
      }
      Session session(*model_, backend_, options(generations.size()));
      const auto outputs = decoder_of(decoder)->decode(session, generations, {.pool = &pool});
      EXPECT_EQ(tokens_of(outputs), run("sequential", generations));
      forwards.emplace_back();
      for (const GenerationOutput& output : outputs) forwards.back().push_back(output.forwards);
    }
    return forwards;
  };
  constexpr const char* kPooled = "lookup:ngram=5,pool=10000";
  const auto with = course(kPooled), without = course("lookup:ngram=5");
  EXPECT_EQ(with, course(kPooled));
  EXPECT_EQ(without[0], without[1]);
  for (size_t i = 0; i < with[1].size(); ++i) {
    EXPECT_LE(with[1][i], 10) << "the second time, 23 tokens are known";
    EXPECT_GT(without[1][i], with[1][i]);
  }
}

// A machine on which a row costs as much as a forward: there lookup leaves drafting alone, and where rows are
// free it does not.
TEST_P(SameTokens, LengthsFollowWhatStepsTake) {
  Generation one = generation(0, 0.0f);
  one.max_tokens = 250;
  DraftPool pool;
  const auto forwards = [&](double row_seconds, const char* decoder = "lookup:length=adaptive,draft=16") {
    Session session(*model_, backend_, options(1));
    const auto clock = [&] {
      const Statistics& counts = session.statistics();
      return static_cast<double>(counts.forwards) + row_seconds * static_cast<double>(counts.rows);
    };
    const auto outputs = decoder_of(decoder)->decode(session, {&one, 1}, {.clock = clock, .pool = &pool});
    EXPECT_EQ(tokens_of(outputs), run("sequential", {&one, 1}));
    return std::pair(outputs[0].forwards, session.statistics());
  };
  const auto [cheap, cheap_counts] = forwards(0.0);
  const auto [dear, dear_counts] = forwards(1e6);
  EXPECT_LT(2 * cheap, dear);
  EXPECT_LE(dear_counts.drafted_tokens, 8);
  EXPECT_GT(2 * dear_counts.steps_off, dear_counts.steps);
  // The same clock, the same steps.
  EXPECT_EQ(forwards(0.0).first, cheap);
  // With a pool that knows the output, and one that knows nothing of it.
  constexpr const char* kPooled = "lookup:length=adaptive,draft=16,pool=5000";
  forwards(0.0, kPooled);
  EXPECT_LT(forwards(0.0, kPooled).first, cheap);
  EXPECT_LE(forwards(1e6, kPooled).second.drafted_tokens, 16);
  pool.set_limit(1);
  pool.set_limit(5000);
  TestRandom random(3);
  std::vector<int32_t> other(4000);
  for (int32_t& token : other) token = static_cast<int32_t>(random.below(16));
  pool.add(DraftPool::kBeginning, other);
  const auto [misled, misled_counts] = forwards(1e6, kPooled);
  EXPECT_LE(misled_counts.drafted_tokens, 16);
  EXPECT_GT(2 * misled_counts.steps_off, misled_counts.steps);
}

TEST_P(SameTokens, BatchEqualsSingles) {
  for (const std::string& decoder : same_tokens_methods()) {
    std::vector<Generation> generations;
    for (uint64_t seed = 0; seed < 7; ++seed) {
      generations.push_back(generation(seed, 1.0f));
      generations.back().max_tokens = 5 + 3 * static_cast<int64_t>(seed);
    }
    const auto together = run(decoder, generations);
    for (size_t i = 0; i < generations.size(); ++i) {
      EXPECT_EQ(run(decoder, {&generations[i], 1})[0], together[i]) << decoder << ", generation " << i;
    }
  }
}

TEST_P(SameTokens, StreamsOfOneSeedDiffer) {
  Generation one = generation(0, 1.0f);
  const auto first = run("sequential", {&one, 1});
  one.stream = 1;
  EXPECT_NE(run("sequential", {&one, 1}), first);
}

TEST_P(SameTokens, PenaltySeesEachRowsOwnPath) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Generation one = generation(seed, 1.0f);
    one.chain.repetition_penalty = 1.7f;
    const auto truth = run("sequential", {&one, 1});
    for (const char* decoder :
         {"lookup:ngram=1", "tree:widths=4x3,ngram=1", "jacobi", "lookahead", "draft", "heads"}) {
      ASSERT_EQ(run(decoder, {&one, 1}), truth) << decoder << ", seed " << seed;
    }
    one.chain.repetition_penalty = 1.0f;
    if (seed == 0) {
      EXPECT_NE(run("sequential", {&one, 1}), truth);
    }
  }
}

TEST_P(SameTokens, StopTokensEndTheOutput) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Generation one = generation(seed, 1.0f);
    const std::vector<int32_t> full = run("sequential", {&one, 1})[0];
    one.stop_tokens = {full[5]};
    const auto first = static_cast<size_t>(std::ranges::find(full, full[5]) - full.begin());
    const std::vector<int32_t> expected(full.begin(), full.begin() + static_cast<int64_t>(first) + 1);
    for (const char* decoder :
         {"sequential", "lookup:ngram=1", "tree:ngram=1", "jacobi", "lookahead", "draft", "heads"}) {
      EXPECT_EQ(run(decoder, {&one, 1})[0], expected) << decoder;
    }
  }
}

// A method that keeps the wrong rows must be caught by the equality tests above.
TEST_P(SameTokens, WrongCommitIsCaught) {
  int64_t caught_extra = 0, caught_swap = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const Generation one = generation(seed, 1.0f);
    const auto truth = run("sequential", {&one, 1});
    const QualityProposer::Options options{.right = 0.6, .length = 4, .siblings = 3, .seed = seed};
    // Keeps the row right behind the accepted ones although it was rejected.
    QualityProposer extra(options, truth);
    caught_extra += run(extra, {&one, 1}, [](std::vector<int32_t>& kept, int64_t rows) {
                      if (kept.size() == 1 && rows > 1) kept.push_back(1);
                    }) != truth;
    // Keeps a sibling's row in place of the accepted node's.
    QualityProposer swapped(options, truth);
    caught_swap += run(swapped, {&one, 1}, [](std::vector<int32_t>& kept, int64_t) {
                     if (kept.size() == 2) kept[1] = kept[1] == 1 ? 2 : 1;
                   }) != truth;
  }
  EXPECT_GT(caught_extra, 30);
  EXPECT_GT(caught_swap, 30);
}

INSTANTIATE_TEST_SUITE_P(Backends, SameTokens, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
