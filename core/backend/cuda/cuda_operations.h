#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/backend/backend.h"
#include "core/backend/cuda/stream.h"

namespace volley::cuda {

// Which launches an operation is, and the scratch memory that they take. Where nothing is launched only the
// memory is taken.
class CudaOperations : public Queue {
 public:
  CudaOperations(int device, const Memory& memory, const Abilities& abilities)
      : device_(device), memory_(memory), abilities_(abilities) {}

  void gather_rows(const GatherRowsArgs& args) override;
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
  void normed_rows_linear(const NormedRowsLinearArgs& args) override;
  void normed_gated_linears(const NormedGatedLinearsArgs& args) override;
  void feed_forward(const FeedForwardArgs& args) override;
  void attention_inputs(const AttentionInputsArgs& args) override;
  void attention_output(const AttentionOutputArgs& args) override;
  void rotate_and_write(const RotateAndWriteArgs& args) override;
  void activated_feed_forward(const ActivatedFeedForwardArgs& args) override;
  void dense_self_attention(const DenseSelfAttentionArgs& args) override;
  void normed_convs(const NormedConvsArgs& args) override;
  void upsampled_conv(const UpsampledConvArgs& args) override;

 protected:
  // Where kernels are launched; none where nothing is.
  virtual std::optional<Stream> stream() = 0;
  // Makes the queue's device the calling thread's.
  void use_device() const;

  int device() const { return device_; }
  const Memory& memory() const { return memory_; }
  const Abilities& abilities() const { return abilities_; }

 private:
  // Calls launch(scratch memory, stream), or launch(stream).
  template <typename Launch>
  void run(int64_t scratch_bytes, const Launch& launch);
  template <typename Launch>
  void run(const Launch& launch);
  // Scratch memory for one operation. Memory that was handed out stays where it is: recordings know it.
  std::byte* scratch(int64_t bytes);
  void multiply(const LinearsArgs& args, Accumulate accumulate);
  // Whether bf16 products of the phase are of another order than the rest (products_bf16_chains.cu).
  bool are_chains(Phase phase) const;
  // Whether the convolution is one that takes rounded planes here.
  bool takes_planes(const Conv2dArgs& args) const;

  int device_;
  const Memory& memory_;
  Abilities abilities_;
  std::vector<Buffer> scratch_;
};

}  // namespace volley::cuda
