// Ref: CompVis/taming-transformers, modules/diffusionmodules/model.py, in the layout of
// FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py. Letters: C channels, h x w pixels.
#include "image/vq_blocks.h"

#include <array>
#include <cmath>

#include "core/base/error.h"

namespace volley::image {
namespace {

constexpr int64_t kGroups = 32;

ResnetBlock load_resnet_block(WeightLoader& loader, const std::string& prefix, int64_t in, int64_t out) {
  ResnetBlock block{.norm1 = load_group_norm(loader, prefix + "norm1", in),
                    .conv1 = loader.conv(prefix + "conv1", out, in, 3),
                    .norm2 = load_group_norm(loader, prefix + "norm2", out),
                    .conv2 = loader.conv(prefix + "conv2", out, out, 3)};
  if (in != out) block.nin_shortcut = loader.conv(prefix + "nin_shortcut", out, in, 1);
  return block;
}

AttnBlock load_attn_block(WeightLoader& loader, const std::string& prefix, int64_t channels) {
  return {.norm = load_group_norm(loader, prefix + "norm", channels),
          .q = loader.conv(prefix + "q", channels, channels, 1),
          .k = loader.conv(prefix + "k", channels, channels, 1),
          .v = loader.conv(prefix + "v", channels, channels, 1),
          .proj_out = loader.conv(prefix + "proj_out", channels, channels, 1)};
}

}  // namespace

GroupNorm load_group_norm(WeightLoader& loader, const std::string& name, int64_t channels) {
  VOLLEY_ASSERT(channels % kGroups == 0);
  return {.weight = loader.tensor(name + ".weight", {channels}),
          .bias = loader.tensor(name + ".bias", {channels})};
}

MidBlock load_mid_block(WeightLoader& loader, const std::string& prefix, int64_t channels) {
  return {.first = load_resnet_block(loader, prefix + "0.", channels, channels),
          .attn = load_attn_block(loader, prefix + "1.", channels),
          .last = load_resnet_block(loader, prefix + "2.", channels, channels)};
}

ConvBlock load_conv_block(WeightLoader& loader, const std::string& prefix, const ConvBlockSize& size) {
  ConvBlock block;
  for (int64_t i = 0; i < size.blocks; ++i) {
    const int64_t in = i == 0 ? size.in : size.out;
    block.res.push_back(load_resnet_block(loader, prefix + "res." + std::to_string(i) + ".", in, size.out));
  }
  for (int64_t i = 0; i < size.attention_blocks; ++i) {
    block.attn.push_back(load_attn_block(loader, prefix + "attn." + std::to_string(i) + ".", size.out));
  }
  if (size.resample == Resample::kDown) {
    block.downsample = loader.conv(prefix + "downsample.conv", size.out, size.out, 3);
  }
  if (size.resample == Resample::kUp)
    block.upsample = loader.conv(prefix + "upsample.conv", size.out, size.out, 3);
  return block;
}

GroupNormArgs GroupNorm::of(ConstTensor x, Swish swish, Tensor out) const {
  return {
      .x = x, .groups = kGroups, .weight = weight.view(), .bias = bias.view(), .swish = swish, .out = out};
}

Tensor ResnetBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  const Shape shape{x.shape[0], conv1.out_channels, x.shape[2], x.shape[3]};  // [N, C', h, w]
  const Tensor out = nin_shortcut ? arena.tensor(shape) : x;                  // [N, C', h, w]
  const Arena::Scope scope(arena);
  const Tensor normed = arena.tensor(x.shape);  // [N, C, h, w]
  const Tensor hidden = arena.tensor(shape);    // [N, C', h, w]
  normed_conv(queue, norm1.of(x, Swish::kAfter, normed), same_size(normed, conv1, hidden));
  if (nin_shortcut) queue.conv2d(same_size(x, *nin_shortcut, out));
  normed_conv(queue, norm2.of(hidden, Swish::kAfter, hidden),
              same_size(hidden, conv2, out, Accumulate::kAdd));
  return out;
}

void AttnBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  const Arena::Scope scope(arena);
  const int64_t count = x.shape[0], channels = x.shape[1], area = x.shape[2] * x.shape[3];
  const Tensor normed = arena.tensor(x.shape);  // [N, C, h, w]
  const std::array planes{arena.tensor(x.shape), arena.tensor(x.shape),
                          arena.tensor(x.shape)};  // [N, C, h, w]
  const std::array projections{same_size(normed, q, planes[0]), same_size(normed, k, planes[1]),
                               same_size(normed, v, planes[2])};
  queue.normed_convs({.norm = norm.of(x, Swish::kNone, normed), .convs = projections});
  const auto rows_of = [&](Tensor plane) {
    const Tensor rows = arena.tensor({count, area, 1, channels});  // [N, hw, 1, C]
    queue.transpose(
        {.x = plane.reshape({count, channels, area}), .out = rows.reshape({count, area, channels})});
    return rows;
  };
  const Tensor queries = rows_of(planes[0]), keys = rows_of(planes[1]), values = rows_of(planes[2]);
  const Tensor mixed = arena.tensor(queries.shape);  // [N, hw, 1, C]
  queue.dense_attention({.q = queries,
                         .k = keys,
                         .v = values,
                         .scale = 1.0f / std::sqrt(static_cast<float>(channels)),
                         .operands = operands_of(q.type),
                         .out = mixed});
  queue.transpose(
      {.x = mixed.reshape({count, area, channels}), .out = planes[0].reshape({count, channels, area})});
  queue.conv2d(same_size(planes[0], proj_out, x, Accumulate::kAdd));
}

Tensor MidBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  x = first.apply(queue, arena, x);
  attn.apply(queue, arena, x);
  return last.apply(queue, arena, x);
}

Tensor ConvBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  return apply_resample(queue, arena, apply_res(queue, arena, x));
}

Tensor ConvBlock::apply_res(Queue& queue, Arena& arena, Tensor x) const {
  for (size_t i = 0; i < res.size(); ++i) {
    x = res[i].apply(queue, arena, x);  // [N, C, h, w]
    if (!attn.empty()) attn[i].apply(queue, arena, x);
  }
  return x;
}

Tensor ConvBlock::apply_resample(Queue& queue, Arena& arena, Tensor x) const {
  const int64_t height = x.shape[2], width = x.shape[3];
  if (downsample) {
    // Padded on the right and below only, as the authors do.
    const Tensor half = arena.tensor(
        {x.shape[0], x.shape[1], (height - 2) / 2 + 1, (width - 2) / 2 + 1});  // [N, C, h/2, w/2]
    queue.conv2d({.x = x,
                  .weight = *downsample,
                  .stride_h = 2,
                  .stride_w = 2,
                  .pad_bottom = 1,
                  .pad_right = 1,
                  .out = half});
    return half;
  }
  if (upsample) {
    const Tensor out = arena.tensor({x.shape[0], x.shape[1], 2 * height, 2 * width});  // [N, C, 2h, 2w]
    const Arena::Scope scope(arena);
    const Tensor doubled = arena.tensor(out.shape);  // [N, C, 2h, 2w]
    queue.upsampled_conv({.upsample = {.x = x, .out = doubled}, .conv = same_size(doubled, *upsample, out)});
    return out;
  }
  return x;
}

Conv2dArgs same_size(ConstTensor x, const ConvWeight& weight, Tensor out, Accumulate accumulate) {
  const int64_t pad = weight.kernel_h / 2;
  return {.x = x,
          .weight = weight,
          .pad_top = pad,
          .pad_left = pad,
          .pad_bottom = pad,
          .pad_right = pad,
          .accumulate = accumulate,
          .out = out};
}

void normed_conv(Queue& queue, const GroupNormArgs& norm, const Conv2dArgs& conv) {
  queue.normed_convs({.norm = norm, .convs = {&conv, 1}});
}

}  // namespace volley::image
