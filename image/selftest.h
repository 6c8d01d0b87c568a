#pragma once

#include <cstdint>
#include <stop_token>
#include <string>

#include "image/image_model.h"

namespace volley::image {

// What a small fixed generation gave.
struct SelftestReport {
  int64_t tokens = 0;
  std::string token_hash;
  // Empty: tokens are in range and repeat (sequential decoding and jacobi, or alone and in company) and
  // pixels are finite and not all alike. Else the first thing that is wrong.
  std::string fault;
};

// Decodes a few codes (of a random-order model, a whole picture in few steps) of class 0, or of made-up text
// features, with seed 0 and without guidance; with `pixels`, decodes a picture of them as well. Throws Error.
enum class SelftestPixels : uint8_t { kYes, kNo };
SelftestReport run_selftest(const ImageModel& model, SelftestPixels pixels, const std::stop_token& stop);

}  // namespace volley::image
