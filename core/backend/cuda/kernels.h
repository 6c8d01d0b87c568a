#pragma once

// Launches of the kernels, one function an operation: arguments as in core/backend/operations.h, then the
// stream. None allocates or waits. Scratch memory comes from the caller, in the size that the function beside
// it names.

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/backend/cuda/stream.h"
#include "core/backend/operations.h"

namespace volley::cuda {

// ---- rows.cu
// Whether the current device can run this build's kernels.
cudaError_t kernel_status();
void launch_gather_rows(const GatherRowsArgs& args, const Stream& stream);
void launch_add_rows(const AddRowsArgs& args, const Stream& stream);
void launch_activate(const ActivateArgs& args, const Stream& stream);
void launch_silu_mul(const SiluMulArgs& args, const Stream& stream);
void launch_add(const AddArgs& args, const Stream& stream);
void launch_rope(const RopeArgs& args, const Stream& stream);
void launch_transpose(const TransposeArgs& args, const Stream& stream);
void launch_upsample2x(const Upsample2xArgs& args, const Stream& stream);
void launch_channel_bytes(const ChannelBytesArgs& args, const Stream& stream);

// ---- norms.cu
void launch_rms_norm(const RmsNormArgs& args, const Stream& stream);
void launch_layer_norm(const LayerNormArgs& args, const Stream& stream);
void launch_l2_normalize(const L2NormalizeArgs& args, const Stream& stream);
int64_t group_norm_scratch_bytes(const GroupNormArgs& args);
// The first half of the next: leaves the moments of groups in `scratch`.
void launch_group_moments(const GroupNormArgs& args, std::byte* scratch, const Stream& stream);
void launch_group_norm(const GroupNormArgs& args, std::byte* scratch, const Stream& stream);

// ---- cache.cu
void launch_write_cache(const WriteCacheArgs& args, const Stream& stream);
void launch_rotate_and_write(const RotateAndWriteArgs& args, const Stream& stream);
// A cache's planes as device code takes them.
struct PlanePointers {
  std::byte* keys;
  std::byte* values;
};
struct MoveTable {
  const PlanePointers* planes;  // device memory
  const int32_t* moves;         // device memory
  int64_t count;                // of pairs
};
void launch_move_entries(const MoveEntriesArgs& args, const MoveTable& table, const Stream& stream);

// ---- attention.cu, attention_bf16.cu
void launch_attention(const AttentionArgs& args, const Stream& stream);
// Over a bf16 cache of heads of a multiple of 16 elements, up to 128.
bool takes_bf16_vectors(int64_t width);
// The results go to `packed` where it has data (products_bf16.cuh), those of rows up to a multiple of 16 with
// them, else to args.out.
struct PackedRows;
void launch_bf16_attention(const AttentionArgs& args, const PackedRows& packed, const Stream& stream);
void launch_attention_weights(const AttentionWeightsArgs& args, const Stream& stream);
void launch_dense_attention(const DenseAttentionArgs& args, const Stream& stream);
// ---- attention_dense.cu, attention_dense_wide.cu, attention_dense_wgmma.cu: bf16 operands, heads of up to
// 512 elements
bool takes_dense_bf16(const DenseAttentionArgs& args, const Abilities& abilities);
int64_t dense_attention_scratch_bytes(const DenseAttentionArgs& args, const Abilities& abilities);
void launch_dense_attention_bf16(const DenseAttentionArgs& args, std::byte* scratch, const Stream& stream);

// ---- products: the weights of `targets` are of one storage
void launch_products_f32(const LinearsArgs& args, Accumulate accumulate, const Stream& stream);
// Whether this build has kernels with wgmma for the current device.
bool has_wgmma_kernels();
int64_t rounded_rows_bytes(int64_t rows, int64_t in_features);
// With a norm, the products are of normed rows; its output is not written. `rounded_rows` takes
// rounded_rows_bytes.
void launch_products_bf16(const LinearsArgs& args, const RmsNormArgs* norm, Accumulate accumulate,
                          std::byte* rounded_rows, const Stream& stream);
void launch_normed_rows_linear_bf16(const NormedRowsLinearArgs& args, std::byte* rounded_rows,
                                    const Stream& stream);
void launch_gated_products_bf16(const GatedLinearsArgs& args, const RmsNormArgs* norm,
                                std::byte* rounded_rows, const Stream& stream);
// Widths of whole steps.
bool takes_feed_forward_bf16(const LinearWeight& gate);
int64_t feed_forward_bytes(int64_t rows, const LinearWeight& gate);
void launch_feed_forward_bf16(const FeedForwardArgs& args, std::byte* scratch, const Stream& stream);
// Heads that fit.
bool takes_attention_inputs_bf16(const AttentionInputsArgs& args, const Abilities& abilities);
void launch_attention_inputs_bf16(const AttentionInputsArgs& args, std::byte* rounded_rows,
                                  const Stream& stream);
// Heads of whole steps in a bf16 cache, and a bf16 weight.
bool takes_attention_output_bf16(const AttentionOutputArgs& args);
int64_t attention_output_bytes(int64_t rows, const LinearWeight& output);
void launch_attention_output_bf16(const AttentionOutputArgs& args, std::byte* scratch, const Stream& stream);
// Of Phase::kEncoder, in rows of whole steps; where streams have wgmma.
bool takes_activated_feed_forward_bf16(const ActivatedFeedForwardArgs& args);
int64_t activated_feed_forward_bytes(const ActivatedFeedForwardArgs& args);
void launch_activated_feed_forward_bf16(const ActivatedFeedForwardArgs& args, std::byte* scratch,
                                        const Stream& stream);
bool takes_dense_self_attention_bf16(const DenseSelfAttentionArgs& args, const Abilities& abilities);
int64_t dense_self_attention_bytes(const DenseSelfAttentionArgs& args);
void launch_dense_self_attention_bf16(const DenseSelfAttentionArgs& args, std::byte* scratch,
                                      const Stream& stream);
int64_t quantized_rows_bytes(int64_t rows, int64_t in_features);
void launch_products_q8_0(const LinearsArgs& args, Accumulate accumulate, std::byte* quantized_rows,
                          const Stream& stream);

// Elements of a weight packed for the products above; see the files for the layouts.
int64_t packed_elements_f32(int64_t out, int64_t in);
int64_t packed_elements_bf16(int64_t out, int64_t in);
int64_t packed_quants_q8_0(int64_t out, int64_t in);
int64_t packed_scales_q8_0(int64_t out, int64_t in);
void launch_pack_f32(const float* weight, int64_t out, int64_t in, float* packed, const Stream& stream);
void launch_pack_bf16(const float* weight, int64_t out, int64_t in, uint16_t* packed, const Stream& stream);
struct PackQ8Args {
  const int8_t* quants;    // [out, blocks * 32]
  const uint16_t* scales;  // f16 [out, blocks]
  int64_t out = 0;
  int64_t blocks = 0;
  int8_t* packed_quants = nullptr;
  uint16_t* packed_scales = nullptr;
};
void launch_pack_q8_0(const PackQ8Args& args, const Stream& stream);

// ---- convolution_f32.cu, convolution_bf16.cu
void launch_conv2d_f32(const Conv2dArgs& args, const Stream& stream);
void launch_conv2d_bf16(const Conv2dArgs& args, const Stream& stream);
struct ConvShape {
  int64_t out_channels = 0;
  int64_t in_channels = 0;
  int64_t kernel = 0;  // kernel_h * kernel_w
};
int64_t packed_conv_elements_bf16(const ConvShape& shape);
void launch_pack_conv_bf16(const float* weight, const ConvShape& shape, uint16_t* packed,
                           const Stream& stream);

// ---- rounded_planes.cu, convolution_wgmma.cu: where streams have wgmma, convolutions of many channels over
// planes that are rounded before, maybe doubled (as `upsample2x` does) or normed (as `group_norm` does, with
// the moments that launch_group_moments leaves in its scratch memory).
bool takes_rounded_planes(const Conv2dArgs& args);
int64_t rounded_planes_bytes(const Conv2dArgs& args);
void launch_round_planes(ConstTensor x, std::byte* planes, const Stream& stream);
void launch_upsample_planes(ConstTensor x, std::byte* planes, const Stream& stream);
void launch_norm_planes(const GroupNormArgs& args, const std::byte* moments, std::byte* planes,
                        const Stream& stream);
void launch_conv2d_planes(const Conv2dArgs& args, const std::byte* planes, const Stream& stream);

// ---- sampling.cu, nearest.cu
void launch_nearest_rows(const NearestRowsArgs& args, const Stream& stream);
// Nothing unless a row is too long for shared memory. Of the calling thread's device.
int64_t sample_scratch_bytes(const SampleArgs& args);
void launch_sample(const SampleArgs& args, std::byte* scratch, const Stream& stream);

}  // namespace volley::cuda
