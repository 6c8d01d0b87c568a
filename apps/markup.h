#pragma once

#include <string>
#include <string_view>

namespace volley::apps {

// Text as HTML and XML take it, in elements and in attributes between double quotes. Control characters but
// ends of lines and tabs have no place there and become spaces.
std::string escaped_markup(std::string_view text);

}  // namespace volley::apps
