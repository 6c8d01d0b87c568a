#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/error.h"

namespace volley::text {

inline constexpr int64_t kMaxVocabulary = int64_t{1} << 24;
inline constexpr size_t kMaxTokenBytes = 64 << 10;

// Strings in one block, by index.
class StringTable {
 public:
  void add(std::string_view text) {
    text_.append(text);
    ends_.push_back(text_.size());
  }
  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t index) const {
    const size_t begin = index == 0 ? 0 : ends_[index - 1];
    return std::string_view(text_).substr(begin, ends_[index] - begin);
  }

 private:
  std::string text_;
  std::vector<size_t> ends_;
};

// Token strings by id and ids by string. Ids without a string are holes.
class Vocabulary {
 public:
  Vocabulary() = default;
  // `tokens[id]`; empty strings are holes. Of equal strings the lowest id is found.
  explicit Vocabulary(const std::vector<std::string>& tokens);

  int32_t size() const { return static_cast<int32_t>(strings_.size()); }
  std::string_view operator[](int32_t id) const { return strings_[static_cast<size_t>(id)]; }
  int32_t find(std::string_view token) const;  // -1: none

 private:
  StringTable strings_;
  std::vector<int32_t> slots_;  // a power of two; -1: free
};

// Which two tokens join, into what, and how early.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = 0xffffffff;  // lower joins first; of equal ones the leftmost
    int32_t id = -1;
  };

  explicit MergeTable(size_t count);
  // A pair given again takes the new rank.
  void add(int32_t left, int32_t right, Merge merge);
  // rank 0xffffffff: the pair does not join.
  Merge find(int32_t left, int32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return slots_[slot].merge;
      if (slots_[slot].key == kFree) return {};
    }
  }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    Merge merge;
  };
  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  size_t slot_of(uint64_t key) const {
    const uint64_t mixed = (key ^ key >> 29) * 0x9e3779b97f4a7c15u;
    return static_cast<size_t>(mixed >> 32 ^ mixed >> 7) & mask_;
  }

  std::vector<Slot> slots_;
  size_t mask_ = 0;
};

// A trie over bytes; every inserted string carries a value >= 0.
class PrefixTrie {
 public:
  PrefixTrie();
  // Faults: the empty string, more nodes than 2^24.
  Result<bool> add(std::string_view text, int32_t value);
  bool empty() const { return values_.size() == 1; }

  // Its nodes, by index; the root is 0, and parents come before their children.
  struct Child {
    uint32_t parent = 0;
    unsigned char byte = 0;
    uint32_t node = 0;
  };
  size_t nodes() const { return values_.size(); }
  int32_t value(uint32_t node) const { return values_[node]; }  // -1: no string ends there
  std::vector<Child> children() const;                          // in any order

  // Calls `found(length, value)` for every inserted string that `text` begins with, shortest first.
  template <typename Found>
  void prefixes(std::string_view text, const Found& found) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = child(node, static_cast<unsigned char>(text[i]));
      if (node == 0) return;
      if (values_[node] >= 0) found(i + 1, values_[node]);
    }
  }

 private:
  struct Edge {
    uint32_t key = 0;  // parent << 8 | byte, plus 1; 0: free
    uint32_t node = 0;
  };
  uint32_t child(uint32_t parent, unsigned char byte) const {
    if (parent == 0) return roots_[byte];
    const uint32_t key = (parent << 8 | byte) + 1;
    for (size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
      if (edges_[slot].key == key) return edges_[slot].node;
      if (edges_[slot].key == 0) return 0;
    }
  }
  size_t slot_of(uint32_t key) const {
    return static_cast<size_t>(key * uint64_t{0x9e3779b97f4a7c15u} >> 32) & mask_;
  }
  void grow();
  void put(Edge edge);

  std::vector<uint32_t> roots_;
  std::vector<int32_t> values_;
  std::vector<Edge> edges_;
  size_t mask_ = 0;
  size_t count_ = 0;
};

// Spreads a string's bytes over 64 bits; not for hostile tables of unbounded size.
uint64_t hash_bytes(std::string_view text);

}  // namespace volley::text
