#pragma once

#include <cstdint>

#include "core/backend/cuda/stream.h"

namespace volley::cuda {

inline constexpr int64_t kMostSmallBytes = 4096;

// Pinned host memory that takes a download, and a number in it that becomes `next` when all has come.
struct Landing {
  uint32_t* words;
  uint32_t* turn;
  uint32_t next;
};

bool takes_small_download(const void* device, int64_t bytes);
// In order with the stream.
void launch_small_download(const void* device, int64_t bytes, const Landing& landing, const Stream& stream);

}  // namespace volley::cuda
