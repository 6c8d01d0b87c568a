// Tries against looking through all strings.
#include "text/tokenizer/packed_trie.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/support/toy_models.h"

namespace volley::text {
namespace {

using Found = std::map<size_t, int32_t>;  // length, value

Found by_trie(const PackedTrie<int32_t>& trie, std::string_view text) {
  Found found;
  trie.prefixes(text, [&](size_t length, int32_t value) {
    EXPECT_TRUE(found.empty() || length > found.rbegin()->first);
    found[length] = value;
  });
  return found;
}

// Strings of few or of all bytes: deep tries, and nodes with up to 256 children.
TEST(PackedTrie, FindsEveryStringThatATextBeginsWith) {
  int64_t several = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    test::TestRandom random(seed);
    const int64_t letters = seed % 3 == 0 ? 2 : seed % 3 == 1 ? 12 : 256;
    const auto word = [&](int64_t longest) {
      std::string made;
      for (int64_t i = 1 + random.below(longest); i > 0; --i)
        made += static_cast<char>(random.below(letters));
      return made;
    };
    std::map<std::string, int32_t> strings;
    PrefixTrie builder;
    const int64_t count = 1 + random.below(3000);
    for (int32_t i = 0; i < count; ++i) {
      const std::string made = word(9);
      if (!strings.try_emplace(made, i).second) continue;
      ASSERT_TRUE(builder.add(made, i).ok());
    }
    const PackedTrie<int32_t> trie(builder, [](int32_t value) { return value + 1; });
    for (int i = 0; i < 300; ++i) {
      const std::string text = word(12);
      Found expected;
      for (size_t length = 1; length <= text.size(); ++length) {
        const auto it = strings.find(text.substr(0, length));
        if (it != strings.end()) expected[length] = it->second + 1;
      }
      ASSERT_EQ(by_trie(trie, text), expected) << "seed " << seed;
      several += expected.size() > 1;
    }
    for (const auto& [string, value] : strings) EXPECT_EQ(by_trie(trie, string).rbegin()->second, value + 1);
  }
  EXPECT_GT(several, 100);
}

TEST(PackedTrie, OneWithoutStringsFindsNone) {
  const PackedTrie<int32_t> trie(PrefixTrie{}, [](int32_t value) { return value; });
  EXPECT_TRUE(by_trie(trie, std::string("\0\xff x", 4)).empty());
}

}  // namespace
}  // namespace volley::text
