#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "text/tokenizer/vocabulary.h"

namespace volley::text {

// Remembers the tokens of short words. Of one thread at a time; bounded: a set of four entries forgets the
// oldest.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 26;
  static constexpr size_t kMaxTokens = 8;

  WordCache() : entries_(kSets * kWays) {}

  // Appends the word's tokens if they are known.
  bool find(std::string_view word, std::vector<int32_t>& ids) const {
    if (word.size() > kMaxBytes) return false;
    const Entry key = make_key(word);
    const Entry* set = &entries_[set_of(word) * kWays];
    for (size_t way = 0; way < kWays; ++way) {
      const Entry& entry = set[way];
      if (std::memcmp(entry.key, key.key, sizeof(key.key)) != 0) continue;
      ids.insert(ids.end(), entry.ids, entry.ids + entry.count);
      return true;
    }
    return false;
  }

  void add(std::string_view word, const int32_t* ids, size_t count) {
    if (word.size() > kMaxBytes || count > kMaxTokens) return;
    Entry* set = &entries_[set_of(word) * kWays];
    std::memmove(set + 1, set, (kWays - 1) * sizeof(Entry));
    set[0] = make_key(word);
    set[0].count = static_cast<uint8_t>(count);
    std::copy(ids, ids + count, set[0].ids);
  }

 private:
  // One line of the processor's cache.
  struct Entry {
    char key[kMaxBytes + 1] = {};  // the word, then zeros, then its length plus one: all zero is free
    uint8_t count = 0;
    int32_t ids[kMaxTokens] = {};
    uint32_t unused = 0;
  };
  static_assert(sizeof(Entry) == 64);
  static constexpr size_t kWays = 4;
  static constexpr size_t kSets = 1 << 13;

  static Entry make_key(std::string_view word) {
    Entry entry;
    std::memcpy(entry.key, word.data(), word.size());
    entry.key[kMaxBytes] = static_cast<char>(word.size() + 1);
    return entry;
  }
  static size_t set_of(std::string_view word) { return (hash_bytes(word) >> 20) & (kSets - 1); }

  std::vector<Entry> entries_;
};

}  // namespace volley::text
