#pragma once

// The parts of products with bf16 weights. A packed weight is panels of kTileOut outputs: [N / 8][K / 32][512
// bytes], and rows are packed alike: [R / 8][K / 32][512 bytes]. A block of 512 bytes holds 8 outputs, or
// rows, by the 32 inputs of a step, in vectors of 8 inputs: vector v of output n is the block's (4 * n + (v ^
// n / 2 % 4))th. Copied to shared memory as it is, a block is what wgmma calls 64-byte swizzle, and eight
// vectors of the same inputs lie in different banks. Inputs 0..15 of a step belong to its first
// multiply-accumulate, 16..31 to its second.

#include <functional>

#include "core/backend/cuda/multiply_accumulate.cuh"
#include "core/backend/cuda/product_targets.cuh"
#include "core/backend/cuda/row_parts.cuh"

namespace volley::cuda {

inline constexpr int kBlockBytes = kTileOut * kStep * 2;

// Where in a block the vector of lane l lies, which holds vector l % 4 of row l / 4.
__device__ inline int block_place(int lane) {
  return lane ^ lane / 8;
}
// Where in a block the vector lies whose address lane l gives to `load_block`.
__device__ inline int load_place(int lane) {
  return block_place(lane % 8 * 4 + lane / 8);
}
// A lane's part of a block in shared memory: inputs 2 * (l % 4) and the next of each vector of row l / 4.
__device__ inline uint4 load_block(const uint4* vector) {
  uint4 part;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(part.x), "=r"(part.y), "=r"(part.z), "=r"(part.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(vector)))
               : "memory");
  return part;
}

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

// Rows as products take them: rounded, in blocks.
struct PackedRows {
  uint4* data = nullptr;
  int steps = 0;

  static int64_t bytes(int64_t rows, int64_t in_features) {
    return ceil_div(rows, kTileRows) * kTileRows * ceil_div(in_features, kStep) * kStep * 2;
  }
  // A block of eight rows; that of the next step is behind it.
  __host__ __device__ uint4* part(int64_t eight, int step) const {
    return data + (eight * steps + step) * kWarp;
  }
  __device__ __nv_bfloat16* at(int64_t row, int64_t k) const {
    const int place = block_place(static_cast<int>(row % 8 * 4 + k % kStep / kLaneInputs));
    return reinterpret_cast<__nv_bfloat16*>(part(row / 8, static_cast<int>(k / kStep)) + place) +
           k % kLaneInputs;
  }
};

// Which rows of a table of `table_rows`, all of them there.
struct PickedRows {
  const int32_t* ids = nullptr;
  int64_t table_rows = 0;
};

// What is multiplied: rows, normed if `norm` is not null; or, if `packed` is not null, rows that are packed.
struct BF16Products {
  InputRows rows;
  const NormWeights* norm = nullptr;
  const PackedRows* packed = nullptr;
};

// ---- products_bf16_few.cu: up to kMostFewRows rows, in one launch
inline constexpr int64_t kMostFewRows = 2 * kTileRows;
// The most that this kernel takes where there is wgmma, which is faster with more.
inline constexpr int64_t kMostFewRowsBesideWgmma = kTileRows;
void multiply_few_rows(const BF16Products& products, const LinearsArgs& args, Accumulate accumulate,
                       const Stream& stream);
// `out` not null: the results are packed there, those of rows up to a multiple of eight with them.
void multiply_few_rows(const BF16Products& products, const GatedLinearsArgs& args, const PackedRows* out,
                       const Stream& stream);
// By a program that is recorded, if it takes them: of normed rows that `picked` picks from products.rows.x,
// of which there are products.rows.count. `launch` does the same. Whether it does.
bool program_takes(const BF16Products& products, const PickedRows& picked, const LinearsArgs& args,
                   const std::function<void(const Stream&)>& launch, const Stream& stream);
// Whether the shape of the heads allows the next.
bool few_rows_take(const AttentionInputsArgs& args);
void multiply_few_rows(const BF16Products& products, const AttentionInputsArgs& args, const Stream& stream);

// ---- Any number of rows, which are packed
struct ManyRows {
  PackedRows packed;
  int64_t count;
  const float* scales = nullptr;  // [count] of the sums; or null

  // Of any row, asked for where there are scales.
  __device__ float scale(int64_t row) const { return row < count ? scales[row] : 1.0f; }
};

// ---- products_bf16_many.cu
void multiply_many_rows(const ManyRows& rows, const LinearsArgs& args, Accumulate accumulate,
                        const Stream& stream);
// `out` as above, of rows up to a multiple of 16.
void multiply_many_rows(const ManyRows& rows, const GatedLinearsArgs& args, const PackedRows* out,
                        const Stream& stream);

// ---- products_bf16_wgmma.cu: the same where Stream::has_wgmma, of inputs that have steps in every slice
inline bool row_groups_take(const ManyRows& rows) {
  return rows.packed.steps >= kSlices;
}
void multiply_row_groups(const ManyRows& rows, const LinearsArgs& args, Accumulate accumulate,
                         const Stream& stream);
void multiply_row_groups(const ManyRows& rows, const GatedLinearsArgs& args, const PackedRows* out,
                         const Stream& stream);
// Whether the shapes of heads and inputs allow the next.
bool row_groups_take(const AttentionInputsArgs& args);
void multiply_row_groups(const ManyRows& rows, const AttentionInputsArgs& args, const Stream& stream);

// ---- norms.cu: a layer norm whose results are rounded and packed
bool takes_packed_layer_norm(const LayerNormArgs& args);
void launch_packed_layer_norm(const LayerNormArgs& args, const PackedRows& packed, const Stream& stream);

// ---- products_bf16_chains.cu: those of Phase::kEncoder where Stream::has_wgmma, whose outputs are sums of
// another order
void multiply_chains(const ManyRows& rows, const LinearsArgs& args, Accumulate accumulate,
                     const Stream& stream);
// Of one weight: the results are activated by Activation::kGeluErf and packed to `out`, those of rows up to a
// multiple of 16.
void multiply_gelu_chains(const ManyRows& rows, const LinearsArgs& args, const PackedRows& out,
                          const Stream& stream);

}  // namespace volley::cuda
