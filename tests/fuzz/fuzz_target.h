#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "core/tensor/tensor.h"

// Defined once by each target; libFuzzer and replay.cpp call it.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace volley::fuzz {

// Stops the run where a parser's answer is wrong without being a memory error.
inline void require(bool condition) {
  if (!condition) std::abort();
}

// Reads every byte of a view, so that one that reaches outside is found.
inline void touch(const HostView& view) {
  volatile unsigned sum = 0;
  for (int64_t i = 0; i < view.bytes(); ++i) sum = sum + static_cast<unsigned>(view.data[i]);
}

}  // namespace volley::fuzz
