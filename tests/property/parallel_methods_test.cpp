// Methods whose steps are part of the model: parallel (random order) and masked. An output does not depend on
// what is made beside it.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "core/decode/decoder.h"
#include "core/decode/masked.h"
#include "core/decode/schedule.h"
#include "tests/support/devices.h"
#include "tests/support/toy_image_models.h"

namespace volley::test {
namespace {

class ParallelMethods : public testing::TestWithParam<std::string> {
 protected:
  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::unique_ptr<image::Arpg> arpg_ = make_toy_arpg(*backend_, 11, 5);

  Generation picture(uint64_t seed) const {
    Generation made{.prompt = token_prompt(
                        *arpg_, std::vector<int32_t>{arpg_->class_token(static_cast<int64_t>(seed % 3))}),
                    .chain = {.temperature = 1.0f, .top_k = 9},
                    .seed = seed,
                    .max_tokens = 25};
    if (seed % 2 == 1) {
      made.unconditional = token_prompt(*arpg_, std::vector<int32_t>{arpg_->null_class_token()});
      made.chain.guidance = {.kind = GuidanceSchedule::Kind::kLinear, .scale = 3.0f};
    }
    return made;
  }

  std::vector<GenerationOutput> run(const std::string& decoder, std::span<const Generation> generations,
                                    Observer* observer = nullptr) const {
    Session session(*arpg_, backend_,
                    {.sequences = 2 * static_cast<int64_t>(generations.size()), .entries = 64});
    return make_decoder(parse_decoder_spec(decoder))->decode(session, generations, {.observer = observer});
  }
};

TEST_P(ParallelMethods, BatchEqualsSingles) {
  for (const char* decoder : {"parallel:steps=8", "parallel:steps=25,schedule=cosine", "parallel:steps=1"}) {
    std::vector<Generation> generations;
    for (uint64_t seed = 0; seed < 6; ++seed) generations.push_back(picture(seed));
    const auto together = run(decoder, generations);
    for (size_t i = 0; i < generations.size(); ++i) {
      EXPECT_EQ(run(decoder, {&generations[i], 1})[0].tokens, together[i].tokens)
          << decoder << ", picture " << i;
      EXPECT_TRUE(together[i].finished);
    }
  }
}

TEST_P(ParallelMethods, EveryPositionIsDecidedOnce) {
  class Counter : public Observer {
   public:
    void on_step(const StepEvent& event) override {
      for (int32_t position : event.positions) ++decided[position];
      ++steps;
      last_done = event.done;
    }
    std::map<int32_t, int> decided;
    int steps = 0;
    int64_t last_done = 0;
  };
  Counter counter;
  const Generation one = picture(3);
  const auto output = run("parallel:steps=8", {&one, 1}, &counter);
  EXPECT_EQ(counter.decided.size(), 25u);
  EXPECT_TRUE(std::ranges::all_of(counter.decided, [](const auto& entry) { return entry.second == 1; }));
  EXPECT_EQ(counter.steps, output[0].forwards);
  EXPECT_EQ(counter.last_done, 25);
}

TEST_P(ParallelMethods, OrderIsTheSeedsOwnUnlessGiven) {
  Generation one = picture(2);
  const auto own = run("parallel:steps=8", {&one, 1})[0].tokens;
  one.order = random_order(one.seed, one.stream, 25);
  EXPECT_EQ(run("parallel:steps=8", {&one, 1})[0].tokens, own);
  std::ranges::reverse(one.order);
  EXPECT_NE(run("parallel:steps=8", {&one, 1})[0].tokens, own);
}

TEST_P(ParallelMethods, GivenTokensStayAndAreSeen) {
  struct Counter : Observer {
    void on_step(const StepEvent& event) override {
      for (int32_t position : event.positions) ++decided[position];
      first_done = std::min(first_done, event.done - std::ssize(event.positions));
    }
    std::map<int32_t, int> decided;
    int64_t first_done = 1000;
  };
  Generation other = picture(5), one = picture(3);
  const std::vector<int32_t> free_run = run("parallel:steps=8", {&one, 1})[0].tokens;
  for (int32_t position : {24, 0, 7, 8, 13})
    one.given.push_back({.position = position, .token = position % 9});
  for (const char* decoder : {"parallel:steps=8", "parallel:steps=6,order=raster", "parallel:order=center"}) {
    SCOPED_TRACE(decoder);
    Counter counter;
    const auto alone = run(decoder, {&one, 1}, &counter)[0];
    EXPECT_TRUE(alone.finished);
    EXPECT_EQ(counter.decided.size(), 20u) << "given positions are not decided";
    EXPECT_EQ(counter.first_done, 5) << "but count as known";
    for (const GivenToken& given : one.given) {
      EXPECT_FALSE(counter.decided.contains(given.position));
      EXPECT_EQ(alone.tokens[static_cast<size_t>(given.position)], given.token);
    }
    const std::vector<Generation> both{other, one};
    EXPECT_EQ(run(decoder, both)[1].tokens, alone.tokens) << "beside one that has none";
    Generation changed = one;
    changed.given[2].token = 8;
    EXPECT_NE(run(decoder, {&changed, 1})[0].tokens, alone.tokens) << "others see the given tokens";
  }
  // All given: nothing is left to do.
  one.given.clear();
  for (int32_t position = 0; position < 25; ++position) {
    one.given.push_back({.position = position, .token = free_run[static_cast<size_t>(position)]});
  }
  const auto whole = run("parallel", {&one, 1})[0];
  EXPECT_TRUE(whole.finished);
  EXPECT_EQ(whole.tokens, free_run);
  EXPECT_EQ(whole.forwards, 0);
}

// What one step after another has decided, fed again as given tokens in the same order, leaves the rest to be
// decided as before: prefilling is the method's own state.
TEST_P(ParallelMethods, GivenTokensEqualTheSameTokensDecided) {
  const std::string kOneEach = "parallel:steps=400,schedule=cosine";  // one position a step
  Generation one = picture(3);
  const auto whole = run(kOneEach, {&one, 1})[0].tokens;
  const std::vector<int32_t> order = random_order(one.seed, one.stream, 25);
  for (const int count : {1, 11, 24}) {
    Generation rest = one;
    for (int i = 0; i < count; ++i) {
      rest.given.push_back({.position = order[static_cast<size_t>(i)],
                            .token = whole[static_cast<size_t>(order[static_cast<size_t>(i)])]});
    }
    EXPECT_EQ(run(kOneEach, {&rest, 1})[0].tokens, whole) << count << " given";
  }
}

TEST_P(ParallelMethods, OrdersAreWhatTheirNamesSay) {
  struct Recorder : Observer {
    void on_step(const StepEvent& event) override {
      order.insert(order.end(), event.positions.begin(), event.positions.end());
    }
    std::vector<int32_t> order;
  };
  const auto order_of = [&](const std::string& name, uint64_t seed) {
    Recorder recorder;
    const Generation one = picture(seed);
    run("parallel:steps=8,order=" + name, {&one, 1}, &recorder);
    return recorder.order;
  };
  std::vector<int32_t> raster(25);
  std::iota(raster.begin(), raster.end(), 0);
  EXPECT_EQ(order_of("raster", 3), raster);
  EXPECT_EQ(order_of("random", 3), random_order(3, 0, 25));
  const std::vector<int32_t> center = order_of("center", 3);
  EXPECT_EQ(center.front(), 12) << "the middle of 5x5";
  const auto distance = [](int32_t cell) {
    const int32_t row = cell / 5 - 2, column = cell % 5 - 2;
    return row * row + column * column;
  };
  EXPECT_TRUE(std::ranges::is_sorted(center, {}, distance));
  EXPECT_EQ(std::ranges::count(std::span(center).last(4), 24), 1) << "corners come last";
  EXPECT_NE(order_of("center", 4), center) << "cells of one distance by the seed";
  EXPECT_EQ(order_of("center", 3), center);
}

// Content in blocks: one step under a block-causal mask gives the bits of one step for each block under a
// full mask.
TEST_P(ParallelMethods, BlockCausalStepEqualsBlocksInTurn) {
  const std::vector<int32_t> tokens{arpg_->class_token(1), 3, 9, 2, 7, 12, 5};
  const auto content = [&](size_t i) {
    return StepRow{.token = tokens[i], .position = arpg_->position(static_cast<int64_t>(i))};
  };
  const auto ask = [&](Session& session, SequenceId id) {
    SequenceStep step{.sequence = id, .visibility = {.kind = MaskKind::kFull}};
    step.rows.push_back({.kind = RowKind::kQuery, .position = arpg_->position(20)});
    step.wanted.logits = {0};
    session.step({&step, 1});
    return session.logits_on_host(0);
  };
  for (const size_t block : {size_t{1}, size_t{2}, size_t{3}, size_t{7}}) {
    Session session(*arpg_, backend_, {.sequences = 3, .entries = 64});
    const SequenceId at_once = session.cache().create(), in_turn = session.cache().create();
    SequenceStep whole{.sequence = at_once,
                       .visibility = {.kind = MaskKind::kBlockCausal, .block = static_cast<int64_t>(block)}};
    for (size_t i = 0; i < tokens.size(); ++i) whole.rows.push_back(content(i));
    session.step({&whole, 1});
    session.cache().commit_prefix(at_once, static_cast<int64_t>(tokens.size()));
    for (size_t begin = 0; begin < tokens.size(); begin += block) {
      SequenceStep part{.sequence = in_turn, .visibility = {.kind = MaskKind::kFull}};
      for (size_t i = begin; i < std::min(tokens.size(), begin + block); ++i) part.rows.push_back(content(i));
      session.step({&part, 1});
      session.cache().commit_prefix(in_turn, static_cast<int64_t>(part.rows.size()));
    }
    const std::vector<float> expected = ask(session, in_turn);
    EXPECT_EQ(ask(session, at_once), expected) << "blocks of " << block;
    if (block == 7) continue;
    // The mask matters: without blocks the same rows give other numbers.
    const SequenceId full = session.cache().create();
    whole.sequence = full;
    whole.visibility = {.kind = MaskKind::kFull};
    session.step({&whole, 1});
    session.cache().commit_prefix(full, static_cast<int64_t>(tokens.size()));
    EXPECT_NE(ask(session, full), expected);
  }
}

TEST_P(ParallelMethods, MaskedCandidatesDoNotDependOnCompany) {
  for (const int64_t memory_width : {0, 12}) {
    const auto model = make_toy_masked(*backend_, 21, memory_width);
    Session session(*model, backend_,
                    {.sequences = 60, .entries = 64, .memory_sequences = 4, .memory_entries = 300});
    std::vector<Generation> generations;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      generations.push_back({.prompt = token_prompt(*model, std::vector<int32_t>{1}),
                             .seed = seed,
                             .max_tokens = 11 + static_cast<int64_t>(seed),
                             .mask_token = 16,
                             .pad_token = 2});
      if (memory_width == 0) continue;
      TestRandom random(seed);
      std::vector<float> rows(static_cast<size_t>(memory_width) * (270 + seed));
      for (float& value : rows) value = random.normal();
      generations.back().memory = session.add_memory(rows);
    }
    const MaskedLoop loop{.candidates = 5, .mask_ratios = {1.0, 0.9, 0.85, 0.8}};
    const auto together = loop.run(session, generations, {});
    for (size_t i = 0; i < generations.size(); ++i) {
      const auto alone = loop.run(session, {&generations[i], 1}, {});
      EXPECT_EQ(alone[0].tokens, together[i].tokens);
      EXPECT_EQ(alone[0].scores, together[i].scores);
      EXPECT_EQ(alone[0].tokens[0][0], 1) << "the prompt was hidden";
    }
    // Candidates do differ, and no place keeps the mask.
    EXPECT_NE(together[0].tokens[0], together[0].tokens[1]);
    for (const auto& tokens : together[0].tokens) EXPECT_EQ(std::ranges::count(tokens, 16), 0);
    // The registered method returns the best candidate.
    const auto outputs =
        make_decoder(parse_decoder_spec("masked:candidates=5"))->decode(session, generations, {});
    for (size_t i = 0; i < generations.size(); ++i) {
      const auto& best = together[i].tokens[static_cast<size_t>(together[i].best)];
      EXPECT_TRUE(std::ranges::equal(outputs[i].tokens, std::span(best).subspan(1)));
    }
  }
}

TEST_P(ParallelMethods, MaskedEventsSpeakOfTheOutput) {
  class Recorder : public Observer {
   public:
    void on_step(const StepEvent& event) override {
      for (size_t i = 0; i < event.positions.size(); ++i) {
        ASSERT_GE(event.positions[i], 0);
        ASSERT_LT(event.positions[i], 6);
        tokens[static_cast<size_t>(event.candidate)][static_cast<size_t>(event.positions[i])] =
            event.tokens[i];
      }
      EXPECT_EQ(event.is_final, event.step == 3);
      EXPECT_EQ(event.done, event.is_final ? 6 : 0);
      EXPECT_EQ(event.total, 6);
      ++events;
    }
    std::vector<std::vector<int32_t>> tokens{3, std::vector<int32_t>(6, -1)};
    int events = 0;
  };
  const auto model = make_toy_masked(*backend_, 21, 0);
  Session session(*model, backend_, {.sequences = 3, .entries = 64});
  const Generation one{.prompt = token_prompt(*model, std::vector<int32_t>{1, 5, 9}),
                       .max_tokens = 6,
                       .mask_token = 16,
                       .pad_token = 2};
  Recorder recorder;
  const MaskedLoop loop{.candidates = 3, .mask_ratios = {1.0, 0.9, 0.85, 0.8}};
  const auto result = loop.run(session, {&one, 1}, {.observer = &recorder})[0];
  EXPECT_EQ(recorder.events, 12);
  for (size_t c = 0; c < 3; ++c)
    EXPECT_TRUE(std::ranges::equal(recorder.tokens[c], std::span(result.tokens[c]).subspan(3)));
}

INSTANTIATE_TEST_SUITE_P(Backends, ParallelMethods, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

TEST(Schedule, MatchesThePublishedSizes) {
  // The sizes that ARPG's loop gives for 256 cells.
  const auto arccos = schedule_steps(StepSchedule::kArccos, 256, 64);
  ASSERT_EQ(arccos.size(), 64u);
  EXPECT_EQ(std::vector<int64_t>(arccos.begin(), arccos.begin() + 3), (std::vector<int64_t>{3, 3, 2}));
  EXPECT_EQ(std::vector<int64_t>(arccos.end() - 3, arccos.end()), (std::vector<int64_t>{10, 12, 28}));
  const auto half = schedule_steps(StepSchedule::kArccos, 256, 32);
  EXPECT_EQ(half.front(), 6);
  EXPECT_EQ(half.back(), 40);
  const auto cosine = schedule_steps(StepSchedule::kCosine, 256, 64);
  EXPECT_EQ(cosine.front(), 1);
  EXPECT_EQ(*std::ranges::max_element(cosine), 7);
  EXPECT_EQ(cosine.back(), 6);  // floor(256 cos(63/64 pi/2))
  for (int64_t total : {1, 2, 16, 36, 255}) {
    for (int64_t steps : {1, 2, 7, 256, 1000}) {
      for (auto schedule : {StepSchedule::kArccos, StepSchedule::kCosine}) {
        const auto sizes = schedule_steps(schedule, total, steps);
        int64_t sum = 0;
        for (int64_t size : sizes) {
          EXPECT_GE(size, 1);
          sum += size;
        }
        EXPECT_EQ(sum, total);
        EXPECT_LE(static_cast<int64_t>(sizes.size()), steps);
      }
    }
  }
}

}  // namespace
}  // namespace volley::test
