#pragma once

// Products of few rows with bf16 weights, whoever runs them: what the rows are, and how a warp adds up a
// slice of the inputs.

#include "core/backend/cuda/attention_units.cuh"
#include "core/backend/cuda/product_units.cuh"

namespace volley::cuda {

// What the rows are before they are multiplied.
enum class Input { kRows, kNormed, kPacked };

struct FewRows {
  explicit FewRows(const BF16Products& products)
      : input(products.norm != nullptr     ? Input::kNormed
              : products.packed != nullptr ? Input::kPacked
                                           : Input::kRows),
        rows(products.rows),
        norm(products.norm != nullptr ? *products.norm : NormWeights{}),
        packed(products.packed != nullptr ? *products.packed : PackedRows{}) {}

  Input input;
  InputRows rows;
  NormWeights norm;   // if kNormed, or if there are squares
  PackedRows packed;  // if kPacked
  // In a program:
  PickedRows picked;               // if kNormed: of `rows.x`, if it has ids
  const float* squares = nullptr;  // if kPacked: of rows that an earlier phase hands on (HandedRows); or null
  bool posted = false;             // whether what is packed is

  // Whether sums have scales.
  __device__ bool scales() const { return input == Input::kNormed || squares != nullptr; }
};

// kGroups of eight rows, as multiply-accumulates take them.
template <int kGroups>
struct FewTiles {
  static constexpr int kTiles = (kGroups + 1) / 2;
  static constexpr int kValues = kGroups * 8 * kTileOut;  // of a panel
};

// Sums of a warp: of kSlots panels and a slice of the inputs.
template <int kGroups, int kSlots>
class SliceSums {
  static constexpr int kTiles = FewTiles<kGroups>::kTiles;

 public:
  // One step, of which the blocks of a panel and those of the rows, group by group, are in shared memory.
  __device__ void add(const uint4* const (&panels)[kSlots], const uint4* rows) {
    const int place = load_place(static_cast<int>(threadIdx.x) % kWarp);
    uint4 weights[kSlots];
#pragma unroll
    for (int s = 0; s < kSlots; ++s) weights[s] = load_block(panels[s] + place);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const uint4* row = rows + 2 * t * kWarp + place;
      multiply_step(sums_[t], load_block(row),
                    2 * t + 1 < kGroups ? load_block(row + kWarp) : make_uint4(0, 0, 0, 0), weights);
    }
  }
  // Whether the lane has a NaN, or different infinities, among those of the first so many rows.
  __device__ bool may_have_nan(int rows) const {
    const int row = static_cast<int>(threadIdx.x) % kWarp / 4;
    bool any = false;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      float all = 0.0f;
#pragma unroll
      for (int s = 0; s < kSlots; ++s)
        all += sums_[g / 2][s].values[g % 2 * 2] + sums_[g / 2][s].values[g % 2 * 2 + 1];
      any = any || (isnan(all) && row + g * 8 < rows);
    }
    return any;
  }
  // Leaves them where those of other slices join them: [rows, outputs] of a panel.
  __device__ void put(int slot, float* part) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      const auto& sums = sums_[t][slot].values;
      float* to = part + (t * kTileRows + lane / 4) * kTileOut + lane % 4 * 2;
      to[0] = sums[0];
      to[1] = sums[1];
      if (2 * t + 1 >= kGroups) continue;
      to[8 * kTileOut] = sums[2];
      to[8 * kTileOut + 1] = sums[3];
    }
  }

 private:
  Tile sums_[kTiles][kSlots];
};

// The sums of all slices at one place of a panel.
template <int kValues>
__device__ float joined(const float (&parts)[kSlices][kValues], int at) {
  return join_slices(parts[0][at], parts[1][at], parts[2][at], parts[3][at]);
}

}  // namespace volley::cuda
