#include "core/nn/arena.h"

#include <gtest/gtest.h>

namespace volley {
namespace {

// 3 MiB and 1 MiB at once, and then 2 MiB in place of the second.
void work(Arena& arena) {
  arena.tensor({3 << 18});
  {
    const Arena::Scope scope(arena);
    arena.tensor({1 << 18});
  }
  arena.tensor({2 << 18});
}

class ArenaTest : public testing::Test {
 protected:
  std::shared_ptr<const Backend> backend_ = make_backend("cpu-reference", 1);
  Arena arena_{*backend_};
};

TEST_F(ArenaTest, HoldsWhatAStepTakesAtOnce) {
  work(arena_);
  arena_.reset();
  EXPECT_EQ(arena_.bytes(), 5 << 20);
  const int64_t serial = arena_.serial();
  for (int i = 0; i < 3; ++i) {
    work(arena_);
    arena_.reset();
  }
  EXPECT_EQ(arena_.serial(), serial) << "nothing is allocated again";
}

TEST_F(ArenaTest, MemoryThatIsKnownBeforeIsHeldOnce) {
  const auto prepare = [&](int64_t times) {
    arena_.reset_for([&](Queue&, Arena& arena) {
      for (int64_t i = 0; i < times; ++i) work(arena);
    });
  };
  for (int64_t times : {1, 3, 7}) {
    prepare(times);
    const int64_t serial = arena_.serial();
    for (int64_t i = 0; i < times; ++i) work(arena_);
    EXPECT_EQ(arena_.serial(), serial);
    EXPECT_EQ(arena_.bytes(), times * (5 << 20));
    EXPECT_EQ(backend_->peak_bytes(), times * (5 << 20)) << "the smaller memory is given back first";
  }
  const int64_t serial = arena_.serial();
  prepare(2);
  EXPECT_EQ(arena_.serial(), serial) << "there is enough";
}

TEST_F(ArenaTest, APlanFollowsNoAddress) {
  arena_.reset_for([](Queue& queue, Arena& arena) {
    const Tensor a = arena.tensor({int64_t{1} << 16, 4}), b = arena.tensor(a.shape);
    EXPECT_NE(a.data, b.data);
    std::vector<float> host(4, 1.0f);
    queue.upload(host.data(), a.data, 16);
    queue.add({.a = a, .b = b, .out = b});
    queue.run_recorded({}, [&] { queue.copy({.x = b, .out = a}); });
    queue.download(b.data, host.data(), 16);
    EXPECT_EQ(host, std::vector<float>(4, 0.0f));
  });
  EXPECT_EQ(arena_.bytes(), 2 << 20);
}

}  // namespace
}  // namespace volley
