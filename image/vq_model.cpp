// VQ-GAN with a small codebook of unit vectors: the image tokenizer of LlamaGen and ARPG.
// Ref: Esser et al., "Taming Transformers"; Yu et al., "Vector-quantized Image Modeling with Improved VQGAN";
// FoundationVision/LlamaGen, tokenizer/tokenizer_image/vq_model.py.
// Letters: N pictures, e code width, z latent channels, C channels, h x w codes, H x W pixels.
#include "image/vq_model.h"

#include <algorithm>
#include <array>

#include "core/base/error.h"
#include "core/base/serial.h"

namespace volley::image {
namespace {

// Pictures are worked on together up to so many, and up to so many points: alone small ones keep no device
// busy, and of large ones more would not stay in its cache.
constexpr int64_t kTogether = 16;
constexpr int64_t kPointsTogether = 256 * 128;

// Calls work(first, count) for the pictures of x that are worked on together, where each has so many points.
template <typename Work>
void for_pictures(Tensor x, int64_t area, const Work& work) {
  const int64_t together = std::clamp<int64_t>(kPointsTogether / area, 1, kTogether);
  for (int64_t n = 0; n < x.shape[0]; n += together) work(n, std::min(together, x.shape[0] - n));
}

}  // namespace

Shape VqModel::pixels_shape(const Shape& codes) const {
  return {codes[0], 3, codes[1] * config_.factor(), codes[2] * config_.factor()};
}

void VqModel::decode(Queue& queue, Arena& arena, const DecodeArgs& args) const {
  VOLLEY_ASSERT(args.pixels.shape == pixels_shape(args.codes.shape));
  for_pictures(args.pixels, args.codes.shape[1] * args.codes.shape[2], [&](int64_t n, int64_t count) {
    const DecodeArgs part{.codes = args.codes.rows(n, count), .pixels = args.pixels.rows(n, count)};
    const auto address = [](const auto* data) {
      return static_cast<int64_t>(reinterpret_cast<intptr_t>(data));
    };
    const std::array key{
        serial_, address(part.codes.data), address(part.pixels.data), address(arena.next()), arena.serial(),
        count,   part.codes.shape[1],      part.codes.shape[2]};
    queue.run_recorded(key, [&] { decode_together(queue, arena, part); });
  });
}

void VqModel::decode_together(Queue& queue, Arena& arena, const DecodeArgs& args) const {
  const Arena::Scope scope(arena);
  const int64_t count = args.codes.shape[0], height = args.codes.shape[1], width = args.codes.shape[2];
  const int64_t area = height * width, embed = config_.codebook_embed_dim;
  const Tensor rows = arena.tensor({count, area, embed});  // [N, hw, e]
  queue.gather_rows({.table = codebook_.view(),
                     .ids = args.codes.reshape({count * area}),
                     .out = rows.reshape({count * area, embed})});
  const Tensor planes = arena.tensor({count, embed, height, width});  // [N, e, h, w]
  queue.transpose({.x = rows, .out = planes.reshape({count, embed, area})});
  const Tensor latent = arena.tensor({count, config_.z_channels, height, width});  // [N, z, h, w]
  queue.conv2d(same_size(planes, post_quant_conv_, latent));
  Tensor x = arena.tensor({count, decoder_.conv_in.out_channels, height, width});  // [N, C, h, w]
  queue.conv2d(same_size(latent, decoder_.conv_in, x));
  x = decoder_.mid.apply(queue, arena, x);  // [N, C, h, w]
  decode_blocks(queue, arena, decoder_.conv_blocks, x, args.pixels);
}

void VqModel::decode_blocks(Queue& queue, Arena& arena, std::span<const ConvBlock> blocks, Tensor x,
                            Tensor pixels) const {
  x = blocks.front().apply_res(queue, arena, x);  // [N, C, h, w]
  const std::span<const ConvBlock> next = blocks.subspan(1);
  const int64_t area = x.shape[2] * x.shape[3] * (blocks.front().upsample ? 4 : 1);  // of the next
  for_pictures(x, area, [&](int64_t first, int64_t count) {
    const Arena::Scope scope(arena);
    const Tensor some = pixels.rows(first, count);                                       // [n, 3, H, W]
    const Tensor y = blocks.front().apply_resample(queue, arena, x.rows(first, count));  // [n, C, h', w']
    if (!next.empty()) return decode_blocks(queue, arena, next, y, some);
    normed_conv(queue, decoder_.norm_out.of(y, Swish::kAfter, y), same_size(y, decoder_.conv_out, some));
  });
}

void VqModel::encode(Queue& queue, Arena& arena, const EncodeArgs& args) const {
  const int64_t height = args.codes.shape[1], width = args.codes.shape[2], embed = config_.codebook_embed_dim;
  VOLLEY_ASSERT(args.pixels.shape == pixels_shape(args.codes.shape));
  VOLLEY_ASSERT(args.latents.shape == Shape({args.codes.shape[0], embed, height, width}));
  for (int64_t n = 0; n < args.codes.shape[0]; ++n) {
    const Arena::Scope scope(arena);
    Tensor x = arena.tensor({1, config_.ch, args.pixels.shape[2], args.pixels.shape[3]});  // [1, C, H, W]
    queue.conv2d(same_size(args.pixels.rows(n, 1), encoder_.conv_in, x));
    for (const ConvBlock& block : encoder_.conv_blocks) x = block.apply(queue, arena, x);  // [1, C, h, w]
    x = encoder_.mid.apply(queue, arena, x);                                               // [1, C, h, w]
    const Tensor latent = arena.tensor({1, config_.z_channels, height, width});            // [1, z, h, w]
    normed_conv(queue, encoder_.norm_out.of(x, Swish::kAfter, x), same_size(x, encoder_.conv_out, latent));
    const Tensor planes = args.latents.rows(n, 1);  // [1, e, h, w]
    queue.conv2d(same_size(latent, quant_conv_, planes));
    const Tensor rows = arena.tensor({1, height * width, embed});  // [1, hw, e]
    queue.transpose({.x = planes.reshape({1, embed, height * width}), .out = rows});
    const Tensor units = rows.reshape({height * width, embed});  // [hw, e]
    queue.l2_normalize({.x = units, .out = units});
    queue.nearest_rows(
        {.x = units, .table = codebook_.view(), .ids = args.codes.rows(n, 1).reshape({height * width})});
  }
}

void VqModel::load_encoder(WeightLoader& loader) {
  const auto levels = static_cast<int64_t>(config_.ch_mult.size());
  int64_t channels = config_.ch;
  encoder_.conv_in = loader.conv("encoder.conv_in", channels, 3, 3);
  for (int64_t level = 0; level < levels; ++level) {
    const bool is_deepest = level == levels - 1;
    const int64_t out = config_.ch * config_.ch_mult[level];
    encoder_.conv_blocks.push_back(
        load_conv_block(loader, "encoder.conv_blocks." + std::to_string(level) + ".",
                        {.in = channels,
                         .out = out,
                         .blocks = config_.num_res_blocks,
                         .attention_blocks = is_deepest ? config_.num_res_blocks : 0,
                         .resample = is_deepest ? Resample::kNone : Resample::kDown}));
    channels = out;
  }
  encoder_.mid = load_mid_block(loader, "encoder.mid.", channels);
  encoder_.norm_out = load_group_norm(loader, "encoder.norm_out", channels);
  encoder_.conv_out = loader.conv("encoder.conv_out", config_.z_channels, channels, 3);
}

void VqModel::load_decoder(WeightLoader& loader) {
  const auto levels = static_cast<int64_t>(config_.ch_mult.size());
  int64_t channels = config_.ch * config_.ch_mult.back();
  decoder_.conv_in = loader.conv("decoder.conv_in", channels, config_.z_channels, 3);
  decoder_.mid = load_mid_block(loader, "decoder.mid.", channels);
  const int64_t blocks = config_.num_res_blocks + 1;
  for (int64_t i = 0; i < levels; ++i) {  // the decoder counts its blocks from the deepest level
    const int64_t level = levels - 1 - i;
    const int64_t out = config_.ch * config_.ch_mult[level];
    decoder_.conv_blocks.push_back(
        load_conv_block(loader, "decoder.conv_blocks." + std::to_string(i) + ".",
                        {.in = channels,
                         .out = out,
                         .blocks = blocks,
                         .attention_blocks = i == 0 ? blocks : 0,
                         .resample = level == 0 ? Resample::kNone : Resample::kUp}));
    channels = out;
  }
  decoder_.norm_out = load_group_norm(loader, "decoder.norm_out", channels);
  decoder_.conv_out = loader.conv("decoder.conv_out", 3, channels, 3);
}

VqModel::VqModel(VqConfig config, WeightLoader loader) : config_(std::move(config)), serial_(next_serial()) {
  const int64_t embed = config_.codebook_embed_dim;
  codebook_ = loader.tensor("quantize.embedding.weight", {config_.codebook_size, embed});
  // Lookups and distances are both by the normalised rows (codebook_l2_norm).
  const Tensor rows = codebook_.buffer.view<float>(codebook_.shape);  // [codebook_size, e]
  const std::unique_ptr<Queue> queue = loader.backend().make_queue();
  queue->l2_normalize({.x = rows, .out = rows});
  queue->finish();
  load_encoder(loader);
  quant_conv_ = loader.conv("quant_conv", embed, config_.z_channels, 1);
  post_quant_conv_ = loader.conv("post_quant_conv", config_.z_channels, embed, 1);
  load_decoder(loader);
  loader.ignore("quantize.codebook_used");
  loader.finish();
}

}  // namespace volley::image
