#pragma once

#include <cstdint>
#include <span>

namespace volley {

// CRC-32 as in zip, gzip and PNG. `seed` is the result over the bytes before, 0 at the start.
uint32_t crc32(std::span<const std::byte> bytes, uint32_t seed = 0);

}  // namespace volley
