#pragma once

#include <memory>
#include <string>

#include "core/io/gguf.h"
#include "core/io/weight_source.h"
#include "text/llama.h"

namespace volley::text {

// A model of the Llama kind on disk: what its file says of it, and its weights under the names Llama reads.
struct LlamaCheckpoint {
  LlamaConfig config;
  std::unique_ptr<WeightSource> weights;
  // Where it was read from, if that is GGUF: the tokenizer is in there, too. Null otherwise.
  std::shared_ptr<const GgufFile> gguf;
};

// Opens a GGUF file (told by its first bytes), or a folder or safetensors file with config.json beside it.
// Throws Error naming the file and what is missing or not supported.
LlamaCheckpoint open_llama(const std::string& path);

// The model in a GGUF file of architecture llama, qwen2, qwen3 or llada. Its tensors are views of the file
// under the names of transformers, but for the rows of q and k of "llama" and "llada": those are stored for a
// rotary embedding of neighbours (2i, 2i + 1) and are copied back into the order of halves (i, i + width /
// 2), in which the same model reads both kinds of file. "rope_freqs.weight", the divisors of Llama 3's
// frequencies, goes into the config. Without "output.weight" the embedding is tied. Ref: ggml, docs/gguf.md
// ("LLaMA", `permute`); llama.cpp for the names of tensors
LlamaCheckpoint llama_from_gguf(std::unique_ptr<GgufFile> file);

}  // namespace volley::text
