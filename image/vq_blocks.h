#pragma once

// Convolutional blocks of VQ-GAN encoders and decoders. Tensors are pictures, [N, C, h, w];
// temporaries come from the arena and go back at the end of a call.

#include <optional>
#include <string>
#include <vector>

#include "core/nn/arena.h"
#include "core/nn/weights.h"

namespace volley::image {

struct GroupNorm {
  Weight weight;  // [C]
  Weight bias;    // [C]

  // The norm of x, [N, C, h, w]; out may be x.
  GroupNormArgs of(ConstTensor x, Swish swish, Tensor out) const;
};
GroupNorm load_group_norm(WeightLoader& loader, const std::string& name, int64_t channels);

// x + conv2(swish(norm2(conv1(swish(norm1 x))))), with a 1x1 convolution of x where the channels change.
struct ResnetBlock {
  GroupNorm norm1;
  ConvWeight conv1;
  GroupNorm norm2;
  ConvWeight conv2;
  std::optional<ConvWeight> nin_shortcut;

  // Changes x in place where the channels stay, else returns a new tensor.
  Tensor apply(Queue& queue, Arena& arena, Tensor x) const;
};

// x += proj_out(attention(norm x)) between all pixels, one head as wide as the channels.
struct AttnBlock {
  GroupNorm norm;
  ConvWeight q, k, v, proj_out;  // 1x1

  void apply(Queue& queue, Arena& arena, Tensor x) const;
};

// [ResnetBlock, AttnBlock, ResnetBlock] at the deepest level.
struct MidBlock {
  ResnetBlock first;
  AttnBlock attn;
  ResnetBlock last;

  Tensor apply(Queue& queue, Arena& arena, Tensor x) const;
};
MidBlock load_mid_block(WeightLoader& loader, const std::string& prefix, int64_t channels);

// The blocks of one resolution and the convolution that leads to the next.
struct ConvBlock {
  std::vector<ResnetBlock> res;
  std::vector<AttnBlock> attn;  // one behind each of `res`, or none
  std::optional<ConvWeight> downsample;
  std::optional<ConvWeight> upsample;

  Tensor apply(Queue& queue, Arena& arena, Tensor x) const;
  // The two parts of it: what keeps the resolution, and the convolution to the next; without one x itself.
  Tensor apply_res(Queue& queue, Arena& arena, Tensor x) const;
  Tensor apply_resample(Queue& queue, Arena& arena, Tensor x) const;
};
enum class Resample : uint8_t { kNone, kDown, kUp };
struct ConvBlockSize {
  int64_t in = 0;
  int64_t out = 0;
  int64_t blocks = 0;
  int64_t attention_blocks = 0;
  Resample resample = Resample::kNone;
};
ConvBlock load_conv_block(WeightLoader& loader, const std::string& prefix, const ConvBlockSize& size);

// out (+)= a convolution of an odd kernel that keeps the size.
Conv2dArgs same_size(ConstTensor x, const ConvWeight& weight, Tensor out,
                     Accumulate accumulate = Accumulate::kAssign);
// A convolution of normed pictures.
void normed_conv(Queue& queue, const GroupNormArgs& norm, const Conv2dArgs& conv);

}  // namespace volley::image
