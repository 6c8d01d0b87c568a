// Draft length by expected tokens a second, with a bound on what trying may cost.
// Ref: Leviathan et al. 2023, section 3.5 (the length that pays best, of one acceptance rate and one cost
// ratio); here rates are by place, costs are measured, and a batch shares its forward.
#include "core/decode/draft_length.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/base/error.h"

namespace volley {
namespace {

// Forwards without drafts that are measured before the first draft.
constexpr int64_t kFirstPlainSteps = 2;
// Steps with drafts after which one without is measured again, for as long as drafts go on: the first soon,
// as they may have begun by a mistake of the clock.
constexpr int64_t kFirstPlainWait = 8;
constexpr int64_t kLongestPlainWait = 64;
// A plan pays if it promises so much more than no drafts: the best of many guesses is usually an
// overestimate.
constexpr double kMargin = 1.02;
// A forward may have so many times the rows of the largest that was measured: costs may jump.
constexpr int64_t kGrowth = 2;
// Rows that hardly ever give a token are not tried.
constexpr double kLeastGain = 0.01;
constexpr int64_t kLongestWait = 32;     // steps between two probes
constexpr double kPurseForwards = 16.0;  // that it holds at most
// Of a step that took longer than this many times what was expected, drafts are not to blame.
constexpr double kHeldUp = 2.0;
// Tokens that an output may be ahead of the last of its batch before its tokens count for nearly nothing.
constexpr double kLead = 16.0;
constexpr double kLeastValue = 0.25;
// Rows that cost less than this share of a step count as free.
constexpr double kFree = 0.01;

bool can_draft(const DraftOutlook& lane) {
  return lane.grade > 0 && lane.longest > 0;
}

bool has_to_read(const DraftOutlook& lane) {
  return can_draft(lane) && lane.unread > 0;
}

}  // namespace

double DraftLength::step_seconds(int64_t rows, int64_t length) const {
  const double draft_token = drafts_.empty() ? 0.0 : drafts_.seconds(1);
  return forwards_.seconds(rows) + static_cast<double>(length) * draft_token;
}

double DraftLength::chance(const DraftOutlook& lane, int64_t place) const {
  return place < lane.longest ? rates_.rate(lane.generation, lane.grade, place) : 0.0;
}

// Outputs of a batch that get ahead of the others do not end the batch sooner: their tokens count for less.
double DraftLength::value(const DraftOutlook& lane) const {
  if (lane.generation >= std::ssize(emitted_)) return 1.0;
  const int64_t lead = emitted_[static_cast<size_t>(lane.generation)] - least_emitted_;
  return std::clamp(1.0 - static_cast<double>(lead) / kLead, kLeastValue, 1.0);
}

// Gives one row after another to the lane where it is likeliest to become a token of value: chances fall
// along a draft, so that these are the best rows for every number of rows.
DraftLength::Plan DraftLength::best_plan(std::span<const DraftOutlook> lanes) const {
  const auto count = std::ssize(lanes);
  std::vector<int64_t> lengths(lanes.size());
  std::vector<double> gain(lanes.size());  // by a lane's next row
  for (size_t i = 0; i < lanes.size(); ++i)
    gain[i] = can_draft(lanes[i]) ? value(lanes[i]) * chance(lanes[i], 0) : 0.0;
  auto tokens = static_cast<double>(count);
  const double plain = step_seconds(count, 0);
  Plan best{.lengths = lengths, .speed = kMargin * tokens / plain};
  int64_t longest = 0;
  const int64_t limit = std::max(kGrowth * forwards_.most_rows(), count + 1);
  for (int64_t rows = count + 1; rows <= limit; ++rows) {
    const auto place = static_cast<size_t>(std::ranges::max_element(gain) - gain.begin());
    if (gain[place] < kLeastGain) break;
    tokens += gain[place];
    const int64_t length = ++lengths[place];
    longest = std::max(longest, length);
    gain[place] *= chance(lanes[place], length);
    const double seconds = step_seconds(rows, longest);
    if (seconds - plain > purse_) break;  // what is lost if nothing is right
    if (tokens / seconds > best.speed) best = {.lengths = lengths, .speed = tokens / seconds};
  }
  return best;
}

DraftReading::Outlook DraftLength::reading_outlook(std::span<const DraftOutlook> lanes) const {
  DraftReading::Outlook outlook{.plain_step = forwards_.seconds(std::ssize(lanes)),
                                .draft_token = drafts_.empty() ? 0.0 : drafts_.seconds(1)};
  for (const DraftOutlook& lane : lanes) {
    if (!has_to_read(lane)) continue;
    outlook.unread += lane.unread;
    outlook.tokens = std::max(outlook.tokens, lane.tokens);
    outlook.longest = std::max(outlook.longest, lane.longest);
  }
  return outlook;
}

bool DraftLength::wants_rehearsal(std::span<const DraftOutlook> lanes) const {
  return plain_steps_ >= kFirstPlainSteps && !forwards_.empty() && std::ranges::any_of(lanes, has_to_read) &&
         reading_.wants_rehearsal(reading_outlook(lanes));
}

void DraftLength::observe_rehearsal(double seconds) {
  reading_.observe_rehearsal();
  drafts_.add(1, seconds);
}

std::vector<int64_t> DraftLength::choose(std::span<const DraftOutlook> outlooks) {
  VOLLEY_ASSERT(!outlooks.empty());
  std::vector<DraftOutlook> lanes(outlooks.begin(), outlooks.end());
  if (std::ranges::any_of(lanes, has_to_read) &&
      (forwards_.empty() || !reading_.pays(reading_outlook(lanes)))) {
    for (DraftOutlook& lane : lanes) lane.grade = lane.unread > 0 ? 0 : lane.grade;
  }
  std::vector<int64_t> lengths(lanes.size());
  probed_ = -1;
  if (plain_steps_ < kFirstPlainSteps || since_plain_ >= plain_wait_ || purse_ < 0.0 || forwards_.empty() ||
      std::ranges::none_of(lanes, can_draft)) {
    return lengths;
  }
  // What a row costs is not known before one was tried.
  if (has_drafted_) lengths = best_plan(lanes).lengths;
  add_probe(lanes, lengths);
  return lengths;
}

// Lets one of the lanes that draft nothing try again.
void DraftLength::add_probe(std::span<const DraftOutlook> lanes, std::vector<int64_t>& lengths) {
  std::array<bool, kDraftGrades> is_off{};
  for (size_t i = 0; i < lanes.size(); ++i)
    is_off[static_cast<size_t>(lanes[i].grade)] |= can_draft(lanes[i]) && lengths[i] == 0;
  for (size_t grade = 1; grade < is_off.size(); ++grade) patience_[grade].waited += is_off[grade] ? 1 : 0;

  const auto hope = [&](size_t i) { return value(lanes[i]) * chance(lanes[i], 0); };
  size_t tried = lanes.size();
  for (size_t i = 0; i < lanes.size(); ++i) {
    const Patience& patience = patience_[static_cast<size_t>(lanes[i].grade)];
    if (!can_draft(lanes[i]) || lengths[i] > 0 || patience.waited < patience.wait) continue;
    if (tried == lanes.size() || hope(i) > hope(tried)) tried = i;
  }
  if (tried == lanes.size()) return;
  const int64_t length = probe_length(lanes[tried], std::ssize(lanes), lengths);
  if (length == 0) return;
  lengths[tried] = length;
  probed_ = lanes[tried].generation;
}

// One token, and more that cost nothing beside it; or as many as may be tried if the first rows are so dear
// that drafts can only pay if the next ones are not. 0: the purse does not hold that much.
int64_t DraftLength::probe_length(const DraftOutlook& lane, int64_t count,
                                  std::span<const int64_t> lengths) const {
  if (!has_drafted_) return 1;
  const int64_t rows = std::accumulate(lengths.begin(), lengths.end(), count);
  const int64_t longest = std::ranges::max(lengths);
  const double without = step_seconds(rows, longest);
  const auto price = [&](int64_t length) {
    return step_seconds(rows + length, std::max(longest, length)) - without;
  };
  const int64_t limit = std::clamp<int64_t>(kGrowth * forwards_.most_rows() - rows, 1, lane.longest);
  int64_t length = 1;
  while (length < limit && price(length + 1) <= price(1) + kFree * without) ++length;
  if (const int64_t known = forwards_.most_rows() - rows; length <= known && known < limit) {
    double tokens = 0.0, gain = value(lane);
    for (int64_t place = 0; place < lane.longest; ++place) {
      gain *= chance(lane, place);
      tokens += gain;
      const double free_rows = step_seconds(std::min(rows + place + 1, forwards_.most_rows()), place + 1);
      const auto plain = static_cast<double>(count);
      if (place >= known && (plain + tokens) * without > kMargin * plain * free_rows) length = limit;
    }
  }
  return price(length) <= purse_ ? length : 0;
}

void DraftLength::observe(const DraftRound& round) {
  const auto count = std::ssize(round.lanes);
  int64_t longest = 0, asked = 0;
  double tokens = 0.0;  // by their value
  for (const DraftRound::Lane& lane : round.lanes) {
    longest = std::max(longest, lane.drafted);
    asked = std::max(asked, lane.asked);
    tokens += 1.0 + value(lane.outlook) * static_cast<double>(lane.emitted - 1);
    if (lane.asked == 0) continue;
    // A draft of nothing gave no token, as one that was wrong.
    rates_.add(lane.outlook.generation, lane.outlook.grade, std::max<int64_t>(lane.drafted, 1),
               lane.accepted);
    Patience& patience = patience_[static_cast<size_t>(lane.outlook.grade)];
    const bool has_failed = lane.outlook.generation == probed_ && lane.accepted == 0;
    patience = {.wait = has_failed ? std::min(2 * patience.wait, kLongestWait) : 1};
  }
  for (const DraftRound::Lane& lane : round.lanes) {
    const auto generation = static_cast<size_t>(lane.outlook.generation);
    if (emitted_.size() <= generation) emitted_.resize(generation + 1);
    emitted_[generation] += lane.emitted;
  }
  least_emitted_ = std::numeric_limits<int64_t>::max();
  for (const DraftRound::Lane& lane : round.lanes)
    least_emitted_ = std::min(least_emitted_, emitted_[static_cast<size_t>(lane.outlook.generation)]);

  double expected = forwards_.empty() ? 0.0 : step_seconds(round.rows, longest);
  forwards_.add(round.rows, round.forward_seconds);
  if (asked > 0) drafts_.add(1, round.draft_seconds / static_cast<double>(std::max<int64_t>(longest, 1)));
  if (forwards_.empty()) return;  // the clock stands still

  const double plain = forwards_.seconds(count);  // of a step that gives each lane a token
  // What these tokens would have taken.
  const double worth = plain * tokens / static_cast<double>(count);
  purse_ += kLossShare * worth;
  if (asked == 0) {
    const bool was_due = since_plain_ > 0 && since_plain_ >= plain_wait_;
    plain_wait_ = was_due ? std::min(2 * plain_wait_, kLongestPlainWait) : kFirstPlainWait;
    since_plain_ = 0;
    if (++plain_steps_ <= kFirstPlainSteps) purse_ = plain;
  } else {
    has_drafted_ = has_drafted_ || longest > 0;
    ++since_plain_;
    expected = std::max(expected, step_seconds(round.rows, std::max<int64_t>(longest, 1)));
    const double took = round.draft_seconds + round.forward_seconds;
    purse_ += worth - (took >= 0.0 ? std::min(took, kHeldUp * expected) : expected);
  }
  purse_ = std::min(purse_, kPurseForwards * plain);
}

}  // namespace volley
