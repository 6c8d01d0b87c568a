#pragma once

#include <cstdint>
#include <string>

namespace volley::image {

// What is taken for a picture, written or read, in any format.
inline constexpr int64_t kMaxSide = 16384;
inline constexpr int64_t kMaxPixels = int64_t{1} << 26;

// Empty if a picture of that size is taken; else why not.
std::string size_fault(int64_t width, int64_t height);

// A library that packs pixels gave up, for which it has one reason only.
[[noreturn]] void throw_no_memory(int64_t width, int64_t height);

}  // namespace volley::image
