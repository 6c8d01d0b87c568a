#pragma once

#include <string>
#include <vector>

#include "image/animation.h"

namespace volley::test {

// The frames of an animation file as the formats' own libraries show them; empty if it is none.
std::vector<image::Animation::Frame> read_webp_frames(const std::string& file);
std::vector<image::Animation::Frame> read_gif_frames(const std::string& file);

// Smooth, so that lossy formats stay near it, with more colours than a GIF frame holds.
image::Picture smooth_picture(int64_t width, int64_t height, int64_t shift = 0);

}  // namespace volley::test
