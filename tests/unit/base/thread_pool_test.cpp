#include "core/base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <numeric>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace volley {
namespace {

TEST(ThreadPoolTest, DoesEveryItemOnce) {
  for (const int64_t threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t items : {0, 1, 2, 3, 7, 8, 9, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<size_t>(items));
      pool.parallel_for(items, [&](int64_t item) { done[static_cast<size_t>(item)].fetch_add(1); });
      for (const auto& count : done)
        ASSERT_EQ(count.load(), 1) << threads << " threads, " << items << " items";
    }
  }
}

// What the items wrote is there for the caller, and what the caller wrote for the items, without further
// locks.
TEST(ThreadPoolTest, OrdersMemoryAroundALoop) {
  ThreadPool pool(4);
  std::vector<int64_t> values(1000);
  for (int64_t round = 1; round <= 200; ++round) {
    std::iota(values.begin(), values.end(), round);
    pool.parallel_for(1000, [&](int64_t item) { values[static_cast<size_t>(item)] *= 2; });
    const int64_t sum = std::accumulate(values.begin(), values.end(), int64_t{0});
    ASSERT_EQ(sum, 2 * (1000 * round + 999 * 1000 / 2));
  }
}

// Sessions of one backend share a pool: whoever finds it busy works alone, and nobody waits for another or
// loses an item.
TEST(ThreadPoolTest, SeveralCallersAtOnce) {
  ThreadPool pool(3);
  constexpr int kCallers = 5;
  constexpr int kLoops = 300;
  std::vector<int64_t> wrong(kCallers, 0);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&pool, &wrong, caller] {
      for (int loop = 0; loop < kLoops; ++loop) {
        const int64_t items = 1 + (loop * 7 + caller) % 40;
        std::vector<int> done(static_cast<size_t>(items), 0);
        pool.parallel_for(items, [&](int64_t item) { ++done[static_cast<size_t>(item)]; });
        for (const int count : done) wrong[static_cast<size_t>(caller)] += count != 1;
      }
    });
  }
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(wrong, std::vector<int64_t>(kCallers, 0));
}

// A caller that finds the pool busy does its items on its own thread.
TEST(ThreadPoolTest, ABusyPoolLeavesTheCallerAlone) {
  ThreadPool pool(2);
  std::atomic<bool> entered = false, release = false;
  std::thread first([&] {
    pool.parallel_for(2, [&](int64_t) {
      entered = true;
      while (!release) std::this_thread::yield();
    });
  });
  while (!entered) std::this_thread::yield();
  std::set<std::thread::id> workers;
  pool.parallel_for(50, [&](int64_t) { workers.insert(std::this_thread::get_id()); });
  EXPECT_EQ(workers, std::set<std::thread::id>{std::this_thread::get_id()});
  release = true;
  first.join();
}

TEST(ThreadPoolTest, ManyShortLives) {
  for (int life = 0; life < 100; ++life) {
    ThreadPool pool(1 + life % 5);
    std::atomic<int64_t> sum = 0;
    if (life % 2 == 0) pool.parallel_for(10, [&](int64_t item) { sum += item; });
    EXPECT_EQ(sum, life % 2 == 0 ? 45 : 0);
  }
}

TEST(ThreadPoolTest, CountsPhysicalCores) {
  EXPECT_GE(physical_cores(), 1);
  EXPECT_LE(physical_cores(), std::max(1u, std::thread::hardware_concurrency()));
}

TEST(ThreadPoolTest, AFailedItemIsThrownAgainWhenAllThreadsAreDone) {
  for (const int64_t threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      // The body's data live only as long as the call: a worker that went on would touch what is gone.
      std::vector<int64_t> done(64, 0);
      const int64_t bad = round % 64;
      try {
        pool.parallel_for(64, [&](int64_t item) {
          if (item == bad) throw std::runtime_error("item " + std::to_string(item));
          done[static_cast<size_t>(item)] = 1;
        });
        ADD_FAILURE() << "nothing was thrown";
      } catch (const std::runtime_error& error) {
        EXPECT_EQ(error.what(), "item " + std::to_string(bad));
      }
      EXPECT_EQ(done[static_cast<size_t>(bad)], 0);
    }
    // The pool still works.
    std::atomic<int64_t> sum = 0;
    pool.parallel_for(100, [&](int64_t item) { sum += item; });
    EXPECT_EQ(sum, 4950);
  }
}

// One thread is kept by an item: the others do the rest of its stripe.
TEST(ThreadPoolTest, ThreadsHelpEachOther) {
  for (const int64_t kept : {0, 50, 99}) {
    ThreadPool pool(2);
    std::atomic<int64_t> others = 0;
    pool.parallel_for(100, [&](int64_t item) {
      if (item == kept) {
        while (others < 99) std::this_thread::yield();
      } else {
        ++others;
      }
    });
    EXPECT_EQ(others, 99);
  }
}

// A thread's number names memory that nobody else uses meanwhile.
TEST(ThreadPoolTest, NumbersOfThreadsAreOneAtATime) {
  for (const int64_t threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    std::vector<std::atomic<int>> inside(static_cast<size_t>(threads));
    std::atomic<int64_t> clashes = 0, done = 0;
    for (int round = 0; round < 200; ++round) {
      pool.parallel_for(1 + round % 40, [&](int64_t, int64_t thread) {
        if (inside.at(static_cast<size_t>(thread)).fetch_add(1) != 0) ++clashes;
        ++done;
        inside[static_cast<size_t>(thread)].fetch_sub(1);
      });
    }
    EXPECT_EQ(clashes, 0);
    EXPECT_EQ(done, 200 / 40 * (40 * 41 / 2));
  }
}

TEST(ThreadPoolTest, StripesCoverAllItems) {
  for (const int64_t threads : {1, 2, 3, 8}) {
    const ThreadPool pool(threads);
    for (const int64_t items : {0, 1, 7, 1000}) {
      EXPECT_EQ(pool.stripe_begin(0, items), 0);
      EXPECT_EQ(pool.stripe_begin(threads, items), items);
      for (int64_t t = 0; t < threads; ++t)
        EXPECT_LE(pool.stripe_begin(t + 1, items) - pool.stripe_begin(t, items), items / threads + 1);
    }
  }
}

// More items than a stripe counts one by one.
TEST(ThreadPoolTest, DoesMillionsOfItemsOnce) {
  ThreadPool pool(3);
  for (const int64_t items : {3 * 65535 - 1, 3 * 65535 + 1, 1000003}) {
    std::vector<std::atomic<uint8_t>> done(static_cast<size_t>(items));
    pool.parallel_for(items, [&](int64_t item) { ++done[static_cast<size_t>(item)]; });
    EXPECT_TRUE(std::ranges::all_of(done, [](const auto& count) { return count == 1; })) << items;
  }
}

TEST(ThreadPoolTest, LoopsMayBeNested) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum = 0;
  pool.parallel_for(
      20, [&](int64_t outer) { pool.parallel_for(10, [&](int64_t inner) { sum += outer * 10 + inner; }); });
  EXPECT_EQ(sum, 199 * 200 / 2);
}

}  // namespace
}  // namespace volley
