#include "core/decode/draft_pool.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/base/error.h"

namespace volley {

void DraftPool::set_limit(int64_t tokens) {
  VOLLEY_ASSERT(tokens >= 0);
  static_assert(sizeof(Record) + sizeof(Place) <= kBytesPerToken);
  if (tokens == limit_) return;
  limit_ = tokens;
  added_ = 0;
  records_ = {};
  heads_ = {};
}

int64_t DraftPool::bytes() const {
  return static_cast<int64_t>(records_.capacity() * sizeof(Record) + heads_.capacity() * sizeof(Place));
}

size_t DraftPool::head_of(int32_t last_but_one, int32_t last) const {
  const uint64_t key = uint64_t{static_cast<uint32_t>(last_but_one)} << 32 | static_cast<uint32_t>(last);
  return static_cast<size_t>((key * 0x9e3779b97f4a7c15u) >> 32) & (heads_.size() - 1);
}

DraftPool::Place DraftPool::add(Place place, std::span<const int32_t> tokens) {
  if (limit_ == 0) return kBeginning;
  if (heads_.empty()) heads_.assign(std::bit_floor(static_cast<uint64_t>(limit_)), kBeginning);
  for (const int32_t token : tokens) place = add(place, token);
  return place;
}

DraftPool::Place DraftPool::add(Place place, int32_t token) {
  if (!is_kept(place)) place = kBeginning;
  const int32_t last = token_at(place);
  const int32_t last_but_one = place == kBeginning ? -1 : token_at(at(place).before);
  Place& head = heads_[head_of(last_but_one, last)];
  // Another text went on like that.
  Place same = head;
  for (int64_t looks = 0; looks < kMostLooks && is_kept(same); ++looks, same = at(same).same_key) {
    if (at(same).token == token && at(same).before == place) return same;
  }
  const Record record{.token = token, .before = place, .same_key = head};
  if (std::ssize(records_) < limit_) {
    // Doubled by hand: the last time it grows to the limit and no further.
    if (records_.size() == records_.capacity())
      records_.reserve(
          static_cast<size_t>(std::min(limit_, std::max<int64_t>(2 * std::ssize(records_), 64))));
    records_.push_back(record);
  } else {
    records_[static_cast<size_t>(added_ % limit_)] = record;
  }
  return head = added_++;
}

std::vector<DraftPool::Match> DraftPool::matches(std::span<const int32_t> path, int64_t longest) const {
  std::vector<Match> found;
  if (heads_.empty() || std::ssize(path) < kShortestMatch) return found;
  const int64_t most = std::min(std::max(longest, kShortestMatch), std::ssize(path));
  Place place = heads_[head_of(path[path.size() - 2], path.back())];
  for (int64_t looks = 0; looks < kMostLooks && is_kept(place); ++looks, place = at(place).same_key) {
    int64_t length = 0;
    for (Place before = at(place).before; length < most && is_kept(before); before = at(before).before) {
      if (at(before).token != path[path.size() - 1 - static_cast<size_t>(length)]) break;
      ++length;
    }
    if (length < kShortestMatch) continue;
    const auto same = std::ranges::find(found, at(place).token, &Match::next);
    if (same == found.end()) {
      found.push_back({.length = length, .times = 1, .next = at(place).token});
    } else if (same->length < length) {
      *same = {.length = length, .times = 1, .next = same->next};
    } else if (same->length == length) {
      ++same->times;
    }
  }
  std::ranges::stable_sort(found, std::greater<>(),
                           [](const Match& match) { return std::pair(match.length, match.times); });
  return found;
}

}  // namespace volley
