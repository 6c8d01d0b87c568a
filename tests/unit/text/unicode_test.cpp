#include "text/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include "text/tokenizer/byte_alphabet.h"
#include "text/tokenizer/normalizer.h"

namespace volley::text {
namespace {

TEST(Unicode, ReadsWellFormedCharactersOnly) {
  const auto code = [](std::string_view text) { return character_at(text, 0).code; };
  EXPECT_EQ(code("a"), U'a');
  EXPECT_EQ(code("é"), U'é');
  EXPECT_EQ(code("中"), U'中');
  EXPECT_EQ(code("🙂"), U'🙂');
  EXPECT_EQ(code("\xf4\x8f\xbf\xbf"), char32_t{0x10ffff});
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe4\xb8", "\xed\xa0\x80",
        "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_EQ(code(bad), kBadByte);
    EXPECT_EQ(character_at(bad, 0).bytes, 1u);
  }
  for (char32_t c : {U'\x7f', U'\x80', U'\x7ff', U'\x800', U'\xffff', U'\x10000', U'\x10ffff'}) {
    std::string text = "x";
    append_utf8(text, c);
    EXPECT_EQ(character_at(text, 1).code, c);
    EXPECT_EQ(last_character(text, text.size()), 1u);
  }
}

TEST(Unicode, ReplacesMaximalParts) {
  // As Python's bytes.decode(errors="replace").
  EXPECT_EQ(replace_invalid_utf8("a\xff\xfe"
                                 "b"),
            "a\ufffd\ufffdb");
  EXPECT_EQ(replace_invalid_utf8("\xe4\xb8"), "\ufffd");
  EXPECT_EQ(replace_invalid_utf8("\xf0\x9f\x99"
                                 "a"),
            "\ufffda");
  EXPECT_EQ(replace_invalid_utf8("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");
  EXPECT_EQ(replace_invalid_utf8("\xf0\x80\x80"), "\ufffd\ufffd\ufffd");
  EXPECT_EQ(replace_invalid_utf8("中🙂"), "中🙂");
}

TEST(Unicode, IncompleteTails) {
  EXPECT_EQ(incomplete_tail(""), 0u);
  EXPECT_EQ(incomplete_tail("a"), 0u);
  EXPECT_EQ(incomplete_tail("中"), 0u);
  EXPECT_EQ(incomplete_tail("a\xe4"), 1u);
  EXPECT_EQ(incomplete_tail("a\xe4\xb8"), 2u);
  EXPECT_EQ(incomplete_tail("\xf0\x9f\x99"), 3u);
  EXPECT_EQ(incomplete_tail("\xff"), 0u);
  EXPECT_EQ(incomplete_tail("\xed\xa0"), 0u);  // a surrogate never becomes a character
}

TEST(Unicode, ByteAlphabet) {
  std::string all, back;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  EXPECT_TRUE(unspell_bytes(spell_bytes(all), back));
  EXPECT_EQ(back, all);
  EXPECT_EQ(spell_bytes(" a\n"), "Ġa\u010a");
  EXPECT_FALSE(unspell_bytes("a b", back));
  EXPECT_FALSE(unspell_bytes("中", back));
}

std::string normal(NormalForm form, std::string_view text) {
  std::string storage;
  return std::string(make_normal_form(form)->apply(text, storage));
}

TEST(Normalizer, NormalForms) {
  EXPECT_EQ(normal(NormalForm::kNfc, "xe\u0301y\u0323\u0307z"), "x\u00e9\u1ef5\u0307z");
  EXPECT_EQ(normal(NormalForm::kNfc, "\u1112\u1161\u11ab"), "\ud55c");
  EXPECT_EQ(normal(NormalForm::kNfc, "\u212b\u0344"), "\u00c5\u0308\u0301");
  EXPECT_EQ(normal(NormalForm::kNfd, "\u00e9\ud55c"), "e\u0301\u1112\u1161\u11ab");
  EXPECT_EQ(normal(NormalForm::kNfkc, "\ufb01\u2460\uff21 \u00bd"), "fi1A 1\u20442");
  EXPECT_EQ(normal(NormalForm::kNfkd, "\u00e9\ufb01"), "e\u0301fi");
}

TEST(Normalizer, BytesThatAreNoUtf8StayAndSeparate) {
  EXPECT_EQ(normal(NormalForm::kNfc, "e\xff\u0301\xe4"), "e\xff\u0301\xe4");
  EXPECT_EQ(normal(NormalForm::kNfc,
                   "\xff"
                   "e\u0301\xff"),
            "\xff\u00e9\xff");
}

TEST(Normalizer, Parts) {
  std::string storage;
  EXPECT_EQ(make_strip(StripEnds::kBoth)->apply("\u3000 a b\n", storage), "a b");
  EXPECT_EQ(make_strip(StripEnds::kRight)->apply(" a ", storage), " a");
  EXPECT_EQ(make_lowercase()->apply("ÀİZ\xff", storage), "ài\u0307z\xff");
  EXPECT_EQ(make_strip_accents()->apply("e\u0301\u20e2", storage), "e");
  EXPECT_EQ(make_replace(" ", "▁")->apply("a b", storage), "a▁b");
  EXPECT_EQ(make_regex_replace(" {2,}", " ", "test")->apply("a   b c", storage), "a b c");
  EXPECT_EQ(make_remove_extra_spaces()->apply("  a   b ", storage), "a b");
  EXPECT_EQ(make_prepend("▁")->apply("", storage), "");
  std::vector<NormalizerPtr> stages;
  stages.push_back(make_prepend("xx  "));
  stages.push_back(make_replace("x", " "));
  stages.push_back(make_strip(StripEnds::kBoth));
  stages.push_back(make_lowercase());
  EXPECT_EQ(make_normalizer_sequence(std::move(stages))->apply("A\u0130", storage), "ai\u0307");
}

}  // namespace
}  // namespace volley::text
