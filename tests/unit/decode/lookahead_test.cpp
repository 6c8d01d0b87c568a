#include "core/decode/lookahead.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "core/decode/acceptance.h"
#include "core/decode/verify_loop.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

using Path = std::vector<int32_t>;

// A target that is a function of the tokens before, without noise.
using Target = std::function<int32_t(const Path&)>;

// One generation under a proposer, verified against `target`.
class Game {
 public:
  Game(const LookaheadSizes& sizes, Path prompt, Target target)
      : path(std::move(prompt)), proposer_(sizes), target_(std::move(target)) {
    proposer_.begin(0, {});
    path.push_back(target_(path));
  }

  // One step; returns how many nodes were right.
  int64_t step(int64_t max_depth = 1000) {
    draft = proposer_.propose(
        {.path = path, .output_tokens = ++outputs_, .max_depth = max_depth, .vocab_size = 97});
    std::vector<int32_t> sampled;
    for (int32_t node = -1; node < draft.size(); ++node) sampled.push_back(target_(path_of(node)));
    const Decision decision = accept_coupled(draft, {.sampled = sampled});
    proposer_.observe({.draft = draft,
                       .accepted = decision.accepted,
                       .next_token = decision.next_token,
                       .sampled = sampled});
    for (int32_t node : decision.accepted) path.push_back(draft.tokens[static_cast<size_t>(node)]);
    path.push_back(decision.next_token);
    outputs_ += std::ssize(decision.accepted);
    return std::ssize(decision.accepted);
  }

  // Tokens up to and with a node of the draft.
  Path path_of(int32_t node) const {
    Path tail;
    for (; node >= 0; node = draft.parents[static_cast<size_t>(node)])
      tail.push_back(draft.tokens[static_cast<size_t>(node)]);
    Path whole = path;
    whole.insert(whole.end(), tail.rbegin(), tail.rend());
    return whole;
  }

  int64_t deepest() const {
    int64_t deepest = 0;
    for (int32_t node = 0; node < draft.size(); ++node) deepest = std::max(deepest, draft.depth(node));
    return deepest;
  }

  // Whether the draft holds this path below the root.
  bool holds(const Path& wanted) const {
    int32_t node = -1;
    for (int32_t token : wanted) {
      const auto children = draft.children(node);
      const auto next = std::ranges::find_if(
          children, [&](int32_t child) { return draft.tokens[static_cast<size_t>(child)] == token; });
      if (next == children.end()) return false;
      node = *next;
    }
    return true;
  }

  Path path;
  DraftTree draft;  // of the last step

 private:
  LookaheadProposer proposer_;
  Target target_;
  int64_t outputs_ = 0;
};

// Wanders over 97 tokens without a period in reach.
int32_t wander(const Path& path) {
  const auto size = static_cast<uint32_t>(path.size());
  return static_cast<int32_t>((static_cast<uint32_t>(path.back()) * 31u + size * size * 7u + 3u) % 97u);
}

TEST(NGramPool, KeepsTheLatest) {
  NGramPool pool({.ngram = 3, .guesses = 2});
  pool.add_path(Path{1, 2, 3, 1, 4, 5, 1}, 0);
  EXPECT_EQ(pool.after(1), (std::deque<Path>{{4, 5}, {2, 3}}));
  EXPECT_EQ(pool.after(5), std::deque<Path>{});
  pool.add(1, Path{2, 3});  // known: becomes the latest
  EXPECT_EQ(pool.after(1), (std::deque<Path>{{2, 3}, {4, 5}}));
  pool.add(1, Path{6, 6});
  EXPECT_EQ(pool.after(1), (std::deque<Path>{{6, 6}, {2, 3}}));
  // Only n-grams that end behind what was seen are added.
  NGramPool later({.ngram = 3, .guesses = 9});
  later.add_path(Path{1, 2, 3, 1, 4, 5, 1}, 6);
  EXPECT_TRUE(later.after(1).empty());
  EXPECT_EQ(later.after(4), (std::deque<Path>{{5, 1}}));
}

TEST(Lookahead, RowsOfAStep) {
  // Nothing is found in the pool: all tokens of the path differ at first.
  Game game({.window = 5, .ngram = 4, .guesses = 3}, {90, 80, 70, 60}, [](const Path& path) {
    return static_cast<int32_t>((path.size() * path.size() + static_cast<size_t>(path.back())) % 97);
  });
  // The first row reaches W + N - 3 tokens behind the current one; the window is full two steps later.
  game.step();
  EXPECT_EQ(game.deepest(), 5 + 4 - 3);
  for (int step = 0; step < 30; ++step) {
    game.step();
    EXPECT_LE(game.deepest(), 5 + 4 - 3);
    EXPECT_LE(game.draft.size(), (5 + 3) * 3 - 1);
    for (int32_t node = -1; node < game.draft.size(); ++node) {
      Path tokens;
      for (int32_t child : game.draft.children(node))
        tokens.push_back(game.draft.tokens[static_cast<size_t>(child)]);
      std::ranges::sort(tokens);
      EXPECT_TRUE(std::ranges::adjacent_find(tokens) == tokens.end()) << "siblings must differ";
    }
  }
  // Nothing stands deeper than the output reaches.
  game.step(3);
  EXPECT_EQ(game.deepest(), 3);
  game.step(1);
  EXPECT_EQ(game.deepest(), 1);
}

TEST(Lookahead, ThePromptSeedsThePool) {
  // 5 is the token behind the prompt and was followed by 6 7 8 before.
  Game game({.window = 3, .ngram = 4, .guesses = 3}, {1, 5, 6, 7, 8, 2},
            [](const Path& path) { return path.back() == 2 ? 5 : path.back() + 1; });
  EXPECT_GE(game.step(), 3);
  EXPECT_TRUE(game.holds({6, 7, 8}));
}

// Follows the last token alone; comes back after 96 others.
int32_t follow(int32_t token) {
  return (token * 5 + 1) % 97;
}

// Each row is what the target says behind the row above it.
TEST(Lookahead, ColumnsAreTheTargetsOwnContinuations) {
  Game game({.window = 6, .ngram = 4, .guesses = 2}, {90, 3, 77, 41, 5},
            [](const Path& path) { return follow(path.back()); });
  for (int step = 0; step < 5; ++step) ASSERT_EQ(game.step(), 0);
  // But for the first column, whose head is now the current token.
  int64_t continuations = 0;
  for (int32_t node = 0; node < game.draft.size(); ++node) {
    const int32_t parent = game.draft.parents[static_cast<size_t>(node)];
    continuations += parent >= 0 && game.draft.tokens[static_cast<size_t>(node)] ==
                                        follow(game.draft.tokens[static_cast<size_t>(parent)]);
  }
  EXPECT_GE(continuations, 5 * 2);
}

// What the columns ran through is known when the output comes there.
TEST(Lookahead, ThePoolTakesTheWindowsNGrams) {
  Game game({.window = 6, .ngram = 4, .guesses = 2}, {9, 9, 9, 9},
            [](const Path& path) { return path.size() == 4 ? 10 : follow(path.back()); });
  for (int step = 0; step < 6; ++step) ASSERT_EQ(game.step(), 0) << step;
  ASSERT_EQ(game.path.back(), 9);
  EXPECT_GE(game.step(), 3);
}

TEST(Lookahead, ThePoolTakesTheOutputsNGrams) {
  Game game({.window = 1, .ngram = 4, .guesses = 1}, {90},
            [](const Path& path) { return (path.back() + 1) % 11; });
  while (game.path.size() < 20) game.step();
  for (int step = 0; step < 5; ++step) EXPECT_GE(game.step(), 3);
}

// A guess keeps its position when the window moves on: a target that depends on the position too is still
// guessed by the window.
TEST(Lookahead, GuessesStayAtTheirPositions) {
  Game game({.window = 6, .ngram = 3, .guesses = 1}, {90, 3, 77, 41, 5}, [](const Path& path) {
    return static_cast<int32_t>((path.size() * 17) % 97);
  });  // position alone
  for (int step = 0; step < 4; ++step) game.step();
  int64_t accepted = 0;
  for (int step = 0; step < 10; ++step) accepted += game.step();
  EXPECT_GE(accepted, 15);
}

TEST(Lookahead, OutputIsTheTargetsWhateverItSays) {
  Path expected{11, 12, 13};
  while (expected.size() < 80) expected.push_back(wander(expected));
  for (const LookaheadSizes sizes : {LookaheadSizes{}, {1, 2, 1}, {2, 5, 3}, {9, 3, 1}}) {
    Game game(sizes, {11, 12, 13}, wander);
    while (game.path.size() < 80) game.step(std::min<int64_t>(12, 80 - std::ssize(game.path)));
    game.path.resize(80);
    EXPECT_EQ(game.path, expected);
  }
}

// A commit that keeps a neighbour's row in place of an accepted node's is seen in the output.
TEST(Lookahead, WrongCommitIsCaught) {
  const std::shared_ptr<const Backend> backend = make_backend("cpu-reference", 1);
  const auto model = make_toy_llama(*backend, 1);
  int64_t caught = 0, swapped = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const Generation one{.prompt = token_prompt(*model, Path{1, 2, 3, 1, 2}), .seed = seed, .max_tokens = 40};
    const auto run = [&](const auto& tamper) {
      Session session(*model, backend, {.sequences = 1, .entries = 200});
      LookaheadProposer proposer({});
      return VerifyLoop{.proposer = proposer, .tamper_commit = tamper}.run(session, {&one, 1}, {})[0].tokens;
    };
    int64_t swaps = 0;
    const auto truth = run([](std::vector<int32_t>&, int64_t) {});
    const auto wrong = run([&](std::vector<int32_t>& kept, int64_t rows) {
      if (kept.size() < 2 || kept.back() + 1 >= rows) return;
      ++kept.back();
      ++swaps;
    });
    if (swaps == 0) continue;
    ++swapped;
    caught += wrong != truth;
  }
  EXPECT_GT(swapped, 30);
  EXPECT_GT(caught, swapped / 2);
}

}  // namespace
}  // namespace volley::test
