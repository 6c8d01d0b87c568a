#include "text/tokenizer/byte_alphabet.h"

#include <array>

#include "text/tokenizer/unicode.h"

namespace volley::text {
namespace {

constexpr char32_t kEnd = 0x144;

// Printable bytes of Latin-1 stand for themselves; the others follow from U+0100 on, in order.
constexpr std::array<char32_t, 256> make_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool is_printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    characters[byte] = is_printable ? byte : next++;
  }
  return characters;
}

constexpr std::array<int16_t, kEnd> make_bytes() {
  std::array<int16_t, kEnd> bytes{};
  for (int16_t& byte : bytes) byte = -1;
  const std::array<char32_t, 256> characters = make_characters();
  for (size_t byte = 0; byte < 256; ++byte) bytes[characters[byte]] = static_cast<int16_t>(byte);
  return bytes;
}

constexpr std::array<char32_t, 256> kCharacters = make_characters();
constexpr std::array<int16_t, kEnd> kBytes = make_bytes();

}  // namespace

std::string spell_bytes(std::string_view bytes) {
  std::string spelled;
  for (const char c : bytes) append_utf8(spelled, kCharacters[static_cast<unsigned char>(c)]);
  return spelled;
}

bool unspell_bytes(std::string_view spelled, std::string& bytes) {
  bytes.clear();
  for (size_t at = 0; at < spelled.size();) {
    const Character found = character_at(spelled, at);
    if (found.code >= kEnd || kBytes[found.code] < 0) return false;
    bytes += static_cast<char>(kBytes[found.code]);
    at += found.bytes;
  }
  return true;
}

}  // namespace volley::text
