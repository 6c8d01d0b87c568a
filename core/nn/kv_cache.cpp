#include "core/nn/kv_cache.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>

#include "core/base/error.h"

namespace volley {

KvCache::KvCache(const Backend& backend, Queue& queue, const Config& config)
    : queue_(queue), config_(config) {
  pages_per_sequence_ = pages_for(config.entries);
  if (config_.pages == 0) config_.pages = config.sequences * pages_per_sequence_;
  const Shape plane_shape{config_.pages, config.kv_heads, kPageSize, config.head_width};
  const int64_t plane_bytes = plane_shape.size() * cache_element_bytes(config.type);
  memory_ = backend.allocate(2 * config.planes * plane_bytes);
  for (int64_t p = 0; p < config.planes; ++p) {
    planes_.push_back({.keys = memory_.data() + 2 * p * plane_bytes,
                       .values = memory_.data() + (2 * p + 1) * plane_bytes,
                       .shape = plane_shape,
                       .type = config.type});
  }
  tables_memory_ = backend.allocate(config.sequences * (1 + pages_per_sequence_) * 4);
  auto* tables = reinterpret_cast<int32_t*>(tables_memory_.data());
  tables_ = {.lengths = {tables, {config.sequences}},
             .block_table = {tables + config.sequences, {config.sequences, pages_per_sequence_}}};
  const std::vector<int32_t> zeros(static_cast<size_t>(config.sequences * (1 + pages_per_sequence_)), 0);
  queue_.upload(zeros.data(), tables, static_cast<int64_t>(zeros.size()) * 4);
  sequences_.resize(static_cast<size_t>(config.sequences));
  page_users_.assign(static_cast<size_t>(config_.pages), 0);
  for (int64_t page = config_.pages; page-- > 0;) free_pages_.push_back(static_cast<int32_t>(page));
}

KvCache::Sequence& KvCache::state(SequenceId sequence) {
  const auto slot = static_cast<size_t>(sequence);
  VOLLEY_ASSERT(slot < sequences_.size() && sequences_[slot].exists);
  return sequences_[slot];
}

const KvCache::Sequence& KvCache::state(SequenceId sequence) const {
  return const_cast<KvCache*>(this)->state(sequence);
}

SequenceId KvCache::new_slot() {
  for (size_t slot = 0; slot < sequences_.size(); ++slot) {
    if (sequences_[slot].exists) continue;
    sequences_[slot] = {.exists = true};
    return static_cast<SequenceId>(slot);
  }
  throw Error("cache: no room for another sequence beside " + std::to_string(sequences_.size()));
}

SequenceId KvCache::create() {
  const SequenceId id = new_slot();
  move(id, {}, 0);
  return id;
}

SequenceId KvCache::fork(SequenceId source) {
  const SequenceId id = new_slot();
  const Sequence& from = state(source);
  Sequence& to = state(id);
  // Scratch rows are not part of a sequence: only pages with committed entries are shared.
  const int64_t used = (from.length + kPageSize - 1) / kPageSize;
  to.pages.assign(from.pages.begin(), from.pages.begin() + used);
  for (int32_t page : to.pages) ++page_users_[static_cast<size_t>(page)];
  note_pages(id);
  move(id, {}, from.length);
  return id;
}

void KvCache::share(SequenceId source, int64_t length, SequenceId empty) {
  const Sequence& from = state(source);
  Sequence& to = state(empty);
  VOLLEY_ASSERT(to.length == 0 && length <= from.length && length % kPageSize == 0);
  drop_pages_from(to, 0);
  to.pages.assign(from.pages.begin(), from.pages.begin() + length / kPageSize);
  for (int32_t page : to.pages) ++page_users_[static_cast<size_t>(page)];
  note_pages(empty);
  move(empty, {}, length);
}

void KvCache::release(SequenceId sequence) {
  Sequence& s = state(sequence);
  drop_pages_from(s, 0);
  s = {};
}

void KvCache::require_pages(int64_t count) const {
  if (count <= free_pages()) return;
  throw Error("cache: " + std::to_string(count) + " more pages of " + std::to_string(kPageSize) +
              " entries needed, " + std::to_string(free_pages()) + " of " + std::to_string(config_.pages) +
              " are free");
}

int32_t KvCache::take_page() {
  VOLLEY_ASSERT(!free_pages_.empty());
  const int32_t page = free_pages_.back();
  free_pages_.pop_back();
  page_users_[static_cast<size_t>(page)] = 1;
  return page;
}

void KvCache::drop_pages_from(Sequence& sequence, int64_t first) {
  while (static_cast<int64_t>(sequence.pages.size()) > first) {
    const int32_t page = sequence.pages.back();
    sequence.pages.pop_back();
    if (--page_users_[static_cast<size_t>(page)] == 0) free_pages_.push_back(page);
  }
}

int64_t KvCache::pages_to_own(const Sequence& sequence, int64_t first, int64_t last) const {
  const auto owned = std::ssize(sequence.pages);
  int64_t count = std::max<int64_t>(0, last + 1 - owned);
  for (int64_t i = first; i <= std::min(last, owned - 1); ++i)
    count += page_users_[static_cast<size_t>(sequence.pages[static_cast<size_t>(i)])] > 1;
  return count;
}

int64_t KvCache::pages_to_reserve(SequenceId sequence, int64_t rows,
                                  std::span<const int32_t> replaced) const {
  const Sequence& s = state(sequence);
  int64_t count = rows > 0 ? pages_to_own(s, s.length / kPageSize, (s.length + rows - 1) / kPageSize) : 0;
  std::set<int64_t> pages;
  for (int32_t entry : replaced) pages.insert(entry / kPageSize);
  for (int64_t page : pages) count += pages_to_own(s, page, page);
  return count;
}

void KvCache::own_pages(SequenceId id, int64_t first, int64_t last) {
  Sequence& s = state(id);
  // Nothing changes unless all pages can be had: a failed reservation leaves the sequence as it was.
  require_pages(pages_to_own(s, first, last));
  bool changed = false;
  while (static_cast<int64_t>(s.pages.size()) <= last) {
    s.pages.push_back(take_page());
    changed = true;
  }
  for (int64_t i = first; i <= last; ++i) {
    int32_t& page = s.pages[static_cast<size_t>(i)];
    if (page_users_[static_cast<size_t>(page)] == 1) continue;
    const int32_t copy = take_page();
    queue_.copy_page({.planes = planes_, .from = page, .to = copy});
    --page_users_[static_cast<size_t>(page)];
    page = copy;
    changed = true;
  }
  if (changed) note_pages(id);
}

void KvCache::note_pages(SequenceId id) {
  const auto slot = static_cast<int64_t>(id);
  const bool is_first = first_changed_ == end_changed_;
  first_changed_ = is_first ? slot : std::min(first_changed_, slot);
  end_changed_ = is_first ? slot + 1 : std::max(end_changed_, slot + 1);
}

void KvCache::publish_pages() {
  const int64_t slots = end_changed_ - first_changed_;
  if (slots == 0) return;
  std::vector<int32_t> table(static_cast<size_t>(slots * pages_per_sequence_), 0);  // [slots, pages]
  for (int64_t i = 0; i < slots; ++i) {
    std::ranges::copy(sequences_[static_cast<size_t>(first_changed_ + i)].pages,
                      table.begin() + i * pages_per_sequence_);
  }
  queue_.upload(table.data(), tables_.block_table.data + first_changed_ * pages_per_sequence_,
                std::ssize(table) * 4);
  first_changed_ = end_changed_ = 0;
}

void KvCache::reserve(SequenceId sequence, int64_t rows, std::span<const int32_t> replaced) {
  Sequence& s = state(sequence);
  const int64_t end = s.length + rows;
  if (end > config_.entries) {
    throw Error("cache: a sequence of " + std::to_string(s.length) + " entries cannot take " +
                std::to_string(rows) + " more rows; its limit is " + std::to_string(config_.entries));
  }
  if (rows > 0) own_pages(sequence, s.length / kPageSize, (end - 1) / kPageSize);
  for (int32_t entry : replaced) {
    VOLLEY_ASSERT(entry >= 0 && entry < s.length);
    own_pages(sequence, entry / kPageSize, entry / kPageSize);
  }
  s.scratch = rows;
}

void KvCache::discard(SequenceId sequence) {
  state(sequence).scratch = 0;
}

void KvCache::commit(SequenceId sequence, std::span<const int32_t> rows) {
  const Sequence& s = state(sequence);
  std::vector<int32_t> moves;
  int32_t last = -1;
  for (size_t i = 0; i < rows.size(); ++i) {
    VOLLEY_ASSERT(rows[i] > last && rows[i] < s.scratch);
    last = rows[i];
    if (rows[i] == static_cast<int32_t>(i)) continue;
    moves.push_back(static_cast<int32_t>(s.length) + rows[i]);
    moves.push_back(static_cast<int32_t>(s.length) + static_cast<int32_t>(i));
  }
  move(sequence, moves, s.length + static_cast<int64_t>(rows.size()));
}

void KvCache::commit_prefix(SequenceId sequence, int64_t rows) {
  const Sequence& s = state(sequence);
  VOLLEY_ASSERT(rows >= 0 && rows <= s.scratch);
  move(sequence, {}, s.length + rows);
}

void KvCache::crop(SequenceId sequence, int64_t length) {
  Sequence& s = state(sequence);
  VOLLEY_ASSERT(length >= 0 && length <= s.length);
  move(sequence, {}, length);
  drop_pages_from(s, (length + kPageSize - 1) / kPageSize);
}

void KvCache::evict(SequenceId sequence, std::span<const int32_t> entries) {
  if (entries.empty()) return;
  const Sequence& s = state(sequence);
  own_pages(sequence, entries.front() / kPageSize, (s.length - 1) / kPageSize);
  std::vector<int32_t> moves;
  size_t next = 0;
  for (int32_t entry = 0; entry < s.length; ++entry) {
    if (next < entries.size() && entries[next] == entry) {
      ++next;
      continue;
    }
    if (next == 0) continue;
    moves.push_back(entry);
    moves.push_back(entry - static_cast<int32_t>(next));
  }
  VOLLEY_ASSERT(next == entries.size());
  move(sequence, moves, s.length - static_cast<int64_t>(next));
  crop(sequence, s.length);  // gives back the pages that became empty
}

void KvCache::move(SequenceId id, std::span<const int32_t> moves, int64_t length) {
  Sequence& s = state(id);
  s.scratch = 0;
  if (moves.empty()) {
    s.length = length;
    lengths_changed_ = true;
    return;
  }
  publish_pages();
  queue_.move_entries({.planes = planes_,
                       .cache = tables_,
                       .slot = static_cast<int64_t>(id),
                       .moves = moves,
                       .length = static_cast<int32_t>(length)});
  s.length = length;
}

void KvCache::publish() {
  publish_pages();
  if (!lengths_changed_) return;
  std::vector<int32_t> lengths;
  for (const Sequence& sequence : sequences_) lengths.push_back(static_cast<int32_t>(sequence.length));
  queue_.upload(lengths.data(), tables_.lengths.data, static_cast<int64_t>(lengths.size()) * 4);
  lengths_changed_ = false;
}

int64_t KvCache::device_length(SequenceId sequence) {
  publish();
  int32_t length = 0;
  queue_.download(tables_.lengths.data + static_cast<int64_t>(sequence), &length, 4);
  return length;
}

}  // namespace volley
