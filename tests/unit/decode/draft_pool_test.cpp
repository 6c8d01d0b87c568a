// Texts to draft from: what is found, what is forgotten, how much is kept.
#include "core/decode/draft_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>

#include "core/decode/ngram.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

using Tokens = std::vector<int32_t>;
using Matches = std::vector<std::tuple<int64_t, int64_t, int32_t>>;  // length, times, next

// The same by a list that is searched from end to end.
class PlainPool {
 public:
  explicit PlainPool(int64_t limit) : limit_(limit) {}

  int64_t add(int64_t place, const Tokens& tokens) {
    for (const int32_t token : tokens) {
      if (!is_kept(place)) place = -1;
      std::optional<int64_t> known;
      for (int64_t i = first(); i < std::ssize(all_); ++i) {
        if (all_[static_cast<size_t>(i)] == std::pair(token, place)) known = i;
      }
      if (!known) all_.emplace_back(token, place);
      place = known.value_or(std::ssize(all_) - 1);
    }
    return place;
  }

  Matches matches(const Tokens& path, int64_t longest) const {
    Matches all;  // the latest first
    for (int64_t i = std::ssize(all_) - 1; i >= first(); --i) {
      int64_t length = 0, before = all_[static_cast<size_t>(i)].second;
      while (length < std::min(longest, std::ssize(path)) && is_kept(before) &&
             all_[static_cast<size_t>(before)].first == path[path.size() - 1 - static_cast<size_t>(length)]) {
        before = all_[static_cast<size_t>(before)].second;
        ++length;
      }
      if (length >= 2) all.emplace_back(length, 1, all_[static_cast<size_t>(i)].first);
    }
    Matches found;
    for (const auto& [length, times, next] : all) {
      const auto is_same = [next = next](const auto& other) { return std::get<2>(other) == next; };
      if (std::ranges::any_of(found, is_same)) continue;
      int64_t most = 0;
      for (const auto& other : all) most = std::max(most, is_same(other) ? std::get<0>(other) : 0);
      found.emplace_back(most, std::ranges::count(all, std::tuple(most, int64_t{1}, next)), next);
    }
    std::ranges::stable_sort(found, std::greater<>(), [](const auto& match) {
      return std::pair(std::get<0>(match), std::get<1>(match));
    });
    return found;
  }

  int64_t size() const { return std::min(limit_, std::ssize(all_)); }

 private:
  int64_t first() const { return std::max<int64_t>(std::ssize(all_) - limit_, 0); }
  bool is_kept(int64_t place) const { return place >= first(); }

  int64_t limit_;
  std::vector<std::pair<int32_t, int64_t>> all_;  // token, place before it
};

Matches tuples(const std::vector<DraftPool::Match>& matches) {
  Matches all;
  for (const DraftPool::Match& match : matches) all.emplace_back(match.length, match.times, match.next);
  return all;
}

Tokens random_tokens(TestRandom& random, int64_t count, int64_t vocab) {
  Tokens tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(vocab));
  return tokens;
}

// Texts that grow by turns, beginnings in common, searches in between, whatever was forgotten meanwhile.
TEST(DraftPoolTest, FindsWhatAPlainSearchFinds) {
  int64_t found = 0, longest = 0, frequent = 0, shared = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    TestRandom random(seed);
    // So small that a search never has more to look at than it may.
    const int64_t limit = 1 + random.below(seed % 2 == 0 ? 40 : 150);
    DraftPool pool(limit);
    PlainPool plain(limit);
    struct Text {
      Tokens tokens;
      DraftPool::Place place = DraftPool::kBeginning;
      int64_t plain = -1;
    };
    std::vector<Text> texts(4);
    int64_t given = 0;
    for (int turn = 0; turn < 120; ++turn) {
      Text& text = texts[static_cast<size_t>(random.below(4))];
      if (random.below(10) == 0) text = {};
      Tokens more = random_tokens(random, 1 + random.below(5), 20);
      // Some repeat another text.
      const Tokens& other = texts[static_cast<size_t>(random.below(4))].tokens;
      if (random.below(2) == 0 && std::ssize(other) > 6) {
        const auto begin = text.tokens.empty() ? 0 : random.below(std::ssize(other) - 5);
        more.assign(other.begin() + begin, other.begin() + begin + 5);
      }
      text.place = pool.add(text.place, more);
      text.plain = plain.add(text.plain, more);
      text.tokens.insert(text.tokens.end(), more.begin(), more.end());
      given += std::ssize(more);
      ASSERT_EQ(text.place, text.plain);
      ASSERT_EQ(pool.size(), plain.size());
      for (const Text& one : texts) {
        const Matches matches = tuples(pool.matches(one.tokens, 5));
        ASSERT_EQ(matches, plain.matches(one.tokens, 5)) << "seed " << seed << ", turn " << turn;
        found += std::ssize(matches);
        if (!matches.empty()) longest += std::get<0>(matches.front()) == 5;
        for (const auto& match : matches) frequent += std::get<1>(match) > 1;
      }
      shared += given > std::ssize(more) && text.place < given - 1;
    }
  }
  EXPECT_GT(found, 5000);
  EXPECT_GT(longest, 500);
  EXPECT_GT(frequent, 500);
  EXPECT_GT(shared, 500);
}

TEST(DraftPoolTest, KeepsSoManyTokensInSoMuchMemory) {
  for (const int64_t limit : {1, 2, 3, 7, 64, 100, 1000, 4096, 5000}) {
    DraftPool pool(limit);
    TestRandom random(static_cast<uint64_t>(limit));
    DraftPool::Place place = DraftPool::kBeginning;
    for (int64_t added = 0; added < 3 * limit; added += 5) {
      place = pool.add(place, random_tokens(random, 5, 1000));
      ASSERT_LE(pool.size(), limit);
      ASSERT_LE(pool.bytes(), limit * DraftPool::kBytesPerToken);
    }
    EXPECT_EQ(pool.size(), limit);
  }
  DraftPool none;
  EXPECT_EQ(none.add(DraftPool::kBeginning, Tokens{1, 2, 3}), DraftPool::kBeginning);
  EXPECT_TRUE(none.matches(Tokens{1, 2}, 3).empty());
  EXPECT_EQ(none.bytes(), 0);
}

TEST(DraftPoolTest, TheOldestMakesRoom) {
  DraftPool pool(8);
  pool.add(DraftPool::kBeginning, Tokens{1, 2, 3});
  const auto next = [&] { return tuples(pool.matches(Tokens{1, 2}, 3)); };
  const Matches three{{2, 1, 3}};
  EXPECT_EQ(next(), three);
  const DraftPool::Place place = pool.add(DraftPool::kBeginning, Tokens{4, 5, 6, 7, 8});
  EXPECT_EQ(next(), three) << "8 tokens";
  pool.add(place, Tokens{9});
  EXPECT_TRUE(next().empty()) << "the 1 is gone, and one token is too little of a match";
  EXPECT_EQ(pool.matches(Tokens{0, 8}, 3).size(), 0u);
  EXPECT_EQ(pool.matches(Tokens{7, 8}, 3).size(), 1u);
  pool.set_limit(8);
  EXPECT_EQ(pool.size(), 8) << "the same limit";
  pool.set_limit(9);
  EXPECT_EQ(pool.size(), 0);
}

TEST(DraftPoolTest, WhatTextsBeginWithIsKeptOnce) {
  DraftPool pool(1000);
  Tokens system(100);
  std::iota(system.begin(), system.end(), 0);
  for (int32_t turn = 0; turn < 20; ++turn) {
    const DraftPool::Place place = pool.add(DraftPool::kBeginning, system);
    pool.add(place, Tokens{200 + turn, 300});
  }
  EXPECT_EQ(pool.size(), 100 + 20 * 2);
  // Of what came behind it, the latest comes first.
  const auto matches = pool.matches(system, 3);
  ASSERT_EQ(std::ssize(matches), DraftPool::kMostLooks);
  for (int32_t i = 0; i < DraftPool::kMostLooks; ++i) {
    EXPECT_EQ(matches[static_cast<size_t>(i)].next, 219 - i);
    EXPECT_EQ(matches[static_cast<size_t>(i)].length, 3);
  }
}

// Longer matches first, of one length the own text's.
TEST(DraftPoolTest, GuessesRankTheOwnTextFirst) {
  DraftPool pool(1000);
  pool.add(DraftPool::kBeginning, Tokens{1, 2, 3, 40, 1, 2, 41});
  pool.add(DraftPool::kBeginning, Tokens{9, 3, 42});
  NGramSource alone({}), both({.pool = &pool});
  const Tokens path{2, 3, 50, 3, 51, 1, 2, 3};
  EXPECT_EQ(alone.candidates(path, 4), (Tokens{50, 51}));
  EXPECT_EQ(both.candidates(path, 4), (Tokens{40, 50, 51}));
  EXPECT_EQ(both.candidates(path, 1), (Tokens{40}));
  EXPECT_EQ(alone.grade(path), 2);
  EXPECT_EQ(both.grade(path), 6) << "three tokens of another text";
  EXPECT_EQ(both.candidates(Tokens{7, 1, 2}, 4), (Tokens{41, 3}));
  EXPECT_EQ(both.grade(Tokens{7, 1, 2}), 5);
  EXPECT_EQ(both.candidates(Tokens{1, 2, 60, 1, 2}, 4), (Tokens{60, 41, 3}));
  EXPECT_EQ(both.grade(Tokens{1, 2, 60, 1, 2}), 2) << "its own text says as much";
  EXPECT_EQ(both.grade(Tokens{1}), 0);
  pool.add(DraftPool::kBeginning, Tokens{5, 1, 2, 3});
  EXPECT_EQ(both.candidates(Tokens{7, 1, 2}, 4), (Tokens{3, 41})) << "it came twice";
}

}  // namespace
}  // namespace volley::test
