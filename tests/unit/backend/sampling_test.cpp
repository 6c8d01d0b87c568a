#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "core/base/noise.h"
#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

struct Sampled {
  std::vector<int32_t> tokens;
  std::vector<float> probability, entropy, distribution;
  std::vector<int32_t> top_tokens;
  std::vector<float> top_probability;
};

struct Batch {
  int64_t vocab = 0;
  std::vector<float> logits;
  std::vector<SampleRow> rows;
  std::vector<int32_t> path;
};

Sampled sample(const Backend& backend, const Batch& batch, bool with_distribution, int64_t top = 0,
               bool with_certainty = true) {
  const int64_t count = static_cast<int64_t>(batch.rows.size());
  const int64_t logits_rows = static_cast<int64_t>(batch.logits.size()) / batch.vocab;
  const Guarded<float> logits(backend, {logits_rows, batch.vocab}, batch.logits);
  const Guarded<SampleRow> rows(backend, {count}, batch.rows);
  const Guarded<int32_t> path(backend, {static_cast<int64_t>(batch.path.size())}, batch.path);
  const Guarded<int32_t> tokens(backend, {count});
  const int64_t certain = with_certainty ? count : 0;
  const Guarded<float> probability(backend, {certain}), entropy(backend, {certain});
  const Guarded<float> distribution(backend, {with_distribution ? count : 0, batch.vocab});
  const Guarded<int32_t> top_tokens(backend, {count, top});
  const Guarded<float> top_probability(backend, {count, top});
  auto queue = backend.make_queue();
  queue->sample({.logits = logits.read(),
                 .rows = rows.read(),
                 .path = path.read(),
                 .tokens = tokens.view(),
                 .probability = with_certainty ? probability.view() : Tensor{},
                 .entropy = with_certainty ? entropy.view() : Tensor{},
                 .distribution = with_distribution ? distribution.view() : Tensor{},
                 .top_tokens = top > 0 ? top_tokens.view() : View<int32_t>{},
                 .top_probability = top > 0 ? top_probability.view() : Tensor{}});
  queue->finish();
  return {tokens.values(),       probability.values(), entropy.values(),
          distribution.values(), top_tokens.values(),  top_probability.values()};
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

// The same tokens, and numbers as near as operations in f32 keep them.
void expect_same(const Batch& batch, const Sampled& expected, const Sampled& result) {
  const int64_t vocab = batch.vocab;
  ASSERT_EQ(expected.tokens, result.tokens);
  float largest = 0.0f, least = 0.0f;
  for (const float value : batch.logits) largest = std::max(largest, value), least = std::min(least, value);
  // exp of a difference of at most `reach` after guidance (up to 4.5 x) and temperature (down to 0.7): its
  // argument is the same on both sides, so an ulp or two each; then sums of `vocab` terms.
  const double reach = (largest - least) * 10.0 / 0.7;
  const double relative = (8.0 + static_cast<double>(vocab)) * kUnit;
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    ASSERT_NEAR(result.probability[r], expected.probability[r], expected.probability[r] * relative + 1e-37)
        << r;
    ASSERT_NEAR(result.entropy[r], expected.entropy[r], relative * (reach + 8.0)) << r;
    for (int64_t i = 0; i < vocab; ++i) {
      const float p = expected.distribution[r * vocab + i], q = result.distribution[r * vocab + i];
      ASSERT_EQ(p == 0.0f && q > 1e-30f, false) << "an excluded token has mass";
      ASSERT_NEAR(p, q, p * relative + 1e-37) << "row " << r << " token " << i;
    }
  }
}

TEST(SamplingTest, TokensEqualTheReferenceAlways) {
  const auto reference = make_reference_backend();
  for (const int64_t threads : {1, 2, 3}) {
    const auto tested = tested_backend(threads);
    for (const int64_t vocab : {1, 2, 5, 16, 33, 100, 257, 2048, 2051}) {
      for (uint64_t seed = 1; seed <= 4; ++seed) {
        SCOPED_TRACE("vocabulary " + std::to_string(vocab) + " seed " + std::to_string(seed));
        const Batch batch = random_batch(vocab, 50, seed * 100 + static_cast<uint64_t>(vocab));
        const Sampled result = sample(*tested, batch, true);
        ASSERT_NO_FATAL_FAILURE(expect_same(batch, sample(*reference, batch, true), result));
        ASSERT_EQ(sample(*tested, batch, false).tokens, result.tokens);
      }
    }
  }
}

// Vocabularies that a device shares out among blocks, and one that its fast memory does not hold.
TEST(SamplingTest, TokensEqualTheReferenceForLargeVocabularies) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend();
  struct Case {
    int64_t vocab, rows;
  };
  for (const auto& [vocab, rows] :
       {Case{1000, 40}, Case{16384, 16}, Case{16385, 8}, Case{49152, 6}, Case{151936, 4}, Case{500001, 2}}) {
    SCOPED_TRACE("vocabulary " + std::to_string(vocab));
    const Batch batch = random_batch(vocab, rows, static_cast<uint64_t>(vocab));
    const Sampled result = sample(*tested, batch, true);
    ASSERT_NO_FATAL_FAILURE(expect_same(batch, sample(*reference, batch, true), result));
    ASSERT_EQ(sample(*tested, batch, false).tokens, result.tokens);
  }
}

// Every filter over the shapes of a vocabulary, with few logits and many apart: what is kept is the rule's.
TEST(SamplingTest, FiltersKeepWhatTheReferenceKeeps) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend();
  for (const int64_t vocab : {5, 1000, 16384, 16385}) {
    for (const float deviation : {0.01f, 1.0f, 20.0f}) {
      SCOPED_TRACE("vocabulary " + std::to_string(vocab) + " deviation " + std::to_string(deviation));
      Batch batch{.vocab = vocab, .logits = normal_numbers(vocab, 3, deviation), .path = {0}};
      batch.logits[1] = kNone;
      batch.logits[3] = std::numeric_limits<float>::quiet_NaN();
      const auto size = static_cast<int32_t>(vocab);
      for (const int32_t k : {0, 1, 2, size / 2, size - 2, size - 1, size}) {
        for (const float p : {1.0f, 0.999f, 0.3f, 1e-6f}) {
          for (const auto order : {FilterOrder::kTopKTopP, FilterOrder::kTopPTopK}) {
            batch.rows.push_back({.top_k = k, .top_p = p, .filter_order = order, .seed = batch.rows.size()});
          }
        }
      }
      const Sampled expected = sample(*reference, batch, true), result = sample(*tested, batch, true);
      ASSERT_EQ(expected.tokens, result.tokens);
      for (size_t i = 0; i < expected.distribution.size(); ++i) {
        // Where both can be seen: below, exp of the one side may be 0 and of the other a subnormal.
        const float p = expected.distribution[i], q = result.distribution[i];
        ASSERT_FALSE((p > 1e-37f && q == 0.0f) || (q > 1e-37f && p == 0.0f))
            << "row " << i / vocab << " token " << i % vocab << ": " << p << " and " << q;
      }
    }
  }
}

TEST(SamplingTest, TokensAreTheSameWhateverElseIsWanted) {
  const std::vector<std::shared_ptr<const Backend>> backends{make_reference_backend(), tested_backend(2)};
  for (const auto& backend : backends) {
    Batch batch = random_batch(3000, 17, 5);
    batch.rows.push_back({.logits_row = 0});  // one that has no token
    std::fill_n(batch.logits.begin(), batch.vocab, kNone);
    SCOPED_TRACE(backend == backends[0] ? "reference" : "tested");
    const Sampled all = sample(*backend, batch, true, 3);
    const Sampled tokens = sample(*backend, batch, false, 0, false);
    EXPECT_EQ(tokens.tokens, all.tokens);
    EXPECT_EQ(tokens.tokens.back(), -1);
    const Sampled top = sample(*backend, batch, false, 3, false);
    EXPECT_EQ(top.tokens, all.tokens);
    EXPECT_EQ(top.top_tokens, all.top_tokens);
    EXPECT_EQ(top.top_probability, all.top_probability);
    const Sampled distribution = sample(*backend, batch, true, 0, false);
    EXPECT_EQ(distribution.tokens, all.tokens);
    EXPECT_EQ(distribution.distribution, all.distribution);
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

// 1, 3 or 64 rows at once, a row of each kind in every place.
TEST(SamplingTest, ARowHasTheSameBitsAtAnyCount) {
  const auto backend = tested_backend(3);
  for (const int64_t vocab : {1000, 16384, 16385}) {
    Batch batch{.vocab = vocab, .logits = normal_numbers(2 * vocab, 5, 2.0f), .path = {7, 12, 7}};
    const SampleRow kinds[] = {
        {.guidance_row = 1, .guidance_scale = 3.0f, .seed = 1},
        {.temperature = 0.0f, .seed = 2},
        {.guidance_row = 1,
         .guidance_scale = 2.0f,
         .temperature = 0.8f,
         .top_k = 300,
         .top_p = 0.9f,
         .seed = 3},
        {.top_p = 0.95f, .seed = 4, .repetition_penalty = 1.3f, .path_count = 3},
    };
    for (const SampleRow& kind : kinds) {
      batch.rows = {kind};
      const Sampled alone = sample(*backend, batch, true);
      for (const int64_t count : {3, 64}) {
        batch.rows.assign(static_cast<size_t>(count), kinds[1]);
        for (int64_t r = 0; r < count; r += 2) batch.rows[r] = kind;
        const Sampled together = sample(*backend, batch, true);
        for (int64_t r = 0; r < count; r += 2) {
          ASSERT_EQ(together.tokens[r], alone.tokens[0]) << vocab << " row " << r << " of " << count;
          ASSERT_EQ(together.probability[r], alone.probability[0]);
          ASSERT_EQ(together.entropy[r], alone.entropy[0]);
          const std::span<const float> all(together.distribution);
          ASSERT_EQ(
              first_difference(all.subspan(r * vocab, vocab), std::span<const float>(alone.distribution)),
              -1);
        }
      }
    }
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

// Equal logits on both sides of places at which a device may part a vocabulary; in few rows, and in so many
// that a device may part them otherwise.
void check_ties(const Backend& backend, int64_t vocab, int64_t copies) {
  // A device's parts are multiples of four, an eighth of the vocabulary.
  const auto border = static_cast<int32_t>((vocab + 31) / 32 * 4);
  const std::vector<int32_t> tied = {border - 1, border, 3 * border + 2, 7 * border - 1, 7 * border};
  Batch batch{.vocab = vocab, .logits = std::vector<float>(static_cast<size_t>(vocab), -60.0f), .path = {0}};
  for (const int32_t id : tied) batch.logits[id] = 2.0f;
  const SampleRow kinds[] = {{.temperature = 0.0f}, {.top_p = 0.5f}, {.top_k = 2}, {.top_p = 1e-6f}};
  const size_t kept[] = {5, 3, 5, 1};  // by p 0.5 of five, three; k keeps what ties with the second
  for (int64_t c = 0; c < copies; ++c)
    batch.rows.insert(batch.rows.end(), std::begin(kinds), std::end(kinds));
  const Sampled result = sample(backend, batch, true, 6);
  for (int64_t r = 0; r < 4 * copies; ++r) {
    SCOPED_TRACE("vocabulary " + std::to_string(vocab) + " row " + std::to_string(r));
    if (r % 4 != 0) {
      for (int64_t id = 0; id < vocab; ++id) {
        const auto rank = std::find(tied.begin(), tied.end(), id) - tied.begin();
        const float expected =
            rank < static_cast<int64_t>(kept[r % 4]) ? 1.0f / static_cast<float>(kept[r % 4]) : 0.0f;
        ASSERT_FLOAT_EQ(result.distribution[r * vocab + id], expected) << id;
      }
    }
    if (r % 4 == 0 || r % 4 == 3) {
      ASSERT_EQ(result.tokens[r], tied[0]);
    }
    for (size_t n = 0; n < kept[r % 4]; ++n)
      ASSERT_EQ(result.top_tokens[6 * static_cast<size_t>(r) + n], tied[n]);
    // What is left has probabilities that are all alike, none behind filters.
    ASSERT_EQ(result.top_tokens[6 * static_cast<size_t>(r) + kept[r % 4]], 0);
  }
}

TEST(SamplingTest, TiesAcrossBordersGoToTheLowestId) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    for (const int64_t vocab : {1000, 16384, 16385, 151936}) check_ties(*backend, vocab, 1);
    for (const int64_t vocab : {1000, 16385}) check_ties(*backend, vocab, 10);
  }
}

TEST(SamplingTest, TopPOfEqualLogitsKeepsTheLowestIds) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    for (const int64_t vocab : {8, 1000, 16384, 49152}) {
      Batch batch{
          .vocab = vocab, .logits = std::vector<float>(static_cast<size_t>(vocab), 1.5f), .path = {0}};
      const SampleRow kinds[] = {{.top_p = 0.25f}, {.top_p = 0.625f}, {.top_k = 3, .top_p = 0.625f}};
      const int64_t count = vocab == 16384 ? 40 : 3;  // many may be shared out otherwise than few
      for (int64_t r = 0; r < count; ++r) batch.rows.push_back(kinds[r % 3]);
      const Sampled result = sample(*backend, batch, true);
      for (int64_t r = 0; r < count; ++r) {
        const int64_t kept = r % 3 == 0 ? vocab / 4 : vocab * 5 / 8;
        EXPECT_LT(result.tokens[r], kept);
        for (int64_t id = 0; id < vocab; ++id) {
          ASSERT_EQ(result.distribution[r * vocab + id] > 0.0f, id < kept)
              << "vocabulary " << vocab << " row " << r << " token " << id;
        }
      }
    }
  }
}

TEST(SamplingTest, TopKOfAllButOneExcludesTheLeast) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    for (const int64_t vocab : {5, 1000, 16384, 16385, 151936}) {
      Batch batch{.vocab = vocab, .path = {0}};
      int64_t least = 0;
      for (int64_t id = 0; id < vocab; ++id) {  // all different: 7919 is prime
        batch.logits.push_back(static_cast<float>(id * 7919 % vocab + vocab) / static_cast<float>(vocab));
        if (batch.logits[id] < batch.logits[least]) least = id;
      }
      std::swap(batch.logits[least], batch.logits[vocab - 2]);
      batch.rows = {{.top_k = static_cast<int32_t>(vocab - 1)}, {.top_k = static_cast<int32_t>(vocab)}};
      const Sampled result = sample(*backend, batch, true);
      for (int64_t id = 0; id < vocab; ++id) {
        ASSERT_EQ(result.distribution[id] > 0.0f, id != vocab - 2)
            << "vocabulary " << vocab << " token " << id;
        ASSERT_GT(result.distribution[vocab + id], 0.0f);
      }
    }
  }
}

TEST(SamplingTest, ATinyTopPLeavesTheLikeliest) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    for (const int64_t vocab : {5, 1000, 16384, 16385, 151936}) {
      Batch batch{.vocab = vocab, .logits = normal_numbers(vocab, 8), .path = {0}};
      const auto likeliest = static_cast<int32_t>(std::max_element(batch.logits.begin(), batch.logits.end()) -
                                                  batch.logits.begin());
      batch.rows = {{.top_p = 1e-9f, .seed = 5}, {.top_p = 0.0f, .seed = 6}};
      const Sampled result = sample(*backend, batch, false);
      for (size_t r = 0; r < 2; ++r) {
        EXPECT_EQ(result.tokens[r], likeliest) << vocab;
        EXPECT_EQ(result.probability[r], 1.0f);
        EXPECT_EQ(result.entropy[r], 0.0f);
      }
    }
  }
}

TEST(SamplingTest, ARowWithoutAFiniteLogitHasNoToken) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    for (const int64_t vocab : {1, 5, 1000, 16384, 16385}) {
      Batch batch{
          .vocab = vocab, .logits = std::vector<float>(static_cast<size_t>(2 * vocab), kNone), .path = {0}};
      batch.logits[vocab / 2] = std::numeric_limits<float>::quiet_NaN();
      std::fill_n(batch.logits.begin() + vocab, vocab, 0.0f);
      const auto k = static_cast<int32_t>(std::max<int64_t>(vocab / 2, 1));
      batch.rows = {{},
                    {.logits_row = 1, .seed = 1},
                    {.temperature = 0.0f},
                    {.guidance_row = 1, .guidance_scale = 2.0f},
                    {.top_k = k, .top_p = 0.5f},
                    {.top_k = k, .top_p = 0.5f, .filter_order = FilterOrder::kTopPTopK}};
      const Sampled result = sample(*backend, batch, true, 1);
      for (size_t r = 0; r < batch.rows.size(); ++r) {
        SCOPED_TRACE("vocabulary " + std::to_string(vocab) + " row " + std::to_string(r));
        const std::span<const float> row =
            std::span(result.distribution)
                .subspan(r * static_cast<size_t>(vocab), static_cast<size_t>(vocab));
        if (r == 1) {
          EXPECT_GE(result.tokens[r], 0);
          EXPECT_FLOAT_EQ(result.probability[r], 1.0f / static_cast<float>(vocab));
          EXPECT_NEAR(result.entropy[r], std::log(static_cast<float>(vocab)), 1e-4);
          EXPECT_EQ(result.top_tokens[r], 0);
        } else {
          EXPECT_EQ(result.tokens[r], -1);
          EXPECT_EQ(result.probability[r], 0.0f);
          EXPECT_EQ(result.entropy[r], 0.0f);
          EXPECT_EQ(result.top_tokens[r], -1);
          EXPECT_EQ(result.top_probability[r], 0.0f);
          EXPECT_TRUE(std::ranges::all_of(row, [](float p) { return p == 0.0f; }));
        }
      }
    }
  }
}

// The likeliest tokens are the head of the sorted distribution that comes with them, to the bit.
TEST(SamplingTest, TopTokensAreTheHeadOfTheDistribution) {
  const auto backend = tested_backend();
  for (const int64_t vocab : {5, 1000, 16384, 16385}) {
    const Batch batch = random_batch(vocab, 12, static_cast<uint64_t>(vocab) + 77);
    const int64_t top = std::min<int64_t>(vocab, 9);
    const Sampled result = sample(*backend, batch, true, top);
    const Sampled without = sample(*backend, batch, false, top);
    ASSERT_EQ(without.top_tokens, result.top_tokens);
    ASSERT_EQ(first_difference(without.top_probability, result.top_probability), -1);
    std::vector<int32_t> order(static_cast<size_t>(vocab));
    for (size_t r = 0; r < batch.rows.size(); ++r) {
      const float* p = result.distribution.data() + static_cast<int64_t>(r) * vocab;
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return p[a] > p[b]; });
      EXPECT_EQ(result.probability[r], p[result.tokens[r]]);
      for (int64_t n = 0; n < top; ++n) {
        const int64_t i = static_cast<int64_t>(r) * top + n;
        ASSERT_EQ(result.top_tokens[i], order[n]) << "vocabulary " << vocab << " row " << r << " place " << n;
        ASSERT_EQ(result.top_probability[i], p[order[n]]);
      }
    }
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
