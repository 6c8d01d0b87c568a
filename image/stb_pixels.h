#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/base/error.h"
#include "image/picture.h"

namespace volley::image {

// Takes what stb's encoders write: `context` is a std::string.
void append_bytes(void* context, void* data, int size);

// An encoder gave up, for which it has one reason only.
[[noreturn]] void throw_no_memory(int64_t width, int64_t height);

// Empty if a picture of that size is taken; else why not.
std::string size_fault(int64_t width, int64_t height);

// The pixels of a file of the named format by stb's decoder. Faults: a picture beyond the limits, and what
// the decoder refuses.
Result<RgbaPicture> unpack_with_stb(std::span<const std::byte> file, const std::string& format);

}  // namespace volley::image
