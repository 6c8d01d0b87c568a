#pragma once

#include <string>
#include <string_view>

#include "core/base/error.h"

namespace volley::image {

// An XMP packet whose one property is the text of a run record. JPEG, WebP and GIF files carry it.
// Ref: Adobe, XMP Specification Part 1
std::string make_xmp(std::string_view record);

// The run record of a packet, wherever other programs have moved it. Faults: there is none, it has no end, an
// entity in it is unknown, it is not UTF-8.
Result<std::string> read_xmp_record(std::string_view packet);

}  // namespace volley::image
