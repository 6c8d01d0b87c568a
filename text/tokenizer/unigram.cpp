// Ref: Kudo, "Subword Regularization" (arXiv 1804.10959): the best segmentation by Viterbi's algorithm, with
// one pass over the text and the trie of all tokens.
#include <algorithm>
#include <type_traits>

#include "text/tokenizer/packed_trie.h"
#include "text/tokenizer/subword_model.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

// `Score`: what sums are kept in.
template <typename Score>
class Unigram : public SubwordModel {
 public:
  Unigram(UnigramModel model, const std::string& subject)
      : model_(std::move(model)),
        fallback_(byte_fallback_tokens(*model_.vocabulary)),
        trie_(usable_tokens(model_, subject), [&](int32_t id) {
          return Token{id, static_cast<Score>(model_.scores[static_cast<size_t>(id)])};
        }) {}

  void encode(std::string_view word, SubwordScratch& scratch, std::vector<int32_t>& ids) const override {
    if constexpr (std::is_same_v<Score, float>) {
      Search(*this, word, scratch.floats, ids).run();
    } else {
      Search(*this, word, scratch.doubles, ids).run();
    }
  }

  bool may_cut_before(std::string_view) const override { return false; }
  std::unique_ptr<BytePairs> joined_bytes() const override { return nullptr; }

 private:
  static constexpr int32_t kUnknown = -2;
  static constexpr int32_t kUnreached = -1;

  struct Token {
    int32_t id = 0;
    Score score = 0;
  };

  static PrefixTrie usable_tokens(const UnigramModel& model, const std::string& subject) {
    const Vocabulary& tokens = *model.vocabulary;
    PrefixTrie trie;
    for (int32_t id = 0; id < tokens.size(); ++id) {
      const bool is_usable = model.is_usable.empty() || model.is_usable[static_cast<size_t>(id)];
      if (!is_usable || tokens[id].empty() || tokens.find(tokens[id]) != id) continue;
      trie.add(tokens[id], id).value_or_throw(subject + ": token " + std::to_string(id));
    }
    return trie;
  }

  // Viterbi's algorithm over one word. Where no token spans a place, all ways lead through it, and what is
  // best before it is settled: so the nodes of few characters are alive at once, however long the text is.
  class Search {
   public:
    using Node = UnigramNode<Score>;

    Search(const Unigram& model, std::string_view word, std::vector<Node>& nodes, std::vector<int32_t>& ids)
        : of_(model), word_(word), nodes_(nodes), ids_(ids) {
      if (nodes_.empty()) nodes_.resize(kFirstNodes);
      nodes_[0] = {};
    }

    void run() {
      for (size_t at = 0; at < word_.size();) {
        if (at == furthest_) settle();
        const size_t character = character_at(word_, at).bytes;
        bool has_single = false;
        begin_ = at;
        score_ = nodes_[at - base_].score;
        of_.trie_.prefixes(word_.substr(at), [&](size_t length, const Token& token) {
          has_single = has_single || length == character;
          reach(at + length, token);
        });
        if (!has_single) reach(at + character, {kUnknown, static_cast<Score>(of_.model_.unknown_score)});
        at += character;
      }
      settle();
      finish_unknown();
    }

   private:
    static constexpr size_t kFirstNodes = 256;

    void reach(size_t end, const Token& token) {
      while (furthest_ < end) {
        ++furthest_;
        if (furthest_ - base_ >= nodes_.size()) nodes_.resize(2 * nodes_.size());
        nodes_[furthest_ - base_].id = kUnreached;
      }
      Node& node = nodes_[end - base_];
      const Score score = token.score + score_;
      if (node.id != kUnreached && !(score > node.score)) return;
      node = {.score = score, .id = token.id, .previous = static_cast<uint32_t>(begin_ - base_)};
    }

    // Hands out the tokens up to the furthest node, which becomes the first.
    void settle() {
      const size_t count = furthest_ - base_;
      if (count == 0) return;
      // Links point back; turned round, they lead from the first node on.
      size_t next = count;
      for (size_t node = count; node > 0;) {
        const size_t previous = nodes_[node].previous;
        nodes_[node].previous = static_cast<uint32_t>(next);
        next = node;
        node = previous;
      }
      size_t begin = 0;
      for (size_t node = next;; node = nodes_[node].previous) {
        hand_out(nodes_[node].id, base_ + begin, base_ + node);
        begin = node;
        if (node == count) break;
      }
      nodes_[0] = {.score = nodes_[count].score};
      base_ = furthest_;
    }

    // The unknown token's own spelling is as unknown as what it stands for. Unknown characters in a row are
    // one part.
    void hand_out(int32_t id, size_t begin, size_t end) {
      if (id == kUnknown || id == of_.model_.unk) {
        if (unknown_begin_ == unknown_end_) unknown_begin_ = begin;
        unknown_end_ = end;
        return;
      }
      finish_unknown();
      ids_.push_back(id);
    }
    void finish_unknown() {
      if (unknown_begin_ < unknown_end_)
        of_.add_unknown(word_.substr(unknown_begin_, unknown_end_ - unknown_begin_), ids_);
      unknown_begin_ = unknown_end_ = 0;
    }

    const Unigram& of_;
    std::string_view word_;
    std::vector<Node>& nodes_;  // from base_ to furthest_
    std::vector<int32_t>& ids_;
    size_t base_ = 0, furthest_ = 0;
    size_t begin_ = 0;  // of the tokens that are looked at
    Score score_ = 0;   // before them
    size_t unknown_begin_ = 0, unknown_end_ = 0;
  };

  void add_unknown(std::string_view part, std::vector<int32_t>& ids) const {
    const bool is_spelled_out = model_.unk >= 0 && part == (*model_.vocabulary)[model_.unk];
    if (!is_spelled_out && model_.byte_fallback == UnigramModel::ByteFallback::kOn &&
        std::none_of(part.begin(), part.end(),
                     [&](char c) { return fallback_[static_cast<unsigned char>(c)] < 0; })) {
      for (const char c : part) ids.push_back(fallback_[static_cast<unsigned char>(c)]);
      return;
    }
    if (model_.unk < 0) throw Error("tokenizer: a character without a token, and no unknown token");
    ids.push_back(model_.unk);
  }

  UnigramModel model_;
  std::array<int32_t, 256> fallback_;
  PackedTrie<Token> trie_;
};

}  // namespace

std::unique_ptr<const SubwordModel> make_unigram(UnigramModel model, const std::string& subject) {
  if (model.sums == UnigramModel::Sums::kFloat)
    return std::make_unique<Unigram<float>>(std::move(model), subject);
  return std::make_unique<Unigram<double>>(std::move(model), subject);
}

}  // namespace volley::text
