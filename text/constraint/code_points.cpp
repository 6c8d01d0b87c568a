#include "text/constraint/code_points.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <string>
#include <tuple>

#include "text/tokenizer/unicode.h"

namespace volley::text {

namespace {

constexpr char32_t kLast = 0x10FFFF;
constexpr CodePoints::Range kSurrogates{0xD800, 0xDFFF};

}  // namespace

void CodePoints::add(Range range) {
  if (range.low > range.high) return;
  if (range.low < kSurrogates.low && range.high > kSurrogates.high) {
    add(Range{range.low, kSurrogates.low - 1});
    range.low = kSurrogates.high + 1;
  }
  if (range.low >= kSurrogates.low && range.low <= kSurrogates.high) range.low = kSurrogates.high + 1;
  if (range.high >= kSurrogates.low && range.high <= kSurrogates.high) range.high = kSurrogates.low - 1;
  if (range.low > range.high) return;
  // All that it meets become one with it.
  const auto first =
      std::ranges::find_if(ranges_, [&](const Range& other) { return other.high + 1 >= range.low; });
  auto last = first;
  for (; last != ranges_.end() && last->low <= range.high + 1; ++last) {
    range = {std::min(range.low, last->low), std::max(range.high, last->high)};
  }
  ranges_.insert(ranges_.erase(first, last), range);
}

void CodePoints::add(const CodePoints& other) {
  for (const Range& range : other.ranges_) add(range);
}

CodePoints CodePoints::complement() const {
  CodePoints rest;
  char32_t low = 0;
  for (const Range& range : ranges_) {
    if (range.low > low) rest.add(Range{low, range.low - 1});
    low = range.high + 1;
  }
  if (low <= kLast) rest.add(Range{low, kLast});
  return rest;
}

CodePoints CodePoints::intersection(const CodePoints& other) const {
  CodePoints shared;
  for (const Range& a : ranges_) {
    for (const Range& b : other.ranges_) {
      const Range both{std::max(a.low, b.low), std::min(a.high, b.high)};
      shared.add(both);
    }
  }
  return shared;
}

namespace {

// Adds ranges of characters as the byte sequences of UTF-8. Equal ends of sequences share their nodes.
class Utf8Ranges {
 public:
  Utf8Ranges(ByteGraph& graph, ByteGraph::Node from, ByteGraph::Node to)
      : graph_(graph), from_(from), to_(to) {}

  void add(CodePoints::Range range) {
    constexpr std::array<char32_t, 3> kLongest{0x7F, 0x7FF, 0xFFFF};  // of one, two, three bytes
    for (const char32_t longest : kLongest) {
      if (range.low <= longest && range.high > longest) {
        add({range.low, longest});
        range.low = longest + 1;
      }
    }
    split(range);
  }

 private:
  // Cuts a range of characters of one length until every byte of it runs through a range of its own.
  void split(CodePoints::Range range) {
    for (int bits = 6; bits <= 18 && range.high > 0x7F; bits += 6) {
      const char32_t mask = (char32_t{1} << bits) - 1;
      if ((range.low & ~mask) == (range.high & ~mask)) continue;
      if ((range.low & mask) != 0) {
        split({range.low, range.low | mask});
        return split({(range.low | mask) + 1, range.high});
      }
      if ((range.high & mask) != mask) {
        split({range.low, (range.high & ~mask) - 1});
        return split({range.high & ~mask, range.high});
      }
    }
    std::string low, high;
    append_utf8(low, range.low);
    append_utf8(high, range.high);
    ByteGraph::Node target = to_;
    for (size_t i = low.size() - 1; i > 0; --i) target = before(bytes_of(low[i], high[i]), target);
    graph_.add_edge(from_, bytes_of(low[0], high[0]), target);
  }

  static ByteGraph::Bytes bytes_of(char low, char high) {
    return {static_cast<uint8_t>(low), static_cast<uint8_t>(high)};
  }

  ByteGraph::Node before(ByteGraph::Bytes bytes, ByteGraph::Node target) {
    const auto [entry, is_new] = shared_.emplace(std::tuple(bytes.low, bytes.high, target), 0);
    if (is_new) {
      entry->second = graph_.add_node();
      graph_.add_edge(entry->second, bytes, target);
    }
    return entry->second;
  }

  ByteGraph& graph_;
  ByteGraph::Node from_, to_;
  std::map<std::tuple<uint8_t, uint8_t, ByteGraph::Node>, ByteGraph::Node> shared_;
};

// A character that JSON wants escaped, as it is written here.
std::string json_escape(char32_t code) {
  constexpr std::string_view kShort = "\"\"\\\\\bb\ff\nn\rr\tt";
  for (size_t i = 0; i < kShort.size(); i += 2) {
    if (static_cast<char32_t>(kShort[i]) == code) return std::string("\\") + kShort[i + 1];
  }
  constexpr std::string_view kDigits = "0123456789abcdef";
  return std::string("\\u00") + kDigits[code >> 4] + kDigits[code & 15];
}

}  // namespace

void add_character(ByteGraph& graph, ByteGraph::Node from, const CodePoints& set, Spelling spelling,
                   ByteGraph::Node to) {
  Utf8Ranges utf8(graph, from, to);
  if (spelling == Spelling::kPlain) {
    for (const CodePoints::Range& range : set.ranges()) utf8.add(range);
    return;
  }
  static const CodePoints kEscaped{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}};
  static const CodePoints kRaw = kEscaped.complement();
  const CodePoints raw = set.intersection(kRaw), escaped = set.intersection(kEscaped);
  for (const CodePoints::Range& range : raw.ranges()) utf8.add(range);
  for (const CodePoints::Range& range : escaped.ranges()) {
    for (char32_t code = range.low; code <= range.high; ++code)
      graph.add_empty(graph.add_text(from, json_escape(code)), to);
  }
}

}  // namespace volley::text
