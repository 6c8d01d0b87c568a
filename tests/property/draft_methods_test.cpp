// Methods with a draft model: small models of any quality change nothing, and are followed exactly.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "core/decode/decoder.h"
#include "core/decode/lane.h"
#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

// Each step's number of drafted and of accepted tokens.
class StepCounts : public Observer {
 public:
  void on_step(const StepEvent& event) override {
    if (event.source == "prompt") return;
    proposed.push_back(event.proposed);
    accepted.push_back(event.accepted);
  }
  int64_t total_proposed() const { return std::accumulate(proposed.begin(), proposed.end(), int64_t{0}); }
  int64_t total_accepted() const { return std::accumulate(accepted.begin(), accepted.end(), int64_t{0}); }
  std::vector<int64_t> proposed, accepted;
};

class DraftMethods : public testing::TestWithParam<std::string> {
 protected:
  Generation generation(uint64_t seed, float temperature) const {
    TestRandom random(seed + 2000);
    std::vector<int32_t> prompt(static_cast<size_t>(1 + random.below(9)));
    for (int32_t& token : prompt) token = static_cast<int32_t>(random.below(16));
    Generation made{.prompt = token_prompt(*model_, prompt),
                    .chain = {.temperature = temperature},
                    .seed = seed,
                    .max_tokens = 24};
    if (seed % 3 == 1) made.chain.top_k = 6;
    if (seed % 5 == 2) {  // guidance, by a prompt of another length
      made.unconditional = token_prompt(*model_, std::vector<int32_t>{3, static_cast<int32_t>(seed % 16)});
      made.chain.guidance = {.scale = 1.8f};
    }
    if (seed % 7 == 3) made.chain.repetition_penalty = 1.4f;
    return made;
  }

  std::vector<int32_t> run(const std::string& decoder, const StepModel& draft, const Generation& one,
                           Observer* observer = nullptr) const {
    Session session(*model_, backend_, {.sequences = 2, .entries = 320});
    return make_decoder(parse_decoder_spec(decoder), {.model = &draft, .backend = backend_})
        ->decode(session, {&one, 1}, {.observer = observer})[0]
        .tokens;
  }

  // Whether the small model, decoding one token at a time along the true output, would choose each of its
  // tokens.
  std::vector<bool> chosen_along(const StepModel& draft, const Generation& one,
                                 const std::vector<int32_t>& truth) const {
    Session session(draft, backend_, {.sequences = 2, .entries = 320});
    Lane lane(session, one);
    std::vector<Prompt> prompts;
    lane.add_prompts(prompts);
    session.prefill(prompts);
    std::vector<int32_t> path;
    for (const StepRow& row : one.prompt.rows) path.push_back(row.token);
    std::vector<bool> chosen;
    for (int64_t position = 0; position < std::ssize(truth); ++position) {
      const auto count = static_cast<int32_t>(path.size());
      const SampleRow row = make_sample_row(one.chain, lane.place(position, position), lane.logits_rows(0),
                                            {.begin = 0, .count = count});
      const int32_t token = truth[static_cast<size_t>(position)];
      chosen.push_back(session.sample({&row, 1}, path).tokens[0] == token);
      std::vector<SequenceStep> steps;
      lane.add_to(steps,
                  {.rows = {{.token = token, .position = draft.position(count)}}, .wanted = {.logits = {0}}});
      session.step(steps);
      lane.commit(std::vector<int32_t>{0});
      path.push_back(token);
    }
    return chosen;
  }

  std::shared_ptr<const Backend> backend_ = make_backend(GetParam(), 2);
  std::unique_ptr<StepModel> model_ = make_toy_llama(*backend_, 1);
  std::unique_ptr<StepModel> random_ = make_toy_llama(*backend_, 2, {.dim = 8, .layers = 1});
  std::unique_ptr<StepModel> good_ = make_toy_llama(*backend_, 1, {.noise = 0.03f});
  std::unique_ptr<StepModel> perfect_ = make_toy_llama(*backend_, 1);
};

TEST_P(DraftMethods, ModelsOfAnyQualityChangeNothing) {
  for (const float temperature : {0.0f, 1.0f}) {
    StepCounts random, good, perfect;
    for (uint64_t seed = 0; seed < (kSanitized ? 40 : 200); ++seed) {
      const Generation one = generation(seed, temperature);
      const std::vector<int32_t> truth = run("sequential", *model_, one);
      for (const char* decoder : {"draft", "draft:draft=5,length=fixed"}) {
        ASSERT_EQ(run(decoder, *random_, one, &random), truth) << decoder << ", seed " << seed;
        ASSERT_EQ(run(decoder, *good_, one, &good), truth) << decoder << ", seed " << seed;
        ASSERT_EQ(run(decoder, *perfect_, one, &perfect), truth) << decoder << ", seed " << seed;
      }
    }
    EXPECT_GT(random.total_accepted(), 0);
    EXPECT_GT(random.total_proposed(), 2 * random.total_accepted());
    // A model that is nearly the target is right more than twice as often as one that is not.
    EXPECT_GT(good.total_accepted() * random.total_proposed(),
              2 * random.total_accepted() * good.total_proposed());
    EXPECT_GT(good.total_proposed(), good.total_accepted());
    // The same weights under the same noise choose the same tokens: none is ever refused.
    EXPECT_EQ(perfect.accepted, perfect.proposed);
  }
}

// What is drafted behind each verified prefix is what the small model would choose there, as if it had seen
// nothing but the true output: rows of refused tokens leave its cache, and those of accepted ones stay.
TEST_P(DraftMethods, TheSmallModelFollowsTheOutput) {
  for (const float temperature : {0.0f, 1.0f}) {
    for (uint64_t seed = 0; seed < 60; ++seed) {
      const Generation one = generation(seed, temperature);
      const std::vector<int32_t> truth = run("sequential", *model_, one);
      const std::vector<bool> chosen = chosen_along(*good_, one, truth);
      StepCounts counts;
      run("draft:draft=4,length=fixed", *good_, one, &counts);
      int64_t done = 1;
      for (size_t step = 0; step < counts.accepted.size(); ++step) {
        int64_t right = 0;
        while (right < counts.proposed[step] && chosen[static_cast<size_t>(done + right)]) ++right;
        ASSERT_EQ(counts.accepted[step], right) << "seed " << seed << ", step " << step;
        done += right + 1;
      }
      EXPECT_EQ(done, std::ssize(truth));
    }
  }
}

TEST_P(DraftMethods, LengthFollowsItsSchedule) {
  Generation one = generation(0, 1.0f);
  one.max_tokens = 60;
  StepCounts grows, shrinks, fixed;
  run("draft:draft=9", *perfect_, one, &grows);
  ASSERT_GE(grows.proposed.size(), 5u);
  EXPECT_EQ((std::vector<int64_t>{grows.proposed.begin(), grows.proposed.begin() + 5}),
            (std::vector<int64_t>{4, 6, 8, 9, 9}));
  run("draft:draft=9", *random_, one, &shrinks);
  for (size_t step = 1; step < shrinks.proposed.size() - 1; ++step) {
    const bool was_right = shrinks.accepted[step - 1] == shrinks.proposed[step - 1];
    EXPECT_EQ(shrinks.proposed[step], was_right ? std::min<int64_t>(shrinks.proposed[step - 1] + 2, 9)
                                                : std::max<int64_t>(shrinks.proposed[step - 1] - 1, 1));
  }
  EXPECT_GT(std::ranges::count(shrinks.proposed, 1), 0);
  run("draft:draft=9,length=fixed", *random_, one, &fixed);
  EXPECT_EQ(fixed.proposed.front(), 9);
  EXPECT_EQ(fixed.proposed[2], 9);
}

TEST_P(DraftMethods, DraftsEndWhereTheSmallModelsPositionsEnd) {
  const auto brief = make_toy_llama(*backend_, 1, {.max_position = 20});
  const Generation one = generation(0, 1.0f);
  const int64_t prompt = prompt_entries(one);
  StepCounts counts;
  EXPECT_EQ(run("draft:draft=4,length=fixed", *brief, one, &counts), run("sequential", *model_, one));
  // The small model's last row stands at position 19; what it says there is its last draft.
  int64_t done = 1;
  for (size_t step = 0; step < counts.proposed.size(); ++step) {
    EXPECT_EQ(counts.proposed[step],
              std::clamp<int64_t>(20 - prompt + 1 - done, 0, std::min<int64_t>(4, 24 - done - 1)));
    done += counts.accepted[step] + 1;
  }
  EXPECT_GT(counts.proposed.front(), 0);
  EXPECT_EQ(counts.proposed.back(), 0);
  // A prompt that does not fit is never drafted for.
  const auto tiny = make_toy_llama(*backend_, 1, {.max_position = 1});
  StepCounts none;
  EXPECT_EQ(run("draft", *tiny, generation(1, 1.0f), &none), run("sequential", *model_, generation(1, 1.0f)));
  EXPECT_EQ(none.total_proposed(), 0);
}

TEST_P(DraftMethods, ForwardsOfTheSmallModelAreCountedApart) {
  std::vector<Generation> generations;
  for (uint64_t seed = 0; seed < 6; ++seed) generations.push_back(generation(3 * seed, 1.0f));
  Session session(*model_, backend_, {.sequences = 12, .entries = 320});
  const auto decoder = make_decoder(parse_decoder_spec("draft:draft=5,length=fixed"),
                                    {.model = perfect_.get(), .backend = backend_});
  const auto outputs = decoder->decode(session, generations, {});
  const Statistics& counts = session.statistics();
  // 23 tokens behind the first: three drafts of five and what follows each, then one of four.
  for (const GenerationOutput& output : outputs) EXPECT_EQ(output.forwards, 4);
  EXPECT_EQ(counts.forwards, 4);
  // The drafts of a batch are made side by side.
  EXPECT_EQ(counts.draft_forwards, 5 + 5 + 5 + 4);
  EXPECT_EQ(counts.draft_prompt_forwards, 1);
  EXPECT_EQ(counts.tokens, 6 * 24);
}

INSTANTIATE_TEST_SUITE_P(Backends, DraftMethods, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
