#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace volley {

// SHA-256 (FIPS 180-4) of bytes given in any number of pieces.
class Sha256 {
 public:
  Sha256& update(std::span<const std::byte> bytes);
  // The 64 hexadecimal digits of the digest. The last call.
  std::string hex();

 private:
  void block(const std::byte* bytes);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_{};
  uint64_t length_ = 0;  // bytes so far
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace volley
