// Draft length by expected tokens a second, with a bound on what trying may cost.
// Ref: Leviathan et al. 2023, section 3.5 (the length that pays best, of one acceptance rate and one cost
// ratio); here rates are by place, costs are measured, and a batch shares its forward.
#include "core/decode/draft_length.h"

#include <algorithm>
#include <numeric>

#include "core/base/error.h"

namespace volley {
namespace {

// Forwards without drafts that are measured before the first draft, and steps after which one is again.
constexpr int64_t kFirstPlainSteps = 2;
constexpr int64_t kPlainEvery = 64;
// A plan pays if it promises so much more than no drafts: the best of many guesses is usually an overestimate.
constexpr double kMargin = 1.02;
// A forward may have so many times the rows of the largest that was measured: costs may jump.
constexpr int64_t kGrowth = 2;
// Rows that hardly ever give a token are not tried.
constexpr double kLeastChance = 0.01;
constexpr int64_t kLongestWait = 32;     // steps between two probes
constexpr double kPurseForwards = 16.0;  // that it holds at most
// Of a step that took longer than this many times what was expected, drafts are not to blame.
constexpr double kHeldUp = 2.0;
// Rows that cost less than this share of a step count as free.
constexpr double kFree = 0.01;

bool can_draft(const DraftOutlook& lane) {
  return lane.grade > 0 && lane.longest > 0;
}

}  // namespace

double DraftLength::step_seconds(int64_t rows, int64_t length) const {
  const double draft_token = drafts_.empty() ? 0.0 : drafts_.seconds(1);
  return forwards_.seconds(rows) + static_cast<double>(length) * draft_token;
}

// Gives one row after another to the lane where it is likeliest to become a token: chances fall along a
// draft, so that these are the best rows for every number of rows.
DraftLength::Plan DraftLength::best_plan(std::span<const DraftOutlook> lanes) const {
  const auto count = std::ssize(lanes);
  std::vector<int64_t> lengths(lanes.size());
  std::vector<double> chance(lanes.size());  // that a lane's next row becomes a token
  for (size_t i = 0; i < lanes.size(); ++i)
    chance[i] = can_draft(lanes[i]) ? rates_.rate(lanes[i].generation, lanes[i].grade, 0) : 0.0;
  auto tokens = static_cast<double>(count);
  Plan best{.lengths = lengths, .speed = kMargin * tokens / step_seconds(count, 0)};
  int64_t longest = 0;
  const int64_t limit = std::max(kGrowth * forwards_.most_rows(), count + 1);
  for (int64_t rows = count + 1; rows <= limit; ++rows) {
    const auto place = static_cast<size_t>(std::ranges::max_element(chance) - chance.begin());
    if (chance[place] < kLeastChance) break;
    const DraftOutlook& lane = lanes[place];
    tokens += chance[place];
    const int64_t length = ++lengths[place];
    longest = std::max(longest, length);
    chance[place] *= length < lane.longest ? rates_.rate(lane.generation, lane.grade, length) : 0.0;
    const double speed = tokens / step_seconds(rows, longest);
    if (speed > best.speed) best = {.lengths = lengths, .speed = speed};
  }
  return best;
}

std::vector<int64_t> DraftLength::choose(std::span<const DraftOutlook> lanes) {
  VOLLEY_ASSERT(!lanes.empty());
  std::vector<int64_t> lengths(lanes.size());
  probed_ = -1;
  if (plain_steps_ < kFirstPlainSteps || since_plain_ >= kPlainEvery || purse_ < 0.0 || forwards_.empty() ||
      std::ranges::none_of(lanes, can_draft)) {
    return lengths;
  }
  // What a row costs is not known before one was tried.
  if (has_drafted_) lengths = best_plan(lanes).lengths;
  add_probe(lanes, lengths);
  return lengths;
}

// Lets one of the lanes that draft nothing try again, with as many tokens as cost no more than one.
void DraftLength::add_probe(std::span<const DraftOutlook> lanes, std::vector<int64_t>& lengths) {
  std::array<bool, kDraftGrades> is_off{};
  for (size_t i = 0; i < lanes.size(); ++i)
    is_off[static_cast<size_t>(lanes[i].grade)] |= can_draft(lanes[i]) && lengths[i] == 0;
  for (size_t grade = 1; grade < is_off.size(); ++grade) patience_[grade].waited += is_off[grade] ? 1 : 0;

  const auto chance = [&](size_t i) { return rates_.rate(lanes[i].generation, lanes[i].grade, 0); };
  size_t tried = lanes.size();
  for (size_t i = 0; i < lanes.size(); ++i) {
    const Patience& patience = patience_[static_cast<size_t>(lanes[i].grade)];
    if (!can_draft(lanes[i]) || lengths[i] > 0 || patience.waited < patience.wait) continue;
    if (tried == lanes.size() || chance(i) > chance(tried)) tried = i;
  }
  if (tried == lanes.size()) return;

  const int64_t rows = std::ssize(lanes) + std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const int64_t longest = std::ranges::max(lengths);
  const auto price = [&](int64_t length) {
    return step_seconds(rows + length, std::max(longest, length)) - step_seconds(rows, longest);
  };
  if (has_drafted_ && price(1) > purse_) return;
  const int64_t limit = std::min(lanes[tried].longest, kGrowth * forwards_.most_rows() - rows);
  const double least = price(1) + kFree * step_seconds(rows, longest);
  int64_t length = 1;
  while (has_drafted_ && length < limit && price(length + 1) <= least) ++length;
  lengths[tried] = length;
  probed_ = lanes[tried].generation;
}

void DraftLength::observe(const DraftRound& round) {
  const auto count = std::ssize(round.lanes);
  int64_t longest = 0, emitted = 0;
  for (const DraftRound::Lane& lane : round.lanes) {
    longest = std::max(longest, lane.drafted);
    emitted += lane.emitted;
    if (lane.drafted == 0) continue;
    rates_.add(lane.outlook.generation, lane.outlook.grade, lane.drafted, lane.accepted);
    Patience& patience = patience_[static_cast<size_t>(lane.outlook.grade)];
    const bool has_failed = lane.outlook.generation == probed_ && lane.accepted == 0;
    patience = {.wait = has_failed ? std::min(2 * patience.wait, kLongestWait) : 1};
  }
  double expected = forwards_.empty() ? 0.0 : step_seconds(round.rows, longest);
  forwards_.add(round.rows, round.forward_seconds);
  if (longest > 0) drafts_.add(1, round.draft_seconds / static_cast<double>(longest));
  if (forwards_.empty()) return;  // the clock stands still

  const double plain = forwards_.seconds(count);  // of a step that gives each lane a token
  // What these tokens would have taken.
  const double worth = plain * static_cast<double>(emitted) / static_cast<double>(count);
  purse_ += kLossShare * worth;
  if (longest == 0) {
    since_plain_ = 0;
    if (++plain_steps_ <= kFirstPlainSteps) purse_ = plain;
  } else {
    has_drafted_ = true;
    ++since_plain_;
    expected = std::max(expected, step_seconds(round.rows, longest));
    const double took = round.draft_seconds + round.forward_seconds;
    purse_ += worth - (took >= 0.0 ? std::min(took, kHeldUp * expected) : expected);
  }
  purse_ = std::min(purse_, kPurseForwards * plain);
}

}  // namespace volley
