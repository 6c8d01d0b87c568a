// The paged cache against a naive one under random operations.
#include "core/nn/kv_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int64_t kPlanes = 2, kHeads = 2, kWidth = 3;

// A cache whose rows hold a number that says what was written.
class CacheFixture {
 public:
  explicit CacheFixture(KvCache::Config config)
      : backend_(make_backend("cpu-reference", 1)),
        queue_(backend_->make_queue()),
        cache_(*backend_, *queue_, config) {}

  KvCache& cache() { return cache_; }

  // Writes `values` to the given entries codes (scratch rows, or replaced entries).
  void write(SequenceId sequence, const std::vector<int32_t>& codes, const std::vector<float>& values) {
    const auto rows = static_cast<int64_t>(codes.size());
    const std::vector<int32_t> zeros(codes.size(), 0);
    const int32_t slot = static_cast<int32_t>(sequence);
    cache_.publish();
    const StepTables step{.row_sequence = {zeros.data(), {rows}},
                          .row_entry = {codes.data(), {rows}},
                          .sequence_slot = {&slot, {1}}};
    for (int64_t p = 0; p < kPlanes; ++p) {
      std::vector<float> keys, data;
      for (float value : values) {
        for (int64_t d = 0; d < kHeads * kWidth; ++d) {
          keys.push_back(value + static_cast<float>(100000 * p + d));
          data.push_back(-value - static_cast<float>(100000 * p + d));
        }
      }
      queue_->write_cache({.keys = {keys.data(), {rows, kHeads, kWidth}},
                           .values = {data.data(), {rows, kHeads, kWidth}},
                           .plane = cache_.plane(p),
                           .cache = cache_.tables(),
                           .step = step});
    }
  }

  // What the committed entries hold, by the device's own tables.
  std::vector<float> read(SequenceId sequence) {
    cache_.publish();
    std::vector<float> values;
    const CacheTables& tables = cache_.tables();
    const auto slot = static_cast<int64_t>(sequence);
    for (int64_t i = 0; i < tables.lengths.data[slot]; ++i) {
      const int32_t page = tables.block_table.data[slot * tables.block_table.shape[1] + i / kPageSize];
      // Pages hold [head, entry, width].
      const int64_t at = (page * kHeads * kPageSize + i % kPageSize) * kWidth;
      const float value = cache_.plane(0).f32_keys()[at];
      for (int64_t p = 0; p < kPlanes; ++p) {
        for (int64_t d = 0; d < kHeads * kWidth; ++d) {
          const int64_t place = at + d / kWidth * kPageSize * kWidth + d % kWidth;
          EXPECT_EQ(cache_.plane(p).f32_keys()[place], value + static_cast<float>(100000 * p + d));
          EXPECT_EQ(cache_.plane(p).f32_values()[place], -value - static_cast<float>(100000 * p + d));
        }
      }
      values.push_back(value);
    }
    return values;
  }

 private:
  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<Queue> queue_;
  KvCache cache_;
};

std::vector<int32_t> random_subset(TestRandom& random, int64_t count, float share) {
  std::vector<int32_t> chosen;
  for (int32_t i = 0; i < count; ++i) {
    if (random.uniform() < share) chosen.push_back(i);
  }
  return chosen;
}

TEST(KvCache, AgreesWithANaiveCacheUnderRandomOperations) {
  int64_t all_failures = 0;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    TestRandom random(seed);
    // Every third run has too few pages: operations fail in between and must change nothing.
    const bool is_scarce = seed % 3 == 2;
    CacheFixture fixture({.planes = kPlanes,
                          .kv_heads = kHeads,
                          .head_width = kWidth,
                          .sequences = 5,
                          .entries = 400,
                          .pages = is_scarce ? 9 : 0});
    KvCache& cache = fixture.cache();
    int64_t failures = 0;
    // Runs an operation that may find too few pages; says whether it did not.
    const auto attempt = [&](auto&& operation) {
      try {
        operation();
        return true;
      } catch (const Error&) {
        ++failures;
        return false;
      }
    };
    const int64_t all_pages = cache.free_pages();
    std::map<SequenceId, std::vector<float>> naive;
    float next_value = 1.0f;
    for (int operation = 0; operation < 120; ++operation) {
      std::vector<SequenceId> ids;
      for (const auto& [id, entries] : naive) ids.push_back(id);
      const int64_t choice = random.below(10);
      if (ids.empty() || (choice == 0 && ids.size() < 5)) {
        naive[cache.create()] = {};
        continue;
      }
      const SequenceId id = ids[static_cast<size_t>(random.below(static_cast<int64_t>(ids.size())))];
      std::vector<float>& entries = naive[id];
      const auto length = static_cast<int64_t>(entries.size());
      if (choice == 1 && ids.size() < 5) {
        naive[cache.fork(id)] = entries;
      } else if (choice == 2) {
        cache.release(id);
        naive.erase(id);
      } else if (choice == 3) {
        const int64_t kept = random.below(length + 1);
        cache.crop(id, kept);
        entries.resize(static_cast<size_t>(kept));
      } else if (choice == 4 && length > 0) {
        const std::vector<int32_t> gone = random_subset(random, length, 0.2f);
        if (!attempt([&] { cache.evict(id, gone); })) continue;
        for (auto it = gone.rbegin(); it != gone.rend(); ++it) entries.erase(entries.begin() + *it);
      } else if (choice == 5 && length > 0) {
        const std::vector<int32_t> places = random_subset(random, length, 0.1f);
        if (!attempt([&] { cache.reserve(id, 0, places); })) continue;
        std::vector<int32_t> codes;
        std::vector<float> values;
        for (int32_t place : places) {
          codes.push_back(replaced_entry(place));
          values.push_back(entries[static_cast<size_t>(place)] = next_value++);
        }
        fixture.write(id, codes, values);
      } else {
        const int64_t rows = std::min<int64_t>(400 - length, 1 + random.below(90));
        if (rows == 0) continue;
        if (!attempt([&] { cache.reserve(id, rows); })) continue;
        std::vector<int32_t> codes(static_cast<size_t>(rows));
        std::iota(codes.begin(), codes.end(), 0);
        std::vector<float> values(codes.size());
        for (float& value : values) value = next_value++;
        fixture.write(id, codes, values);
        const std::vector<int32_t> kept = random_subset(random, rows, 0.6f);
        if (random.below(6) == 0) continue;  // nothing is kept: the next reservation overwrites the rows
        cache.commit(id, kept);
        for (int32_t row : kept) entries.push_back(values[static_cast<size_t>(row)]);
      }
      for (const auto& [other, expected] : naive) {
        ASSERT_EQ(cache.length(other), static_cast<int64_t>(expected.size()));
        ASSERT_EQ(cache.device_length(other), cache.length(other));
        ASSERT_EQ(fixture.read(other), expected) << "seed " << seed << ", operation " << operation;
      }
    }
    for (const auto& [id, entries] : naive) cache.release(id);
    EXPECT_EQ(cache.free_pages(), all_pages) << "a page was lost";
    if (!is_scarce) {
      EXPECT_EQ(failures, 0);
    }
    all_failures += failures;
  }
  EXPECT_GT(all_failures, 20) << "pages were never short";
}

TEST(KvCache, ForksShareFullPages) {
  CacheFixture fixture(
      {.planes = kPlanes, .kv_heads = kHeads, .head_width = kWidth, .sequences = 3, .entries = 300});
  KvCache& cache = fixture.cache();
  const SequenceId source = cache.create();
  cache.reserve(source, 130);
  cache.commit_prefix(source, 130);
  const int64_t free = cache.free_pages();
  const SequenceId fork = cache.fork(source);
  EXPECT_EQ(cache.free_pages(), free);
  cache.reserve(fork, 1);  // the third page becomes the fork's own
  EXPECT_EQ(cache.free_pages(), free - 1);
}

TEST(KvCache, SharedEntriesAreTheOthersUntilOneIsWritten) {
  CacheFixture fixture(
      {.planes = kPlanes, .kv_heads = kHeads, .head_width = kWidth, .sequences = 3, .entries = 300});
  KvCache& cache = fixture.cache();
  std::vector<int32_t> rows(130);
  std::vector<float> values(130);
  for (int32_t i = 0; i < 130; ++i) {
    rows[static_cast<size_t>(i)] = i;
    values[static_cast<size_t>(i)] = static_cast<float>(1 + i);
  }
  const SequenceId source = cache.create(), other = cache.create();
  cache.reserve(source, 130);
  fixture.write(source, rows, values);
  cache.commit_prefix(source, 130);
  cache.reserve(other, 70);  // pages that an empty sequence has already go back
  const int64_t free = cache.free_pages();
  cache.share(source, 128, other);
  EXPECT_EQ(cache.free_pages(), free + 2);
  const std::vector<float> first(values.begin(), values.begin() + 128);
  EXPECT_EQ(fixture.read(other), first);
  // The other goes on, and changes what it shares: the source keeps what it had.
  EXPECT_EQ(cache.pages_to_reserve(other, 3), 1);
  const std::vector<int32_t> replaced{5, 9, 70};
  EXPECT_EQ(cache.pages_to_reserve(other, 0, replaced), 2);
  cache.reserve(other, 3, replaced);
  EXPECT_EQ(cache.free_pages(), free + 2 - 3);
  EXPECT_EQ(cache.pages_to_reserve(other, 3, replaced), 0);
  fixture.write(other, {replaced_entry(5), replaced_entry(9), replaced_entry(70)},
                {1001.0f, 1002.0f, 1003.0f});
  EXPECT_EQ(fixture.read(source), values);
  std::vector<float> changed = first;
  changed[5] = 1001.0f;
  changed[9] = 1002.0f;
  changed[70] = 1003.0f;
  EXPECT_EQ(fixture.read(other), changed);
  cache.release(source);
  EXPECT_EQ(fixture.read(other), changed);
}

TEST(KvCache, OnePublishingTellsOfAllReservations) {
  CacheFixture fixture(
      {.planes = kPlanes, .kv_heads = kHeads, .head_width = kWidth, .sequences = 5, .entries = 200});
  KvCache& cache = fixture.cache();
  std::vector<SequenceId> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(cache.create());
  std::map<SequenceId, std::vector<float>> expected;
  float next_value = 1.0f;
  // Not every sequence takes part every time, and not in the order of their slots.
  for (const std::vector<size_t>& part : {std::vector<size_t>{3, 1}, {4, 0, 2}, {1}, {2, 4, 3, 1, 0}}) {
    for (size_t i : part) cache.reserve(ids[i], 50);
    std::vector<int32_t> codes(50);
    std::iota(codes.begin(), codes.end(), 0);
    for (size_t i : part) {
      std::vector<float> values(50);
      for (float& value : values) value = next_value++;
      fixture.write(ids[i], codes, values);
      expected[ids[i]].insert(expected[ids[i]].end(), values.begin(), values.end());
    }
    for (size_t i : part) cache.commit_prefix(ids[i], 50);
    for (SequenceId id : ids) EXPECT_EQ(fixture.read(id), expected[id]);
  }
}

TEST(KvCache, TakesHalfTheBytesInBf16) {
  const auto backend = make_backend("cpu-reference", 1);
  const auto queue = backend->make_queue();
  // Keys and values of two planes of three pages.
  KvCache::Config config{
      .planes = 2, .kv_heads = 3, .head_width = 8, .sequences = 1, .entries = 3 * kPageSize};
  const int64_t elements = 2 * 2 * 3 * kPageSize * 3 * 8;
  std::vector<int64_t> bytes;
  for (const CacheType type : {CacheType::kF32, CacheType::kBF16}) {
    config.type = type;
    const int64_t before = backend->allocated_bytes();
    const KvCache cache(*backend, *queue, config);
    bytes.push_back(backend->allocated_bytes() - before);
    EXPECT_EQ(cache.plane(1).type, type);
    EXPECT_EQ(cache.plane(1).keys - cache.plane(0).keys, elements / 2 * cache_element_bytes(type));
  }
  EXPECT_EQ(bytes[0] - bytes[1], elements * 2);
}

TEST(KvCache, SaysWhatDoesNotFit) {
  CacheFixture fixture(
      {.planes = 1, .kv_heads = 1, .head_width = kWidth, .sequences = 2, .entries = 128, .pages = 3});
  KvCache& cache = fixture.cache();
  const SequenceId a = cache.create(), b = cache.create();
  const auto message = [](auto&& action) -> std::string {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message([&] { cache.create(); }), "cache: no room for another sequence beside 2");
  EXPECT_EQ(message([&] { cache.reserve(a, 129); }),
            "cache: a sequence of 0 entries cannot take 129 more rows; its limit is 128");
  cache.reserve(a, 128);
  EXPECT_EQ(message([&] { cache.reserve(b, 128); }),
            "cache: 2 more pages of 64 entries needed, 1 of 3 are free");
  // The failed reservation changed nothing: a smaller one gets the last page, on the device too.
  cache.reserve(b, 64);
  cache.commit_prefix(b, 64);
  cache.publish();
  const int32_t* table = cache.tables().block_table.data;
  const auto page = [&](SequenceId id, int64_t i) { return table[static_cast<int64_t>(id) * 2 + i]; };
  EXPECT_NE(page(b, 0), page(a, 0));
  EXPECT_NE(page(b, 0), page(a, 1));
}

}  // namespace
}  // namespace volley::test
