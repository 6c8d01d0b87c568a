#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

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
    const Key key = make_key(word);
    const Entry* set = &entries_[set_of(key)];
    for (size_t way = 0; way < kWays; ++way) {
      const Entry& entry = set[way];
      if (!entry.key.same_word(key)) continue;
      ids.insert(ids.end(), entry.ids, entry.ids + entry.key.count);
      return true;
    }
    return false;
  }

  void add(std::string_view word, const int32_t* ids, size_t count) {
    if (word.size() > kMaxBytes || count > kMaxTokens) return;
    const Key key = make_key(word);
    Entry* set = &entries_[set_of(key)];
    std::copy_backward(set, set + kWays - 1, set + kWays);
    set[0].key = key;
    set[0].key.count = static_cast<uint32_t>(count);
    std::copy(ids, ids + count, set[0].ids);
  }

 private:
  // The word, then zeros, then its length plus one: all zero is a free entry's.
  struct Key {
    std::array<uint64_t, 3> words{};
    uint32_t tail = 0;
    uint32_t count = 0;  // not of the key: it fills the gap that alignment would leave
    bool same_word(const Key& other) const {
      return ((words[0] ^ other.words[0]) | (words[1] ^ other.words[1]) | (words[2] ^ other.words[2]) |
              (tail ^ other.tail)) == 0;
    }
  };
  // One line of the processor's cache.
  struct alignas(64) Entry {
    Key key;
    int32_t ids[kMaxTokens] = {};
  };
  static_assert(sizeof(Entry) == 64);
  static constexpr size_t kWays = 4;
  static constexpr size_t kSets = 1 << 13;

  static Key make_key(std::string_view word) {
    Key key;
    std::memcpy(key.words.data(), word.data(), std::min<size_t>(word.size(), 24));
    if (word.size() > 24) std::memcpy(&key.tail, word.data() + 24, word.size() - 24);
    key.tail |= static_cast<uint32_t>(word.size() + 1) << 24;
    return key;
  }
  static size_t set_of(const Key& key) {
    uint64_t hash = (key.words[0] ^ key.tail) * 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 32 ^ key.words[1]) * 0x9e3779b97f4a7c15u;
    hash = (hash ^ hash >> 32 ^ key.words[2]) * 0x9e3779b97f4a7c15u;
    return (hash >> 40 & (kSets - 1)) * kWays;
  }

  std::vector<Entry> entries_;
};

}  // namespace volley::text
