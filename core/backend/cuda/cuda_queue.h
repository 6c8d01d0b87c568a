#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <vector>

#include "core/backend/cuda/cuda_operations.h"
#include "core/backend/cuda/device_memory.h"
#include "core/backend/cuda/large_download.h"
#include "core/backend/cuda/program.h"

namespace volley::cuda {

// A stream of one device, its staging memory in both directions, and the recorded sequences of operations.
class CudaQueue : public CudaOperations {
 public:
  // Memory and copiers, which all queues of the device share, must outlive it.
  CudaQueue(int device, const DeviceMemory& memory, const Abilities& abilities, const Copiers& copiers);
  ~CudaQueue() override;
  CudaQueue(const CudaQueue&) = delete;
  CudaQueue& operator=(const CudaQueue&) = delete;

  void copy(const CopyArgs& args) override;
  void move_entries(const MoveEntriesArgs& args) override;
  void copy_page(const CopyPageArgs& args) override;
  void run_recorded(std::span<const int64_t> key, const std::function<void()>& operations) override;
  void upload(const void* host, void* device, int64_t bytes) override;
  void download(const void* device, void* host, int64_t bytes) override;
  void finish() override;

 private:
  struct Recording {
    int64_t runs = 0;
    cudaGraphExec_t graph = nullptr;
    std::vector<Buffer> memory;  // of its programs
  };

  // Kernels may read the tables of steps and caches before the kernel in front of them has ended, so the
  // first one behind a change of a table by a kernel must not overlap with it.
  std::optional<Stream> stream() override;
  // Before work that is not launched: what a program has taken comes first.
  void settle();
  void record(Recording& recording, const std::function<void()>& operations);
  // Waits for the last download that was launched as a kernel.
  void await_turn();

  DeviceMemory recorded_;  // of recordings, which is not counted
  bool tables_changed_ = false;
  cudaStream_t stream_ = nullptr;
  std::byte* staging_ = nullptr;  // pinned host memory; uploads go round it
  int64_t staging_used_ = 0;
  std::byte* landing_ = nullptr;  // pinned host memory of downloads
  uint32_t* turn_ = nullptr;      // pinned, too: how many downloads by a kernel have come
  uint32_t turns_ = 0;            // and how many were launched
  const Copiers& copiers_;
  std::unique_ptr<LargeDownload> large_download_;
  Buffer moves_;
  Buffer meeting_;              // of programs
  PostMemory posts_;            // of programs
  Program* program_ = nullptr;  // takes operations while they are recorded
  std::map<std::vector<int64_t>, Recording> recordings_;
};

}  // namespace volley::cuda
