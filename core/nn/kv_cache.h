#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "core/backend/backend.h"

namespace volley {

// Handle of a cached sequence; belongs to one KvCache.
enum class SequenceId : int32_t { kNone = -1 };

// Paged keys and values of many sequences. What counts is logical order: entry i of a sequence is its i-th
// committed row wherever it lies. A step appends scratch rows behind the committed entries; `commit` keeps
// some of them. Steps read every length and block table from the device (CacheTables), which `publish` brings
// up to date with the host's before a step; no one else keeps either.
//
// Pages are shared by forks and copied before the first write (copy-on-write).
class KvCache {
 public:
  struct Config {
    int64_t planes = 0;      // cached layers
    int64_t kv_heads = 0;    // G
    int64_t head_width = 0;  // D
    int64_t sequences = 1;   // that can exist at once
    int64_t entries = 0;     // a sequence can hold, scratch rows included
    int64_t pages = 0;       // in all; 0: enough for every sequence at full length
    CacheType type = CacheType::kF32;
  };

  // Pages that hold so many entries.
  static int64_t pages_for(int64_t entries) { return (entries + kPageSize - 1) / kPageSize; }

  // `queue` and `backend` must outlive the cache. Throws Error when the pages do not fit in memory.
  KvCache(const Backend& backend, Queue& queue, const Config& config);

  // An empty sequence. Throws Error when `sequences` exist already.
  SequenceId create();
  // A sequence with the same entries. Costs no page until one of the two is written.
  SequenceId fork(SequenceId source);
  // Gives an empty sequence the first `length` entries of another, a whole number of pages, at no cost
  // either.
  void share(SequenceId source, int64_t length, SequenceId empty);
  void release(SequenceId sequence);

  // Makes room for `rows` scratch rows and makes every page that they, or the `replaced` committed entries,
  // will be written to this sequence's own. A step allocates and copies no page itself. Throws Error, and
  // changes nothing, when the sequence would outgrow `entries` or too few pages are free.
  void reserve(SequenceId sequence, int64_t rows, std::span<const int32_t> replaced = {});
  // Pages that such a reservation would take.
  int64_t pages_to_reserve(SequenceId sequence, int64_t rows, std::span<const int32_t> replaced = {}) const;
  // Keeps the given scratch rows of the last reservation (strictly increasing), in this order, as the next
  // entries; drops the others.
  void commit(SequenceId sequence, std::span<const int32_t> rows);
  // Keeps the first `rows` scratch rows.
  void commit_prefix(SequenceId sequence, int64_t rows);
  // Drops the scratch rows: nothing of them can be committed.
  void discard(SequenceId sequence);
  // Drops all entries from `length` on.
  void crop(SequenceId sequence, int64_t length);
  // Drops the given entries (strictly increasing); later ones move up.
  void evict(SequenceId sequence, std::span<const int32_t> entries);

  // Makes the device know the lengths and the block tables that changed since the last time, by one copy
  // each: before a step, behind the reservations of all its sequences.
  void publish();

  // Upper bound of the committed entries; exact while every decision is taken on the host.
  int64_t length(SequenceId sequence) const { return state(sequence).length; }
  // The device's own value. Waits for the queue.
  int64_t device_length(SequenceId sequence);
  int64_t free_pages() const { return static_cast<int64_t>(free_pages_.size()); }

  const Config& config() const { return config_; }
  const CachePlane& plane(int64_t layer) const { return planes_[static_cast<size_t>(layer)]; }
  const CacheTables& tables() const { return tables_; }

 private:
  struct Sequence {
    bool exists = false;
    int64_t length = 0;
    int64_t scratch = 0;  // rows reserved behind the committed entries
    std::vector<int32_t> pages;
  };

  Sequence& state(SequenceId sequence);
  const Sequence& state(SequenceId sequence) const;
  SequenceId new_slot();
  // Throws Error unless so many pages are free.
  void require_pages(int64_t count) const;
  int32_t take_page();
  void drop_pages_from(Sequence& sequence, int64_t first);
  // How many of pages [first, last] are missing or not this sequence's alone.
  int64_t pages_to_own(const Sequence& sequence, int64_t first, int64_t last) const;
  // Makes pages [first, last] exist and belong to this sequence alone.
  void own_pages(SequenceId id, int64_t first, int64_t last);
  // The block table of a sequence has changed.
  void note_pages(SequenceId id);
  void publish_pages();
  void move(SequenceId id, std::span<const int32_t> moves, int64_t length);

  Queue& queue_;
  Config config_;
  int64_t pages_per_sequence_ = 0;
  std::vector<CachePlane> planes_;
  Buffer memory_;
  Buffer tables_memory_;
  CacheTables tables_;
  std::vector<Sequence> sequences_;
  std::vector<int32_t> free_pages_;
  std::vector<int32_t> page_users_;
  // Since the device was told.
  bool lengths_changed_ = false;
  int64_t first_changed_ = 0, end_changed_ = 0;  // slots with changed block tables lie within
};

// A cached sequence that is released with its owner.
class SequenceLease {
 public:
  explicit SequenceLease(KvCache& cache) : cache_(&cache), id_(cache.create()) {}
  ~SequenceLease() {
    if (id_ != SequenceId::kNone) cache_->release(id_);
  }
  SequenceLease(SequenceLease&& other) noexcept
      : cache_(other.cache_), id_(std::exchange(other.id_, SequenceId::kNone)) {}
  SequenceLease& operator=(SequenceLease&&) = delete;

  SequenceId id() const { return id_; }

 private:
  KvCache* cache_;
  SequenceId id_;
};

}  // namespace volley
