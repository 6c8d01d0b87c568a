// Outputs that outgrow their contexts: same-tokens methods give sequential decoding's tokens by the same
// rule, and that rule is plain.
#include "core/decode/context_shift.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/backend/sampling.h"
#include "core/decode/draft_pool.h"
#include "tests/property/methods.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/support/table_constraint.h"
#include "tests/support/toy_heads.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int64_t kVocab = 16;
constexpr uint64_t kSeeds = kSanitized ? 20 : 120;

using Outputs = std::vector<GenerationOutput>;

class ContextShifts : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = make_backend(GetParam(), 2);
    model_ = make_toy_llama(*backend_, 1);
    draft_model_ = make_toy_llama(*backend_, 1, {.noise = 0.03f});
    heads_ = make_toy_heads(*backend_, 3, *model_);
  }

  struct Case {
    Generation generation;
    ContextShift shift;
  };

  // Several contexts long, some with a constraint, a stop token or a penalty.
  Case make(uint64_t seed, float temperature) const {
    TestRandom random(seed + 1000);
    Case made{.shift = {.context = 8 + random.below(30)}};
    made.shift.keep = random.below(made.shift.context - 2);
    std::vector<int32_t> prompt(static_cast<size_t>(1 + random.below(made.shift.context - 1)));
    for (int32_t& token : prompt) token = static_cast<int32_t>(random.below(kVocab));
    made.generation = {.prompt = token_prompt(*model_, prompt),
                       .chain = {.temperature = temperature},
                       .seed = seed,
                       .max_tokens = 20 + random.below(60)};
    if (seed % 3 == 1) made.generation.constraint = TableConstraint::random(seed);
    if (seed % 4 == 1) made.generation.stop_tokens = {3};
    if (seed % 5 == 4) made.generation.chain.repetition_penalty = 1.5f;
    if (seed % 5 == 3) made.generation.chain.top_k = 4;
    return made;
  }

  Outputs run(const std::string& decoder, std::span<const Case> cases, DecodeControl control = {}) const {
    const auto method =
        make_decoder(parse_decoder_spec(decoder),
                     {.model = draft_model_.get(), .heads = heads_.get(), .backend = backend_});
    std::vector<Generation> generations;
    std::vector<ContextShift> shifts;
    Session::Options room{.sequences = std::ssize(cases)};
    for (const Case& one : cases) {
      generations.push_back(one.generation);
      shifts.push_back(one.shift);
      room.entries = std::max(room.entries, shifting_entries(*method, one.generation, one.shift));
    }
    Session session(*model_, backend_, room);
    return decode_shifting(*method, session, generations, shifts, control);
  }

  // The rule in plain: one token at a time, and what stays begins anew.
  std::vector<int32_t> plain(const Case& one) const {
    std::vector<int32_t> window, output;
    for (const StepRow& row : one.generation.prompt.rows) window.push_back(row.token);
    Session session(*model_, backend_, {.sequences = 1, .entries = 64});
    const SequenceLease sequence(session.cache());
    const auto choose = [&] {
      std::vector<float> logits = session.logits_on_host(0);
      const auto position = std::ssize(output);
      SampleRow row =
          make_sample_row(one.generation.chain, {.seed = one.generation.seed, .position = position}, {},
                          {.count = static_cast<int32_t>(window.size())});
      const SampleArgs args{.logits = {logits.data(), {1, kVocab}},
                            .path = {window.data(), {std::ssize(window)}}};
      std::vector<float> scratch, processed(kVocab);
      std::vector<int32_t> order;
      sampling::processed_logits(args, row, processed);
      if (row.temperature > 0.0f) sampling::filter(row, processed, scratch, order);
      const int32_t token = sampling::choose(row, processed);
      window.push_back(token);
      output.push_back(token);
    };
    const auto begin = [&] {
      session.cache().crop(sequence.id(), 0);
      const Prompt prompt{.sequence = sequence.id(), .rows = token_prompt(*model_, window).rows};
      session.prefill({&prompt, 1});
      choose();
    };
    begin();
    while (std::ssize(output) < one.generation.max_tokens &&
           std::ranges::count(one.generation.stop_tokens, output.back()) == 0) {
      if (std::ssize(window) == one.shift.context) {
        const int64_t rest = one.shift.context - one.shift.keep, dropped = rest - rest / 2;
        for (int64_t i = 0; i < dropped; ++i) window.erase(window.begin() + one.shift.keep);
        begin();
        continue;
      }
      SequenceStep step{
          .sequence = sequence.id(),
          .phase = Phase::kDecode,
          .rows = {{.token = window.back(), .position = model_->position(std::ssize(window) - 1)}},
          .visibility = {.kind = MaskKind::kCausal},
          .wanted = {.logits = {0}}};
      session.step({&step, 1});
      session.cache().commit_prefix(sequence.id(), 1);
      choose();
    }
    return output;
  }

  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<StepModel> model_;
  std::unique_ptr<StepModel> draft_model_;
  std::unique_ptr<DraftHeads> heads_;
};

TEST_P(ContextShifts, SequentialDecodingFollowsThePlainRule) {
  int64_t shifts = 0, other = 0;
  for (const float temperature : {0.0f, 1.0f}) {
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      Case one = make(seed, temperature);
      one.generation.constraint = nullptr;
      const Outputs made = run("sequential", {&one, 1});
      ASSERT_EQ(made[0].tokens, plain(one)) << "seed " << seed;
      ASSERT_EQ(made[0].forwards, std::ssize(made[0].tokens) - 1 - made[0].shifts);
      shifts += made[0].shifts;
      // What stays of it tells the model other things than the whole.
      Case whole = one;
      whole.shift.context = 200;
      const std::vector<int32_t> unshifted = run("sequential", {&whole, 1})[0].tokens;
      other += unshifted != made[0].tokens;
      const auto common = std::ranges::mismatch(unshifted, made[0].tokens).in1 - unshifted.begin();
      ASSERT_GE(common,
                std::min(std::ssize(unshifted), one.shift.context - std::ssize(one.generation.prompt.rows)));
    }
  }
  EXPECT_GT(shifts, static_cast<int64_t>(2 * kSeeds));
  EXPECT_GT(other, 20);
}

TEST_P(ContextShifts, EveryMethodGivesSequentialTokens) {
  std::vector<std::string> decoders = same_tokens_methods();
  for (const char* more :
       {"lookup:ngram=1,pool=500", "tree:widths=4x3,ngram=1", "jacobi:window=40,init=random",
        "lookahead:W=5,N=3,G=2", "heads:width=3,confidence=0.05"}) {
    decoders.emplace_back(more);
  }
  for (const float temperature : {0.0f, 1.0f}) {
    std::map<std::string, DraftCounter> counters;
    std::map<std::string, DraftPool> pools;
    int64_t shifts = 0, cut = 0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      std::vector<Case> cases;
      for (uint64_t i = 0; i <= seed % 3; ++i) cases.push_back(make(3 * seed + i, temperature));
      const Outputs truth = run("sequential", cases);
      for (const GenerationOutput& output : truth) {
        shifts += output.shifts;
        cut += !output.is_whole;
      }
      for (const std::string& decoder : decoders) {
        const Outputs made = run(decoder, cases, {.observer = &counters[decoder], .pool = &pools[decoder]});
        for (size_t i = 0; i < cases.size(); ++i) {
          ASSERT_EQ(made[i].tokens, truth[i].tokens) << decoder << ", seed " << seed << ", output " << i;
          ASSERT_EQ(made[i].shifts, truth[i].shifts);
          ASSERT_EQ(made[i].is_whole, truth[i].is_whole);
          ASSERT_EQ(made[i].is_complete, truth[i].is_complete);
          ASSERT_TRUE(made[i].finished);
        }
      }
    }
    EXPECT_GT(shifts, static_cast<int64_t>(2 * kSeeds));
    EXPECT_GT(cut, 0);
    for (const auto& [decoder, counter] : counters) {
      if (decoder == "sequential") continue;
      EXPECT_GT(counter.accepted, 0) << decoder << " accepted nothing";
      EXPECT_GT(counter.proposed, counter.accepted) << decoder << " threw nothing away";
    }
  }
}

// A constraint goes on where it was, by what the output has of it and not by what stays in the context.
TEST_P(ContextShifts, ConstraintsGoOn) {
  // 1 to 9 in turn, again and again; whole behind each 9.
  const auto turns = std::make_shared<TableConstraint>();
  for (int32_t i = 0; i < 9; ++i) turns->transitions[{i, i + 1}] = (i + 1) % 9;
  turns->accepting = {0};
  for (const std::string& decoder : same_tokens_methods()) {
    Case one = make(0, 1.0f);
    one.generation.constraint = turns;
    one.generation.max_tokens = 90;
    one.shift = {.context = std::ssize(one.generation.prompt.rows) + 5, .keep = 2};
    const GenerationOutput output = run(decoder, {&one, 1})[0];
    ASSERT_EQ(output.tokens.size(), 90u);
    for (size_t i = 0; i < 90; ++i) ASSERT_EQ(output.tokens[i], static_cast<int32_t>(i % 9 + 1)) << decoder;
    EXPECT_TRUE(output.is_whole);
    EXPECT_GT(output.shifts, 2);
  }
}

TEST_P(ContextShifts, EventsAreThoseOfTheWholeOutput) {
  class Witness : public Observer {
   public:
    void on_step(const StepEvent& event) override {
      std::vector<int32_t>& seen = tokens[event.generation];
      EXPECT_EQ(event.step, steps[event.generation]++);
      for (size_t i = 0; i < event.tokens.size(); ++i) {
        EXPECT_EQ(event.positions[i], std::ssize(seen));
        seen.push_back(event.tokens[i]);
      }
      EXPECT_EQ(event.done, std::ssize(seen));
    }
    void on_shift(const ShiftEvent& event) override {
      ++shifts[event.generation];
      EXPECT_EQ(event.step, steps[event.generation]);
      EXPECT_EQ(event.done, std::ssize(tokens[event.generation]));
      EXPECT_GT(event.dropped, 0);
    }
    std::map<int64_t, std::vector<int32_t>> tokens;
    std::map<int64_t, int64_t> steps, shifts;
  };
  for (const char* decoder : {"sequential", "lookup:ngram=1", "jacobi"}) {
    std::vector<Case> cases;
    for (uint64_t seed = 0; seed < 5; ++seed) cases.push_back(make(seed, 1.0f));
    Witness witness;
    const Outputs outputs = run(decoder, cases, {.observer = &witness});
    for (size_t i = 0; i < cases.size(); ++i) {
      const auto generation = static_cast<int64_t>(i);
      EXPECT_EQ(witness.tokens[generation], outputs[i].tokens);
      EXPECT_EQ(witness.shifts[generation], outputs[i].shifts);
      EXPECT_EQ(witness.steps[generation], outputs[i].forwards + 1 + outputs[i].shifts);
    }
  }
}

// What else says that an output ends is asked of each token once, across shifts, and a stop keeps what is
// there.
TEST_P(ContextShifts, OutputsEndAsEver) {
  Case one = make(0, 1.0f);
  one.generation.max_tokens = 80;
  const GenerationOutput whole = run("sequential", {&one, 1})[0];
  EXPECT_GT(whole.shifts, 2);
  for (const char* decoder : {"sequential", "lookup:ngram=1", "jacobi"}) {
    for (const size_t end : {size_t{1}, size_t{40}, size_t{79}}) {
      std::vector<int32_t> asked;
      one.generation.ends_with = [&](int32_t token) {
        asked.push_back(token);
        return asked.size() == end;
      };
      const GenerationOutput cut = run(decoder, {&one, 1})[0];
      EXPECT_EQ(cut.tokens,
                std::vector(whole.tokens.begin(), whole.tokens.begin() + static_cast<int64_t>(end)));
      EXPECT_EQ(cut.tokens, asked);
      EXPECT_TRUE(cut.finished);
    }
  }
  one.generation.ends_with = {};
  std::stop_source stop;
  class Stopper : public Observer {
   public:
    explicit Stopper(std::stop_source& stop) : stop_(stop) {}
    void on_step(const StepEvent& event) override {
      if (event.done >= 50) stop_.request_stop();
    }

   private:
    std::stop_source& stop_;
  } stopper(stop);
  const GenerationOutput stopped =
      run("sequential", {&one, 1}, {.observer = &stopper, .stop = stop.get_token()})[0];
  EXPECT_FALSE(stopped.finished);
  EXPECT_EQ(stopped.tokens, std::vector(whole.tokens.begin(), whole.tokens.begin() + 50));
}

INSTANTIATE_TEST_SUITE_P(Backends, ContextShifts, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

TEST(ContextShiftTest, TheFirstAndTheLaterHalfOfTheRestStay) {
  using Tokens = std::vector<int32_t>;
  EXPECT_EQ(shifted(Tokens{0, 1, 2, 3, 4, 5}, 2), (Tokens{0, 1, 4, 5}));
  EXPECT_EQ(shifted(Tokens{0, 1, 2, 3, 4}, 0), (Tokens{3, 4}));
  EXPECT_EQ(shifted(Tokens{0, 1, 2}, 2), (Tokens{0, 1}));
}

// A prompt that is too long is what stays of it token by token.
TEST(ContextShiftTest, LongPromptsAreShiftedAsIfTheyCameTokenByToken) {
  for (const int64_t context : {4, 5, 16, 31}) {
    for (int64_t keep = 0; keep + 2 <= context; ++keep) {
      for (int32_t size = 1; size < 100; ++size) {
        std::vector<int32_t> prompt, window;
        for (int32_t token = 0; token < size; ++token) {
          prompt.push_back(token);
          window.push_back(token);
          if (std::ssize(window) == context) window = shifted(window, keep);
        }
        const auto left = fitted(prompt, {.context = context, .keep = keep});
        ASSERT_EQ(left, window) << context << ", " << keep << ", " << size;
        ASSERT_LT(std::ssize(left), context);
      }
    }
  }
}

}  // namespace
}  // namespace volley::test
