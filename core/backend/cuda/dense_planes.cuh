#pragma once

// Queries, keys and values of dense attention as the kernel with wgmma takes them: [items][heads][rows][64]
// in bf16, queries multiplied by the scale of base 2 exponents before.

#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {

inline constexpr int kDenseWidth = 64;  // of a head

struct DensePlanes {
  enum Kind { kQueries, kKeys, kValues };
  static constexpr int kCount = 3;
  static constexpr int kVectors = kDenseWidth / kLaneInputs;  // of a head's row

  std::byte* data = nullptr;
  int64_t items = 0;
  int rows = 0;  // of an item
  int heads = 0;
  float scale = 1.0f;

  __host__ __device__ int64_t plane_bytes() const { return items * rows * heads * kDenseWidth * 2; }
  int64_t bytes() const { return kCount * plane_bytes(); }
  __host__ __device__ std::byte* plane(int kind) const { return data + kind * plane_bytes(); }
  // The vectors of a head's row, of rows of all items.
  __device__ uint4* vectors(int kind, int64_t row, int head) const {
    const int64_t item = row / rows;
    return reinterpret_cast<uint4*>(plane(kind)) +
           ((item * heads + head) * rows + (row - item * rows)) * kVectors;
  }
  __device__ uint32_t two_rounded(int kind, float2 pair) const {
    return kind == kQueries ? two_bf16(pair.x * scale, pair.y * scale) : two_bf16(pair.x, pair.y);
  }
};

inline DensePlanes dense_planes(const DenseAttentionArgs& args, std::byte* data) {
  constexpr float kLog2E = 1.4426950408889634f;
  return {.data = data,
          .items = args.q.shape[0],
          .rows = static_cast<int>(args.q.shape[1]),
          .heads = static_cast<int>(args.q.shape[2]),
          .scale = args.scale * kLog2E};
}

// ---- attention_dense_wgmma.cu: bf16 operands, heads of kDenseWidth
inline bool takes_dense_planes(const DenseAttentionArgs& args, const Abilities& abilities) {
  constexpr int64_t kMostHeads = 65'535;  // of all items: of a grid's second axis
  return abilities.has_wgmma && args.operands == Operands::kBF16 && args.q.shape[3] == kDenseWidth &&
         args.q.shape[0] * args.q.shape[2] <= kMostHeads;
}
void launch_round_dense_planes(const DenseAttentionArgs& args, const DensePlanes& planes,
                               const Stream& stream);
// The results go to `packed` where it has data, else to `out`.
void launch_dense_planes(const DensePlanes& planes, const PackedRows& packed, float* out,
                         const Stream& stream);

// ---- products_bf16_chains.cu: of queries, keys and values
void multiply_chains(const ManyRows& rows, const LinearsArgs& args, const DensePlanes& out,
                     const Stream& stream);

}  // namespace volley::cuda
