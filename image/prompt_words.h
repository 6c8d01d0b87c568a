#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace volley::image {

// The text with typographic quotes as people's keyboards have them.
std::string with_plain_quotes(std::string_view text);

// Words of a prompt: ASCII letters in lower case, every run of bytes other than ASCII letters, digits and
// bytes from 0x80 up ends one. Typographic quotes count as plain ones.
std::vector<std::string> prompt_words(std::string_view text);

// Whether the text is emoji and nothing else. Ref: Unicode's emoji-data.txt, by blocks.
bool is_emoji_alone(std::string_view text);

// Rows of a hashed table of `buckets` rows whose mean stands for a word w: the FNV-1a hash (32 bits) of <w>,
// and of every part of <w> that is 3, 4 or 5 bytes long and shorter than <w>, in order of length and place.
// Ref: Bojanowski et al., "Enriching Word Vectors with Subword Information".
std::vector<int32_t> word_rows(std::string_view word, int64_t buckets);

}  // namespace volley::image
