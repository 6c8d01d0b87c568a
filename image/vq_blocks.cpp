// Ref: CompVis/taming-transformers, modules/diffusionmodules/model.py, in the layout of
// FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py. Letters: C channels, h x w pixels.
#include "image/vq_blocks.h"

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

void GroupNorm::apply(Queue& queue, ConstTensor x, Swish swish, Tensor out) const {
  queue.group_norm(
      {.x = x, .groups = kGroups, .weight = weight.view(), .bias = bias.view(), .swish = swish, .out = out});
}

Tensor ResnetBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  Tensor out = x;  // [1, C, h, w]
  if (nin_shortcut)
    out = arena.tensor({1, nin_shortcut->out_channels, x.shape[2], x.shape[3]});  // [1, C', h, w]
  const Arena::Scope scope(arena);
  const Tensor normed = arena.tensor(x.shape);  // [1, C, h, w]
  norm1.apply(queue, x, Swish::kAfter, normed);
  const Tensor hidden = conv3x3(queue, arena, normed, conv1);  // [1, C', h, w]
  norm2.apply(queue, hidden, Swish::kAfter, hidden);
  if (nin_shortcut) conv1x1(queue, x, *nin_shortcut, out);
  queue.conv2d({.x = hidden,
                .weight = conv2,
                .pad_top = 1,
                .pad_left = 1,
                .pad_bottom = 1,
                .pad_right = 1,
                .accumulate = Accumulate::kAdd,
                .out = out});
  return out;
}

void AttnBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  const Arena::Scope scope(arena);
  const int64_t channels = x.shape[1], area = x.shape[2] * x.shape[3];
  const Tensor normed = arena.tensor(x.shape);  // [1, C, h, w]
  norm.apply(queue, x, Swish::kNone, normed);
  const Tensor planes = arena.tensor(x.shape);  // [1, C, h, w]
  const auto project = [&](const ConvWeight& weight) {
    conv1x1(queue, normed, weight, planes);
    const Tensor rows = arena.tensor({1, area, 1, channels});  // [1, hw, 1, C]
    queue.transpose({.x = planes.reshape({1, channels, area}), .out = rows.reshape({1, area, channels})});
    return rows;
  };
  const Tensor queries = project(q), keys = project(k), values = project(v);  // [1, hw, 1, C]
  const Tensor mixed = arena.tensor(queries.shape);                           // [1, hw, 1, C]
  queue.dense_attention({.q = queries,
                         .k = keys,
                         .v = values,
                         .scale = 1.0f / std::sqrt(static_cast<float>(channels)),
                         .out = mixed});
  queue.transpose({.x = mixed.reshape({1, area, channels}), .out = planes.reshape({1, channels, area})});
  conv1x1(queue, planes, proj_out, x, Accumulate::kAdd);
}

Tensor MidBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  x = first.apply(queue, arena, x);
  attn.apply(queue, arena, x);
  return last.apply(queue, arena, x);
}

Tensor ConvBlock::apply(Queue& queue, Arena& arena, Tensor x) const {
  for (size_t i = 0; i < res.size(); ++i) {
    x = res[i].apply(queue, arena, x);  // [1, C, h, w]
    if (!attn.empty()) attn[i].apply(queue, arena, x);
  }
  const int64_t height = x.shape[2], width = x.shape[3];
  if (downsample) {
    // Padded on the right and below only, as the authors do.
    const Tensor half =
        arena.tensor({1, x.shape[1], (height - 2) / 2 + 1, (width - 2) / 2 + 1});  // [1, C, h/2, w/2]
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
    const Tensor out = arena.tensor({1, x.shape[1], 2 * height, 2 * width});  // [1, C, 2h, 2w]
    const Arena::Scope scope(arena);
    const Tensor doubled = arena.tensor(out.shape);  // [1, C, 2h, 2w]
    queue.upsample2x({.x = x, .out = doubled});
    queue.conv2d({.x = doubled,
                  .weight = *upsample,
                  .pad_top = 1,
                  .pad_left = 1,
                  .pad_bottom = 1,
                  .pad_right = 1,
                  .out = out});
    return out;
  }
  return x;
}

Tensor conv3x3(Queue& queue, Arena& arena, ConstTensor x, const ConvWeight& weight) {
  const Tensor out = arena.tensor({1, weight.out_channels, x.shape[2], x.shape[3]});  // [1, C', h, w]
  queue.conv2d(
      {.x = x, .weight = weight, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1, .out = out});
  return out;
}

void conv1x1(Queue& queue, ConstTensor x, const ConvWeight& weight, Tensor out, Accumulate accumulate) {
  queue.conv2d({.x = x, .weight = weight, .accumulate = accumulate, .out = out});
}

}  // namespace volley::image
