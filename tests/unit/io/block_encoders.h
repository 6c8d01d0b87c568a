#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor/dtype.h"

namespace volley::test {

// A matrix as a GGUF file holds it, and what its bytes stand for. The values come from the numbers that were
// written, not from reading the bytes, so that a reader can be held against them.
struct EncodedMatrix {
  uint32_t type = 0;  // in the file
  std::string bytes;
  std::vector<float> values;
  // The blocks that products of a model with kept blocks have: of q4_1 or q8_0, else `values` as f32.
  DType kept_type = DType::kF32;
  std::string kept;
};

// Rounds values, as many as whole blocks need, to a format of GGUF files: "f32", "f16", "bf16", "q4_0",
// "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k".
// Ref: ggml, src/ggml-quants.c for the layouts; scales are found by simpler rules than there.
EncodedMatrix encode_matrix(const std::string& format, const std::vector<float>& values);

}  // namespace volley::test
