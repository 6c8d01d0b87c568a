#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/io/torch_zip.h"
#include "core/io/weight_source.h"

namespace volley {

// Opens a checkpoint, whatever its container: a safetensors file, a `*.safetensors.index.json`, a PyTorch
// zip file, a GGUF file (of a split model, its first part), or a folder with model.safetensors or
// model.safetensors.index.json (the first that is there).
// The container is told from the first bytes, by the file's extension only where they say nothing.
// Throws Error "<path>: <fault>"; kModelMissing if nothing is there, kFailed otherwise.
//
// kSkip opens a PyTorch file for its names and shapes only: reading its values compares no CRC.
std::unique_ptr<WeightSource> open_weights(const std::string& path, CrcCheck crc = CrcCheck::kVerify);

// The files that such a checkpoint consists of: itself, or an index and the shards it names, or the parts of
// a split GGUF model, in order of name. Throws as open_weights does.
std::vector<std::string> weight_files(const std::string& path);

}  // namespace volley
