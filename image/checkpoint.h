#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/io/open_weights.h"

namespace volley::image {

// What a checkpoint of this modality holds.
enum class CheckpointKind : uint8_t { kLlamaGenClass, kLlamaGenCaption, kArpg, kVq };
// "llamagen c2i", "llamagen t2i", "arpg", "llamagen vq"
std::string_view checkpoint_kind_name(CheckpointKind kind);

// Tells a checkpoint by tensors that only its kind has, whatever form it was published in; empty if none of
// them fits.
std::optional<CheckpointKind> recognise_checkpoint(const WeightSource& weights);

// Opens a checkpoint of this modality. Those that stand under the names of transformers' Llama (LANTERN's
// re-exports: q, k and v apart) come back under the authors' names, with attention.wq, wk and wv in place of
// wqkv. Throws as open_weights does.
std::unique_ptr<WeightSource> open_image_weights(const std::string& path, CrcCheck crc = CrcCheck::kVerify);

// What a config.json beside a checkpoint may state: what tensors do not tell, in the authors' words or those
// of transformers. All optional.
struct StatedSizes {
  std::optional<int64_t> n_head;   // n_head or num_attention_heads
  std::optional<float> norm_eps;   // norm_eps or rms_norm_eps
  std::optional<float> rope_base;  // rope_base or rope_theta
};
// Throws Error "<path>: key ..."; a file that is not there states nothing.
StatedSizes read_stated_sizes(const std::string& path);

}  // namespace volley::image
