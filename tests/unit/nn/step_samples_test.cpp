// What a session chooses by the logits of a step.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/error.h"
#include "core/decode/generation.h"
#include "tests/unit/nn/step_fixture.h"

namespace volley::test {
namespace {

constexpr int64_t kVocab = kStepVocab;

class StepSamples : public StepFixture {};

TEST_P(StepSamples, SamplesComeBackReduced) {
  Session session(*model_, backend_, {.sequences = 1, .entries = 64});
  feed(session, session.cache().create(), random_tokens(15, 6));
  const SampleRow row{.temperature = 0.7f, .top_k = 6, .seed = 4};
  const Samples samples = session.sample({&row, 1}, {}, {.certainty = true, .distribution = true, .top = 5});
  const Samples tokens = session.sample({&row, 1});
  EXPECT_EQ(tokens.tokens, samples.tokens);
  EXPECT_TRUE(tokens.probability.empty() && tokens.entropy.empty() && tokens.distribution.empty());
  EXPECT_NEAR(std::accumulate(samples.distribution.begin(), samples.distribution.end(), 0.0), 1.0, 1e-5);
  EXPECT_EQ(samples.probability[0], samples.distribution[static_cast<size_t>(samples.tokens[0])]);
  EXPECT_EQ(std::count(samples.distribution.begin(), samples.distribution.end(), 0.0f), kVocab - 6);
  double entropy = 0.0;
  for (float p : samples.distribution) entropy -= p > 0.0f ? p * std::log(p) : 0.0;
  EXPECT_NEAR(samples.entropy[0], entropy, 1e-4);
  std::vector<float> sorted = samples.distribution;
  std::sort(sorted.rbegin(), sorted.rend());
  ASSERT_EQ(samples.top_probability.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(samples.top_probability[i], sorted[i]);
    EXPECT_EQ(samples.distribution[static_cast<size_t>(samples.top_tokens[i])], sorted[i]);
  }
}

TEST_P(StepSamples, PathsMayHoldConditionsThatCannotBeChosen) {
  Session session(*model_, backend_, {.sequences = 1, .entries = 64});
  feed(session, session.cache().create(), random_tokens(16, 6));
  SampleRow row{.temperature = 1.0f, .seed = 4, .repetition_penalty = 1.5f, .path_begin = 0, .path_count = 4};
  const std::vector<int32_t> path{3, static_cast<int32_t>(kVocab), 1000000, 5}, tokens_only{3, 5};
  const Samples with_conditions = session.sample({&row, 1}, path, {.distribution = true});
  row.path_count = 2;
  EXPECT_EQ(session.sample({&row, 1}, tokens_only, {.distribution = true}).distribution,
            with_conditions.distribution);
}

TEST_P(StepSamples, RowsWithoutAFiniteLogitAreAnError) {
  // An embedding of infinities makes every logit NaN.
  Session session(*model_, backend_, {.sequences = 1, .entries = 64});
  SequenceStep step{.sequence = session.cache().create(),
                    .rows = {{.kind = RowKind::kEmbedding}},
                    .embeddings = std::vector<float>(32, std::numeric_limits<float>::infinity())};
  step.wanted.logits = {0};
  for (const float temperature : {0.0f, 1.0f}) {
    for (const float top_p : {1.0f, 0.9f}) {
      session.step({&step, 1});
      const SampleRow row{.temperature = temperature, .top_k = 3, .top_p = top_p};
      EXPECT_EQ(error_of([&] {
                  session.sample({&row, 1}, {}, {.distribution = true, .top = 2});
                }),
                "model llama: its logits hold no finite number; the weights are broken");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, StepSamples, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
