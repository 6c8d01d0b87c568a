// Outputs keep their constraint, and every same-tokens method gives constrained sequential decoding's tokens.
#include "core/decode/constraint.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/backend/sampling.h"
#include "core/base/error.h"
#include "core/decode/lane.h"
#include "core/decode/verify_loop.h"
#include "tests/property/drafters.h"
#include "tests/property/methods.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/support/table_constraint.h"
#include "tests/support/toy_heads.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int64_t kTokens = 24, kVocab = 16;
constexpr uint64_t kSeeds = kSanitized ? 20 : 150;

using Outputs = std::vector<GenerationOutput>;

// Steps through an output; says what is wrong with it, or nothing.
std::string fault_of(const Generation& generation, const GenerationOutput& output) {
  const Constraint& constraint = *generation.constraint;
  Constraint::State state = constraint.start();
  for (size_t i = 0; i < output.tokens.size(); ++i) {
    const int32_t token = output.tokens[i];
    if (std::ranges::count(generation.stop_tokens, token) > 0) {
      if (!constraint.accepts(state)) return "stopped in a state that does not accept";
      if (!output.is_whole || i + 1 != output.tokens.size()) return "not whole at a stop token";
      return "";
    }
    state = constraint.next(state, token);
    if (state == Constraint::kBroken) return "broken by token " + std::to_string(i);
  }
  return output.is_whole == constraint.accepts(state) ? "" : "is_whole is wrong";
}

class Constraints : public testing::TestWithParam<std::string> {
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
    for (int32_t& token : prompt) token = static_cast<int32_t>(random.below(kVocab));
    Generation made{.prompt = token_prompt(*model_, prompt),
                    .chain = {.temperature = temperature},
                    .seed = seed,
                    .max_tokens = kTokens,
                    .constraint = TableConstraint::random(seed)};
    if (seed % 2 == 1) made.stop_tokens = {3, 7};
    switch (seed % 5) {
      case 1:
        made.chain.top_k = 3;
        break;
      case 2:
        made.chain.top_p = 0.7f;
        break;
      case 3:
        made.unconditional = token_prompt(*model_, std::vector<int32_t>{5});
        made.unconditional->rows[0].position = made.prompt.rows.back().position;
        made.chain.guidance.scale = 2.5f;
        break;
      case 4:
        made.chain.repetition_penalty = 1.5f;
        break;
      default:
        break;
    }
    return made;
  }

  Outputs run(const std::string& decoder, std::span<const Generation> generations,
              Observer* observer = nullptr) const {
    Session session(*model_, backend_, options(generations.size()));
    return make_decoder(parse_decoder_spec(decoder), drafters())
        ->decode(session, generations, {.observer = observer});
  }
  static Session::Options options(size_t generations) {
    return {.sequences = 2 * static_cast<int64_t>(generations), .entries = 320};
  }

  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<StepModel> model_;
  Drafters drafters() const {
    return {.model = draft_model_.get(), .heads = heads_.get(), .backend = backend_};
  }

  std::unique_ptr<StepModel> draft_model_;
  std::unique_ptr<DraftHeads> heads_;
};

TEST_P(Constraints, EveryMethodGivesConstrainedSequentialTokens) {
  std::vector<std::string> decoders = same_tokens_methods();
  for (const char* other :
       {"lookup:draft=3,ngram=1", "tree:widths=4x3,ngram=1", "jacobi:window=5,init=random",
        "lookahead:W=5,N=3,G=2", "draft:draft=3,length=fixed", "heads:width=3,confidence=0.05"}) {
    decoders.emplace_back(other);
  }
  int64_t stopped = 0, cut = 0;
  for (const float temperature : {0.0f, 1.0f}) {
    std::map<std::string, DraftCounter> counters;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Generation one = generation(seed, temperature);
      const Outputs truth = run("sequential", {&one, 1});
      ASSERT_EQ(fault_of(one, truth[0]), "") << "seed " << seed;
      stopped += std::ranges::count(one.stop_tokens, truth[0].tokens.back());
      cut += !truth[0].is_whole;
      for (const std::string& decoder : decoders) {
        const Outputs made = run(decoder, {&one, 1}, &counters[decoder]);
        ASSERT_EQ(tokens_of(made), tokens_of(truth)) << decoder << ", seed " << seed;
        ASSERT_EQ(made[0].is_whole, truth[0].is_whole) << decoder << ", seed " << seed;
        ASSERT_EQ(made[0].finished, truth[0].finished) << decoder << ", seed " << seed;
      }
    }
    for (const auto& [decoder, counter] : counters) {
      if (decoder == "sequential") continue;
      EXPECT_GT(counter.accepted, 0) << decoder << " accepted nothing";
      EXPECT_GT(counter.proposed, counter.accepted) << decoder << " threw nothing away";
    }
  }
  EXPECT_GT(stopped, 0);
  EXPECT_GT(cut, 0);
}

TEST_P(Constraints, AdaptiveDraftsChangeNothingWhateverTheClockSays) {
  for (const std::string& decoder : adaptive_decoders()) {
    DraftCounter counter;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Generation one = generation(seed, seed % 3 == 0 ? 0.0f : 1.0f);
      Session session(*model_, backend_, options(1));
      const Outputs made = make_decoder(parse_decoder_spec(decoder), drafters())
                               ->decode(session, {&one, 1}, {.observer = &counter, .clock = OddClock(seed)});
      ASSERT_EQ(tokens_of(made), tokens_of(run("sequential", {&one, 1}))) << decoder << ", seed " << seed;
    }
    EXPECT_GT(counter.accepted, 0) << decoder;
    EXPECT_GT(counter.proposed, counter.accepted) << decoder;
  }
}

TEST_P(Constraints, DraftsOfAnyQualityChangeNothing) {
  for (const float temperature : {0.0f, 1.0f}) {
    for (const double right : {0.0, 0.7, 1.0}) {
      for (const int64_t siblings : {int64_t{1}, int64_t{3}}) {
        int64_t accepted = 0;
        for (uint64_t seed = 0; seed < kSeeds / 2; ++seed) {
          const Generation one = generation(seed, temperature);
          const auto truth = tokens_of(run("sequential", {&one, 1}));
          // Its wrong tokens are any tokens, forbidden ones and stop tokens among them.
          QualityProposer proposer({.right = right,
                                    .length = 1 + static_cast<int64_t>(seed % 6),
                                    .siblings = siblings,
                                    .seed = seed},
                                   truth);
          Session session(*model_, backend_, options(1));
          ASSERT_EQ(tokens_of(VerifyLoop{.proposer = proposer}.run(session, {&one, 1}, {})), truth)
              << "seed " << seed << ", right " << right;
          accepted += proposer.accepted();
        }
        EXPECT_GT(accepted, 0);
      }
    }
  }
}

TEST_P(Constraints, RejectionKeepsThemToo) {
  for (const char* decoder :
       {"draft-rejection", "lookup:accept=rejection,ngram=1", "tree:accept=rejection"}) {
    DraftCounter counter;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      const Generation one = generation(seed, 1.0f);
      const Outputs made = run(decoder, {&one, 1}, &counter);
      ASSERT_EQ(fault_of(one, made[0]), "") << decoder << ", seed " << seed;
    }
    EXPECT_GT(counter.accepted, 0) << decoder;
    EXPECT_GT(counter.proposed, counter.accepted) << decoder;
  }
}

// The rule in plain: forbidden logits are minus infinity, then the chain as ever.
TEST_P(Constraints, TokensAreChosenAmongTheAllowed) {
  int64_t other = 0;
  for (const float temperature : {0.0f, 1.0f}) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      if (seed % 5 == 3 || seed % 5 == 4) continue;  // guidance and penalty have oracles of their own
      Generation one = generation(seed, temperature);
      const std::vector<int32_t> made = run("sequential", {&one, 1})[0].tokens;
      Session session(*model_, backend_, options(1));
      const SequenceLease sequence(session.cache());
      const Prompt prompt{.sequence = sequence.id(), .rows = one.prompt.rows};
      session.prefill({&prompt, 1});
      Constraint::State state = one.constraint->start();
      for (size_t i = 0; i < made.size(); ++i) {
        std::vector<float> logits = session.logits_on_host(0);
        SampleRow row = make_sample_row(
            one.chain, {.seed = one.seed, .position = static_cast<int64_t>(i), .total = kTokens}, {});
        const auto choose = [&](std::vector<float> values) {
          std::vector<float> scratch;
          std::vector<int32_t> order;
          const SampleArgs args{.logits = {values.data(), {1, kVocab}}};
          std::vector<float> processed(kVocab);
          sampling::processed_logits(args, row, processed);
          if (temperature > 0.0f) sampling::filter(row, processed, scratch, order);
          return sampling::choose(row, processed);
        };
        const int32_t unconstrained = choose(logits);
        for (int32_t token = 0; token < kVocab; ++token) {
          const bool is_stop = std::ranges::count(one.stop_tokens, token) > 0;
          const bool may = is_stop ? one.constraint->accepts(state)
                                   : one.constraint->next(state, token) != Constraint::kBroken;
          if (!may) logits[static_cast<size_t>(token)] = sampling::kExcluded;
        }
        ASSERT_EQ(made[i], choose(logits)) << "seed " << seed << ", token " << i;
        other += made[i] != unconstrained;
        state = one.constraint->next(state, made[i]);
        if (i + 1 == made.size()) break;
        const auto position = std::ssize(one.prompt.rows) + static_cast<int64_t>(i);
        SequenceStep step{.sequence = sequence.id(),
                          .phase = Phase::kDecode,
                          .rows = {{.token = made[i], .position = model_->position(position)}},
                          .visibility = {.kind = MaskKind::kCausal},
                          .wanted = {.logits = {0}}};
        session.step({&step, 1});
        session.cache().commit_prefix(sequence.id(), 1);
      }
    }
  }
  EXPECT_GT(other, 100) << "the constraint forbade next to nothing";
}

TEST_P(Constraints, BatchEqualsSingles) {
  for (const std::string& decoder : same_tokens_methods()) {
    std::vector<Generation> generations;
    for (uint64_t seed = 0; seed < 8; ++seed) {
      generations.push_back(generation(seed, 1.0f));
      if (seed % 3 == 2) generations.back().constraint = nullptr;  // beside others that have none
      generations.back().max_tokens = 5 + 3 * static_cast<int64_t>(seed);
    }
    const Outputs together = run(decoder, generations);
    for (size_t i = 0; i < generations.size(); ++i) {
      const GenerationOutput alone = run(decoder, {&generations[i], 1})[0];
      EXPECT_EQ(alone.tokens, together[i].tokens) << decoder << ", generation " << i;
      EXPECT_EQ(alone.is_whole, together[i].is_whole);
    }
  }
}

// 1 2, then nothing: the output is whole behind the 2 and ends there, without a stop token.
TEST_P(Constraints, AnOutputEndsWhereNothingMayFollow) {
  const auto chain = std::make_shared<TableConstraint>();
  chain->transitions = {{{0, 1}, 1}, {{1, 2}, 2}};
  chain->accepting = {2};
  for (const std::string& decoder : same_tokens_methods()) {
    for (const bool has_stop : {false, true}) {
      Generation one = generation(0, 1.0f);
      one.constraint = chain;
      one.stop_tokens.clear();
      if (has_stop) one.stop_tokens = {9};
      const GenerationOutput output = run(decoder, {&one, 1})[0];
      EXPECT_EQ(output.tokens, (std::vector<int32_t>{1, 2})) << decoder;
      EXPECT_TRUE(output.finished);
      EXPECT_TRUE(output.is_whole);
      one.max_tokens = 1;
      const GenerationOutput cut = run(decoder, {&one, 1})[0];
      EXPECT_EQ(cut.tokens, (std::vector<int32_t>{1}));
      EXPECT_TRUE(cut.finished);
      EXPECT_FALSE(cut.is_whole);
    }
  }
}

TEST_P(Constraints, AStopTokenComesOnlyWhereItAccepts) {
  // 4 any number of times, at least twice; the stop token is likely everywhere.
  const auto run_of_four = std::make_shared<TableConstraint>();
  run_of_four->transitions = {{{0, 4}, 1}, {{1, 4}, 2}, {{2, 4}, 2}};
  run_of_four->accepting = {2};
  std::map<size_t, int64_t> lengths;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    Generation one = generation(0, 20.0f);
    one.seed = seed;
    one.constraint = run_of_four;
    one.stop_tokens = {9};
    const GenerationOutput output = run("sequential", {&one, 1})[0];
    ASSERT_EQ(fault_of(one, output), "");
    ++lengths[output.tokens.size()];
  }
  EXPECT_EQ(lengths.begin()->first, 3u);
  EXPECT_GT(lengths[3], 10);
}

// Nothing may follow what is not whole: one line, by every method alike.
TEST_P(Constraints, ADeadEndIsAnError) {
  const auto dead = std::make_shared<TableConstraint>();
  dead->transitions = {{{0, 1}, 1}, {{1, 2}, 2}};
  for (const std::string& decoder : same_tokens_methods()) {
    Generation one = generation(0, 1.0f);
    one.constraint = dead;
    one.stop_tokens = {9};
    try {
      run(decoder, {&one, 1});
      FAIL() << decoder;
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(),
                   "constraint: no token of the model's vocabulary may follow the first 2 of the output");
    }
    one.max_tokens = 2;  // it is not reached
    EXPECT_EQ(run(decoder, {&one, 1})[0].tokens.size(), 2u);
  }
  Generation none = generation(0, 1.0f);
  none.constraint = std::make_shared<TableConstraint>();
  EXPECT_THROW(run("sequential", {&none, 1}), Error);
}

// Methods that do not decide from left to right do not pass one over.
TEST_P(Constraints, OtherMethodsRefuseThem) {
  for (const std::string decoder : {"parallel", "masked"}) {
    const Generation one = generation(0, 1.0f);
    try {
      run(decoder, {&one, 1});
      FAIL() << decoder;
    } catch (const Error& error) {
      EXPECT_EQ(error.what(),
                "--decoder " + decoder + ": keeps no constraint; methods of causal models and diffusion do");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Constraints, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

TEST(TokenSetTest, HoldsWhatWasInserted) {
  TokenSet set(130);
  EXPECT_TRUE(set.empty());
  for (const int32_t token : {0, 63, 64, 129}) set.insert(token);
  std::vector<int32_t> visited;
  set.for_each([&](int32_t token) { visited.push_back(token); });
  EXPECT_EQ(visited, (std::vector<int32_t>{0, 63, 64, 129}));
  EXPECT_FALSE(set.empty());
  for (const int32_t token : {-1, 1, 62, 65, 128, 5000}) EXPECT_FALSE(set.contains(token));
  EXPECT_TRUE(set.contains(64));
}

}  // namespace
}  // namespace volley::test
