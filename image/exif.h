#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace volley::image {

// How the pixels of a file lie, by the names of the EXIF standard: where row 0 and column 0 of the file are
// in the picture that is meant.
enum class Orientation : uint8_t {
  kTopLeft = 1,  // as they are
  kTopRight,     // mirrored left to right
  kBottomRight,  // upside down
  kBottomLeft,   // mirrored top to bottom
  kLeftTop,      // rows are columns
  kRightTop,     // to be turned clockwise by a quarter
  kRightBottom,  // rows are columns, upside down
  kLeftBottom,   // to be turned counterclockwise by a quarter
};

// The orientation that EXIF data states, with or without its name "Exif" in front. Data that is broken or
// states none says kTopLeft: it takes nothing from the pixels. Ref: CIPA DC-008 (Exif 2.32), 4.6.4;
// TIFF 6.0, section 2
Orientation read_orientation(std::span<const std::byte> exif);

}  // namespace volley::image
