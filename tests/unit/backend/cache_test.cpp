// Writes, moves and copies of cache entries.
#include <algorithm>
#include <numeric>
#include <random>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

void expect_cache_like_the_reference(CacheType type) {
  constexpr int64_t kSlots = 3, kSlotPages = 4, kGroups = 2, kWidth = 5, kRows = 40, kPlanes = 2;
  const Shape plane{kSlots * kSlotPages, kGroups, kPageSize, kWidth};
  std::vector<std::vector<float>> results;
  for (const auto& backend : {make_reference_backend(), tested_backend(3)}) {
    std::mt19937_64 generator(4);
    std::vector<int32_t> pages(kSlots * kSlotPages);
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), generator);
    std::vector<std::unique_ptr<GuardedPlane>> guarded;
    std::vector<CachePlane> planes;
    for (int64_t p = 0; p < kPlanes; ++p) {
      guarded.push_back(std::make_unique<GuardedPlane>(
          *backend, type, plane,
          GuardedPlane::Numbers{.keys = normal_numbers(plane.size(), 10 + p),
                                .values = normal_numbers(plane.size(), 20 + p)}));
      planes.push_back(guarded.back()->plane());
    }
    const Guarded<int32_t> table(*backend, {kSlots, kSlotPages}, pages);
    const Guarded<int32_t> lengths(*backend, {kSlots}, std::vector<int32_t>{100, 60, 150});
    const CacheTables cache{.lengths = lengths.view(), .block_table = table.view()};
    std::vector<int32_t> row_sequence, row_entry;
    std::vector<int32_t> next(2, 0);
    for (int64_t r = 0; r < kRows; ++r) {
      const int32_t s = static_cast<int32_t>(generator() % 3) - 1;
      row_sequence.push_back(s);
      const auto kind = generator() % 4;
      row_entry.push_back(s < 0       ? 3
                          : kind == 0 ? kNoEntry
                          : kind == 1 ? replaced_entry(static_cast<int32_t>(r))
                                      : next[s]++);
    }
    const Guarded<int32_t> sequences(*backend, {kRows}, row_sequence), entries(*backend, {kRows}, row_entry);
    const Guarded<int32_t> slots(*backend, {2}, std::vector<int32_t>{2, 1});
    const StepTables step{
        .row_sequence = sequences.read(), .row_entry = entries.read(), .sequence_slot = slots.read()};
    constexpr int64_t kFirst = 7;  // the product's rows are a part of the step's
    const Shape fresh{kRows - kFirst, kGroups, kWidth};
    const Guarded<float> new_keys(*backend, fresh, normal_numbers(fresh.size(), 30));
    const Guarded<float> new_values(*backend, fresh, normal_numbers(fresh.size(), 31));
    auto queue = backend->make_queue();
    queue->write_cache({.keys = new_keys.read(),
                        .values = new_values.read(),
                        .plane = planes[0],
                        .cache = cache,
                        .step = step,
                        .first_row = kFirst});
    const std::vector<int32_t> moves{105, 100, 105, 101, 110, 102, 103, 103, 120, 104};
    queue->move_entries({.planes = planes, .cache = cache, .slot = 0, .moves = moves, .length = 105});
    queue->copy_page({.planes = planes, .from = 3, .to = 7});
    queue->finish();
    std::vector<float> all;
    for (const auto& each : guarded) {
      const auto [keys, values] = each->numbers();
      all.insert(all.end(), keys.begin(), keys.end());
      all.insert(all.end(), values.begin(), values.end());
    }
    for (const int32_t length : lengths.values()) all.push_back(static_cast<float>(length));
    results.push_back(all);
  }
  EXPECT_EQ(first_difference(results[0], results[1]), -1);
}

TEST(CacheTest, WritesMovesAndCopiesLikeTheReference) {
  for (const CacheType type : kCacheTypes) {
    expect_cache_like_the_reference(type);
  }
}

// What a bf16 cache holds is the nearest bf16, of two equally near ones the even one.
TEST(CacheTest, WritesRoundToNearestEven) {
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    const std::vector<float> numbers{0x1.00p0f,     0x1.01p0f,     0x1.03p0f,
                                     0x1.010002p0f, 0x1.00fffep0f, -0x1.05p0f};
    const std::vector<float> nearest{0x1.00p0f, 0x1.00p0f, 0x1.04p0f, 0x1.02p0f, 0x1.00p0f, -0x1.04p0f};
    const auto width = static_cast<int64_t>(numbers.size());
    const Shape shape{1, 1, kPageSize, width};
    const std::vector<float> before(static_cast<size_t>(shape.size()), 9.0f);
    const GuardedPlane plane(*backend, CacheType::kBF16, shape, {.keys = before, .values = before});
    const CachePlane target = plane.plane();
    const Guarded<float> rows(*backend, {1, 1, width}, numbers);
    const std::vector<int32_t> zero(1, 0);
    const Guarded<int32_t> zeros(*backend, {1}, zero), lengths(*backend, {1}, std::vector<int32_t>{2});
    auto queue = backend->make_queue();
    queue->write_cache(
        {.keys = rows.read(),
         .values = rows.read(),
         .plane = target,
         .cache = {.lengths = lengths.view(), .block_table = zeros.view().reshape({1, 1})},
         .step = {.row_sequence = zeros.read(), .row_entry = zeros.read(), .sequence_slot = zeros.read()}});
    queue->finish();
    std::vector<float> expected = before;
    std::copy(nearest.begin(), nearest.end(), expected.begin() + 2 * width);
    const auto [keys, values] = plane.numbers();
    EXPECT_EQ(keys, expected);
    EXPECT_EQ(values, expected);
  }
}

// Turning and writing at once leaves the bits of the three operations by themselves.
void expect_rotate_and_write_like_its_parts(CacheType type) {
  const int64_t rows = 5, heads = 6, groups = 2, positions = 9;
  for (const auto& backend : {make_reference_backend(), tested_backend()}) {
    for (const int64_t width : {8, 20, 64}) {
      for (const int64_t components : {1, 2}) {
        for (const RopeLayout layout : {RopeLayout::kAdjacent, RopeLayout::kSplitHalf}) {
          for (const bool with_queries : {false, true}) {
            const int64_t columns = width / 2 / components;
            const Guarded<float> cosines(*backend, {positions, columns},
                                         normal_numbers(positions * columns, 1));
            const Guarded<float> sines(*backend, {positions, columns},
                                       normal_numbers(positions * columns, 2));
            const auto ints = [&](const std::vector<int32_t>& numbers) {
              return std::make_unique<Guarded<int32_t>>(*backend, Shape{static_cast<int64_t>(numbers.size())},
                                                        numbers);
            };
            std::vector<int32_t> places;
            for (int64_t i = 0; i < rows * components; ++i)
              places.push_back(static_cast<int32_t>(i * 5 % positions));
            const auto position = ints(places);
            const auto sequence = ints({0, 0, 0, 0, -1});
            const auto entry = ints({0, kNoEntry, replaced_entry(1), 1, 2});
            const auto slot = ints({1}), lengths = ints({0, 3}), pages = ints({0, 2});
            const StepTables step{
                .row_sequence = sequence->read(), .row_entry = entry->read(), .sequence_slot = slot->read()};
            const CacheTables cache{.lengths = lengths->view(), .block_table = pages->view().reshape({2, 1})};
            const Shape plane_shape{3, groups, kPageSize, width};
            std::vector<std::vector<float>> outputs;
            for (const bool at_once : {false, true}) {
              const Guarded<float> q(*backend, {rows, heads, width}, normal_numbers(rows * heads * width, 3));
              const Guarded<float> k(*backend, {rows, groups, width},
                                     normal_numbers(rows * groups * width, 4));
              const Guarded<float> v(*backend, {rows, groups, width},
                                     normal_numbers(rows * groups * width, 5));
              const GuardedPlane guarded(*backend, type, plane_shape,
                                         {.keys = normal_numbers(plane_shape.size(), 6),
                                          .values = normal_numbers(plane_shape.size(), 7)});
              const CachePlane plane = guarded.plane();
              const auto rope = [&](Tensor x) {
                return RopeArgs{.cos = cosines.read(),
                                .sin = sines.read(),
                                .positions = position->read().reshape({rows, components}),
                                .layout = layout,
                                .x = x};
              };
              const WriteCacheArgs write{
                  .keys = k.read(), .values = v.read(), .plane = plane, .cache = cache, .step = step};
              auto queue = backend->make_queue();
              if (at_once) {
                queue->rotate_and_write({.queries = rope(with_queries ? q.view() : Tensor{}),
                                         .keys = rope(k.view()),
                                         .write = write});
              } else {
                if (with_queries) queue->rope(rope(q.view()));
                queue->rope(rope(k.view()));
                queue->write_cache(write);
              }
              queue->finish();
              outputs.push_back(q.values());
              outputs.push_back(guarded.numbers().keys);
              outputs.push_back(guarded.numbers().values);
            }
            for (size_t i = 0; i < 3; ++i) {
              EXPECT_EQ(first_difference(outputs[i], outputs[i + 3]), -1)
                  << "output " << i << " width " << width << " components " << components;
            }
          }
        }
      }
    }
  }
}

TEST(CacheTest, RotateAndWriteEqualsItsParts) {
  for (const CacheType type : kCacheTypes) expect_rotate_and_write_like_its_parts(type);
}

}  // namespace
}  // namespace volley::testing
