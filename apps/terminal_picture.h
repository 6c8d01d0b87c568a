#pragma once

#include <cstdint>
#include <string>

#include "image/picture.h"

namespace volley::apps {

// A picture for a terminal in 24-bit colour: lines of upper half blocks, two pixels one above the other in
// each character, scaled down to at most `columns` characters and `lines` lines, of each at least one. Each
// line ends with a reset and a line feed.
std::string terminal_picture(const image::Picture& picture, int64_t columns, int64_t lines);

}  // namespace volley::apps
