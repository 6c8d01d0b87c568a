// What is accepted lies within the file, every byte readable.

#include "core/io/npy.h"
#include "tests/fuzz/fuzz_target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace volley;
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  const auto array = parse_npy(input);
  if (!array.ok()) {
    fuzz::require(array.fault().message.find('\n') == std::string::npos);
    return 0;
  }
  fuzz::require(array.value().bytes() >= 0 && array.value().bytes() <= std::ssize(input));
  fuzz::touch(array.value());
  return 0;
}
