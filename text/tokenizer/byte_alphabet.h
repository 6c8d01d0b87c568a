#pragma once

#include <string>
#include <string_view>

namespace volley::text {

// GPT-2's spelling of bytes as printable characters, in which byte-level vocabularies are written: "Ġ" is
// a space. Ref: encoder.py of openai/gpt-2.
std::string spell_bytes(std::string_view bytes);

// The bytes that `spelled` stands for; false if a character of it stands for none.
bool unspell_bytes(std::string_view spelled, std::string& bytes);

}  // namespace volley::text
