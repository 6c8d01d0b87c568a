#pragma once

#include <cstdint>
#include <string>

#include "core/tensor/tensor.h"

namespace volley {

// Sizes of a LLaDA model; those of LLaDA-8B-Instruct unless told otherwise.
// Ref: GSAI-ML/LLaDA-8B-Instruct, config.json
struct LladaSize {
  int64_t dim = 4096;
  int64_t heads = 32;
  int64_t feed_forward = 12288;
  int64_t layers = 32;
  int64_t vocab = 126464;
  int64_t positions = 4096;
  int32_t mask_token = 126336;
};

// Writes a checkpoint of random weights, as the published one lies on disk, without the tokenizer:
// config.json, shards and their index. A shard is in memory at a time. dtype: kF32 or kBF16.
void write_random_llada(const LladaSize& size, DType dtype, const std::string& folder);

}  // namespace volley
