// SentencePiece's precompiled_charsmap: u32 size of a double-array trie in bytes, the trie, then replacement
// strings that end with a zero byte; a key's value is where its replacement begins.
// A trie's unit (Darts-clone): bits 10-30 the offset to the children (shifted by 8 where bit 9 is set),
// bit 8 whether a value follows, bits 0-7 and 31 the label; the value's own unit has bit 31 set.
#include <utf8proc.h>

#include "core/io/byte_reader.h"
#include "text/tokenizer/normalizer.h"
#include "text/tokenizer/subword_model.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

class Charsmap : public Normalizer {
 public:
  Charsmap(std::vector<uint32_t> units, std::string replacements, CharsmapRule rule)
      : units_(std::move(units)), replacements_(std::move(replacements)), rule_(rule) {
    for (int left = 0; left < 128; ++left) {
      for (int right = 0; right < 256; ++right) {
        const char pair[] = {static_cast<char>(left), static_cast<char>(right)};
        if (begins_key(std::string_view(pair, 2))) may_begin_.add(pair[0], pair[1]);
      }
    }
  }

  std::string_view apply(std::string_view text, std::string& storage) const override {
    storage.clear();
    if (rule_ == CharsmapRule::kGraphemes) {
      apply_by_graphemes(text, storage);
      return storage;
    }
    size_t copied = 0;  // up to here
    for (size_t at = 0; at < text.size();) {
      const bool is_plain = at + 1 < text.size() && static_cast<unsigned char>(text[at]) < 128 &&
                            !may_begin_.has(text[at], text[at + 1]);
      if (is_plain) {
        ++at;
        continue;
      }
      storage.append(text, copied, at - copied);
      at += replace(text.substr(at), Pick::kLongest, storage);
      copied = at;
      check_growth(text.size(), storage.size());
    }
    storage.append(text, copied);
    return storage;
  }

 private:
  struct Match {
    size_t length = 0;
    size_t value = 0;
  };
  enum class Pick { kShortest, kLongest };

  // The entry that `text` begins with; length 0: none.
  Match find(std::string_view text, Pick pick) const {
    Match match;
    size_t node = offset(units_[0]);
    for (size_t i = 0; i < text.size(); ++i) {
      const auto label = static_cast<unsigned char>(text[i]);
      node ^= label;
      if (node >= units_.size()) break;
      const uint32_t unit = units_[node];
      if ((unit & 0x800000ffu) != label) break;
      node ^= offset(unit);
      if ((unit >> 8 & 1) == 0) continue;
      if (node >= units_.size()) break;
      match = {i + 1, units_[node] & 0x7fffffffu};
      if (pick == Pick::kShortest) break;
    }
    return match;
  }

  // Whether an entry is the first of these two bytes, or begins with both.
  bool begins_key(std::string_view pair) const {
    size_t node = offset(units_[0]);
    for (const char byte : pair) {
      const auto label = static_cast<unsigned char>(byte);
      node ^= label;
      if (node >= units_.size() || (units_[node] & 0x800000ffu) != label) return false;
      const uint32_t unit = units_[node];
      if ((unit >> 8 & 1) != 0) return true;
      node ^= offset(unit);
    }
    return true;
  }

  static size_t offset(uint32_t unit) { return static_cast<size_t>(unit >> 10) << ((unit & 0x200u) >> 6); }

  bool append(const Match& match, std::string& out) const {
    if (match.length == 0 || match.value >= replacements_.size()) return false;
    out += replacements_.c_str() + match.value;
    return true;
  }

  // Replaces the entry at the beginning of `text`, or copies one character. Returns what it took.
  size_t replace(std::string_view text, Pick pick, std::string& out) const {
    const Match match = find(text, pick);
    if (append(match, out)) return match.length;
    const size_t length = character_at(text, 0).bytes;
    out.append(text, 0, length);
    return length;
  }

  void apply_by_graphemes(std::string_view text, std::string& out) const {
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = grapheme_end(text, begin);
      const std::string_view cluster = text.substr(begin, end - begin);
      begin = end;
      check_growth(text.size(), out.size());
      if (cluster.size() < 6 && append(find(cluster, Pick::kShortest), out)) continue;
      for (size_t at = 0; at < cluster.size();) {
        const std::string_view one = cluster.substr(at, character_at(cluster, at).bytes);
        at += one.size();
        if (!append(find(one, Pick::kShortest), out)) out += one;
      }
    }
  }

  static size_t grapheme_end(std::string_view text, size_t begin) {
    Character before = character_at(text, begin);
    size_t end = begin + before.bytes;
    utf8proc_int32_t state = 0;
    while (end < text.size()) {
      const Character next = character_at(text, end);
      if (before.code == kBadByte || next.code == kBadByte) break;
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(before.code),
                                           static_cast<utf8proc_int32_t>(next.code), &state)) {
        break;
      }
      end += next.bytes;
      before = next;
    }
    return end;
  }

  std::vector<uint32_t> units_;
  std::string replacements_;  // its own end is a zero byte more
  CharsmapRule rule_;
  // An ASCII character and the byte behind it that an entry may begin with. Most texts are of others.
  BytePairs may_begin_;
};

}  // namespace

Result<NormalizerPtr> make_charsmap(std::string_view table, CharsmapRule rule) {
  ByteReader reader(as_bytes(table));
  uint32_t size = 0;
  std::span<const std::byte> trie;
  if (!reader.read(size) || size % 4 != 0 || size == 0 || !reader.take(size, trie)) {
    return Fault{"precompiled_charsmap: the trie does not lie within its " + std::to_string(table.size()) +
                 " bytes"};
  }
  std::vector<uint32_t> units(size / 4);
  std::memcpy(units.data(), trie.data(), trie.size());
  return NormalizerPtr(
      std::make_unique<Charsmap>(std::move(units), std::string(table.substr(4 + trie.size())), rule));
}

}  // namespace volley::text
