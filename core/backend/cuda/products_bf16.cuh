#pragma once

// The parts of products with bf16 weights. A packed weight is panels of kTileOut outputs: [N / 8][K /
// 32][lane][8]. What a lane of a warp needs of 8 outputs by 32 inputs for two multiply-accumulates m16n8k16
// lies side by side, and a warp reads it as one run of 512 bytes. Lane l holds output l / 4 and inputs 8 * (l
// % 4) .. + 7. The order of inputs within a multiply-accumulate is free as long as rows follow it too.

#include "core/backend/cuda/multiply_accumulate.cuh"
#include "core/backend/cuda/product_targets.cuh"
#include "core/backend/cuda/row_parts.cuh"

namespace volley::cuda {

struct Tile {
  float values[4] = {};  // (row l / 4, outputs 2 * (l % 4) and the next), (row l / 4 + 8, the same)
};

// One step of some panels: `upper` and `lower` are the lane's parts of rows l / 4 and l / 4 + 8. The two
// multiply-accumulates of a panel follow each other, those of other panels stand between them.
template <int kPanels>
__device__ void multiply_step(Tile (&tiles)[kPanels], const uint4& upper, const uint4& lower,
                              const uint4 (&weights)[kPanels]) {
#pragma unroll
  for (int n = 0; n < kPanels; ++n)
    multiply_accumulate(tiles[n].values, {upper.x, lower.x, upper.y, lower.y}, weights[n].x, weights[n].y);
#pragma unroll
  for (int n = 0; n < kPanels; ++n)
    multiply_accumulate(tiles[n].values, {upper.z, lower.z, upper.w, lower.w}, weights[n].z, weights[n].w);
}

// Copies 16 bytes to shared memory beside the thread.
__device__ inline void copy_async(uint4* to, const uint4* from) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

__device__ inline const uint4* panel_of(const ProductTarget& target, int64_t panel, int steps) {
  return reinterpret_cast<const uint4*>(target.weight) + panel * steps * kWarp;
}
inline int64_t panels_of(int64_t out_features) {
  return ceil_div(out_features, kTileOut);
}

inline InputRows input_rows(ConstTensor x, const LinearWeight& weight) {
  return {x.data, weight.in_features, x.size() / weight.in_features};
}

// Rows as products take them: rounded, in tiles [R / 16][K / 32][half][lane][8].
struct PackedRows {
  uint4* data = nullptr;
  int steps = 0;

  static int64_t bytes(int64_t rows, int64_t in_features) {
    return ceil_div(rows, kTileRows) * kTileRows * ceil_div(in_features, kStep) * kStep * 2;
  }
  // A lane's part of eight rows; those of the next step are 2 * kWarp behind.
  __host__ __device__ uint4* part(int64_t eight, int step) const {
    return data + ((eight / 2 * steps + step) * 2 + eight % 2) * kWarp;
  }
  __device__ __nv_bfloat16* at(int64_t row, int64_t k) const {
    const auto lane = row % 8 * 4 + k % kStep / kLaneInputs;
    return reinterpret_cast<__nv_bfloat16*>(part(row / 8, static_cast<int>(k / kStep)) + lane) +
           k % kLaneInputs;
  }
};

// What is multiplied: rows, normed first if `norm` is not null; or, if `packed` is not null, rows that are
// packed.
struct BF16Products {
  InputRows rows;
  const NormWeights* norm = nullptr;
  const PackedRows* packed = nullptr;
};

// ---- products_bf16_few.cu: up to kMostFewRows rows, in one launch
inline constexpr int64_t kMostFewRows = 2 * kTileRows;
void multiply_few_rows(const BF16Products& products, const LinearsArgs& args, Accumulate accumulate,
                       const Stream& stream);
// `out` not null: the results are packed there, those of rows up to a multiple of eight with them.
void multiply_few_rows(const BF16Products& products, const GatedLinearsArgs& args, const PackedRows* out,
                       const Stream& stream);
// Whether the shape of the heads allows the next.
bool few_rows_take(const AttentionInputsArgs& args);
void multiply_few_rows(const BF16Products& products, const AttentionInputsArgs& args, const Stream& stream);

// ---- products_bf16_many.cu: any number of rows, which are rounded to `scratch` first
void multiply_many_rows(const BF16Products& products, const LinearsArgs& args, Accumulate accumulate,
                        std::byte* scratch, const Stream& stream);
// `out` as above, of rows up to a multiple of 16.
void multiply_many_rows(const BF16Products& products, const GatedLinearsArgs& args, const PackedRows* out,
                        std::byte* scratch, const Stream& stream);

}  // namespace volley::cuda
