#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <numeric>
#include <random>
#include <tuple>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

// How the keys that a row sees are laid out: the first `committed` of them are committed entries (of
// `entries` in all), the next `prefix` the first scratch rows, the rest a tail list of scratch rows.
struct Layout {
  int64_t committed = 0;
  int64_t entries = 0;
  int64_t prefix = 0;
  int64_t tail = 0;
  int64_t keys() const { return committed + prefix + tail; }
};

struct Scene {
  int64_t heads = 4, groups = 2, width = 32;
  int64_t rows = 1;       // of the step, one of them ours
  int64_t sequences = 1;  // of the step, one of them ours
  Layout layout;
  KeySource source = KeySource::kSequence;
  CacheType type = CacheType::kF32;
  // Rows of a sequence lie side by side, as many of each, and see different numbers of scratch rows.
  bool grouped = false;
  uint64_t seed = 1;  // of everything that must not matter
};

// What our row looks for and sees; nothing else may matter.
struct Logical {
  std::vector<float> q;             // [H, D]
  std::vector<float> keys, values;  // [n, G, D]
};

Logical logical_row(const Scene& scene, uint64_t seed) {
  const int64_t entry = scene.groups * scene.width;
  return {.q = normal_numbers(scene.heads * scene.width, seed),
          .keys = cached_numbers(scene.type, normal_numbers(scene.layout.keys() * entry, seed + 1)),
          .values = cached_numbers(scene.type, normal_numbers(scene.layout.keys() * entry, seed + 2))};
}

// A step in which our row stands at a random place, its sequence in a random slot, pages shuffled, every
// number that no row may read a NaN.
class Step {
 public:
  Step(const Backend& backend, const Scene& scene, const Logical& logical)
      : scene_(scene), generator_(scene.seed) {
    const int64_t entry = scene.groups * scene.width;
    ours_ = pick(scene.rows);
    const int64_t sequence = scene.grouped ? ours_ / (scene.rows / scene.sequences) : pick(scene.sequences);
    std::vector<Layout> layouts(scene.sequences);
    std::vector<std::vector<int32_t>> tails(scene.sequences);
    int64_t longest = 0;
    for (int64_t s = 0; s < scene.sequences; ++s) {
      Layout& layout = layouts[s];
      layout = scene.layout;
      if (s != sequence) {
        layout.committed = pick(300);
        layout.entries = layout.committed + pick(3);
        layout.prefix = pick(20);
        layout.tail = pick(5);
      }
      // Tail rows at random scratch places behind the prefix, in random order.
      std::vector<int32_t> places(static_cast<size_t>(layout.tail + pick(7)));
      std::iota(places.begin(), places.end(), static_cast<int32_t>(layout.prefix));
      std::shuffle(places.begin(), places.end(), generator_);
      scratch_.push_back(layout.prefix + static_cast<int64_t>(places.size()));
      tails[s].assign(places.begin(), places.begin() + layout.tail);
      longest = std::max(longest, layout.entries + scratch_.back());
    }
    const int64_t slots = scene.sequences + 3, slot_pages = longest / kPageSize + 2;
    std::vector<int32_t> pages(static_cast<size_t>(slots * slot_pages)),
        slot_order(static_cast<size_t>(slots));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), generator_);
    std::iota(slot_order.begin(), slot_order.end(), 0);
    std::shuffle(slot_order.begin(), slot_order.end(), generator_);

    const float nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> keys(pages.size() * kPageSize * entry, nan), values = keys;
    std::vector<int32_t> lengths(static_cast<size_t>(slots), 0);
    const auto put = [&](int64_t slot, int64_t place, const float* key, const float* value) {
      const int64_t at =
          pages[slot * slot_pages + place / kPageSize] * kPageSize * entry + place % kPageSize * scene.width;
      for (int64_t g = 0; g < scene.groups; ++g) {
        const int64_t to = at + g * kPageSize * scene.width;
        std::copy_n(key + g * scene.width, scene.width, keys.begin() + to);
        std::copy_n(value + g * scene.width, scene.width, values.begin() + to);
      }
    };
    std::vector<int32_t> tail, tail_begin, sequence_slot, sequence_memory;
    for (int64_t s = 0; s < scene.sequences; ++s) {
      const Layout& layout = layouts[s];
      const int64_t slot = slot_order[s];
      lengths[slot] = static_cast<int32_t>(layout.entries);
      sequence_slot.push_back(static_cast<int32_t>(scene.source == KeySource::kMemory ? 0 : slot));
      sequence_memory.push_back(static_cast<int32_t>(scene.source == KeySource::kMemory ? slot : -1));
      tail_begin.push_back(static_cast<int32_t>(tail.size()));
      tail.insert(tail.end(), tails[s].begin(), tails[s].end());
      Logical other;
      Scene theirs = scene;
      theirs.layout = layout;
      if (s != sequence) other = logical_row(theirs, scene.seed * 1000 + s);
      const Logical& source = s == sequence ? logical : other;
      for (int64_t i = 0; i < layout.keys(); ++i) {
        const int64_t scratch = i - layout.committed;
        const int64_t place = scratch < 0               ? i
                              : scratch < layout.prefix ? layout.entries + scratch
                                                        : layout.entries + tails[s][scratch - layout.prefix];
        put(slot, place, source.keys.data() + i * entry, source.values.data() + i * entry);
      }
    }

    std::vector<int32_t> row_sequence, row_context, row_prefix, row_tail_begin, row_tail_count;
    std::vector<float> q = normal_numbers(scene.rows * scene.heads * scene.width, scene.seed + 99);
    for (int64_t r = 0; r < scene.rows; ++r) {
      const bool padding = r != ours_ && pick(8) == 0;
      const int64_t s = r == ours_      ? sequence
                        : scene.grouped ? r / (scene.rows / scene.sequences)
                                        : pick(scene.sequences);
      row_sequence.push_back(static_cast<int32_t>(padding ? -1 : s));
      const Layout& layout = layouts[s];
      row_context.push_back(layout.committed == layout.entries ? kAllContext
                                                               : static_cast<int32_t>(layout.committed));
      const bool fewer = scene.grouped && r != ours_;
      row_prefix.push_back(static_cast<int32_t>(fewer ? pick(layout.prefix + 1) : layout.prefix));
      row_tail_begin.push_back(tail_begin[s]);
      row_tail_count.push_back(static_cast<int32_t>(fewer ? pick(layout.tail + 1) : layout.tail));
      padding_.push_back(padding);
    }
    std::copy(logical.q.begin(), logical.q.end(), q.begin() + ours_ * scene.heads * scene.width);

    tail.push_back(0);  // never an empty array
    const Shape plane{static_cast<int64_t>(pages.size()), scene.groups, kPageSize, scene.width};
    const auto ints = [&](const std::vector<int32_t>& numbers) {
      ints_.push_back(
          std::make_unique<Guarded<int32_t>>(backend, Shape{static_cast<int64_t>(numbers.size())}, numbers));
      return ints_.back()->view();
    };
    plane_ = std::make_unique<GuardedPlane>(backend, scene.type, plane,
                                            GuardedPlane::Numbers{.keys = keys, .values = values});
    q_ = std::make_unique<Guarded<float>>(backend, Shape{scene.rows, scene.heads, scene.width}, q);
    cache_plane_ = plane_->plane();
    cache_ = {.lengths = ints(lengths), .block_table = ints(pages).reshape({slots, slot_pages})};
    const std::vector<int32_t> no_entry(static_cast<size_t>(scene.rows), kNoEntry);
    tables_ = {.row_sequence = ints(row_sequence),
               .row_entry = ints(no_entry),
               .row_context = ints(row_context),
               .row_prefix = ints(row_prefix),
               .row_tail_begin = ints(row_tail_begin),
               .row_tail_count = ints(row_tail_count),
               .tail = ints(tail),
               .sequence_slot = ints(sequence_slot),
               .sequence_memory = ints(sequence_memory)};
  }

  AttentionArgs args(Tensor out) const {
    return {.q = q_->read(),
            .plane = cache_plane_,
            .cache = cache_,
            .step = tables_,
            .source = scene_.source,
            .scale = 1.0f / std::sqrt(static_cast<float>(scene_.width)),
            .out = out};
  }

  // Our row of the output, after checking that padding rows were left as they were.
  std::vector<float> attend(const Backend& backend) const {
    const int64_t row = scene_.heads * scene_.width;
    const std::vector<float> before(static_cast<size_t>(scene_.rows * row), 7.5f);
    const Guarded<float> out(backend, {scene_.rows, scene_.heads, scene_.width}, before);
    auto queue = backend.make_queue();
    queue->attention(args(out.view()));
    queue->finish();
    const auto result = out.values();
    for (int64_t r = 0; r < scene_.rows; ++r) {
      if (!padding_[r]) continue;
      for (int64_t i = 0; i < row; ++i) EXPECT_EQ(result[r * row + i], 7.5f) << "padding row " << r;
    }
    return {result.begin() + ours_ * row, result.begin() + (ours_ + 1) * row};
  }

 private:
  int64_t pick(int64_t below) { return static_cast<int64_t>(generator_() % static_cast<uint64_t>(below)); }

  const Scene scene_;
  std::mt19937_64 generator_;
  int64_t ours_ = 0;
  std::vector<int64_t> scratch_;
  std::vector<bool> padding_;
  std::vector<std::unique_ptr<Guarded<int32_t>>> ints_;
  std::unique_ptr<GuardedPlane> plane_;
  std::unique_ptr<Guarded<float>> q_;
  CachePlane cache_plane_;
  CacheTables cache_;
  StepTables tables_;
};

// The row's attention in f64, from the logical keys, with what an f32 computation may differ by.
void expect_near_exact(const Scene& scene, const Logical& logical, const std::vector<float>& result) {
  const int64_t n = scene.layout.keys(), width = scene.width;
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  for (int64_t h = 0; h < scene.heads; ++h) {
    const int64_t group = h / (scene.heads / scene.groups);
    std::vector<double> weights(static_cast<size_t>(n));
    double most = -std::numeric_limits<double>::infinity(), magnitude = 0.0, sum = 0.0, largest = 0.0;
    const auto at = [&](int64_t i, int64_t d) { return (i * scene.groups + group) * width + d; };
    for (int64_t i = 0; i < n; ++i) {
      double dot = 0.0, absolute = 0.0;
      for (int64_t d = 0; d < width; ++d) {
        const double term = double{logical.q[h * width + d]} * logical.keys[at(i, d)];
        dot += term;
        absolute += std::abs(term);
      }
      weights[i] = dot * scale;
      magnitude = std::max(magnitude, absolute * scale);
      most = std::max(most, weights[i]);
    }
    for (double& w : weights) sum += w = std::exp(w - most);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t d = 0; d < width; ++d)
        largest = std::max(largest, std::abs(double{logical.values[at(i, d)]}));
    }
    // A score errs by (width + 2) roundings of its terms, a weight by twice that (the maximum errs too), in
    // numerator and denominator; then the sums over the keys.
    const double bound =
        (4.0 * static_cast<double>(width + 2) * magnitude + 2.0 * static_cast<double>(n + 32)) * kUnit *
        largest;
    for (int64_t d = 0; d < width; ++d) {
      double exact = 0.0;
      for (int64_t i = 0; i < n; ++i) exact += weights[i] / sum * logical.values[at(i, d)];
      ASSERT_NEAR(result[h * width + d], exact, bound) << "head " << h << " element " << d;
    }
  }
}

TEST(AttentionTest, AgreesWithTheReferenceAndWithExactArithmetic) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend();
  uint64_t seed = 10;
  for (const int64_t width : {4, 7, 8, 20, 32, 64, 80}) {
    for (const Layout layout :
         {Layout{1, 1, 0, 0}, Layout{0, 0, 1, 0}, Layout{0, 0, 0, 2}, Layout{63, 64, 2, 3},
          Layout{255, 255, 1, 1}, Layout{100, 300, 0, 0}, Layout{250, 250, 20, 40}, Layout{513, 520, 0, 5}}) {
      for (const auto& [heads, groups, type] :
           {std::tuple<int64_t, int64_t, CacheType>{1, 1, CacheType::kF32},
            {6, 2, CacheType::kF32},
            {4, 4, CacheType::kF32},
            {6, 2, CacheType::kBF16},
            {4, 4, CacheType::kBF16}}) {
        ++seed;
        if (kSanitized && seed % 7 != 0) continue;  // every width, layout and grouping still occurs
        const Scene scene{.heads = heads,
                          .groups = groups,
                          .width = width,
                          .rows = 5,
                          .sequences = 3,
                          .layout = layout,
                          .type = type,
                          .seed = seed};
        SCOPED_TRACE("width " + std::to_string(width) + " keys " + std::to_string(layout.keys()) + " heads " +
                     std::to_string(heads) + "/" + std::to_string(groups) + " " + cache_type_name(type));
        const Logical logical = logical_row(scene, seed * 7);
        for (const Backend* backend : {reference.get(), tested.get()}) {
          expect_near_exact(scene, logical, Step(*backend, scene, logical).attend(*backend));
        }
        if (HasFatalFailure()) return;
      }
    }
  }
}

// A row with the same keys in a step of its own, among 16 and in a batch of 64, whose rows come one by one or
// sequence by sequence.
void expect_same_bits(int64_t keys, CacheType type, int64_t width,
                      std::initializer_list<int64_t> thread_counts) {
  Scene scene{.width = width, .layout = {.committed = keys, .entries = keys}, .type = type};
  const Logical logical = logical_row(scene, 1234 + keys);
  const auto alone = tested_backend(1);
  const auto expected = Step(*alone, scene, logical).attend(*alone);
  expect_near_exact(scene, logical, expected);
  std::mt19937_64 generator(keys);
  const auto pick = [&](int64_t below) { return static_cast<int64_t>(generator() % (below)); };
  for (const int64_t threads : thread_counts) {
    const auto backend = tested_backend(threads);
    // The last two trials are of many rows.
    for (int trial = 0; trial < (kSanitized ? 3 : threads == 2 ? 8 : 6); ++trial) {
      const int64_t committed = trial == 0 ? keys : pick(keys + 1);
      const int64_t prefix = pick(keys - committed + 1);
      scene.layout = {.committed = committed,
                      .entries = committed + (trial % 2 == 0 ? 0 : pick(100)),
                      .prefix = prefix,
                      .tail = keys - committed - prefix};
      scene.rows = trial % 3 == 0 ? 1 : 16;
      scene.sequences = trial % 3 == 2 ? 64 : 1 + trial % 2;
      scene.grouped = trial >= 6 || (kSanitized && threads == 2 && trial == 2);
      if (scene.grouped) {
        scene.sequences = trial == 6 ? 64 : 40;
        scene.rows = scene.sequences * (trial == 6 ? 3 : 2 + pick(4));
      }
      scene.seed = generator();
      const auto result = Step(*backend, scene, logical).attend(*backend);
      ASSERT_EQ(first_difference(result, expected), -1)
          << keys << " keys: " << committed << " committed, " << prefix << " prefix, " << scene.layout.tail
          << " tail; rows " << scene.rows << " sequences " << scene.sequences << " threads " << threads
          << " width " << width << " " << cache_type_name(type);
    }
  }
}

TEST(AttentionTest, SameKeysGiveSameBitsWhereverTheyLie) {
  const std::vector<int64_t> key_counts =
      kSanitized ? std::vector<int64_t>{5, 257}
                 : std::vector<int64_t>{1, 5, 64, 255, 256, 257, 300, 511, 513, 700};
  for (const CacheType type : kCacheTypes) {
    for (const int64_t keys : key_counts) {
      expect_same_bits(keys, type, 32, {1, 2, 3, 8});
      if (HasFatalFailure()) return;
    }
    for (const int64_t width : {5, 12, 64, 128}) {
      for (const int64_t keys : {7, 257}) expect_same_bits(keys, type, width, {2});
      if (HasFatalFailure()) return;
    }
  }
}

// The same in steps of so many heads that a device spreads them otherwise.
TEST(AttentionTest, SameKeysGiveSameBitsAmongManyHeads) {
  // Instrumented, fewer sequences: on processors these are like any others.
  const int64_t sequences = kSanitized ? 3 : 64;
  for (const CacheType type : kCacheTypes) {
    for (const auto& [width, keys] :
         {std::pair<int64_t, int64_t>{32, 1}, {32, 130}, {64, 70}, {16, 70}, {48, 33}}) {
      Scene scene{.heads = 24, .groups = 2, .width = width, .layout = {keys, keys, 0, 0}, .type = type};
      const Logical logical = logical_row(scene, 99 + keys);
      const auto backend = tested_backend(2);
      const auto expected = Step(*backend, scene, logical).attend(*backend);
      expect_near_exact(scene, logical, expected);
      for (const int64_t together : {1, 5, 11}) {
        scene.sequences = sequences;
        scene.rows = scene.sequences * together;
        scene.grouped = true;
        scene.layout = {keys / 2, keys / 2, keys - keys / 2 - keys / 5, keys / 5};
        scene.seed = static_cast<uint64_t>(keys + together);
        ASSERT_EQ(first_difference(Step(*backend, scene, logical).attend(*backend), expected), -1)
            << keys << " keys, width " << width << ", " << together << " rows together, "
            << cache_type_name(type);
      }
    }
  }
}

TEST(AttentionTest, MemoryIsReadWholeAndOnlyByThoseWhoHaveOne) {
  const auto backend = tested_backend();
  for (const CacheType type : kCacheTypes) {
    const Scene scene{.rows = 9,
                      .sequences = 4,
                      .layout = {.committed = 300, .entries = 300},
                      .source = KeySource::kMemory,
                      .type = type,
                      .seed = 5};
    const Logical logical = logical_row(scene, 77);
    const auto result = Step(*backend, scene, logical).attend(*backend);
    expect_near_exact(scene, logical, result);
    Scene own = scene;
    own.source = KeySource::kSequence;
    EXPECT_EQ(first_difference(result, Step(*backend, own, logical).attend(*backend)), -1);
  }
}

TEST(AttentionTest, NoKeysGiveZeros) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    const Scene scene{.rows = 3, .sequences = 2, .layout = {}};
    const auto result = Step(*backend, scene, logical_row(scene, 1)).attend(*backend);
    for (const float value : result) EXPECT_EQ(value, 0.0f);
  }
}

TEST(AttentionTest, WeightsAgreeWithTheReference) {
  for (const CacheType type : kCacheTypes) {
    const Scene scene{.heads = 6,
                      .groups = 3,
                      .width = 16,
                      .rows = 7,
                      .sequences = 3,
                      .layout = {.committed = 290, .entries = 295, .prefix = 3, .tail = 4},
                      .type = type,
                      .seed = 3};
    const Logical logical = logical_row(scene, 4);
    constexpr int64_t kColumns = 400;
    for (int64_t head = 0; head < scene.heads; ++head) {
      std::vector<std::vector<float>> results;
      for (const auto& backend : {make_reference_backend(), tested_backend()}) {
        const Step step(*backend, scene, logical);
        const std::vector<float> before(static_cast<size_t>(scene.rows * kColumns), 3.25f);
        const Guarded<float> out(*backend, {scene.rows, kColumns}, before);
        auto queue = backend->make_queue();
        queue->attention_weights({.attention = step.args({}), .head = head, .out = out.view()});
        queue->finish();
        results.push_back(out.values());
      }
      for (size_t i = 0; i < results[0].size(); ++i) {
        // Weights are at most 1; scores of normal numbers at width 16 stay below 32 in magnitude.
        ASSERT_NEAR(results[0][i], results[1][i], results[0][i] * (4.0 * 18 * 32 + 2 * 350) * kUnit) << i;
      }
    }
  }
}

TEST(AttentionTest, DenseAttentionEqualsCachedAttentionBitForBit) {
  constexpr int64_t kItems = 3, kRows = 270, kHeads = 3, kWidth = 24;
  const auto backend = tested_backend();
  const Shape shape{kItems, kRows, kHeads, kWidth};
  const auto q = normal_numbers(shape.size(), 1), k = normal_numbers(shape.size(), 2),
             v = normal_numbers(shape.size(), 3);
  const Guarded<float> gq(*backend, shape, q), gk(*backend, shape, k), gv(*backend, shape, v),
      out(*backend, shape);
  const float scale = 1.0f / std::sqrt(static_cast<float>(kWidth));
  auto queue = backend->make_queue();
  queue->dense_attention({.q = gq.read(), .k = gk.read(), .v = gv.read(), .scale = scale, .out = out.view()});
  queue->finish();
  const auto dense = out.values();
  const int64_t row = kHeads * kWidth, item = kRows * row;
  for (int64_t b = 0; b < kItems; ++b) {
    for (const int64_t r : {int64_t{0}, int64_t{100}, kRows - 1}) {
      const Scene scene{.heads = kHeads,
                        .groups = kHeads,
                        .width = kWidth,
                        .layout = {.committed = kRows, .entries = kRows}};
      const auto part = [&](const std::vector<float>& all, int64_t begin, int64_t count) {
        return std::vector<float>(all.begin() + begin, all.begin() + begin + count);
      };
      const Logical logical{part(q, b * item + r * row, row), part(k, b * item, item),
                            part(v, b * item, item)};
      const auto cached = Step(*backend, scene, logical).attend(*backend);
      ASSERT_EQ(first_difference(cached, part(dense, b * item + r * row, row)), -1)
          << "item " << b << " row " << r;
      expect_near_exact(scene, logical, cached);
    }
  }
  const auto reference = make_reference_backend();
  const Guarded<float> rq(*reference, shape, q), rk(*reference, shape, k), rv(*reference, shape, v),
      rout(*reference, shape);
  reference->make_queue()->dense_attention(
      {.q = rq.read(), .k = rk.read(), .v = rv.read(), .scale = scale, .out = rout.view()});
  const auto expected = rout.values();
  for (size_t i = 0; i < dense.size(); ++i) {
    // Scores of normal numbers at width 24 stay below 32, values below 6.
    ASSERT_NEAR(dense[i], expected[i], (8.0 * 26 * 32 + 4.0 * (kRows + 32)) * kUnit * 6) << i;
  }
}

}  // namespace
}  // namespace volley::testing
