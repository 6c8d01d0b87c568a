#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>

#include "core/base/thread_pool.h"

namespace volley::cuda {

// The threads that empty pinned memory, for all queues of a device. They start with the first download.
class Copiers {
 public:
  ThreadPool& threads() const;

 private:
  mutable std::once_flag started_;
  mutable std::optional<ThreadPool> threads_;
};

// Downloads of many bytes to memory that is not pinned: the device fills one piece of pinned memory while
// several threads empty the other.
class LargeDownload {
 public:
  static constexpr int64_t kLeastBytes = 8 << 20;  // fewer were not timed

  // `copiers` may serve others at the same time, and must outlive it.
  explicit LargeDownload(ThreadPool& copiers);
  ~LargeDownload();
  LargeDownload(const LargeDownload&) = delete;
  LargeDownload& operator=(const LargeDownload&) = delete;

  // In order with what the stream does; returns when `host` holds the bytes.
  void run(const void* device, void* host, int64_t bytes, cudaStream_t stream);

 private:
  std::array<std::byte*, 2> pieces_{};
  std::array<cudaEvent_t, 2> full_{};
  ThreadPool& copiers_;
};

}  // namespace volley::cuda
