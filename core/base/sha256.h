#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace volley {

// SHA-256 (FIPS 180-4) of bytes given in any number of pieces, by the fastest code that libcrypto has for the
// processor.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  Sha256& update(std::span<const std::byte> bytes);
  // The 64 hexadecimal digits of the digest. The last call.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace volley
