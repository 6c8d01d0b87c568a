#pragma once

#include <cstring>

#include "core/backend/cuda/cuda_operations.h"

namespace volley::cuda {

// Takes of a memory what CudaQueue takes for its operations, and launches nothing.
class CudaPlanQueue : public CudaOperations {
 public:
  using CudaOperations::CudaOperations;

  void copy(const CopyArgs&) override {}
  void move_entries(const MoveEntriesArgs&) override {}
  void copy_page(const CopyPageArgs&) override {}
  void upload(const void*, void*, int64_t) override {}
  void download(const void*, void* host, int64_t bytes) override {
    if (bytes > 0) std::memset(host, 0, static_cast<size_t>(bytes));
  }
  void finish() override {}

 private:
  std::optional<Stream> stream() override { return std::nullopt; }
};

}  // namespace volley::cuda
