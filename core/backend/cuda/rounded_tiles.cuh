#pragma once

// Tiles of products whose results are rounded where the sums are: activated and packed as the rows of the
// next product, or laid out as dense attention takes them.

#include "core/backend/cuda/dense_planes.cuh"
#include "core/backend/cuda/group_results.cuh"

namespace volley::cuda {

// Vectors of eight outputs of rows `row` and `row` + 8 of panels, in fours: round(out, pair) makes two
// outputs a word, put(half, out, vector) takes those of `out` + 8 * (l % 4) .. + 7.
template <int kValues, typename Round, typename Put>
__device__ void store_vectors(int out, int out_features, const float* bias, const float (&sums)[kValues],
                              const Round& round, const Put& put) {
  constexpr int kPanels = kValues / 4;
  static_assert(kPanels % 4 == 0);
  const int quarter = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int n = 0; n < kPanels; n += 4) {
    const int first = out + n * kTileOut;
    if (first >= out_features) break;
    float2 biases[4];
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const int at = first + p * kTileOut + quarter * 2;
      biases[p] = bias != nullptr ? float2{bias[at], bias[at + 1]} : float2{0.0f, 0.0f};
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t words[4];
#pragma unroll
      for (int p = 0; p < 4; ++p) {
        float2 pair{sums[(n + p) * 4 + half * 2], sums[(n + p) * 4 + half * 2 + 1]};
        if (bias != nullptr) pair = {pair.x + biases[p].x, pair.y + biases[p].y};
        words[p] = round(pair);
      }
      put(half, first, transposed_of_four(words[0], words[1], words[2], words[3]));
    }
  }
}

// Of one weight, activated by Activation::kGeluErf; outputs are whole steps.
struct GeluTiles {
  static constexpr int kWeights = 1;

  GeluTiles(const LinearsArgs& args, const PackedRows& out, int64_t tile_out)
      : targets(args, tile_out), packed(out) {}
  unsigned tiles() const { return targets.tiles(); }
  int target_count() const { return targets.count(); }
  const ProductTarget& target(int index) const { return targets.target(index); }

  struct Tile {
    __device__ Tile(const GeluTiles& tiles, unsigned tile) : all(tiles), place(tiles.targets.find(tile)) {}
    __device__ unsigned index() const { return place.tile; }
    __device__ int target(int) const { return place.index; }

    const GeluTiles& all;
    ProductTargets::Place place;
  };

  ProductTargets targets;
  PackedRows packed;
};

template <int kValues>
__device__ void store_sums(const GeluTiles::Tile& tile, int64_t rows, int64_t row, int out,
                           const float (&sums)[kValues], const NothingEarly&) {
  const GeluTiles& all = tile.all;
  const int place = block_place(static_cast<int>(threadIdx.x) % kWarp);
  uint4* const blocks[] = {all.packed.part(row / 8, 0) + place, all.packed.part(row / 8 + 1, 0) + place};
  const int64_t packed_rows = (rows + kTileRows - 1) / kTileRows * kTileRows;
  const bool exist[] = {row < packed_rows, row + 8 < packed_rows};
  store_vectors(
      out, static_cast<int>(tile.place.target.out_features), tile.place.target.bias, sums,
      [&](float2 pair) { return two_bf16(gelu(pair.x), gelu(pair.y)); },
      [&](int half, int first, const uint4& vector) {
        if (exist[half]) blocks[half][first / kStep * kWarp] = vector;
      });
}

// Of queries, keys and values, in this order.
struct DenseTiles {
  static constexpr int kWeights = 1;

  DenseTiles(const LinearsArgs& args, const DensePlanes& out, int64_t tile_out)
      : targets(args, tile_out), planes(out) {}
  unsigned tiles() const { return targets.tiles(); }
  int target_count() const { return targets.count(); }
  const ProductTarget& target(int index) const { return targets.target(index); }

  struct Tile {
    __device__ Tile(const DenseTiles& tiles, unsigned tile) : all(tiles), place(tiles.targets.find(tile)) {}
    __device__ unsigned index() const { return place.tile; }
    __device__ int target(int) const { return place.index; }

    const DenseTiles& all;
    ProductTargets::Place place;
  };

  ProductTargets targets;
  DensePlanes planes;
};

template <int kValues>
__device__ void store_sums(const DenseTiles::Tile& tile, int64_t rows, int64_t row, int out,
                           const float (&sums)[kValues], const NothingEarly&) {
  const DensePlanes& planes = tile.all.planes;
  const int kind = tile.place.index, quarter = static_cast<int>(threadIdx.x) % 4;
  const bool exist[] = {row < rows, row + 8 < rows};
  uint4* lines[2];  // of head 0
#pragma unroll
  for (int half = 0; half < 2; ++half)
    lines[half] = planes.vectors(kind, exist[half] ? row + half * 8 : 0, 0) + quarter;
  const int64_t head_vectors = int64_t{planes.rows} * DensePlanes::kVectors;
  store_vectors(
      out, static_cast<int>(tile.place.target.out_features), tile.place.target.bias, sums,
      [&](float2 pair) { return planes.two_rounded(kind, pair); },
      [&](int half, int first, const uint4& vector) {
        if (exist[half])
          lines[half][first / kDenseWidth * head_vectors + first % kDenseWidth / kLaneInputs] = vector;
      });
}

}  // namespace volley::cuda
