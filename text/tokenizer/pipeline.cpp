#include "text/tokenizer/pipeline.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "core/base/error.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/word_cache.h"

namespace volley::text {
namespace {

constexpr size_t kMaxText = size_t{1} << 30;

// "<0x0A>" -> 10; -1 for anything else.
int fallback_byte(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = 16 * value + digit;
  }
  return value;
}

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  if (from.empty()) return;
  std::string replaced;
  size_t copied = 0;
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, copied)) {
    replaced.append(text, copied, at - copied).append(to);
    check_growth(text.size(), replaced.size());
    copied = at + from.size();
  }
  if (copied == 0) return;
  text = replaced.append(text, copied);
}

// What a piece stands for behind others.
std::string decoded(const DecoderRule& rule, std::string piece) {
  switch (rule.kind) {
    case DecoderRule::Kind::kByteLevel: {
      // A piece with other characters, such as an added one with a space, stands for itself.
      std::string bytes;
      return unspell_bytes(piece, bytes) ? bytes : piece;
    }
    case DecoderRule::Kind::kMetaspace:
      replace_all(piece, rule.metaspace, " ");
      return piece;
    case DecoderRule::Kind::kPlain:
      break;
  }
  for (const auto& replacement : rule.replacements) replace_all(piece, replacement.from, replacement.to);
  if (rule.byte_fallback == DecoderRule::ByteFallback::kOn) {
    if (const int byte = fallback_byte(piece); byte >= 0) return std::string(1, static_cast<char>(byte));
  }
  return piece;
}

// Working memory that encode calls take turns with: each has one for itself while it runs.
struct Workspace {
  WordCache cache;
  SubwordScratch scratch;
  std::string normalized;
};

class WorkspacePool {
 public:
  std::unique_ptr<Workspace> take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Workspace>();
    std::unique_ptr<Workspace> taken = std::move(free_.back());
    free_.pop_back();
    return taken;
  }
  void give_back(std::unique_ptr<Workspace> workspace) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(workspace));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> free_;
};

class PipelineTokenizer : public Tokenizer {
 public:
  explicit PipelineTokenizer(Pipeline pipeline)
      : pipeline_(std::move(pipeline)), raw_tokens_({}, ""), normalized_tokens_({}, "") {
    std::vector<AddedToken> raw, normalized;
    std::vector<std::string>& pieces = pipeline_.pieces;
    for (const AddedToken& token : pipeline_.added_tokens) {
      if (token.id < 0 || token.id >= kMaxVocabulary) {
        throw Error(pipeline_.subject + ": added token of id " + std::to_string(token.id));
      }
      const auto id = static_cast<size_t>(token.id);
      if (id >= pieces.size()) pieces.resize(id + 1);
      pieces[id] = token.content;
      if (token.is_special) special_.push_back(token.id);
      (token.normalized ? normalized : raw).push_back(token);
    }
    for (AddedToken& token : normalized) {
      if (!pipeline_.normalizer) break;
      std::string storage;
      token.content = std::string(pipeline_.normalizer->apply(token.content, storage));
      pieces[static_cast<size_t>(token.id)] = token.content;
    }
    std::erase_if(normalized, [](const AddedToken& token) { return token.content.empty(); });
    std::sort(special_.begin(), special_.end());
    raw_tokens_ = AddedTokenFinder(std::move(raw), pipeline_.subject);
    normalized_tokens_ = AddedTokenFinder(std::move(normalized), pipeline_.subject);
    spellings_ = Vocabulary(pieces);
    for (size_t id = 0; id < pieces.size(); ++id) bytes_.add(decoded(pipeline_.decoder, pieces[id]));
    drops_first_space_ = pipeline_.decoder.kind == DecoderRule::Kind::kMetaspace &&
                         pipeline_.decoder.first_space == DecoderRule::FirstSpace::kDropped;
    if (drops_first_space_) {
      for (const std::string& piece : pieces) {
        std::string first = piece;
        replace_all(first, pipeline_.decoder.metaspace, "");
        first_bytes_.add(first);
      }
    }
    pieces.clear();
    pieces.shrink_to_fit();
  }

  std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const override {
    if (text.size() >= kMaxText) {
      throw Error("tokenizer: a text of " + std::to_string(text.size()) + " bytes, the limit is " +
                  std::to_string(kMaxText));
    }
    std::vector<int32_t> ids;
    if (options.frame == Frame::kWhole) ids = pipeline_.prefix;
    ids.reserve(ids.size() + text.size() / 3 + pipeline_.suffix.size());
    std::unique_ptr<Workspace> workspace = workspaces_.take();
    const auto specials = options.special_text == SpecialText::kToken ? AddedTokenFinder::Specials::kFind
                                                                      : AddedTokenFinder::Specials::kSkip;
    raw_tokens_.for_each_part(text, specials, [&](std::string_view part, int32_t token) {
      if (token >= 0) return ids.push_back(token);
      const bool is_first = part.data() == text.data();
      std::string_view normalized = part;
      if (pipeline_.normalizer) normalized = pipeline_.normalizer->apply(part, workspace->normalized);
      normalized_tokens_.for_each_part(normalized, specials, [&](std::string_view inner, int32_t found) {
        if (found >= 0) return ids.push_back(found);
        encode_piece({inner, is_first && inner.data() == normalized.data()}, *workspace, ids);
      });
    });
    workspaces_.give_back(std::move(workspace));
    if (options.frame == Frame::kWhole)
      ids.insert(ids.end(), pipeline_.suffix.begin(), pipeline_.suffix.end());
    return ids;
  }

  std::string decode(const std::vector<int32_t>& ids, DecodeSpecials specials) const override {
    std::string text;
    DecodeState state = begin_text();
    for (const int32_t id : ids) {
      if (specials == DecodeSpecials::kSkip && is_special(id)) continue;
      text += next_bytes(id, state);
    }
    return text;
  }

  DecodeState begin_text() const override { return {.spaces = pipeline_.decoder.strip_left}; }

  std::string_view next_bytes(int32_t id, DecodeState& state) const override {
    if (id < 0 || id >= vocab_size()) return {};
    const bool is_first = std::exchange(state.is_first, false);
    std::string_view bytes = is_first && drops_first_space_ ? first_bytes_[static_cast<size_t>(id)]
                                                            : bytes_[static_cast<size_t>(id)];
    for (; state.spaces > 0 && bytes.starts_with(' '); --state.spaces) bytes.remove_prefix(1);
    if (!bytes.empty()) state.spaces = 0;
    return bytes;
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_.size()); }
  const SpecialIds& special_ids() const override { return pipeline_.special_ids; }
  bool is_special(int32_t id) const override {
    return std::binary_search(special_.begin(), special_.end(), id);
  }

  std::string piece(int32_t id) const override {
    return id >= 0 && id < spellings_.size() ? std::string(spellings_[id]) : std::string();
  }
  std::string_view token_bytes(int32_t id) const override {
    return id >= 0 && id < vocab_size() ? bytes_[static_cast<size_t>(id)] : std::string_view();
  }
  int32_t find(std::string_view piece) const override { return spellings_.find(piece); }
  const std::string& chat_template() const override { return pipeline_.chat_template; }

 private:
  void encode_piece(const Piece& piece, Workspace& workspace, std::vector<int32_t>& ids) const {
    const auto encode_word = [&](const Piece& word) {
      if (workspace.cache.find(word.text, ids)) return;
      const size_t before = ids.size();
      pipeline_.model->encode(word.text, workspace.scratch, ids);
      workspace.cache.add(word.text, ids.data() + before, ids.size() - before);
    };
    if (pipeline_.pre_tokenizer) {
      pipeline_.pre_tokenizer->split(piece, encode_word);
    } else {
      encode_word(piece);
    }
  }

  Pipeline pipeline_;
  AddedTokenFinder raw_tokens_, normalized_tokens_;
  std::vector<int32_t> special_;  // sorted
  Vocabulary spellings_;
  StringTable bytes_, first_bytes_;
  bool drops_first_space_ = false;
  mutable WorkspacePool workspaces_;
};

}  // namespace

void add_safe_cuts(const SubwordModel& model, std::vector<PreTokenizerPtr>& stages) {
  constexpr const char* kMark = "\xe2\x96\x81";  // U+2581, an escaped space
  // Before the mark by itself: many vocabularies join other characters that begin with its first byte.
  if (model.may_cut_before(kMark)) stages.push_back(make_cut_before(kMark));
  if (auto joined = model.joined_bytes()) stages.push_back(make_cut_unless_joined(std::move(joined)));
}

TokenizerPtr make_tokenizer(Pipeline pipeline) {
  return std::make_shared<PipelineTokenizer>(std::move(pipeline));
}

}  // namespace volley::text
