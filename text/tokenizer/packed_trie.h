#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "core/base/error.h"
#include "text/tokenizer/vocabulary.h"

namespace volley::text {

// A trie to look things up in, made of a finished PrefixTrie: a step along it reads eight bytes at one place,
// and what a string carries lies beside the others'. Ref: Aoe 1989, "An efficient digital search algorithm by
// using a double-array structure".
template <typename Payload>
class PackedTrie {
 public:
  // `payload(value)` of each string's value.
  template <typename PayloadOf>
  PackedTrie(const PrefixTrie& trie, const PayloadOf& payload) {
    std::vector<PrefixTrie::Child> children = trie.children();
    std::ranges::sort(children, {}, [](const PrefixTrie::Child& child) {
      return static_cast<uint64_t>(child.parent) << 8 | child.byte;
    });
    std::vector<size_t> first(trie.nodes() + 1);  // of each node's children
    for (const PrefixTrie::Child& child : children) ++first[child.parent + 1];
    for (size_t node = 0; node < trie.nodes(); ++node) first[node + 1] += first[node];

    std::vector<uint32_t> unit_of(trie.nodes());  // the root is unit 0
    reserve_units(1);
    take(0, kNoParent);
    // A parent comes before its children in both tries.
    for (uint32_t node = 0; node < trie.nodes(); ++node) {
      const uint32_t unit = unit_of[node];
      if (trie.value(node) >= 0) {
        units_[unit].is_end = 1;
        payloads_[unit] = payload(trie.value(node));
      }
      const std::span<const PrefixTrie::Child> its(children.begin() + static_cast<ptrdiff_t>(first[node]),
                                                   first[node + 1] - first[node]);
      if (its.empty()) continue;
      const uint32_t base = free_base(its);
      units_[unit].base = base & kMostUnits;
      for (const PrefixTrie::Child& child : its) {
        take(base + child.byte, unit + 1);
        unit_of[child.node] = base + child.byte;
      }
    }
    next_ = {};
  }

  // Calls `found(length, payload)` for every string that `text` begins with, shortest first.
  template <typename Found>
  void prefixes(std::string_view text, const Found& found) const {
    uint32_t at = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const uint32_t next = units_[at].base + static_cast<unsigned char>(text[i]);
      if (units_[next].parent != at + 1) return;
      at = next;
      if (units_[at].is_end != 0) found(i + 1, payloads_[at]);
    }
  }

 private:
  static constexpr uint32_t kNoParent = ~uint32_t{0};
  static constexpr uint32_t kMostUnits = (uint32_t{1} << 31) - 1;
  // After so many places that had no room for a node's children, the search begins behind them from then on:
  // what is left there is too little.
  static constexpr int kPatience = 64;

  struct Unit {
    uint32_t base : 31 = 0;  // child by byte: unit base + byte
    uint32_t is_end : 1 = 0;
    uint32_t parent = 0;  // unit + 1; 0: free
  };

  // Every base has 256 units behind it.
  void reserve_units(size_t count) {
    if (count + 256 <= units_.size()) return;
    VOLLEY_ASSERT(count + 256 <= kMostUnits);
    const size_t before = units_.size(), size = std::max(2 * before, count + 256);
    units_.resize(size);
    payloads_.resize(size);
    next_.resize(size + 1);
    std::iota(next_.begin() + static_cast<ptrdiff_t>(before), next_.end(), static_cast<uint32_t>(before));
  }

  void take(uint32_t unit, uint32_t parent) {
    units_[unit].parent = parent;
    next_[unit] = unit + 1;
  }

  // The first free unit from `place` on.
  uint32_t free_from(uint32_t place) {
    while (next_[place] != place) {
      next_[place] = next_[next_[place]];
      place = next_[place];
    }
    return place;
  }

  uint32_t free_base(std::span<const PrefixTrie::Child> children) {
    const uint32_t lowest = children.front().byte;
    int failed = 0;
    for (uint32_t place = free_from(std::max(from_, lowest));; place = free_from(place + 1)) {
      reserve_units(place + 1);
      const uint32_t base = place - lowest;
      const bool fits = std::ranges::all_of(
          children, [&](const PrefixTrie::Child& child) { return units_[base + child.byte].parent == 0; });
      if (fits) return base;
      if (++failed == kPatience) from_ = place;
    }
  }

  std::vector<Unit> units_;
  std::vector<Payload> payloads_;  // by unit
  // While it is made: of a free unit itself, of a taken one some unit behind it, none of those between free.
  std::vector<uint32_t> next_;
  uint32_t from_ = 1;  // where places are looked for
};

}  // namespace volley::text
