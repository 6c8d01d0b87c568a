// Token sets of automata, over vocabularies whose tokens are characters, parts of them, and many.
#include "text/constraint/token_constraint.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/support/sanitized.h"
#include "tests/support/toy_models.h"
#include "text/constraint/text_constraint.h"
#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/read_tokenizer.h"

namespace volley::text {
namespace {

using State = Constraint::State;

std::shared_ptr<const ByteAutomaton> automaton_of(const std::string& pattern) {
  return make_text_constraint(ConstraintKind::kRegex, pattern, "test").automaton;
}

// All bytes, some words that overlap, one twice, and a special token that is spelled like a word.
TokenizerPtr byte_level() {
  TokenizerArrays arrays{.model = "gpt2", .pre = "gpt-2"};
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    arrays.tokens.push_back(spell_bytes({&c, 1}));
  }
  for (const char* token :
       {"ab", "abc", "abca", " a", "世", "世界", "\xE4\xB8", "\x96\xE7", "cab", "1", "12", "\"a"})
    arrays.tokens.push_back(spell_bytes(token));
  arrays.tokens.emplace_back("<|end|>");
  arrays.types.assign(arrays.tokens.size(), TokenizerArrays::kNormal);
  arrays.types.back() = TokenizerArrays::kControl;
  return make_tokenizer(arrays, "test");
}

// Drops the first space of a text; has a token for every byte.
TokenizerPtr scored() {
  TokenizerArrays arrays{.model = "llama"};
  const std::string mark = "\xe2\x96\x81";
  for (const std::string& token : {std::string("<unk>"), mark, mark + "a", std::string("a"),
                                   std::string("ab"), mark + mark + "b", std::string("b")}) {
    arrays.tokens.push_back(token);
    arrays.types.push_back(TokenizerArrays::kNormal);
  }
  arrays.types[0] = TokenizerArrays::kUnknown;
  arrays.special_ids.unk = 0;
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(byte));
    arrays.tokens.emplace_back(name);
    arrays.types.push_back(TokenizerArrays::kByte);
  }
  arrays.scores.assign(arrays.tokens.size(), 0.0f);
  return make_tokenizer(arrays, "test");
}

TEST(TokenConstraint, AllowsWhatTheAutomatonTakesAndNothingElse) {
  test::TestRandom random(1);
  for (const TokenizerPtr& tokenizer : {byte_level(), scored()}) {
    for (const char* pattern :
         {"(ab|c)*", "[世界]+", "a*b?", ".{0,6}", "\\d+(,\\d+)*", "( ?a){2,5}", "<\\|end\\|>"}) {
      const auto automaton = automaton_of(pattern);
      const TokenConstraint constraint(automaton, tokenizer);
      for (int walk = 0; walk < (test::kSanitized ? 4 : 20); ++walk) {
        State state = constraint.start();
        std::vector<int32_t> ids;
        while (ids.size() < 12) {
          const std::string text = tokenizer->decode(ids);
          const auto reached = automaton->next(automaton->start(), text);
          EXPECT_EQ(constraint.accepts(state), automaton->accepts(reached));
          const auto allowed = constraint.allowed(state);
          std::vector<int32_t> choices;
          for (int32_t token = -1; token < tokenizer->vocab_size() + 2; ++token) {
            std::vector<int32_t> longer = ids;
            longer.push_back(token);
            const bool is_in = token >= 0 && token < tokenizer->vocab_size();
            const std::string whole = is_in ? tokenizer->decode(longer, DecodeSpecials::kKeep) : text;
            const bool expected = is_in && !tokenizer->is_special(token) &&
                                  token != tokenizer->special_ids().unk && whole.size() > text.size() &&
                                  automaton->next(automaton->start(), whole) != ByteAutomaton::kBroken;
            ASSERT_EQ(allowed->contains(token), expected) << pattern << " behind '" << text << "', " << token;
            ASSERT_EQ(constraint.next(state, token) != Constraint::kBroken, expected);
            if (expected) choices.push_back(token);
          }
          if (choices.empty()) {
            EXPECT_TRUE(constraint.accepts(state)) << pattern << ": bytes can always go on";
            break;
          }
          ids.push_back(choices[static_cast<size_t>(random.below(std::ssize(choices)))]);
          state = constraint.next(state, ids.back());
        }
      }
      EXPECT_EQ(constraint.next(Constraint::kBroken, 'a'), Constraint::kBroken);
    }
  }
}

TEST(TokenConstraint, PartsOfCharactersMayCome) {
  const TokenConstraint constraint(automaton_of("世"), byte_level());
  const auto tokenizer = byte_level();
  const State half = constraint.next(constraint.start(), tokenizer->find(spell_bytes("\xE4\xB8")));
  ASSERT_NE(half, Constraint::kBroken);
  EXPECT_FALSE(constraint.accepts(half));
  std::vector<int32_t> after;
  constraint.allowed(half)->for_each([&](int32_t token) { after.push_back(token); });
  EXPECT_EQ(after, std::vector<int32_t>{tokenizer->find(spell_bytes("\x96"))});
}

// Where the next bytes can be no others, the longest token of them is foreseen; where there is a choice,
// none.
TEST(TokenConstraint, ForeseesWhatCannotBeOtherwise) {
  const TokenizerPtr tokenizer = byte_level();
  const auto foreseen = [&](const std::string& pattern, const std::string& before = "") {
    const TokenConstraint constraint(automaton_of(pattern), tokenizer);
    State state = constraint.start();
    for (const char byte : before) state = constraint.next(state, tokenizer->find(spell_bytes({&byte, 1})));
    const int32_t token = constraint.foreseen(state);
    return token < 0 ? "-" : std::string(tokenizer->token_bytes(token));
  };
  EXPECT_EQ(foreseen("abcab"), "abca");
  EXPECT_EQ(foreseen("abcab", "a"), "b");
  EXPECT_EQ(foreseen("abcab", "abca"), "b");
  EXPECT_EQ(foreseen("ab(ca|x)"), "ab") << "what comes behind the choice is open";
  EXPECT_EQ(foreseen("ab(ca|x)", "ab"), "-");
  EXPECT_EQ(foreseen("世界"), "世界");
  EXPECT_EQ(foreseen("世界", "\xE4"), "\xB8");
  EXPECT_EQ(foreseen("a*b"), "-");
  EXPECT_EQ(foreseen("[ab]1"), "-");
  EXPECT_EQ(foreseen("ab", "ab"), "-") << "nothing may come";
  // The end may come, too.
  const TokenConstraint open(automaton_of("a(bc)?"), tokenizer);
  const ConstraintCursor behind = ConstraintCursor(&open, {}).after(tokenizer->find("a"));
  EXPECT_EQ(open.foreseen(behind.state()), -1);
  EXPECT_EQ(behind.foreseen(), -1);
  EXPECT_EQ(ConstraintCursor().foreseen(), -1);
}

TEST(TokenConstraint, ThreadsShareOne) {
  const TokenConstraint constraint(automaton_of("(ab|c|1|2)*"), byte_level());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      State state = constraint.start();
      for (int i = 0; i < 200; ++i) {
        std::vector<int32_t> choices;
        constraint.allowed(state)->for_each([&](int32_t token) { choices.push_back(token); });
        state = constraint.next(state, choices[static_cast<size_t>(i) % choices.size()]);
        ASSERT_NE(state, Constraint::kBroken);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace volley::text
