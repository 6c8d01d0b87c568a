#pragma once

// Where the sums of wgmma go. A thread has those of rows `row` and `row` + 8, of panels of 8 outputs, in
// sums[4 * panel] .. + 3: outputs 2 * (l % 4) and the next of the first row, then of the second. The four
// lanes of a row exchange them, so that what a lane stores at once lies together.

#include <type_traits>

#include "core/backend/cuda/product_tiles.cuh"

namespace volley::cuda {

// Of each weight's `kEach` panels, pair by pair.
template <int kEach, typename Tile, int kValues>
__device__ void store_pairs(const Tile& tile, int64_t rows, int64_t row, int out,
                            const float (&sums)[kValues]) {
  constexpr int kWeights = kValues / (4 * kEach);
  const int first = out + static_cast<int>(threadIdx.x) % 4 * 2;
  const typename Tile::Row places[] = {tile.row(row, rows, first), tile.row(row + 8, rows, first)};
#pragma unroll
  for (int i = 0; i < 2 * kEach; ++i) {
    const int n = i / 2, half = i % 2;
    float2 pair[kWeights];
#pragma unroll
    for (int w = 0; w < kWeights; ++w) {
      const int value = (w * kEach + n) * 4 + half * 2;
      pair[w] = {sums[value], sums[value + 1]};
    }
    const auto before = places[half].template read<false>(n * kTileOut);
    places[half].template store<false>(n * kTileOut, pair, before);
  }
}

// Even lanes take four outputs of the first of two panels, odd lanes of the second.
template <int kValues>
__device__ void store_sums(const LinearTiles::Tile& tile, int64_t rows, int64_t row, int out,
                           const float (&sums)[kValues], const NothingEarly&) {
  constexpr int kPanels = kValues / 4;
  static_assert(kPanels % 2 == 0);
  if (!tile.fours()) return store_pairs<kPanels>(tile, rows, row, out, sums);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool odd = lane % 2 != 0;
  const int first = out + lane % 2 * kTileOut + lane / 2 % 2 * 4;
  const LinearTiles::Tile::Row places[] = {tile.row(row, rows, first), tile.row(row + 8, rows, first)};
  float4 before[kPanels];
#pragma unroll
  for (int i = 0; i < kPanels; ++i) before[i] = places[i % 2].read_four(i / 2 * 2 * kTileOut);
#pragma unroll
  for (int i = 0; i < kPanels; ++i) {
    const int value = i / 2 * 8 + i % 2 * 2;  // in the first panel, four before that in the second
    const float2 own = odd ? float2{sums[value + 4], sums[value + 5]} : float2{sums[value], sums[value + 1]};
    const float2 given =
        odd ? float2{sums[value], sums[value + 1]} : float2{sums[value + 4], sums[value + 5]};
    const float2 taken{__shfl_xor_sync(kAllLanes, given.x, 1), __shfl_xor_sync(kAllLanes, given.y, 1)};
    places[i % 2].store_four(
        i / 2 * 2 * kTileOut,
        odd ? make_float4(taken.x, taken.y, own.x, own.y) : make_float4(own.x, own.y, taken.x, taken.y),
        before[i]);
  }
}

// A packed result is stored vector by vector.
template <int kValues>
__device__ void store_sums(const GatedTiles::Tile& tile, int64_t rows, int64_t row, int out,
                           const float (&sums)[kValues], const NothingEarly&) {
  constexpr int kEach = kValues / 8;
  uint4* const blocks[] = {tile.packed_blocks(row), tile.packed_blocks(row + 8)};
  if (kEach % 4 != 0 || blocks[0] == nullptr) return store_pairs<kEach>(tile, rows, row, out, sums);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < kEach / 4 * 2; ++i) {
    const int half = i % 2, n = i / 2 * 4, first = out + n * kTileOut;
    if (first >= tile.out_features()) break;
    uint32_t pairs[4];
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const int value = (n + p) * 4 + half * 2;
      pairs[p] = tile.joined_pair(first + p * kTileOut + lane % 4 * 2, {sums[value], sums[value + 1]},
                                  {sums[kEach * 4 + value], sums[kEach * 4 + value + 1]});
    }
    const uint4 vector = transposed_of_four(pairs[0], pairs[1], pairs[2], pairs[3]);
    if (row + half * 8 < (rows + kTileRows - 1) / kTileRows * kTileRows)
      blocks[half][first / kStep * kWarp + block_place(lane)] = vector;
  }
}

}  // namespace volley::cuda
