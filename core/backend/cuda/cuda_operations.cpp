#include "core/backend/cuda/cuda_operations.h"

#include <algorithm>
#include <array>
#include <bit>

#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/status.h"

namespace volley::cuda {

void CudaOperations::use_device() const {
  check(cudaSetDevice(device_), "device");
}

std::byte* CudaOperations::scratch(int64_t bytes) {
  if (bytes == 0) return nullptr;
  if (scratch_.empty() || scratch_.back().bytes() < bytes) {
    scratch_.push_back(memory_.allocate(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(bytes)))));
  }
  return scratch_.back().data();
}

template <typename Launch>
void CudaOperations::run(int64_t scratch_bytes, const Launch& launch) {
  std::byte* const memory = scratch(scratch_bytes);
  if (const std::optional<Stream> where = stream()) launch(memory, *where);
}
template <typename Launch>
void CudaOperations::run(const Launch& launch) {
  if (const std::optional<Stream> where = stream()) launch(*where);
}

namespace {

bool are_all_bf16(std::span<const LinearTarget> targets) {
  return std::ranges::all_of(
      targets, [](const LinearTarget& target) { return target.weight->type == WeightType::kBF16; });
}

}  // namespace

void CudaOperations::gather_rows(const GatherRowsArgs& args) {
  run([&](const Stream& stream) { launch_gather_rows(args, stream); });
}
void CudaOperations::add_rows(const AddRowsArgs& args) {
  run([&](const Stream& stream) { launch_add_rows(args, stream); });
}
void CudaOperations::rms_norm(const RmsNormArgs& args) {
  run([&](const Stream& stream) { launch_rms_norm(args, stream); });
}
void CudaOperations::layer_norm(const LayerNormArgs& args) {
  run([&](const Stream& stream) { launch_layer_norm(args, stream); });
}

void CudaOperations::linear(const LinearArgs& args) {
  const std::array targets{LinearTarget{.weight = &args.weight, .bias = args.bias, .out = args.out}};
  multiply({.x = args.x, .targets = targets, .phase = args.phase}, args.accumulate);
}

void CudaOperations::linears(const LinearsArgs& args) {
  multiply(args, Accumulate::kAssign);
}

namespace {

int64_t rounded_rows_bytes(ConstTensor x, const LinearWeight& weight) {
  return cuda::rounded_rows_bytes(x.size() / weight.in_features, weight.in_features);
}

}  // namespace

void CudaOperations::multiply(const LinearsArgs& args, Accumulate accumulate) {
  const LinearWeight& first = *args.targets.front().weight;
  for (size_t i = 1; i < args.targets.size(); ++i) {
    if (args.targets[i].weight->type == first.type) continue;
    multiply({.x = args.x, .targets = args.targets.first(i), .phase = args.phase}, accumulate);
    return multiply({.x = args.x, .targets = args.targets.subspan(i), .phase = args.phase}, accumulate);
  }
  switch (first.type) {
    case WeightType::kF32:
      return run([&](const Stream& stream) { launch_products_f32(args, accumulate, stream); });
    case WeightType::kBF16:
      return run(rounded_rows_bytes(args.x, first), [&](std::byte* scratch, const Stream& stream) {
        launch_products_bf16(args, nullptr, accumulate, scratch, stream);
      });
    case WeightType::kQ8_0:
      return run(quantized_rows_bytes(args.x.size() / first.in_features, first.in_features),
                 [&](std::byte* scratch, const Stream& stream) {
                   launch_products_q8_0(args, accumulate, scratch, stream);
                 });
    case WeightType::kQ4_1:
      VOLLEY_ASSERT(false);  // pack_linear has refused it
  }
}

void CudaOperations::gated_linears(const GatedLinearsArgs& args) {
  if (args.gate.weight->type != WeightType::kBF16 || args.up.weight->type != WeightType::kBF16 ||
      are_chains(args.phase)) {
    return Queue::gated_linears(args);
  }
  run(rounded_rows_bytes(args.x, *args.gate.weight), [&](std::byte* scratch, const Stream& stream) {
    launch_gated_products_bf16(args, nullptr, scratch, stream);
  });
}

// Rows that become bf16 are weighted on the way, and their sums are scaled.
void CudaOperations::normed_linears(const NormedLinearsArgs& args) {
  const LinearWeight& first = *args.linears.targets.front().weight;
  if (!are_all_bf16(args.linears.targets) || are_chains(args.linears.phase))
    return Queue::normed_linears(args);
  run(rounded_rows_bytes(args.norm.x, first), [&](std::byte* scratch, const Stream& stream) {
    launch_products_bf16(args.linears, &args.norm, Accumulate::kAssign, scratch, stream);
  });
}

void CudaOperations::normed_rows_linear(const NormedRowsLinearArgs& args) {
  if (args.linear.weight.type != WeightType::kBF16 || are_chains(args.linear.phase) ||
      args.rows.ids.size() == 0) {
    return Queue::normed_rows_linear(args);
  }
  run(rounded_rows_bytes(args.linear.x, args.linear.weight), [&](std::byte* scratch, const Stream& stream) {
    launch_normed_rows_linear_bf16(args, scratch, stream);
  });
}

void CudaOperations::normed_gated_linears(const NormedGatedLinearsArgs& args) {
  const LinearWeight& first = *args.linears.gate.weight;
  if (first.type != WeightType::kBF16 || args.linears.up.weight->type != WeightType::kBF16 ||
      are_chains(args.linears.phase)) {
    return Queue::normed_gated_linears(args);
  }
  run(rounded_rows_bytes(args.norm.x, first), [&](std::byte* scratch, const Stream& stream) {
    launch_gated_products_bf16(args.linears, &args.norm, scratch, stream);
  });
}

bool CudaOperations::are_chains(Phase phase) const {
  return phase == Phase::kEncoder && abilities_.has_wgmma;
}

void CudaOperations::activated_feed_forward(const ActivatedFeedForwardArgs& args) {
  if (!abilities_.has_wgmma || args.norm.x.size() == 0 || !takes_activated_feed_forward_bf16(args))
    return Queue::activated_feed_forward(args);
  run(activated_feed_forward_bytes(args), [&](std::byte* scratch, const Stream& stream) {
    launch_activated_feed_forward_bf16(args, scratch, stream);
  });
}

void CudaOperations::dense_self_attention(const DenseSelfAttentionArgs& args) {
  if (args.norm.x.size() == 0 || !takes_dense_self_attention_bf16(args, abilities_))
    return Queue::dense_self_attention(args);
  run(dense_self_attention_bytes(args), [&](std::byte* scratch, const Stream& stream) {
    launch_dense_self_attention_bf16(args, scratch, stream);
  });
}

// What lies between the two products is written as the second takes it.
void CudaOperations::feed_forward(const FeedForwardArgs& args) {
  const LinearWeight &gate = *args.gates.linears.gate.weight, &down = args.down.weight;
  if (gate.type != WeightType::kBF16 || args.gates.linears.up.weight->type != WeightType::kBF16 ||
      down.type != WeightType::kBF16 || !takes_feed_forward_bf16(gate) ||
      are_chains(args.gates.linears.phase)) {
    return Queue::feed_forward(args);
  }
  const int64_t rows = args.gates.norm.x.size() / gate.in_features;
  run(feed_forward_bytes(rows, gate),
      [&](std::byte* scratch, const Stream& stream) { launch_feed_forward_bf16(args, scratch, stream); });
}

void CudaOperations::attention_inputs(const AttentionInputsArgs& args) {
  const NormedLinearsArgs& projections = args.projections;
  if (are_all_bf16(projections.linears.targets) && !are_chains(projections.linears.phase) &&
      takes_attention_inputs_bf16(args, abilities_)) {
    return run(rounded_rows_bytes(projections.norm.x, *projections.linears.targets.front().weight),
               [&](std::byte* scratch, const Stream& stream) {
                 launch_attention_inputs_bf16(args, scratch, stream);
               });
  }
  Queue::attention_inputs(args);
}

// What lies between the two is written as the product takes it.
void CudaOperations::attention_output(const AttentionOutputArgs& args) {
  const ConstTensor& q = args.attention.q;
  if (q.size() == 0 || !takes_attention_output_bf16(args)) return Queue::attention_output(args);
  run(attention_output_bytes(q.shape[0], args.output.weight),
      [&](std::byte* scratch, const Stream& stream) { launch_attention_output_bf16(args, scratch, stream); });
}

void CudaOperations::rotate_and_write(const RotateAndWriteArgs& args) {
  run([&](const Stream& stream) { launch_rotate_and_write(args, stream); });
}

void CudaOperations::activate(const ActivateArgs& args) {
  run([&](const Stream& stream) { launch_activate(args, stream); });
}
void CudaOperations::silu_mul(const SiluMulArgs& args) {
  run([&](const Stream& stream) { launch_silu_mul(args, stream); });
}
void CudaOperations::add(const AddArgs& args) {
  run([&](const Stream& stream) { launch_add(args, stream); });
}
void CudaOperations::rope(const RopeArgs& args) {
  run([&](const Stream& stream) { launch_rope(args, stream); });
}
void CudaOperations::write_cache(const WriteCacheArgs& args) {
  run([&](const Stream& stream) { launch_write_cache(args, stream); });
}
void CudaOperations::attention(const AttentionArgs& args) {
  run([&](const Stream& stream) { launch_attention(args, stream); });
}
void CudaOperations::attention_weights(const AttentionWeightsArgs& args) {
  run([&](const Stream& stream) { launch_attention_weights(args, stream); });
}
void CudaOperations::dense_attention(const DenseAttentionArgs& args) {
  if (args.q.size() == 0) return;
  if (!takes_dense_bf16(args, abilities_))
    return run([&](const Stream& stream) { launch_dense_attention(args, stream); });
  run(dense_attention_scratch_bytes(args, abilities_),
      [&](std::byte* scratch, const Stream& stream) { launch_dense_attention_bf16(args, scratch, stream); });
}

bool CudaOperations::takes_planes(const Conv2dArgs& args) const {
  return abilities_.has_wgmma && args.out.size() > 0 && takes_rounded_planes(args);
}
void CudaOperations::conv2d(const Conv2dArgs& args) {
  VOLLEY_ASSERT(args.x.shape[1] == args.weight.in_channels && args.out.shape[1] == args.weight.out_channels);
  if (takes_planes(args)) {
    return run(rounded_planes_bytes(args), [&](std::byte* planes, const Stream& stream) {
      launch_round_planes(args.x, planes, stream);
      launch_conv2d_planes(args, planes, stream);
    });
  }
  if (args.weight.type == WeightType::kBF16)
    return run([&](const Stream& stream) { launch_conv2d_bf16(args, stream); });
  run([&](const Stream& stream) { launch_conv2d_f32(args, stream); });
}
void CudaOperations::group_norm(const GroupNormArgs& args) {
  run(group_norm_scratch_bytes(args),
      [&](std::byte* scratch, const Stream& stream) { launch_group_norm(args, scratch, stream); });
}
// What lies between is written as the convolutions take it.
void CudaOperations::normed_convs(const NormedConvsArgs& args) {
  VOLLEY_ASSERT(!args.convs.empty());
  if (!std::ranges::all_of(args.convs, [&](const Conv2dArgs& conv) { return takes_planes(conv); }))
    return Queue::normed_convs(args);
  VOLLEY_ASSERT(std::ranges::all_of(
      args.convs, [&](const Conv2dArgs& conv) { return conv.x.data == args.norm.out.data; }));
  const int64_t planes_bytes = rounded_planes_bytes(args.convs.front());
  run(planes_bytes + group_norm_scratch_bytes(args.norm), [&](std::byte* planes, const Stream& stream) {
    std::byte* const moments = planes + planes_bytes;
    launch_group_moments(args.norm, moments, stream);
    launch_norm_planes(args.norm, moments, planes, stream);
    for (const Conv2dArgs& conv : args.convs) launch_conv2d_planes(conv, planes, stream);
  });
}
void CudaOperations::upsampled_conv(const UpsampledConvArgs& args) {
  VOLLEY_ASSERT(args.conv.x.data == args.upsample.out.data);
  if (!takes_planes(args.conv)) return Queue::upsampled_conv(args);
  run(rounded_planes_bytes(args.conv), [&](std::byte* planes, const Stream& stream) {
    launch_upsample_planes(args.upsample.x, planes, stream);
    launch_conv2d_planes(args.conv, planes, stream);
  });
}
void CudaOperations::upsample2x(const Upsample2xArgs& args) {
  run([&](const Stream& stream) { launch_upsample2x(args, stream); });
}
void CudaOperations::channel_bytes(const ChannelBytesArgs& args) {
  run([&](const Stream& stream) { launch_channel_bytes(args, stream); });
}
void CudaOperations::transpose(const TransposeArgs& args) {
  run([&](const Stream& stream) { launch_transpose(args, stream); });
}
void CudaOperations::l2_normalize(const L2NormalizeArgs& args) {
  run([&](const Stream& stream) { launch_l2_normalize(args, stream); });
}
void CudaOperations::nearest_rows(const NearestRowsArgs& args) {
  run([&](const Stream& stream) { launch_nearest_rows(args, stream); });
}
void CudaOperations::sample(const SampleArgs& args) {
  if (args.rows.size() == 0) return;
  use_device();
  run(sample_scratch_bytes(args),
      [&](std::byte* scratch, const Stream& stream) { launch_sample(args, scratch, stream); });
}

}  // namespace volley::cuda
