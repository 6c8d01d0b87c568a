// Ref: Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (arXiv 1508.07909);
// over bytes as GPT-2, over characters with byte fallback as SentencePiece.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <limits>

#include "text/tokenizer/subword_model.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

constexpr uint32_t kNoMerge = std::numeric_limits<uint32_t>::max();
constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
// Up to this many units the smallest rank is looked for again after every merge; beyond, a queue keeps
// them in order, so that long runs cost n log n.
constexpr size_t kShortWord = 40;

class Bpe : public SubwordModel {
 public:
  explicit Bpe(BpeModel model)
      : model_(std::move(model)),
        merges_(model_.merges.size()),
        fallback_(byte_fallback_tokens(*model_.vocabulary)) {
    for (const BpeModel::MergePair& pair : model_.merges) merges_.add(pair.left, pair.right, pair.merge);
    for (size_t byte = 0; byte < 256; ++byte) {
      const char c = static_cast<char>(byte);
      bytes_[byte] = model_.vocabulary->find({&c, 1});
    }
    has_all_fallbacks_ = model_.byte_fallback == BpeModel::ByteFallback::kOn &&
                         std::find(fallback_.begin(), fallback_.end(), -1) == fallback_.end();
  }

  void encode(std::string_view word, SubwordScratch& scratch, std::vector<int32_t>& ids) const override {
    if (model_.whole_words == BpeModel::WholeWords::kTaken) {
      if (const int32_t whole = model_.vocabulary->find(word); whole >= 0) return ids.push_back(whole);
    }
    begin(word, scratch.ids);
    if (scratch.ids.size() <= kShortWord) {
      merge_short(scratch);
    } else {
      merge_long(scratch);
    }
    ids.insert(ids.end(), scratch.ids.begin(), scratch.ids.end());
  }

  bool may_cut_before(std::string_view mark) const override {
    if (!may_be_cut()) return false;
    const Vocabulary& tokens = *model_.vocabulary;
    return std::none_of(model_.merges.begin(), model_.merges.end(), [&](const BpeModel::MergePair& pair) {
      return !tokens[pair.left].ends_with(mark) && tokens[pair.right].starts_with(mark);
    });
  }

  std::unique_ptr<BytePairs> joined_bytes() const override {
    if (model_.units == BpeModel::Units::kBytes || !may_be_cut()) return nullptr;
    std::vector<bool> is_fallback(static_cast<size_t>(model_.vocabulary->size()));
    for (const int32_t id : fallback_) is_fallback[static_cast<size_t>(id)] = true;  // all are there
    auto pairs = std::make_unique<BytePairs>();
    for (const BpeModel::MergePair& pair : model_.merges) {
      const std::string_view left = (*model_.vocabulary)[pair.left], right = (*model_.vocabulary)[pair.right];
      // A token that stands for a byte is not spelled as the text is.
      if (left.empty() || right.empty()) return nullptr;
      if (is_fallback[static_cast<size_t>(pair.left)] || is_fallback[static_cast<size_t>(pair.right)])
        return nullptr;
      pairs->add(left.back(), right.front());
    }
    return pairs;
  }

 private:
  bool may_be_cut() const {
    // Unknown characters left and right of a cut would not become one token.
    return has_all_fallbacks_ && model_.whole_words == BpeModel::WholeWords::kMerged;
  }

  // The units of a word as tokens.
  void begin(std::string_view word, std::vector<int32_t>& ids) const {
    ids.clear();
    if (model_.units == BpeModel::Units::kBytes) {
      for (const char c : word) add_unit(bytes_[static_cast<unsigned char>(c)], ids);
      return;
    }
    for (size_t at = 0; at < word.size();) {
      const std::string_view unit = word.substr(at, character_at(word, at).bytes);
      at += unit.size();
      const int32_t id = model_.vocabulary->find(unit);
      if (id >= 0 || !add_fallback(unit, ids)) add_unit(id, ids);
    }
  }

  bool add_fallback(std::string_view unit, std::vector<int32_t>& ids) const {
    if (model_.byte_fallback == BpeModel::ByteFallback::kOff) return false;
    for (const char c : unit) {
      if (fallback_[static_cast<unsigned char>(c)] < 0) return false;
    }
    for (const char c : unit) ids.push_back(fallback_[static_cast<unsigned char>(c)]);
    return true;
  }

  // Units without a token follow each other only as unknown ones: no merge makes an unknown token.
  void add_unit(int32_t id, std::vector<int32_t>& ids) const {
    if (id >= 0) return ids.push_back(id);
    if (model_.unk < 0) return;
    const bool fuses =
        model_.fuse_unknown == BpeModel::FuseUnknown::kOn && !ids.empty() && ids.back() == model_.unk;
    if (!fuses) ids.push_back(model_.unk);
  }

  void merge_short(SubwordScratch& scratch) const {
    std::vector<int32_t>& ids = scratch.ids;
    size_t count = ids.size();
    if (count < 2) return;
    uint32_t ranks[kShortWord];
    int32_t joined[kShortWord];
    const auto look_up = [&](size_t i) {
      const MergeTable::Merge merge = merges_.find(ids[i], ids[i + 1]);
      ranks[i] = merge.rank;
      joined[i] = merge.id;
    };
    for (size_t i = 0; i + 1 < count; ++i) look_up(i);
    while (count > 1) {
      size_t best = 0;
      for (size_t i = 1; i + 1 < count; ++i) {
        if (ranks[i] < ranks[best]) best = i;
      }
      if (ranks[best] == kNoMerge) break;
      ids[best] = joined[best];
      std::copy(ids.begin() + best + 2, ids.begin() + count, ids.begin() + best + 1);
      std::copy(ranks + best + 1, ranks + count - 1, ranks + best);
      std::copy(joined + best + 1, joined + count - 1, joined + best);
      --count;
      if (best > 0) look_up(best - 1);
      if (best + 1 < count) look_up(best);
    }
    ids.resize(count);
  }

  void merge_long(SubwordScratch& scratch) const {
    std::vector<int32_t>& ids = scratch.ids;
    const size_t count = ids.size();
    scratch.joined.assign(count, -1);
    scratch.ranks.assign(count, kNoMerge);
    scratch.next.resize(count);
    scratch.previous.resize(count);
    for (size_t i = 0; i < count; ++i) {
      scratch.next[i] = i + 1 < count ? static_cast<uint32_t>(i + 1) : kNone;
      scratch.previous[i] = i > 0 ? static_cast<uint32_t>(i - 1) : kNone;
    }
    // Entries are rank, then position; one is stale once the pair at its position has another rank.
    std::vector<uint64_t>& queue = scratch.queue;
    queue.clear();
    const auto look_up = [&](uint32_t i) {
      const uint32_t right = scratch.next[i];
      const MergeTable::Merge merge = right == kNone ? MergeTable::Merge{} : merges_.find(ids[i], ids[right]);
      scratch.ranks[i] = merge.rank;
      scratch.joined[i] = merge.id;
      return merge.rank != kNoMerge;
    };
    const auto entry = [&](uint32_t i) { return static_cast<uint64_t>(scratch.ranks[i]) << 32 | i; };
    for (uint32_t i = 0; i < count; ++i) {
      if (look_up(i)) queue.push_back(entry(i));
    }
    std::make_heap(queue.begin(), queue.end(), std::greater<>());
    const auto push = [&](uint32_t i) {
      if (!look_up(i)) return;
      queue.push_back(entry(i));
      std::push_heap(queue.begin(), queue.end(), std::greater<>());
    };
    while (!queue.empty()) {
      const uint64_t top = queue.front();
      std::pop_heap(queue.begin(), queue.end(), std::greater<>());
      queue.pop_back();
      const auto left = static_cast<uint32_t>(top);
      if (scratch.ranks[left] != top >> 32) continue;
      const uint32_t right = scratch.next[left];
      ids[left] = scratch.joined[left];
      ids[right] = -1;
      scratch.ranks[right] = kNoMerge;
      scratch.next[left] = scratch.next[right];
      if (scratch.next[right] != kNone) scratch.previous[scratch.next[right]] = left;
      push(left);
      if (scratch.previous[left] != kNone) push(scratch.previous[left]);
    }
    std::erase(ids, -1);
  }

  BpeModel model_;
  MergeTable merges_;
  std::array<int32_t, 256> bytes_{};
  std::array<int32_t, 256> fallback_;
  bool has_all_fallbacks_ = false;
};

}  // namespace

std::array<int32_t, 256> byte_fallback_tokens(const Vocabulary& vocabulary) {
  std::array<int32_t, 256> tokens{};
  for (size_t byte = 0; byte < 256; ++byte) {
    char name[8];
    const int length = std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
    tokens[byte] = vocabulary.find({name, static_cast<size_t>(length)});
  }
  return tokens;
}

std::unique_ptr<const SubwordModel> make_bpe(BpeModel model) {
  return std::make_unique<Bpe>(std::move(model));
}

std::vector<BpeModel::MergePair> merges_of_scores(const Vocabulary& vocabulary,
                                                  const std::vector<float>& scores,
                                                  const std::vector<bool>& is_usable) {
  const auto usable = [&](int32_t id) { return id >= 0 && is_usable[static_cast<size_t>(id)]; };
  std::vector<float> order;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    if (usable(id)) order.push_back(scores[static_cast<size_t>(id)]);
  }
  std::sort(order.begin(), order.end(), std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  std::vector<BpeModel::MergePair> merges;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string_view piece = vocabulary[id];
    if (!usable(id) || vocabulary.find(piece) != id) continue;
    const auto rank = static_cast<uint32_t>(
        std::lower_bound(order.begin(), order.end(), scores[static_cast<size_t>(id)], std::greater<>()) -
        order.begin());
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xc0) == 0x80) continue;
      const int32_t left = vocabulary.find(piece.substr(0, cut));
      const int32_t right = left < 0 ? -1 : vocabulary.find(piece.substr(cut));
      if (usable(left) && usable(right)) merges.push_back({left, right, {rank, id}});
    }
  }
  return merges;
}

}  // namespace volley::text
