#include "text/constraint/pattern.h"

#include <optional>
#include <utility>

#include "core/io/untrusted_text.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

const CodePoints kDigits{{'0', '9'}};
const CodePoints kWords{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kSpaces{{'\t', '\r'}, {' ', ' '}};
const CodePoints kLineEnds{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

// What is white space to any dialect: \S is none of it.
CodePoints all_spaces() {
  CodePoints spaces = kSpaces;
  for (char32_t code = 0; code <= 0xFFFF; ++code) {
    if (is_white_space(code)) spaces.add({code, code});
  }
  spaces.add({0xFEFF, 0xFEFF});
  return spaces;
}

}  // namespace

class Pattern::Parser {
 public:
  Parser(std::string_view text, Extent extent) : text_(text), extent_(extent) {}

  Node parse() {
    if (std::ssize(text_) > kMaxBytes) throw Fault{"is longer than " + std::to_string(kMaxBytes) + " bytes"};
    if (!is_valid_utf8(text_)) throw Fault{"is not UTF-8"};
    Node root = alternatives();
    if (!at_end()) fail("')' without '('");
    if (extent_ == Extent::kWhole) return root;
    if ((has_begin_ || has_end_) && root.kind == Node::Kind::kAlternatives) {
      at_ = 0;
      fail("^ or $ beside |: put the alternatives into a group");
    }
    Node any{.kind = Node::Kind::kRepeat};
    any.parts.push_back({.kind = Node::Kind::kCharacter, .set = CodePoints().complement()});
    Node searched;
    if (!has_begin_) searched.parts.push_back(any);
    searched.parts.push_back(std::move(root));
    if (!has_end_) searched.parts.push_back(any);
    return searched;
  }

 private:
  bool at_end() const { return at_ == text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[at_]; }
  bool take(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }

  // Names the character at `at_`.
  [[noreturn]] void fail(const std::string& fault) const {
    int64_t number = 1;
    for (size_t i = 0; i < at_; i += character_at(text_, i).bytes) ++number;
    throw Fault{"character " + std::to_string(number) + ": " + fault};
  }
  [[noreturn]] void fail_at(size_t place, const std::string& fault) {
    at_ = place;
    fail(fault);
  }

  Node alternatives() {
    Node node = sequence();
    if (peek() != '|' || at_end()) return node;
    Node all{.kind = Node::Kind::kAlternatives};
    all.parts.push_back(std::move(node));
    while (take("|")) all.parts.push_back(sequence());
    return all;
  }

  Node sequence() {
    Node all;
    while (!at_end() && peek() != '|' && peek() != ')') {
      if (peek() == '^') {
        if (at_ != 0) fail("^ stands for the beginning and can only come first");
        has_begin_ = true;
        ++at_;
      } else if (peek() == '$') {
        if (at_ + 1 != text_.size() || depth_ > 0) fail("$ stands for the end and can only come last");
        has_end_ = true;
        ++at_;
      } else {
        all.parts.push_back(counted(atom()));
      }
    }
    return all;
  }

  Node counted(Node node) {
    const size_t place = at_;
    std::pair<int64_t, int64_t> count{1, 1};
    if (take("*")) {
      count = {0, -1};
    } else if (take("+")) {
      count = {1, -1};
    } else if (take("?")) {
      count = {0, 1};
    } else if (take("{")) {
      count = braces(place);
    } else {
      return node;
    }
    if (take("?")) {
      // Which of the matches is found first says nothing of what is matched.
    } else if (peek() == '+') {
      fail("possessive counts are not supported");
    }
    if (peek() == '*' || peek() == '?' || peek() == '{') fail("a count behind a count");
    Node repeat{.kind = Node::Kind::kRepeat, .low = count.first, .high = count.second};
    repeat.parts.push_back(std::move(node));
    return repeat;
  }

  std::pair<int64_t, int64_t> braces(size_t place) {
    const std::optional<int64_t> low = number();
    std::optional<int64_t> high = low;
    if (take(",")) high = number();
    const bool has_limit = high.has_value();
    if (!low || !take("}")) fail_at(place, "expected a count, {m}, {m,} or {m,n}; \\{ is the character");
    if (has_limit && *high < *low) fail_at(place, "a count whose end is below its beginning");
    return {*low, has_limit ? *high : -1};
  }

  std::optional<int64_t> number() {
    const size_t begin = at_;
    int64_t value = 0;
    for (; !at_end() && peek() >= '0' && peek() <= '9'; ++at_) {
      value = value * 10 + (peek() - '0');
      if (value > kMaxCount) fail_at(begin, "a count above " + std::to_string(kMaxCount));
    }
    return at_ == begin ? std::nullopt : std::optional(value);
  }

  Node atom() {
    const size_t place = at_;
    switch (peek()) {
      case '(':
        return group();
      case '[':
        return {.kind = Node::Kind::kCharacter, .set = bracket()};
      case '.':
        ++at_;
        return {.kind = Node::Kind::kCharacter, .set = kLineEnds.complement()};
      case '*':
      case '+':
      case '?':
      case '{':
        fail(std::string("'") + peek() + "' counts nothing; \\" + peek() + " is the character");
      case '\\': {
        ++at_;
        return {.kind = Node::Kind::kCharacter, .set = escape(place, Place::kOutside)};
      }
      default:
        return {.kind = Node::Kind::kCharacter, .set = single(character())};
    }
  }

  Node group() {
    const size_t place = at_++;
    if (take("?")) {
      for (const std::string_view look : {"=", "!", "<=", "<!"}) {
        if (take(look)) fail_at(place, "lookaround '(?" + std::string(look) + "' is not supported");
      }
      if (!take(":")) fail_at(place, "of groups that begin with '(?' only '(?:' is supported");
    }
    if (++depth_ > kMaxDepth) fail_at(place, "groups nest deeper than " + std::to_string(kMaxDepth));
    Node node = alternatives();
    --depth_;
    if (!take(")")) fail_at(place, "'(' without ')'");
    return node;
  }

  static CodePoints single(char32_t code) { return {{code, code}}; }

  char32_t character() {
    const Character found = character_at(text_, at_);
    at_ += found.bytes;
    return found.code;
  }

  enum class Place : uint8_t { kOutside, kBracket };

  // What stands behind a backslash that stands at `place`.
  CodePoints escape(size_t place, Place where) {
    if (at_end()) fail_at(place, "'\\' at the end");
    const char32_t code = character();
    switch (code) {
      case 'd':
        return kDigits;
      case 'w':
        return kWords;
      case 's':
        return kSpaces;
      case 'D':
        return kDigits.complement();
      case 'W':
        return kWords.complement();
      case 'S': {
        static const CodePoints kNoSpaces = all_spaces().complement();
        return kNoSpaces;
      }
      case 'n':
        return single('\n');
      case 'r':
        return single('\r');
      case 't':
        return single('\t');
      case 'f':
        return single('\f');
      case 'v':
        return single('\v');
      case '0':
        if (peek() >= '0' && peek() <= '9') fail_at(place, "octal escapes are not supported; \\xHH is one");
        return single(0);
      case 'x':
        return single(peek() == '{' ? long_code(place) : hex_code(place, 2));
      case 'u':
        return single(peek() == '{' ? long_code(place) : hex_code(place, 4));
      default:
        break;
    }
    if (code >= '1' && code <= '9') fail_at(place, "references to groups are not supported");
    if ((code == 'b' || code == 'B') && where == Place::kOutside)
      fail_at(place, "word borders are not supported");
    if (code == 'b') return single('\b');
    if (code == 'p' || code == 'P') fail_at(place, "\\p classes are not supported");
    const bool is_name = kWords.intersection(single(code)).ranges().size() == 1 && code != '_';
    std::string spelled;
    append_utf8(spelled, code);
    if (is_name) fail_at(place, "unknown escape '\\" + spelled + "'");
    return single(code);
  }

  static int digit_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  }

  char32_t checked(size_t place, char32_t code) {
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) fail_at(place, "no character has this number");
    return code;
  }

  char32_t hex_code(size_t place, int digits) {
    char32_t code = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const int digit = digit_of(peek());
      if (digit < 0) fail_at(place, "expected " + std::to_string(digits) + " hexadecimal digits");
      code = code * 16 + static_cast<char32_t>(digit);
    }
    return checked(place, code);
  }

  char32_t long_code(size_t place) {
    ++at_;
    char32_t code = 0;
    int digits = 0;
    for (; digit_of(peek()) >= 0 && digits < 7; ++at_, ++digits)
      code = code * 16 + static_cast<char32_t>(digit_of(peek()));
    if (digits == 0 || !take("}")) fail_at(place, "expected hexadecimal digits and '}'");
    return checked(place, code);
  }

  CodePoints bracket() {
    const size_t place = at_++;
    const bool is_negated = take("^");
    CodePoints set;
    for (bool is_first = true; is_first || peek() != ']'; is_first = false) {
      if (at_end()) fail_at(place, "'[' without ']'");
      if (is_first && peek() == ']') fail("an empty class; \\] is the character");
      if (text_.substr(at_).starts_with("[:")) fail("classes by name are not supported");
      const size_t begin = at_;
      const CodePoints low = bracket_part();
      if (at_end()) fail_at(place, "'[' without ']'");
      const bool is_range = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (!is_range) {
        set.add(low);
        continue;
      }
      ++at_;
      const CodePoints high = bracket_part();
      if (!is_one(low) || !is_one(high)) fail_at(begin, "a range needs a character at both ends");
      if (low.ranges()[0].low > high.ranges()[0].low)
        fail_at(begin, "a range whose end is below its beginning");
      set.add({low.ranges()[0].low, high.ranges()[0].low});
    }
    ++at_;
    return is_negated ? set.complement() : set;
  }

  CodePoints bracket_part() {
    const size_t place = at_;
    if (take("\\")) return escape(place, Place::kBracket);
    return single(character());
  }

  static bool is_one(const CodePoints& set) {
    return set.ranges().size() == 1 && set.ranges()[0].low == set.ranges()[0].high;
  }

  std::string_view text_;
  Extent extent_;
  size_t at_ = 0;
  int64_t depth_ = 0;
  bool has_begin_ = false, has_end_ = false;
};

Result<Pattern> Pattern::parse(std::string_view text, Extent extent) {
  try {
    Pattern pattern;
    pattern.root_ = Parser(text, extent).parse();
    return pattern;
  } catch (const Fault& fault) {
    return fault;
  }
}

ByteGraph::Node Pattern::add(const Node& node, ByteGraph& graph, ByteGraph::Node from, Spelling spelling) {
  switch (node.kind) {
    case Node::Kind::kCharacter: {
      const ByteGraph::Node to = graph.add_node();
      add_character(graph, from, node.set, spelling, to);
      return to;
    }
    case Node::Kind::kSequence:
      for (const Node& part : node.parts) from = add(part, graph, from, spelling);
      return from;
    case Node::Kind::kAlternatives: {
      const ByteGraph::Node to = graph.add_node();
      for (const Node& part : node.parts) graph.add_empty(add(part, graph, from, spelling), to);
      return to;
    }
    case Node::Kind::kRepeat:
      break;
  }
  // A node of its own for each time, so that an empty part counts against the limit, too.
  const auto once_more = [&](ByteGraph::Node begin) {
    const ByteGraph::Node inner = graph.add_node();
    graph.add_empty(begin, inner);
    return add(node.parts[0], graph, inner, spelling);
  };
  for (int64_t i = 0; i < node.low; ++i) from = once_more(from);
  if (node.high < 0) {
    const ByteGraph::Node loop = graph.add_node();
    graph.add_empty(from, loop);
    graph.add_empty(add(node.parts[0], graph, loop, spelling), loop);
    return loop;
  }
  const ByteGraph::Node end = graph.add_node();
  for (int64_t i = node.low; i < node.high; ++i) {
    graph.add_empty(from, end);
    from = once_more(from);
  }
  graph.add_empty(from, end);
  return end;
}

ByteGraph::Node Pattern::add_to(ByteGraph& graph, ByteGraph::Node from, Spelling spelling) const {
  return add(root_, graph, from, spelling);
}

Result<ByteAutomaton> compile_pattern(std::string_view text) {
  Result<Pattern> pattern = Pattern::parse(text, Pattern::Extent::kWhole);
  if (!pattern) return pattern.fault();
  try {
    ByteGraph graph;
    const ByteGraph::Node start = graph.add_node();
    const ByteGraph::Node accept = pattern.value().add_to(graph, start, Spelling::kPlain);
    return graph.determinize(start, accept);
  } catch (const Fault& fault) {
    return fault;
  }
}

}  // namespace volley::text
