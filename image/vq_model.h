#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "image/vq_blocks.h"

namespace volley::image {

// Sizes of a VQ tokenizer, named as in the authors' ModelArgs.
struct VqConfig {
  int64_t ch = 0;
  std::vector<int64_t> ch_mult;  // channels of each resolution, in units of ch, from pixels to codes
  int64_t z_channels = 0;
  int64_t codebook_size = 0;
  int64_t codebook_embed_dim = 0;
  int64_t num_res_blocks = 0;

  // Pixels of a code's side.
  int64_t factor() const { return int64_t{1} << (ch_mult.size() - 1); }
};

// Reads config.json's object; `path` is for messages. Throws Error on missing or impossible values.
VqConfig parse_vq_config(const nlohmann::json& config, const std::string& path);
// The same from the tensors of a checkpoint, which tell everything.
VqConfig infer_vq_config(const WeightSource& weights);

// LlamaGen's image tokenizer: pictures to codes and back. Const and shareable. The result for a picture does
// not depend on its company; scratch memory stays that of one picture, or of a few at the small sizes.
class VqModel {
 public:
  // Throws Error when a tensor is missing, unexpected or of another shape.
  VqModel(VqConfig config, WeightLoader loader);

  const VqConfig& config() const { return config_; }

  struct DecodeArgs {
    Indices codes;  // [N, h, w], each below codebook_size
    Tensor pixels;  // [N, 3, h * factor, w * factor], about -1 .. 1, not clamped
  };
  // Uses `run_recorded`, within which it must not be called. A queue replays for this model alone, but its
  // recordings know the addresses of weights: none may be under way when the model ends.
  void decode(Queue& queue, Arena& arena, const DecodeArgs& args) const;

  struct EncodeArgs {
    ConstTensor pixels;   // [N, 3, h * factor, w * factor] in -1 .. 1
    Tensor latents;       // [N, codebook_embed_dim, h, w] before they are normalised
    View<int32_t> codes;  // [N, h, w] the codes nearest to them
  };
  void encode(Queue& queue, Arena& arena, const EncodeArgs& args) const;

 private:
  struct Coder {
    ConvWeight conv_in;
    std::vector<ConvBlock> conv_blocks;
    MidBlock mid;
    GroupNorm norm_out;
    ConvWeight conv_out;
  };
  Shape pixels_shape(const Shape& codes) const;
  // Decodes a few pictures, together while they are small.
  void decode_together(Queue& queue, Arena& arena, const DecodeArgs& args) const;
  // From what the first of `blocks` takes, [N, C, h, w], to pixels, [N, 3, H, W].
  void decode_blocks(Queue& queue, Arena& arena, std::span<const ConvBlock> blocks, Tensor x,
                     Tensor pixels) const;
  void load_encoder(WeightLoader& loader);
  void load_decoder(WeightLoader& loader);

  VqConfig config_;
  int64_t serial_;   // in the keys of recordings
  Weight codebook_;  // [codebook_size, e], rows of length 1
  Coder encoder_;
  ConvWeight quant_conv_;       // z -> e, 1x1
  ConvWeight post_quant_conv_;  // e -> z, 1x1
  Coder decoder_;
};

}  // namespace volley::image
