#include <gtest/gtest.h>

#include "core/io/byte_reader.h"
#include "core/io/crc32.h"
#include "core/io/untrusted_text.h"

namespace volley::test {
namespace {

TEST(UntrustedText, ControlCharactersAndBadBytesAreWrittenOut) {
  EXPECT_EQ(quote("plain"), "'plain'");
  EXPECT_EQ(quote("a\nb\x7f"), R"('a\x0ab\x7f')");
  EXPECT_EQ(quote("\xff\xc3"), R"('\xff\xc3')");
  EXPECT_EQ(quote("gr\u00fcn \U0001f600"), "'gr\u00fcn \U0001f600'");
  EXPECT_EQ(quote("\u0085"), R"('\xc2\x85')");
  EXPECT_EQ(quote("a\u2028b"), R"('a\xe2\x80\xa8b')");
  EXPECT_EQ(quote(std::string_view("\0", 1)), R"('\x00')");
}

TEST(UntrustedText, LongTextIsCutBetweenCharacters) {
  const std::string text(1000, 'x');
  EXPECT_EQ(printable(text, 5), "xxxxx...");
  EXPECT_EQ(printable("\u00fc\u00fc\u00fc", 3), "\u00fc\u00fc...");
  EXPECT_EQ(printable("abc", 3), "abc");
}

TEST(UntrustedText, Utf8) {
  for (const char* good : {"", "a", "\u00fc", "\u0800", "\ud7ff", "\uffff", "\U00010000", "\U0010ffff"}) {
    EXPECT_TRUE(is_valid_utf8(good)) << printable(good, 20);
  }
  // Lone continuation, overlong forms, a surrogate, beyond the last character, cut sequences.
  for (const char* bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3("}) {
    EXPECT_FALSE(is_valid_utf8(bad)) << printable(bad, 20);
  }
}

TEST(Crc32, KnownValues) {
  EXPECT_EQ(crc32({}), 0u);
  EXPECT_EQ(crc32(as_bytes("123456789")), 0xcbf43926u);  // the check value of every CRC catalogue
  EXPECT_EQ(crc32(as_bytes("IEND")), 0xae426082u);       // as at the end of every PNG
  EXPECT_EQ(crc32(as_bytes("The quick brown fox jumps over the lazy dog")), 0x414fa339u);
}

TEST(Crc32, PartsGiveTheWhole) {
  const std::string_view text = "The quick brown fox jumps over the lazy dog";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    EXPECT_EQ(crc32(as_bytes(text.substr(cut)), crc32(as_bytes(text.substr(0, cut)))), 0x414fa339u);
  }
}

TEST(ByteReader, FailedReadsMoveNothing) {
  ByteReader reader(as_bytes("\x01\x02\x03"));
  uint16_t two = 0;
  uint32_t four = 0;
  std::span<const std::byte> bytes;
  EXPECT_FALSE(reader.read(four));
  EXPECT_FALSE(reader.read_all(two, two));
  EXPECT_FALSE(reader.take(4, bytes));
  EXPECT_FALSE(reader.take(~uint64_t{0}, bytes));
  EXPECT_FALSE(reader.seek(4));
  EXPECT_EQ(reader.position(), 0u);
  EXPECT_TRUE(reader.read(two));
  EXPECT_EQ(two, 0x0201);
  EXPECT_EQ(reader.remaining(), 1u);
  EXPECT_TRUE(reader.seek(3));
  EXPECT_TRUE(reader.take(0, bytes));
}

}  // namespace
}  // namespace volley::test
