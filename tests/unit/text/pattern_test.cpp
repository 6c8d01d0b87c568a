// Regular expressions as automata over bytes.
#include "text/constraint/pattern.h"

#include <gtest/gtest.h>

#include <functional>
#include <regex>

#include "tests/support/sanitized.h"
#include "tests/support/toy_models.h"
#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

ByteAutomaton compiled(std::string_view pattern) {
  Result<ByteAutomaton> made = compile_pattern(pattern);
  EXPECT_TRUE(made.ok()) << pattern << ": " << made.fault().message;
  return std::move(made).value_or_throw(pattern);
}

std::string fault_of(std::string_view pattern) {
  const Result<ByteAutomaton> made = compile_pattern(pattern);
  return made.ok() ? "no fault" : made.fault().message;
}

std::string utf8(char32_t code) {
  std::string text;
  append_utf8(text, code);
  return text;
}

// Patterns of every kind over a few letters.
std::string random_pattern(test::TestRandom& random, int depth) {
  switch (random.below(depth > 0 ? 9 : 4)) {
    case 0:
    case 1:
      return std::string(1, static_cast<char>('a' + random.below(3)));
    case 2:
      return random.below(2) == 0 ? "[ab]" : "[^a]";
    case 3:
      return random.below(2) == 0 ? "." : "[b-c]";
    case 4:
    case 5:
      return random_pattern(random, depth - 1) + random_pattern(random, depth - 1);
    case 6:
      return "(" + random_pattern(random, depth - 1) + "|" + random_pattern(random, depth - 1) + ")";
    case 7: {
      static const std::vector<std::string> kCounts{"*", "+", "?", "{2}", "{0,2}", "{1,}", "{0}", "{2,3}"};
      return "(?:" + random_pattern(random, depth - 1) + ")" + kCounts[static_cast<size_t>(random.below(8))];
    }
    default:
      return "(|" + random_pattern(random, depth - 1) + ")";
  }
}

TEST(PatternTest, MatchesWhatAnotherEngineMatches) {
  std::vector<std::string> texts{""};
  for (size_t i = 0; texts[i].size() < 5; ++i) {
    for (const char c : {'a', 'b', 'c'}) texts.push_back(texts[i] + c);
  }
  test::TestRandom random(1);
  int64_t matched = 0, refused = 0;
  const int patterns = test::kSanitized ? 60 : 300;
  for (int i = 0; i < patterns; ++i) {
    const std::string pattern = random_pattern(random, 4);
    const std::regex other(pattern);
    const Result<ByteAutomaton> made = compile_pattern(pattern);
    ASSERT_TRUE(made.ok()) << pattern;
    for (const std::string& text : texts) {
      const bool expected = std::regex_match(text, other);
      ASSERT_EQ(made.value().matches(text), expected) << pattern << " on '" << text << "'";
      (expected ? matched : refused) += 1;
    }
  }
  EXPECT_GT(matched, 10 * patterns);
  EXPECT_GT(refused, 30 * patterns);
}

// From every state that a text leads to, the rest of some match goes on.
TEST(PatternTest, EveryStateLeadsToAMatch) {
  for (const char* pattern : {"a(b|cd)*e", "[ab]{3}x|yy", "(a|ab)(c|bcd)", "a[^\\x00-\\x{10FFFF}]|b"}) {
    const ByteAutomaton automaton = compiled(pattern);
    for (ByteAutomaton::State state = 0; state < automaton.states(); ++state) {
      std::vector<bool> seen(static_cast<size_t>(automaton.states()));
      std::vector<ByteAutomaton::State> open{state};
      bool accepts = false;
      while (!open.empty()) {
        const ByteAutomaton::State at = open.back();
        open.pop_back();
        if (seen[static_cast<size_t>(at)]) continue;
        seen[static_cast<size_t>(at)] = true;
        accepts = accepts || automaton.accepts(at);
        for (int byte = 0; byte < 256; ++byte) {
          const auto next = automaton.next(at, static_cast<unsigned char>(byte));
          if (next != ByteAutomaton::kBroken) open.push_back(next);
        }
      }
      EXPECT_TRUE(accepts) << pattern << ", state " << state;
    }
  }
  EXPECT_EQ(compiled("a[^\\x00-\\x{10FFFF}]|b").next(0, 'a'), ByteAutomaton::kBroken) << "a leads nowhere";
}

// Every character, by its UTF-8, against the set it is in.
TEST(PatternTest, ClassesHoldTheirCharacters) {
  const std::vector<std::pair<std::string, std::function<bool(char32_t)>>> cases{
      {".", [](char32_t c) { return c != '\n' && c != '\r' && c != 0x2028 && c != 0x2029; }},
      {"[^a]", [](char32_t c) { return c != 'a'; }},
      {"[é-ÿ]", [](char32_t c) { return c >= 0xE9 && c <= 0xFF; }},
      {"[\\u07f0-\\u0810]", [](char32_t c) { return c >= 0x7F0 && c <= 0x810; }},
      {"[\\uFFF0-\\x{10010}]", [](char32_t c) { return c >= 0xFFF0 && c <= 0x10010; }},
      {"[a-z😀世]", [](char32_t c) { return (c >= 'a' && c <= 'z') || c == U'😀' || c == U'世'; }},
      {"\\d", [](char32_t c) { return c >= '0' && c <= '9'; }},
      {"[^\\w]", [](char32_t c) { return c >= 128 || (std::isalnum(static_cast<int>(c)) == 0 && c != '_'); }},
      {"\\W", [](char32_t c) { return c >= 128 || (std::isalnum(static_cast<int>(c)) == 0 && c != '_'); }},
      {"\\s", [](char32_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }},
      {"\\S", [](char32_t c) { return !is_white_space(c) && c != 0xFEFF; }},
      {"[\\x{1000}-\\x{10FFFF}]", [](char32_t c) { return c >= 0x1000; }},
      {"[\\]\\-^]", [](char32_t c) { return c == ']' || c == '-' || c == '^'; }},
      {"[-a]", [](char32_t c) { return c == '-' || c == 'a'; }},
  };
  for (const auto& [pattern, holds] : cases) {
    const ByteAutomaton automaton = compiled(pattern);
    const char32_t stride = test::kSanitized ? 61 : 1;  // beyond where any of these classes begins or ends
    for (char32_t code = 0; code <= 0x10FFFF; code += code > 0x1F700 ? stride : 1) {
      if (code == 0xD800) code = 0xE000;
      ASSERT_EQ(automaton.matches(utf8(code)), holds(code)) << pattern << ", character " << uint32_t{code};
    }
  }
  // What is no character matches nothing: lone bytes, long forms, surrogates, beyond the last.
  const ByteAutomaton any = compiled("[\\x00-\\x{10FFFF}]*");
  for (const char* bad : {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xC3"}) {
    EXPECT_FALSE(any.matches(bad));
  }
  EXPECT_NE(any.next(any.start(), "\xC3"), ByteAutomaton::kBroken)
      << "the first half of a character may come";
}

TEST(PatternTest, SyntaxIsAsDocumented) {
  const std::vector<std::tuple<std::string, std::string, std::string>> cases{
      // pattern, what it matches, what it does not
      {"^abc$", "abc", "abcd"},
      {"^a|b$", "b", "ab"},
      {"a{2,3}?", "aaa", "aaaa"},
      {"a\\{2\\}", "a{2}", "aa"},
      {"(?:ab)+?c", "ababc", "c"},
      {"\\x41\\u0042\\x{43}\\n\\t\\0", std::string("ABC\n\t\0", 6), "ABC"},
      {"\\.\\*\\/\\\\", ".*/\\", "x*/\\"},
      {"}]", "}]", "}"},
      {"", "", "a"},
      {"\\d{4}-\\d\\d", "2024-05", "2024-5"},
      {"日本?語", "日語", "日本"},
      {"[\\b]", "\b", "b"},
  };
  for (const auto& [pattern, yes, no] : cases) {
    EXPECT_TRUE(compiled(pattern).matches(yes)) << pattern;
    EXPECT_FALSE(compiled(pattern).matches(no)) << pattern;
  }
}

TEST(PatternTest, FaultsNameThePlace) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"ab(c", "character 3: '(' without ')'"},
      {"ab)c", "character 3: ')' without '('"},
      {"é[a", "character 2: '[' without ']'"},
      {"(a)\\1", "character 4: references to groups are not supported"},
      {"a(?=b)", "character 2: lookaround '(?=' is not supported"},
      {"a(?<!b)", "character 2: lookaround '(?<!' is not supported"},
      {"(?i)a", "character 1: of groups that begin with '(?' only '(?:' is supported"},
      {"(?<n>a)", "character 1: of groups that begin with '(?' only '(?:' is supported"},
      {"*a", "character 1: '*' counts nothing; \\* is the character"},
      {"a**", "character 3: a count behind a count"},
      {"a++", "character 3: possessive counts are not supported"},
      {"a{3,2}", "character 2: a count whose end is below its beginning"},
      {"a{x}", "character 2: expected a count, {m}, {m,} or {m,n}; \\{ is the character"},
      {"a{99999}", "character 3: a count above 10000"},
      {"a\\bb", "character 2: word borders are not supported"},
      {"\\p{L}", "character 1: \\p classes are not supported"},
      {"\\q", "character 1: unknown escape '\\q'"},
      {"a\\", "character 2: '\\' at the end"},
      {"[]", "character 2: an empty class; \\] is the character"},
      {"[z-a]", "character 2: a range whose end is below its beginning"},
      {"[\\d-z]", "character 2: a range needs a character at both ends"},
      {"[[:alpha:]]", "character 2: classes by name are not supported"},
      {"\\xg1", "character 1: expected 2 hexadecimal digits"},
      {"\\uD800", "character 1: no character has this number"},
      {"\\x{110000}", "character 1: no character has this number"},
      {"\\01", "character 1: octal escapes are not supported; \\xHH is one"},
      {"a^b", "character 2: ^ stands for the beginning and can only come first"},
      {"a$b", "character 2: $ stands for the end and can only come last"},
      {"(a$)", "character 3: $ stands for the end and can only come last"},
      {"\xff", "is not UTF-8"},
      {"[^\\x00-\\x{10FFFF}]", "matches nothing"},
      {std::string(300, '('), "character 201: groups nest deeper than 200"},
      {std::string(70000, 'a'), "is longer than 65536 bytes"},
  };
  for (const auto& [pattern, message] : cases) EXPECT_EQ(fault_of(pattern), message) << pattern.substr(0, 40);
}

TEST(PatternTest, WhatIsTooLargeIsRefusedSoon) {
  for (const char* pattern : {"((a{1000}){1000}){1000}", "(((){10000}){10000}){10000}", "(a|b)*a(a|b){40}",
                              "(.{900}){900}", "((a?){1000}){900}"}) {
    EXPECT_TRUE(fault_of(pattern).starts_with("is too large: more than "))
        << pattern << ": " << fault_of(pattern);
  }
}

TEST(PatternTest, JsonSpellingEscapesWhatJsonMust) {
  const auto matches = [](std::string_view source, std::string_view text) {
    const Result<Pattern> pattern = Pattern::parse(source, Pattern::Extent::kSearch);
    ByteGraph graph;
    const ByteGraph::Node start = graph.add_node();
    const auto made = graph.determinize(start, pattern.value().add_to(graph, start, Spelling::kJsonString));
    return made.value().matches(text);
  };
  EXPECT_TRUE(matches("^a\"b$", "a\\\"b"));
  EXPECT_FALSE(matches("^a\"b$", "a\"b"));
  EXPECT_TRUE(matches("^\\n\\x01\\\\é$", "\\n\\u0001\\\\é"));
  EXPECT_TRUE(matches("b", "abc")) << "somewhere";
  EXPECT_FALSE(matches("^b", "abc"));
  EXPECT_FALSE(matches("b$", "abc"));
  EXPECT_TRUE(matches("^[^a]$", "\\\""));
  EXPECT_FALSE(matches("^[^a]$", "\""));
  const Result<Pattern> mixed = Pattern::parse("^a|b", Pattern::Extent::kSearch);
  EXPECT_EQ(mixed.fault().message, "character 1: ^ or $ beside |: put the alternatives into a group");
}

}  // namespace
}  // namespace volley::text
