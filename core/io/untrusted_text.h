#pragma once

#include <string>
#include <string_view>

namespace volley {

// Text out of an untrusted file, made fit for a one-line message: in single quotes, cut to about a
// hundred bytes, with control characters and bytes that are not UTF-8 written as \xNN.
std::string quote(std::string_view text);

// The same without quotes and with room for `limit` bytes.
std::string printable(std::string_view text, size_t limit);

// True if `text` is well-formed UTF-8: shortest forms only, no surrogates, nothing above U+10FFFF.
bool is_valid_utf8(std::string_view text);

}  // namespace volley
