#include <cmath>
#include <numeric>

#include "core/base/noise.h"
#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

struct Sampled {
  std::vector<int32_t> tokens;
  std::vector<float> probability, entropy, distribution;
};

struct Batch {
  int64_t vocab = 0;
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<int32_t> path;
};

Sampled sample(const Backend& backend, const Batch& batch, bool with_distribution) {
  const int64_t count = static_cast<int64_t>(batch.rows.size());
  const int64_t logits_rows = static_cast<int64_t>(batch.logits.size()) / batch.vocab;
  const Guarded<float> logits(backend, {logits_rows, batch.vocab}, batch.logits);
  const Guarded<SampleRow> rows(backend, {count}, batch.rows);
  const Guarded<int32_t> path(backend, {static_cast<int64_t>(batch.path.size())}, batch.path);
  const Guarded<int32_t> tokens(backend, {count});
  const Guarded<float> probability(backend, {count}), entropy(backend, {count});
  const Guarded<float> distribution(backend, {with_distribution ? count : 0, batch.vocab});
  auto queue = backend.make_queue();
  queue->sample({.logits = logits.read(),
                 .rows = rows.read(),
                 .path = path.read(),
                 .tokens = tokens.view(),
                 .probability = probability.view(),
                 .entropy = entropy.view(),
                 .distribution = with_distribution ? distribution.view() : Tensor{}});
  queue->finish();
  return {tokens.values(), probability.values(), entropy.values(), distribution.values()};
}

// Rows of every kind: greedy and sampled, guided, penalised, filtered in both orders, with logits that tie.
Batch random_batch(int64_t vocab, int64_t count, uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto pick = [&](int64_t below) {
    return static_cast<int64_t>(generator() % static_cast<uint64_t>(below));
  };
  Batch batch{.vocab = vocab, .logits = normal_numbers(2 * count * vocab, seed + 1, 2.0f)};
  for (int64_t r = 0; r < count; r += 2) {  // every other row on a coarse grid: many ties
    for (int64_t i = 0; i < vocab; ++i) {
      float& value = batch.logits[r * vocab + i];
      value = std::round(value * 2.0f) / 2.0f;
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    SampleRow row{.logits_row = static_cast<int32_t>(r)};
    if (pick(2) == 0) {
      row.guidance_row = static_cast<int32_t>(count + r);
      row.guidance_scale = 0.5f * static_cast<float>(pick(10));
    }
    constexpr float kTemperatures[] = {0.0f, 1.0f, 0.7f, 1.3f};
    row.temperature = kTemperatures[pick(4)];
    row.top_k = pick(2) == 0 ? 0 : static_cast<int32_t>(1 + pick(vocab + 3));
    constexpr float kTopP[] = {1.0f, 0.9f, 0.5f, 0.0f};
    row.top_p = kTopP[pick(4)];
    row.filter_order = pick(2) == 0 ? FilterOrder::kTopKTopP : FilterOrder::kTopPTopK;
    row.noise_purpose = static_cast<uint32_t>(pick(6));
    row.seed = generator();
    row.stream = static_cast<uint32_t>(pick(1000));
    row.draw = static_cast<uint32_t>(pick(1000));
    row.position = static_cast<uint32_t>(pick(1000));
    row.path_begin = static_cast<int32_t>(batch.path.size());
    row.path_count = static_cast<int32_t>(pick(6));
    row.repetition_penalty = pick(2) == 0 ? 1.0f : 1.2f;
    for (int32_t i = 0; i < row.path_count; ++i) batch.path.push_back(static_cast<int32_t>(pick(vocab)));
    batch.rows.push_back(row);
  }
  batch.path.push_back(0);
  return batch;
}

TEST(SamplingTest, TokensEqualTheReferenceAlways) {
  const auto reference = make_reference_backend();
  for (const int64_t threads : {1, 2, 3}) {
    const auto tested = tested_backend(threads);
    for (const int64_t vocab : {1, 2, 5, 16, 33, 100, 257, 2048, 2051}) {
      for (uint64_t seed = 1; seed <= 4; ++seed) {
        const Batch batch = random_batch(vocab, 50, seed * 100 + static_cast<uint64_t>(vocab));
        const Sampled expected = sample(*reference, batch, true), result = sample(*tested, batch, true);
        ASSERT_EQ(expected.tokens, result.tokens) << "vocabulary " << vocab << " seed " << seed;
        ASSERT_EQ(sample(*tested, batch, false).tokens, result.tokens);
        for (size_t r = 0; r < batch.rows.size(); ++r) {
          float largest = 0.0f, least = 0.0f;
          for (const float value : batch.logits)
            largest = std::max(largest, value), least = std::min(least, value);
          // exp of a difference of at most `reach` after guidance (up to 4.5 x) and temperature (down to
          // 0.7): its argument is the same on both sides, so an ulp or two each; then sums of `vocab` terms.
          const double reach = (largest - least) * 10.0 / 0.7;
          const double relative = (8.0 + static_cast<double>(vocab)) * kUnit;
          ASSERT_NEAR(result.probability[r], expected.probability[r],
                      expected.probability[r] * relative + 1e-37)
              << r;
          ASSERT_NEAR(result.entropy[r], expected.entropy[r], relative * (reach + 8.0)) << r;
          for (int64_t i = 0; i < vocab; ++i) {
            const float p = expected.distribution[r * vocab + i], q = result.distribution[r * vocab + i];
            ASSERT_EQ(p == 0.0f && q > 1e-30f, false) << "an excluded token has mass";
            ASSERT_NEAR(p, q, p * relative + 1e-37) << "row " << r << " token " << i;
          }
        }
      }
    }
  }
}

TEST(SamplingTest, ARowDoesNotDependOnTheOthers) {
  const auto backend = tested_backend(3);
  const Batch batch = random_batch(300, 40, 9);
  const Sampled together = sample(*backend, batch, true);
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    Batch alone = batch;
    alone.rows = {batch.rows[r]};
    const Sampled result = sample(*backend, alone, true);
    EXPECT_EQ(result.tokens[0], together.tokens[r]);
    EXPECT_EQ(result.probability[0], together.probability[r]);
    EXPECT_EQ(result.entropy[0], together.entropy[r]);
  }
}

TEST(SamplingTest, TiesGoToTheLowestIdAndTopKKeepsThem) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    Batch batch{.vocab = 700, .logits = std::vector<float>(700, 0.5f), .path = {0}};
    for (const int32_t id : {123, 400, 699}) batch.logits[id] = 2.0f;
    batch.rows = {
        {.temperature = 0.0f}, {.temperature = 1.0f, .top_k = 2}, {.temperature = 1.0f, .top_p = 0.001f}};
    const Sampled result = sample(*backend, batch, true);
    EXPECT_EQ(result.tokens[0], 123);
    for (const int32_t id : {123, 400, 699}) EXPECT_FLOAT_EQ(result.distribution[700 + id], 1.0f / 3.0f);
    EXPECT_EQ(result.distribution[700 + 5], 0.0f);
    EXPECT_FLOAT_EQ(result.distribution[1400 + 123], 1.0f);  // the first of the tied tokens holds more than p
    EXPECT_EQ(result.distribution[1400 + 400], 0.0f);
    EXPECT_EQ(result.tokens[2], 123);
  }
}

// The token is the argmax of logits plus the noise that core/base/noise.h names, by an independent loop.
TEST(SamplingTest, TheRuleIsArgmaxOfLogitsPlusNoise) {
  const auto backend = tested_backend();
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Batch batch{.vocab = 97, .logits = normal_numbers(97, seed), .path = {0}};
    batch.rows = {{.noise_purpose = 2, .seed = seed, .stream = 3, .draw = 4, .position = 5}};
    const NoiseKey key{
        .seed = seed, .stream = 3, .purpose = NoisePurpose::kResidual, .draw = 4, .position = 5};
    int32_t best = 0;
    for (int32_t id = 1; id < 97; ++id) {
      if (batch.logits[id] + gumbel(key, id) > batch.logits[best] + gumbel(key, best)) best = id;
    }
    ASSERT_EQ(sample(*backend, batch, false).tokens[0], best);
  }
}

}  // namespace
}  // namespace volley::testing
