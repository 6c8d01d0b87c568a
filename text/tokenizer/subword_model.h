#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/vocabulary.h"

namespace volley::text {

// The best way to a place in a word, by a unigram model.
template <typename Score>
struct UnigramNode {
  Score score = 0;
  int32_t id = 0;         // of the last token
  uint32_t previous = 0;  // where it begins
};

// Working memory of one thread's encode calls.
struct SubwordScratch {
  std::vector<int32_t> ids, joined;
  std::vector<uint32_t> ranks, next, previous;
  std::vector<uint64_t> queue;
  std::vector<UnigramNode<float>> floats;
  std::vector<UnigramNode<double>> doubles;
};

// A set of pairs of neighbouring bytes.
class BytePairs {
 public:
  void add(char left, char right) { bits_.set(index(left, right)); }
  bool has(char left, char right) const { return bits_.test(index(left, right)); }

 private:
  static size_t index(char left, char right) {
    return static_cast<size_t>(static_cast<unsigned char>(left)) << 8 | static_cast<unsigned char>(right);
  }
  std::bitset<65536> bits_;
};

// Cuts a word into tokens of a vocabulary. Const and shareable.
class SubwordModel {
 public:
  virtual ~SubwordModel() = default;
  // Appends the ids of a word that is not empty. Throws Error where the vocabulary has no token for a part
  // of it and no unknown token.
  virtual void encode(std::string_view word, SubwordScratch& scratch, std::vector<int32_t>& ids) const = 0;
  // Whether a text may be cut before each run of `mark` without a change of tokens.
  virtual bool may_cut_before(std::string_view mark) const = 0;
  // The bytes that a text may not be cut between, where no other cut between characters changes tokens;
  // null where there is no such rule.
  virtual std::unique_ptr<BytePairs> joined_bytes() const = 0;
};

// Tokens "<0x00>" .. "<0xFF>" of a vocabulary; -1 where there is none.
std::array<int32_t, 256> byte_fallback_tokens(const Vocabulary& vocabulary);

// Byte-pair encoding: of all adjacent pairs the one that ranks lowest joins first, the leftmost of equals.
struct BpeModel {
  std::shared_ptr<const Vocabulary> vocabulary;  // of bytes, where the units are bytes
  struct MergePair {
    int32_t left, right;
    MergeTable::Merge merge;
  };
  std::vector<MergePair> merges;
  enum class Units { kBytes, kCharacters } units = Units::kBytes;
  enum class WholeWords { kMerged, kTaken } whole_words = WholeWords::kMerged;  // kTaken: "ignore_merges"
  enum class ByteFallback { kOff, kOn } byte_fallback = ByteFallback::kOff;
  enum class FuseUnknown { kOff, kOn } fuse_unknown = FuseUnknown::kOff;
  // A character without a token gives this one; -1: it is left out.
  int32_t unk = -1;
};
std::unique_ptr<const SubwordModel> make_bpe(BpeModel model);

// The merges of a vocabulary whose pieces have scores instead: two neighbours join if the whole is a piece,
// the highest score first. `is_usable[id]` is false for pieces that never come of joining.
std::vector<BpeModel::MergePair> merges_of_scores(const Vocabulary& vocabulary,
                                                  const std::vector<float>& scores,
                                                  const std::vector<bool>& is_usable);

// Unigram language model: the tokens whose scores sum highest.
struct UnigramModel {
  std::shared_ptr<const Vocabulary> vocabulary;
  std::vector<double> scores;   // by id
  std::vector<bool> is_usable;  // by id; empty: all are
  double unknown_score = 0;     // of a character without a token
  int32_t unk = -1;             // -1: a character without a token is an error
  enum class ByteFallback { kOff, kOn } byte_fallback = ByteFallback::kOff;
  // Sums as SentencePiece's own library does (float) or as Hugging Face's (double).
  enum class Sums { kDouble, kFloat } sums = Sums::kDouble;
};
// Throws Error "<subject>: ..." for tokens of too many bytes.
std::unique_ptr<const SubwordModel> make_unigram(UnigramModel model, const std::string& subject);

}  // namespace volley::text
