#include "text/tokenizer/pre_tokenizer.h"

#include <optional>

#include "text/tokenizer/regex.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

// Cuts a text into matches and what lies between, and hands them on as the rule says.
class Split : public PreTokenizer {
 public:
  explicit Split(const SplitRule& rule)
      : behavior_(rule.behavior), inverted_(rule.matches == SplitRule::Matches::kInverted) {}

  void split(const Piece& piece, PieceSink sink) const override {
    Walk walk{.piece = piece, .sink = sink, .behavior = behavior_};
    size_t end_before = 0;
    find(piece.text, [&](size_t begin, size_t end) {
      if (begin > end_before) walk.part(end_before, begin, inverted_);
      walk.part(begin, end, !inverted_);
      end_before = end;
    });
    if (end_before < piece.text.size()) walk.part(end_before, piece.text.size(), inverted_);
    walk.finish();
  }

 protected:
  virtual void find(std::string_view text, FunctionRef<void(size_t, size_t)> found) const = 0;

 private:
  struct Walk {
    const Piece& piece;
    PieceSink sink;
    SplitBehavior behavior;
    // The piece being put together.
    size_t begin = 0, end = 0;
    bool has_match = false;

    void flush() {
      if (end > begin) sink({piece.text.substr(begin, end - begin), piece.at_text_start && begin == 0});
      begin = end;
    }

    void part(size_t from, size_t to, bool is_match) {
      bool joins = false;
      switch (behavior) {
        case SplitBehavior::kRemoved:
          flush();
          begin = from;
          end = is_match ? from : to;
          has_match = is_match;
          return;
        case SplitBehavior::kIsolated:
          break;
        case SplitBehavior::kMergedWithPrevious:
          joins = is_match && !has_match;
          break;
        case SplitBehavior::kMergedWithNext:
          joins = !is_match && has_match;
          break;
        case SplitBehavior::kContiguous:
          joins = is_match == has_match;
          break;
      }
      if (!joins) {
        flush();
        begin = from;
      }
      end = to;
      has_match = is_match;
    }

    void finish() { flush(); }
  };

  SplitBehavior behavior_;
  bool inverted_;
};

class RegexSplit : public Split {
 public:
  RegexSplit(const SplitRule& rule, const std::string& subject)
      : Split(rule), regex_(rule.pattern, subject) {}

 private:
  void find(std::string_view text, FunctionRef<void(size_t, size_t)> found) const override {
    regex_.for_each_match(text, found);
  }

  Regex regex_;
};

class LiteralSplit : public Split {
 public:
  explicit LiteralSplit(const SplitRule& rule) : Split(rule), literal_(rule.pattern) {}

 private:
  void find(std::string_view text, FunctionRef<void(size_t, size_t)> found) const override {
    if (literal_.empty()) return;
    for (size_t at = text.find(literal_); at != text.npos; at = text.find(literal_, at + literal_.size())) {
      found(at, at + literal_.size());
    }
  }

  std::string literal_;
};

class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const MetaspaceRule& rule) : rule_(rule) {}

  void split(const Piece& piece, PieceSink sink) const override {
    std::string escaped;
    escaped.reserve(piece.text.size() + piece.text.size() / 2 + rule_.replacement.size());
    const bool may_prepend = rule_.prepend == MetaspaceRule::Prepend::kAlways ||
                             (rule_.prepend == MetaspaceRule::Prepend::kFirst && piece.at_text_start);
    const bool begins_with_one = rule_.existing == MetaspaceRule::Existing::kEnough &&
                                 (piece.text.starts_with(' ') || piece.text.starts_with(rule_.replacement));
    if (may_prepend && !begins_with_one) {
      escaped += rule_.replacement;
    }
    for (const char c : piece.text) {
      if (c == ' ') {
        escaped += rule_.replacement;
      } else {
        escaped += c;
      }
    }
    if (rule_.cut == MetaspaceRule::Cut::kNone) {
      sink({escaped, piece.at_text_start});
      return;
    }
    const std::string_view all = escaped;
    for (size_t begin = 0; begin < all.size();) {
      const size_t from = all.substr(begin).starts_with(rule_.replacement) ? rule_.replacement.size() : 0;
      const size_t end = std::min(all.find(rule_.replacement, begin + from), all.size());
      sink({all.substr(begin, end - begin), piece.at_text_start && begin == 0});
      begin = end;
    }
  }

 private:
  MetaspaceRule rule_;
};

class PrefixSpace : public PreTokenizer {
 public:
  void split(const Piece& piece, PieceSink sink) const override {
    if (piece.text.starts_with(' ')) return sink(piece);
    const std::string prefixed = " " + std::string(piece.text);
    sink({prefixed, piece.at_text_start});
  }
};

class CutBefore : public PreTokenizer {
 public:
  explicit CutBefore(std::string mark) : mark_(std::move(mark)) {}

  void split(const Piece& piece, PieceSink sink) const override {
    const std::string_view text = piece.text;
    for (size_t begin = 0; begin < text.size();) {
      size_t inside = begin;
      while (text.substr(inside).starts_with(mark_)) inside += mark_.size();
      const size_t end = std::min(text.find(mark_, inside), text.size());
      sink({text.substr(begin, end - begin), piece.at_text_start && begin == 0});
      begin = end;
    }
  }

 private:
  std::string mark_;
};

class CutUnlessJoined : public PreTokenizer {
 public:
  explicit CutUnlessJoined(std::unique_ptr<const BytePairs> joined) : joined_(std::move(joined)) {}

  void split(const Piece& piece, PieceSink sink) const override {
    const std::string_view text = piece.text;
    size_t begin = 0;
    const auto cut = [&](size_t end) {
      sink({text.substr(begin, end - begin), piece.at_text_start && begin == 0});
      begin = end;
    };
    for (size_t at = 1; at < text.size(); ++at) {
      const bool is_inside = (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;  // of a character
      if (!is_inside && !joined_->has(text[at - 1], text[at])) cut(at);
    }
    cut(text.size());
  }

 private:
  std::unique_ptr<const BytePairs> joined_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<PreTokenizerPtr> stages) : stages_(std::move(stages)) {}

  void split(const Piece& piece, PieceSink sink) const override { run(0, piece, sink); }

 private:
  void run(size_t stage, const Piece& piece, PieceSink sink) const {
    if (stage == stages_.size()) return sink(piece);
    if (stage + 1 == stages_.size()) return stages_[stage]->split(piece, sink);
    stages_[stage]->split(piece, [&](const Piece& part) { run(stage + 1, part, sink); });
  }

  std::vector<PreTokenizerPtr> stages_;
};

}  // namespace

PreTokenizerPtr make_regex_split(const SplitRule& rule, const std::string& subject) {
  return std::make_unique<RegexSplit>(rule, subject);
}

PreTokenizerPtr make_split(const SplitRule& rule, const std::string& subject) {
  if (rule.kind == SplitRule::Kind::kLiteral) return std::make_unique<LiteralSplit>(rule);
  // The published patterns match every character, so that nothing lies between two matches; isolated they
  // are what the scanners give.
  if (rule.behavior == SplitBehavior::kIsolated) {
    for (const SplitPattern pattern : {SplitPattern::kGpt2, SplitPattern::kLlama3, SplitPattern::kQwen2}) {
      if (rule.pattern == regex_of(pattern)) return make_scanner(pattern);
    }
  }
  return make_regex_split(rule, subject);
}

PreTokenizerPtr make_metaspace(const MetaspaceRule& rule) {
  return std::make_unique<Metaspace>(rule);
}

PreTokenizerPtr make_prefix_space() {
  return std::make_unique<PrefixSpace>();
}

PreTokenizerPtr make_cut_before(std::string mark) {
  return std::make_unique<CutBefore>(std::move(mark));
}

PreTokenizerPtr make_cut_unless_joined(std::unique_ptr<const BytePairs> joined) {
  return std::make_unique<CutUnlessJoined>(std::move(joined));
}

PreTokenizerPtr make_sequence(std::vector<PreTokenizerPtr> stages) {
  if (stages.size() == 1) return std::move(stages.front());
  return std::make_unique<Sequence>(std::move(stages));
}

}  // namespace volley::text
