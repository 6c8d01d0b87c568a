#include "core/base/sha256.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace volley {
namespace {

std::string hash(std::string_view text) {
  return sha256_hex(std::as_bytes(std::span(text)));
}

// Ref: FIPS 180-4 examples; NIST CAVP, SHA256ShortMsg.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesDoNotMatter) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (size_t length : {54u, 55u, 56u, 63u, 64u, 65u, 119u, 120u, 128u, 300u}) {
    const std::string_view whole = std::string_view(text).substr(0, length);
    for (size_t piece : {1u, 3u, 63u, 64u, 65u}) {
      Sha256 pieces;
      for (size_t i = 0; i < length; i += piece)
        pieces.update(std::as_bytes(std::span(whole.substr(i, piece))));
      EXPECT_EQ(pieces.hex(), hash(whole)) << length << " in pieces of " << piece;
    }
  }
}

}  // namespace
}  // namespace volley
