#pragma once

#include "core/backend/backend.h"
#include "core/backend/cpu/convolution_input.h"
#include "core/backend/cpu/linear.h"
#include "core/backend/cpu/sampler.h"
#include "core/backend/cpu/scratch_pool.h"
#include "core/base/thread_pool.h"

namespace volley {

// What the queues of one backend share.
struct CpuDevice {
  CpuDevice(int64_t thread_count, ProductKernels kernels) : threads(thread_count), products(kernels) {}

  HostMemory memory;
  mutable ThreadPool threads;
  LinearProducts products;
};

// Takes of `scratch` what `rope` takes of it on so many threads, and gives it back.
void reserve_rope(const RopeArgs& args, int64_t threads, ScratchPool& scratch);

// Runs each operation when it is called; its scratch grows to the largest need and stays.
class CpuQueue : public Queue {
 public:
  explicit CpuQueue(std::shared_ptr<const CpuDevice> device)
      : device_(std::move(device)), threads_(device_->threads), scratch_(device_->memory) {}

  void gather_rows(const GatherRowsArgs& args) override;
  void gather_weight_rows(const GatherWeightRowsArgs& args) override;
  void copy(const CopyArgs& args) override;
  void add_rows(const AddRowsArgs& args) override;
  void rms_norm(const RmsNormArgs& args) override;
  void layer_norm(const LayerNormArgs& args) override;
  void linear(const LinearArgs& args) override;
  void linears(const LinearsArgs& args) override;
  void gated_linears(const GatedLinearsArgs& args) override;
  void normed_linears(const NormedLinearsArgs& args) override;
  void normed_gated_linears(const NormedGatedLinearsArgs& args) override;
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
  void normed_convs(const NormedConvsArgs& args) override;
  void upsampled_conv(const UpsampledConvArgs& args) override;
  void upsample2x(const Upsample2xArgs& args) override;
  void channel_bytes(const ChannelBytesArgs& args) override;
  void transpose(const TransposeArgs& args) override;
  void l2_normalize(const L2NormalizeArgs& args) override;
  void nearest_rows(const NearestRowsArgs& args) override;
  void sample(const SampleArgs& args) override;
  void upload(const void* host, void* device, int64_t bytes) override;
  void download(const void* device, void* host, int64_t bytes) override;
  void finish() override {}

 private:
  void convolve(const Conv2dArgs& args, const ConvInput& input);
  // Whether it pays to make the input while it is copied.
  bool copies_input_once(const Conv2dArgs& args) const;
  void find_moments(const GroupNormArgs& args);  // in moments_

  std::shared_ptr<const CpuDevice> device_;
  ThreadPool& threads_;
  ScratchPool scratch_;
  Sampler sampler_;
  std::vector<GroupMoments> moments_;  // of the last group norm: [N, groups]
};

}  // namespace volley
