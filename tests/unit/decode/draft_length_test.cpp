// Draft lengths on simulated machines and texts: no clock of ours runs here.
#include "core/decode/draft_length.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <string>

#include "tests/support/sanitized.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int64_t kLongest = 16;

// Seconds of forwards by rows, and of a drafted token.
struct Machine {
  std::string name;
  std::function<double(int64_t rows)> forward;
  double draft_token = 0.0;
  double prompt_row = 0.0;  // of the target; the drafter's, by the same proportion as its tokens
};

double flat(int64_t) {
  return 1.0;
}
double linear(int64_t rows) {
  return static_cast<double>(rows);
}
double gentle(int64_t rows) {
  return 0.9 + 0.1 * static_cast<double>(rows);
}
// Products work in tiles of four rows.
double tiles(int64_t rows) {
  return 0.4 + 0.6 * static_cast<double>((rows + 3) / 4);
}
// One row has a way of its own; two and more are as dear as eight.
double cliff(int64_t rows) {
  return rows == 1 ? 1.0 : 1.7 + 0.02 * static_cast<double>(rows);
}

std::vector<Machine> machines() {
  return {{"flat", flat},
          {"linear", linear},
          {"gentle", gentle},
          {"tiles", tiles},
          {"cliff", cliff},
          {"gentle, with a draft model", gentle, 0.1},
          {"flat, with a dear draft model", flat, 0.9}};
}

// Whether the drafted token at a position is right if all before it are, the same for every way to decode.
class Fate {
 public:
  Fate(std::function<double(int64_t position)> chance, uint64_t seed)
      : chance_(std::move(chance)), seed_(seed) {}
  bool is_right(int64_t lane, int64_t position) const {
    const auto [place, is_new] = drawn_.try_emplace({lane, position});
    if (is_new) {
      TestRandom random(seed_ * 1000003 + static_cast<uint64_t>(lane) * 65537 +
                        static_cast<uint64_t>(position));
      place->second = random.uniform();
    }
    return place->second < chance_(position);
  }

 private:
  std::function<double(int64_t)> chance_;
  uint64_t seed_;
  mutable std::map<std::pair<int64_t, int64_t>, float> drawn_;
};

struct Task {
  int64_t lanes = 1;
  int64_t tokens = 256;  // of each
  int64_t prompt = 0;    // rows of each, which the proposer has to read
  // What a proposer says of the draft at a position.
  std::function<int64_t(int64_t position)> grade = [](int64_t) { return 1; };
  // Whether the proposer finds anything to draft there, though its grade says so.
  std::function<bool(int64_t position)> finds = [](int64_t) { return true; };
  // Between what a step takes and what the clock says.
  std::function<double(double seconds)> clock = [](double seconds) { return seconds; };
};

struct Course {
  double seconds = 0.0;  // without the target's prompt
  int64_t rehearsals = 0;
  bool has_read = false;
  std::vector<std::vector<int64_t>> lengths;  // [steps][lanes]
};

using Choice = std::function<std::vector<int64_t>(std::span<const DraftOutlook>)>;

// Decodes by lengths that `choose` chooses; `learn` is told what became of them. `rehearse` may be told what
// a draft's token takes, if it wants to be.
Course decode(const Task& task, const Machine& machine, const Fate& fate, const Choice& choose,
              const std::function<void(const DraftRound&)>& learn = {},
              const std::function<bool(std::span<const DraftOutlook>, double seconds)>& rehearse = {}) {
  std::vector<int64_t> done(static_cast<size_t>(task.lanes));
  std::vector<bool> has_read(static_cast<size_t>(task.lanes));
  Course course;
  while (true) {
    std::vector<DraftOutlook> outlooks;
    for (int64_t lane = 0; lane < task.lanes; ++lane) {
      const int64_t position = done[static_cast<size_t>(lane)];
      if (position < task.tokens) {
        outlooks.push_back({.generation = lane,
                            .grade = task.grade(position),
                            .longest = std::min(kLongest, task.tokens - position - 1),
                            .unread = has_read[static_cast<size_t>(lane)] ? 0 : task.prompt,
                            .tokens = task.tokens - position});
      }
    }
    if (outlooks.empty()) return course;
    if (rehearse && rehearse(outlooks, task.clock(machine.draft_token))) {
      ++course.rehearsals;
      course.seconds += machine.draft_token;
    }
    const std::vector<int64_t> lengths = choose(outlooks);
    EXPECT_EQ(lengths.size(), outlooks.size());
    std::vector<DraftRound::Lane> lanes;
    int64_t rows = 0, longest = 0;
    for (size_t i = 0; i < outlooks.size(); ++i) {
      const DraftOutlook& outlook = outlooks[i];
      EXPECT_GE(lengths[i], 0);
      EXPECT_LE(lengths[i], outlook.longest);
      if (lengths[i] > 0 && outlook.unread > 0) {
        has_read[static_cast<size_t>(outlook.generation)] = course.has_read = true;
        course.seconds += static_cast<double>(task.prompt) * machine.prompt_row * machine.draft_token;
      }
      int64_t& position = done[static_cast<size_t>(outlook.generation)];
      DraftRound::Lane lane{.outlook = outlook, .asked = outlook.grade > 0 ? lengths[i] : 0};
      if (task.finds(position)) lane.drafted = lane.asked;
      while (lane.accepted < lane.drafted && fate.is_right(outlook.generation, position + lane.accepted))
        ++lane.accepted;
      lane.emitted = lane.accepted + 1;
      position += lane.emitted;
      rows += 1 + lane.drafted;
      longest =
          std::max({longest, lane.drafted, std::min<int64_t>(lane.asked, 1)});  // to find nothing costs, too
      lanes.push_back(lane);
    }
    const double draft = machine.draft_token * static_cast<double>(longest), forward = machine.forward(rows);
    course.seconds += draft + forward;
    course.lengths.push_back(lengths);
    if (learn) {
      learn({.lanes = lanes,
             .rows = rows,
             .draft_seconds = task.clock(draft),
             .forward_seconds = task.clock(forward)});
    }
  }
}

Course fixed(const Task& task, const Machine& machine, const Fate& fate, int64_t length) {
  return decode(task, machine, fate, [length](std::span<const DraftOutlook> outlooks) {
    std::vector<int64_t> lengths;
    for (const DraftOutlook& outlook : outlooks) lengths.push_back(std::min(length, outlook.longest));
    return lengths;
  });
}

Course adaptive(const Task& task, const Machine& machine, const Fate& fate) {
  DraftLength length;
  const int64_t rows = task.lanes * task.prompt;
  length.observe_prompt(rows, task.clock(static_cast<double>(rows) * machine.prompt_row));
  return decode(
      task, machine, fate, [&](std::span<const DraftOutlook> outlooks) { return length.choose(outlooks); },
      [&](const DraftRound& round) { length.observe(round); },
      [&](std::span<const DraftOutlook> outlooks, double seconds) {
        const bool wants = length.wants_rehearsal(outlooks);
        if (wants) length.observe_rehearsal(seconds);
        return wants;
      });
}

double best_fixed(const Task& task, const Machine& machine, const Fate& fate) {
  double best = std::numeric_limits<double>::infinity();
  for (int64_t length = 0; length <= kLongest; ++length)
    best = std::min(best, fixed(task, machine, fate, length).seconds);
  return best;
}

struct Text {
  std::string name;
  std::function<double(int64_t position)> chance;
};

std::vector<Text> texts() {
  return {{"never right", [](int64_t) { return 0.0; }},
          {"0.1", [](int64_t) { return 0.1; }},
          {"0.3", [](int64_t) { return 0.3; }},
          {"0.6", [](int64_t) { return 0.6; }},
          {"0.9", [](int64_t) { return 0.9; }},
          {"always right", [](int64_t) { return 1.0; }},
          {"0.9, then 0", [](int64_t position) { return position < 128 ? 0.9 : 0.0; }},
          {"0, then 0.9", [](int64_t position) { return position < 128 ? 0.0 : 0.9; }},
          {"now 0.95, now 0.1", [](int64_t position) { return position / 32 % 2 == 0 ? 0.95 : 0.1; }}};
}

constexpr uint64_t kSeeds = 4;

// All machines; two of them where sanitizers make each dear.
std::vector<Machine> tried_machines() {
  std::vector<Machine> tried = machines();
  if (kSanitized) tried.resize(2);
  return tried;
}

// Every answer alone; outputs of a batch get ahead of each other, which a forward a token never does: there,
// on average.
TEST(DraftLengthTest, IsNeverSlowerThanOneTokenAForward) {
  for (const Machine& machine : tried_machines()) {
    for (const Text& text : texts()) {
      for (const int64_t lanes : {1, 3, 8}) {
        for (const int64_t tokens : {128, 256, 2000}) {
          if (kSanitized && lanes * tokens > 2000) continue;
          const Task task{.lanes = lanes, .tokens = tokens};
          double seconds = 0.0, sequential = 0.0;
          for (uint64_t seed = 0; seed < kSeeds; ++seed) {
            const Fate fate(text.chance, seed);
            const double one = adaptive(task, machine, fate).seconds;
            const double plain = fixed(task, machine, fate, 0).seconds;
            EXPECT_LE(one, (lanes == 1 ? 1.03 : 1.05) * plain)
                << machine.name << ", " << text.name << ", " << lanes << " x " << tokens << ", seed " << seed;
            seconds += one;
            sequential += plain;
          }
          EXPECT_LE(seconds, 1.03 * sequential)
              << machine.name << ", " << text.name << ", " << lanes << " x " << tokens;
        }
      }
    }
  }
}

// A proposer that is asked and finds nothing, always or mostly, takes its time, too.
TEST(DraftLengthTest, DraftsOfNothingAreCharged) {
  for (const int64_t every : {0, 3, 10}) {  // how often something is found
    for (const double price : {0.1, 0.3, 1.0}) {
      for (const int64_t tokens : {128, 1000}) {
        const Task task{.tokens = tokens,
                        .finds = [&](int64_t position) { return every > 0 && position % every == 0; }};
        const Fate fate([](int64_t) { return 0.5; }, 1);
        const Machine machine{"with dear guesses", flat, price};
        const Course course = adaptive(task, machine, fate);
        EXPECT_LE(course.seconds, 1.03 * fixed(task, machine, fate, 0).seconds)
            << "one in " << every << ", price " << price << ", " << tokens << " tokens";
        int64_t asked = 0;
        for (const auto& lengths : course.lengths) asked += lengths[0] > 0;
        EXPECT_GT(asked, 0);
      }
    }
  }
}

TEST(DraftLengthTest, ComesNearTheBestLength) {
  const Task task{.tokens = 2000};
  for (const Machine& machine : tried_machines()) {
    for (const Text& text : texts()) {
      double seconds = 0.0, best = 0.0;
      for (uint64_t seed = 0; seed < kSeeds; ++seed) {
        const Fate fate(text.chance, seed);
        seconds += adaptive(task, machine, fate).seconds;
        best += best_fixed(task, machine, fate);
      }
      EXPECT_LE(seconds, 1.1 * best) << machine.name << ", " << text.name;
    }
  }
}

// Of what is copied some drafts are known to be good: these alone are made.
TEST(DraftLengthTest, GradesAreToldApart) {
  const auto is_good = [](int64_t position) { return position % 64 < 32; };
  const Task task{.tokens = 1000, .grade = [&](int64_t position) { return is_good(position) ? 3 : 1; }};
  const Machine machine{.name = "halves",
                        .forward = [](int64_t rows) { return 0.5 + 0.5 * static_cast<double>(rows); }};
  const Fate fate([&](int64_t position) { return is_good(position) ? 0.95 : 0.05; }, 1);
  // No one length does as well for both.
  EXPECT_LT(adaptive(task, machine, fate).seconds, 0.95 * best_fixed(task, machine, fate));
}

TEST(DraftLengthTest, SwitchesItselfOffAndTriesAgain) {
  const Task task{.tokens = 2000};
  const Course course = adaptive(task, {"linear", linear}, Fate([](int64_t) { return 0.0; }, 1));
  int64_t drafted = 0, last = 0;
  for (size_t step = 0; step < course.lengths.size(); ++step) {
    if (course.lengths[step][0] == 0) continue;
    drafted += course.lengths[step][0];
    last = static_cast<int64_t>(step);
  }
  EXPECT_GE(drafted, 5);
  EXPECT_LE(drafted, 40);  // forwards of a row each
  EXPECT_GT(last, 1500);
}

// A draft model that is as dear as the model is not let read the prompt, which alone would take half as long
// as the answer.
TEST(DraftLengthTest, DearDraftModelsDoNotReadThePrompt) {
  for (const double price : {0.9, 1.0, 1.5}) {
    for (const int64_t lanes : {1, 4}) {
      const Machine machine{.name = "", .forward = flat, .draft_token = price, .prompt_row = 0.1};
      const Task task{.lanes = lanes, .tokens = 64, .prompt = 320};
      const Fate fate([](int64_t) { return 1.0; }, 1);
      const Course course = adaptive(task, machine, fate);
      EXPECT_FALSE(course.has_read);
      EXPECT_EQ(course.rehearsals, 2);
      EXPECT_DOUBLE_EQ(course.seconds, fixed(task, machine, fate, 0).seconds + 2.0 * price);
    }
  }
}

// A cheap one reads where what it can save is more than that takes.
TEST(DraftLengthTest, CheapDraftModelsReadWhereTheAnswerIsLongEnough) {
  const Machine machine{.name = "", .forward = gentle, .draft_token = 0.1, .prompt_row = 0.1};
  const Fate fate([](int64_t) { return 0.9; }, 1);
  const auto course = [&](int64_t prompt, int64_t tokens) {
    return adaptive({.tokens = tokens, .prompt = prompt}, machine, fate);
  };
  EXPECT_TRUE(course(400, 64).has_read);  // 4 seconds
  EXPECT_EQ(course(400, 64).rehearsals, 1);
  EXPECT_LT(course(400, 64).seconds, 50.0);
  EXPECT_FALSE(course(400, 6).has_read);
  EXPECT_FALSE(course(10000, 64).has_read);
  EXPECT_TRUE(course(10000, 1000).has_read);
}

// A forward now and then takes ten times as long, and none the same time twice.
TEST(DraftLengthTest, NoiseOfTheClockDoesNotMisleadIt) {
  double seconds = 0.0, best = 0.0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    TestRandom random(seed);
    const Task task{.tokens = 1000, .clock = [&](double cost) {
                      return cost * (0.85 + 0.3 * random.uniform()) * (random.uniform() < 0.02 ? 10.0 : 1.0);
                    }};
    const Fate seldom([](int64_t) { return 0.2; }, seed), often([](int64_t) { return 0.9; }, seed);
    EXPECT_LE(adaptive(task, {"linear", linear}, seldom).seconds,
              1.03 * fixed(task, {"linear", linear}, seldom, 0).seconds);
    seconds += adaptive(task, {"gentle", gentle}, often).seconds;
    best += best_fixed(task, {"gentle", gentle}, often);
  }
  EXPECT_LE(seconds, 1.2 * best);
}

// The harness sees to it that lengths stay in range and that the run ends.
TEST(DraftLengthTest, NoClockIsTooOdd) {
  TestRandom random(7);
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  const std::array<double, 8> odd{0.0, -1.0, kInfinite, -kInfinite, std::nan(""), 1e300, 1e-300, 1.0};
  const Fate fate([](int64_t) { return 0.7; }, 1);
  for (const double always : odd) {
    const Task task{.lanes = 3, .clock = [always](double) { return always; }};
    const Course course = adaptive(task, {"gentle", gentle}, fate);
    if (always == 1.0 || always == 1e-300) continue;
    for (const auto& lengths : course.lengths) EXPECT_EQ(std::ranges::max(lengths), 0) << always;
  }
  for (int round = 0; round < 50; ++round) {
    const Task task{.lanes = 3, .clock = [&](double) { return odd[static_cast<size_t>(random.below(8))]; }};
    adaptive(task, {"gentle", gentle}, fate);
  }
}

TEST(RowCosts, MoreRowsNeverCostLess) {
  RowCosts costs;
  TestRandom random(3);
  for (int i = 0; i < 300; ++i) {
    costs.add(1 + random.below(40), 0.1 + static_cast<double>(random.uniform()));
    for (int64_t rows = 1; rows < 60; ++rows) ASSERT_LE(costs.seconds(rows), costs.seconds(rows + 1)) << rows;
  }
}

TEST(RowCosts, CountsKeepTheirOwnAveragesAndALineContinuesThem) {
  RowCosts costs;
  EXPECT_TRUE(costs.empty());
  costs.add(1, 30.0);  // cold
  for (int i = 0; i < 5; ++i) {
    for (const int64_t rows : {1, 2, 4, 5, 8}) costs.add(rows, tiles(rows));
  }
  for (const int64_t rows : {1, 2, 3, 4, 5, 6, 8})
    EXPECT_NEAR(costs.seconds(rows), tiles(rows), 1e-6) << rows;
  EXPECT_EQ(costs.most_rows(), 8);
  EXPECT_GT(costs.seconds(12), costs.seconds(8));
  EXPECT_LT(costs.seconds(12), 2.0 * costs.seconds(8));
}

TEST(AcceptanceRates, AreByGradePlaceAndGenerationAndFade) {
  AcceptanceRates rates;
  EXPECT_EQ(rates.rate(0, 1, 7), 0.5);
  for (int i = 0; i < 50; ++i) rates.add(0, 1, 4, i % 2 == 0 ? 4 : 0);
  EXPECT_NEAR(rates.rate(0, 1, 0), 0.5, 0.1);
  EXPECT_GT(rates.rate(0, 1, 1), 0.9);
  EXPECT_GT(rates.rate(0, 1, 9), 0.9);  // like the places before it
  EXPECT_EQ(rates.rate(0, 2, 0), 0.5);
  for (int i = 0; i < 50; ++i) rates.add(1, 1, 1, 0);
  EXPECT_LT(rates.rate(1, 1, 0), 0.05);
  EXPECT_GT(rates.rate(0, 1, 0), 0.3);
  for (int i = 0; i < 50; ++i) rates.add(1, 1, 1, 1);
  EXPECT_GT(rates.rate(1, 1, 0), 0.95);
}

}  // namespace
}  // namespace volley::test
