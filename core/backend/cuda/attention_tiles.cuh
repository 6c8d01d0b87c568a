#pragma once

// Tiles of the products that attention reads: queries, keys and values, turned and written to the cache where
// the sums are. A thread's sums of a row hold every pair of elements that turn together, as whole heads are
// its team's.

#include "core/backend/cuda/cache_rows.cuh"
#include "core/backend/cuda/group_results.cuh"

namespace volley::cuda {

struct AttentionTiles {
  static constexpr int kWeights = 1;
  static constexpr int kWidth = 64;              // of a head
  static constexpr int kPairs = kWidth / 2 / 4;  // of a thread, in a row of a head
  static constexpr int kTogether = 8;            // neighbouring pairs of one component

  AttentionTiles(const AttentionInputsArgs& args, int64_t tile_out)
      : targets(args.projections.linears, tile_out),
        has_queries(args.turned.queries.x.data != nullptr),
        queries(args.turned.queries),
        keys(args.turned.keys),
        write(args.turned.write) {}
  // Whether the heads are of that width, components of pairs that lie together, and vectors aligned.
  static bool take(const AttentionInputsArgs& args) {
    const RotateAndWriteArgs& turned = args.turned;
    const RopeArgs& rope = turned.queries.x.data != nullptr ? turned.queries : turned.keys;
    const Rotation rotation(rope);
    const CachePlane& plane = turned.write.plane;
    return rope.x.shape[2] == kWidth && rotation.columns % kTogether == 0 &&
           PlaneLayout(plane).width == kWidth && is_aligned(turned.queries.x.data, sizeof(float2)) &&
           is_aligned(plane.keys, sizeof(uint4)) && is_aligned(plane.values, sizeof(uint4));
  }
  unsigned tiles() const { return targets.tiles(); }
  int target_count() const { return targets.count(); }
  const ProductTarget& target(int index) const { return targets.target(index); }

  enum Kind { kQueries, kKeys, kValues };

  class Tile {
   public:
    // Entries that rows `row` and `row` + 8 write, or negative.
    struct Early {
      int entries[2];
    };

    __device__ Tile(const AttentionTiles& tiles, unsigned tile)
        : all(tiles), place_(tiles.targets.find(tile)) {
      const int index = place_.index + (all.has_queries ? 0 : 1);
      kind = index == 0 ? kQueries : index == 1 ? kKeys : kValues;
    }
    __device__ unsigned index() const { return place_.tile; }
    __device__ int target(int) const { return place_.index; }
    __device__ int out_features() const { return static_cast<int>(place_.target.out_features); }
    __device__ const float* bias() const { return place_.target.bias; }
    __device__ float* out() const { return place_.target.out; }
    __device__ Early early(int64_t row, int64_t rows) const {
      Early early{{-1, -1}};
      if (kind == kQueries) return early;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (row + half * 8 < rows)
          early.entries[half] = static_cast<int>(written_entry(all.write.tables, row + half * 8));
      }
      return early;
    }

    const AttentionTiles& all;
    Kind kind;

   private:
    ProductTargets::Place place_;
  };

  ProductTargets targets;
  bool has_queries;
  Rotation queries;
  Rotation keys;
  CacheRows write;
};

// How the thread's pairs of a row turn. Pair i of it is that of panel i, or of panels i / 2 and i / 2 + 4.
__device__ inline void read_turns(const Rotation& rotation, int64_t row,
                                  Turn (&turns)[AttentionTiles::kPairs]) {
  constexpr int kTogether = AttentionTiles::kTogether;
  const int quarter = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int i = 0; i < AttentionTiles::kPairs; ++i) {
    const int first = i / 2 * kTogether;
    const int64_t at =
        int64_t{rotation.positions[row * rotation.components + first / rotation.columns]} * rotation.columns +
        first % rotation.columns + (rotation.adjacent ? i % 2 * 4 + quarter : quarter * 2 + i % 2);
    turns[i] = {rotation.cosines[at], rotation.sines[at]};
  }
}

template <int kValues>
__device__ void store_sums(const AttentionTiles::Tile& tile, int64_t rows, int64_t row, int out,
                           const float (&sums)[kValues], const AttentionTiles::Tile::Early& early) {
  constexpr int kPanels = AttentionTiles::kWidth / kTileOut, kHeads = kValues / (4 * kPanels);
  static_assert(kValues % (4 * kPanels) == 0);
  const AttentionTiles& all = tile.all;
  const int quarter = static_cast<int>(threadIdx.x) % 4;
  const Rotation& rotation = tile.kind == AttentionTiles::kQueries ? all.queries : all.keys;
  const bool turns = tile.kind != AttentionTiles::kValues;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool exists = row + half * 8 < rows;
    const int64_t own = exists ? row + half * 8 : rows - 1;
    Turn turn[AttentionTiles::kPairs];
    if (turns) read_turns(rotation, own, turn);
#pragma unroll
    for (int head = 0; head < kHeads; ++head) {
      const int first = out + head * AttentionTiles::kWidth;
      if (first >= tile.out_features()) break;
      float2 values[kPanels];
#pragma unroll
      for (int n = 0; n < kPanels; ++n) {
        const int value = (head * kPanels + n) * 4 + half * 2;
        values[n] = {sums[value], sums[value + 1]};
        if (tile.bias() != nullptr) {
          const float* bias = tile.bias() + first + n * kTileOut + quarter * 2;
          values[n] = {values[n].x + bias[0], values[n].y + bias[1]};
        }
      }
      if (turns && rotation.adjacent) {
#pragma unroll
        for (int n = 0; n < kPanels; ++n) turn[n].apply(values[n].x, values[n].y);
      } else if (turns) {
#pragma unroll
        for (int n = 0; n < kPanels / 2; ++n) {
          turn[2 * n].apply(values[n].x, values[n + kPanels / 2].x);
          turn[2 * n + 1].apply(values[n].y, values[n + kPanels / 2].y);
        }
      }
      if (tile.kind == AttentionTiles::kQueries) {
        if (!exists) continue;
        float* to = tile.out() + own * tile.out_features() + first + quarter * 2;
#pragma unroll
        for (int n = 0; n < kPanels; ++n) *reinterpret_cast<float2*>(to + n * kTileOut) = values[n];
        continue;
      }
      const CacheElements& cache = tile.kind == AttentionTiles::kKeys ? all.write.keys : all.write.values;
      const bool writes = early.entries[half] >= 0;
      const int64_t place = all.write.layout.offset(writes ? early.entries[half] : 0) +
                            first / AttentionTiles::kWidth * all.write.layout.group_stride();
      if (cache.type == CacheType::kF32) {
#pragma unroll
        for (int n = 0; n < kPanels; ++n) {
          if (writes) cache.put_pair(place + n * kTileOut + quarter * 2, values[n].x, values[n].y);
        }
        continue;
      }
#pragma unroll
      for (int n = 0; n < kPanels; n += 4) {
        uint32_t pairs[4];
#pragma unroll
        for (int p = 0; p < 4; ++p) pairs[p] = two_bf16(values[n + p].x, values[n + p].y);
        const uint4 vector = transposed_of_four(pairs[0], pairs[1], pairs[2], pairs[3]);
        if (writes) *reinterpret_cast<uint4*>(cache.data + (place + (n + quarter) * kTileOut) * 2) = vector;
      }
    }
  }
}

}  // namespace volley::cuda
