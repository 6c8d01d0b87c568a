#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <vector>

#include "core/backend/backend.h"
#include "core/backend/cuda/device_memory.h"
#include "core/backend/cuda/large_download.h"
#include "core/backend/cuda/stream.h"

namespace volley::cuda {

// A stream of one device, its staging memory in both directions, and the recorded sequences of operations.
class CudaQueue : public Queue {
 public:
  CudaQueue(int device, const DeviceMemory& memory, const Abilities& abilities);
  ~CudaQueue() override;
  CudaQueue(const CudaQueue&) = delete;
  CudaQueue& operator=(const CudaQueue&) = delete;

  void gather_rows(const GatherRowsArgs& args) override;
  void copy(const CopyArgs& args) override;
  void add_rows(const AddRowsArgs& args) override;
  void rms_norm(const RmsNormArgs& args) override;
  void layer_norm(const LayerNormArgs& args) override;
  void linear(const LinearArgs& args) override;
  void linears(const LinearsArgs& args) override;
  void activate(const ActivateArgs& args) override;
  void silu_mul(const SiluMulArgs& args) override;
  void add(const AddArgs& args) override;
  void rope(const RopeArgs& args) override;
  void write_cache(const WriteCacheArgs& args) override;
  void attention(const AttentionArgs& args) override;
  void attention_weights(const AttentionWeightsArgs& args) override;
  void dense_attention(const DenseAttentionArgs& args) override;
  void move_entries(const MoveEntriesArgs& args) override;
  void copy_page(const CopyPageArgs& args) override;
  void conv2d(const Conv2dArgs& args) override;
  void group_norm(const GroupNormArgs& args) override;
  void upsample2x(const Upsample2xArgs& args) override;
  void channel_bytes(const ChannelBytesArgs& args) override;
  void transpose(const TransposeArgs& args) override;
  void l2_normalize(const L2NormalizeArgs& args) override;
  void nearest_rows(const NearestRowsArgs& args) override;
  void sample(const SampleArgs& args) override;
  void gated_linears(const GatedLinearsArgs& args) override;
  void normed_linears(const NormedLinearsArgs& args) override;
  void normed_gated_linears(const NormedGatedLinearsArgs& args) override;
  void feed_forward(const FeedForwardArgs& args) override;
  void attention_inputs(const AttentionInputsArgs& args) override;
  void attention_output(const AttentionOutputArgs& args) override;
  void rotate_and_write(const RotateAndWriteArgs& args) override;
  void activated_feed_forward(const ActivatedFeedForwardArgs& args) override;
  void dense_self_attention(const DenseSelfAttentionArgs& args) override;
  void normed_convs(const NormedConvsArgs& args) override;
  void upsampled_conv(const UpsampledConvArgs& args) override;
  void run_recorded(std::span<const int64_t> key, const std::function<void()>& operations) override;
  void upload(const void* host, void* device, int64_t bytes) override;
  void download(const void* device, void* host, int64_t bytes) override;
  void finish() override;

 private:
  struct Recording {
    int64_t runs = 0;
    cudaGraphExec_t graph = nullptr;
  };

  // Kernels may read the tables of steps and caches before the kernel in front of them has ended, so the
  // first one behind a change of a table by a kernel must not overlap with it.
  Stream stream();
  // Makes the queue's device the calling thread's.
  void use_device() const;
  void multiply(const LinearsArgs& args, Accumulate accumulate);
  // Scratch memory for one operation. Memory that was handed out stays where it is: recordings know it.
  std::byte* scratch(int64_t bytes);
  // Whether bf16 products of the phase are of another order than the rest (products_bf16_chains.cu).
  bool are_chains(Phase phase) const;
  std::byte* rounded_rows(ConstTensor x, const LinearWeight& weight);
  // Whether the convolution is one that takes rounded planes here.
  bool takes_planes(const Conv2dArgs& args) const;
  void record(Recording& recording, const std::function<void()>& operations);

  int device_;
  const DeviceMemory& memory_;
  Abilities abilities_;
  bool tables_changed_ = false;
  cudaStream_t stream_ = nullptr;
  std::byte* staging_ = nullptr;  // pinned host memory; uploads go round it
  int64_t staging_used_ = 0;
  std::byte* landing_ = nullptr;  // pinned host memory of downloads
  std::unique_ptr<LargeDownload> large_download_;
  std::vector<Buffer> scratch_;
  Buffer moves_;
  std::map<std::vector<int64_t>, Recording> recordings_;
};

}  // namespace volley::cuda
