// Ref: Kudo, "Subword Regularization" (arXiv 1804.10959): the best segmentation by Viterbi's algorithm, with
// one pass over the text and the trie of all tokens.
#include <algorithm>

#include "text/tokenizer/subword_model.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

class Unigram : public SubwordModel {
 public:
  Unigram(UnigramModel model, const std::string& subject)
      : model_(std::move(model)), fallback_(byte_fallback_tokens(*model_.vocabulary)) {
    const Vocabulary& tokens = *model_.vocabulary;
    for (int32_t id = 0; id < tokens.size(); ++id) {
      const bool is_usable = model_.is_usable.empty() || model_.is_usable[static_cast<size_t>(id)];
      if (!is_usable || tokens[id].empty() || tokens.find(tokens[id]) != id) continue;
      trie_.add(tokens[id], id).value_or_throw(subject + ": token " + std::to_string(id));
    }
  }

  void encode(std::string_view word, SubwordScratch& scratch, std::vector<int32_t>& ids) const override {
    if (model_.sums == UnigramModel::Sums::kFloat) {
      find_best<float>(word, scratch);
    } else {
      find_best<double>(word, scratch);
    }
    // Ends of the best tokens, last first; `joined` holds the token that ends at each byte.
    const size_t first = ids.size();
    std::vector<int32_t>& best = scratch.joined;
    bool is_after_unknown = false;
    size_t unknown_end = 0;
    for (size_t end = word.size(); end > 0;) {
      const size_t begin = scratch.previous[end];
      // The unknown token's own spelling is as unknown as what it stands for.
      if (best[end] == kUnknown || best[end] == model_.unk) {
        if (!is_after_unknown) unknown_end = end;
        is_after_unknown = true;
      } else {
        if (is_after_unknown) add_unknown(word.substr(end, unknown_end - end), ids);
        is_after_unknown = false;
        ids.push_back(best[end]);
      }
      end = begin;
    }
    if (is_after_unknown) add_unknown(word.substr(0, unknown_end), ids);
    std::reverse(ids.begin() + static_cast<ptrdiff_t>(first), ids.end());
  }

  bool may_cut_before(std::string_view) const override { return false; }
  std::unique_ptr<BytePairs> joined_bytes() const override { return nullptr; }

 private:
  static constexpr int32_t kUnknown = -2;

  template <typename Score>
  void find_best(std::string_view word, SubwordScratch& scratch) const {
    constexpr int32_t kUnreached = -1;
    scratch.joined.assign(word.size() + 1, kUnreached);
    scratch.previous.assign(word.size() + 1, 0);
    scratch.scores.assign(word.size() + 1, 0);
    const auto reach = [&](size_t begin, size_t end, int32_t id, double token_score) {
      const Score score = static_cast<Score>(token_score) + static_cast<Score>(scratch.scores[begin]);
      if (scratch.joined[end] != kUnreached && !(score > static_cast<Score>(scratch.scores[end]))) return;
      scratch.scores[end] = score;
      scratch.joined[end] = id;
      scratch.previous[end] = static_cast<uint32_t>(begin);
    };
    for (size_t at = 0; at < word.size();) {
      const size_t character = character_at(word, at).bytes;
      bool has_single = false;
      trie_.prefixes(word.substr(at), [&](size_t length, int32_t id) {
        has_single = has_single || length == character;
        reach(at, at + length, id, model_.scores[static_cast<size_t>(id)]);
      });
      if (!has_single) reach(at, at + character, kUnknown, model_.unknown_score);
      at += character;
    }
  }

  // In reverse, as the caller collects. Unknown characters in a row are one part.
  void add_unknown(std::string_view part, std::vector<int32_t>& ids) const {
    const bool is_spelled_out = model_.unk >= 0 && part == (*model_.vocabulary)[model_.unk];
    if (!is_spelled_out && model_.byte_fallback == UnigramModel::ByteFallback::kOn &&
        std::none_of(part.begin(), part.end(),
                     [&](char c) { return fallback_[static_cast<unsigned char>(c)] < 0; })) {
      for (auto c = part.rbegin(); c != part.rend(); ++c) {
        ids.push_back(fallback_[static_cast<unsigned char>(*c)]);
      }
      return;
    }
    if (model_.unk < 0) throw Error("tokenizer: a character without a token, and no unknown token");
    ids.push_back(model_.unk);
  }

  UnigramModel model_;
  std::array<int32_t, 256> fallback_;
  PrefixTrie trie_;
};

}  // namespace

std::unique_ptr<const SubwordModel> make_unigram(UnigramModel model, const std::string& subject) {
  return std::make_unique<Unigram>(std::move(model), subject);
}

}  // namespace volley::text
