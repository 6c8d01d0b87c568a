#include "text/tokenizer/vocabulary.h"

#include <bit>
#include <cstring>

namespace volley::text {

uint64_t hash_bytes(std::string_view text) {
  uint64_t hash = 0x243f6a8885a308d3u ^ text.size();
  size_t at = 0;
  const auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  };
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    mix(word);
  }
  if (at < text.size()) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, text.size() - at);
    mix(word);
  }
  return hash;
}

Vocabulary::Vocabulary(const std::vector<std::string>& tokens)
    : slots_(std::bit_ceil(2 * tokens.size() + 2), -1) {
  const size_t mask = slots_.size() - 1;
  for (size_t id = 0; id < tokens.size(); ++id) {
    strings_.add(tokens[id]);
    if (tokens[id].empty() || find(tokens[id]) >= 0) continue;
    size_t slot = hash_bytes(tokens[id]) & mask;
    while (slots_[slot] >= 0) slot = (slot + 1) & mask;
    slots_[slot] = static_cast<int32_t>(id);
  }
}

int32_t Vocabulary::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const size_t mask = slots_.size() - 1;
  for (size_t slot = hash_bytes(token) & mask; slots_[slot] >= 0; slot = (slot + 1) & mask) {
    if (strings_[static_cast<size_t>(slots_[slot])] == token) return slots_[slot];
  }
  return -1;
}

MergeTable::MergeTable(size_t count)
    : slots_(std::bit_ceil(count + count / 2 + 2)), mask_(slots_.size() - 1) {}

void MergeTable::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = key_of(left, right);
  size_t slot = slot_of(key);
  while (slots_[slot].key != kFree && slots_[slot].key != key) slot = (slot + 1) & mask_;
  slots_[slot] = {key, merge};
}

PrefixTrie::PrefixTrie() : roots_(256, 0), values_(1, -1), edges_(64), mask_(63) {}

Result<bool> PrefixTrie::add(std::string_view text, int32_t value) {
  constexpr size_t kMaxNodes = size_t{1} << 24;  // an edge's key is of 32 bits
  if (text.empty()) return Fault{"an empty token"};
  uint32_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    uint32_t next = child(node, byte);
    if (next == 0) {
      if (values_.size() + 1 >= kMaxNodes) return Fault{"tokens of too many bytes in all"};
      next = static_cast<uint32_t>(values_.size());
      values_.push_back(-1);
      if (node == 0) {
        roots_[byte] = next;
      } else {
        if (2 * (count_ + 1) > edges_.size()) grow();
        put({(node << 8 | byte) + 1, next});
      }
    }
    node = next;
  }
  values_[node] = value;
  return true;
}

std::vector<PrefixTrie::Child> PrefixTrie::children() const {
  std::vector<Child> all;
  for (size_t byte = 0; byte < roots_.size(); ++byte) {
    if (roots_[byte] != 0) all.push_back({0, static_cast<unsigned char>(byte), roots_[byte]});
  }
  for (const Edge& edge : edges_) {
    if (edge.key == 0) continue;
    all.push_back({(edge.key - 1) >> 8, static_cast<unsigned char>((edge.key - 1) & 0xff), edge.node});
  }
  return all;
}

void PrefixTrie::put(Edge edge) {
  size_t slot = slot_of(edge.key);
  while (edges_[slot].key != 0) slot = (slot + 1) & mask_;
  edges_[slot] = edge;
  ++count_;
}

void PrefixTrie::grow() {
  std::vector<Edge> old(edges_.size() * 2);
  old.swap(edges_);
  mask_ = edges_.size() - 1;
  count_ = 0;
  for (const Edge& edge : old) {
    if (edge.key != 0) put(edge);
  }
}

}  // namespace volley::text
