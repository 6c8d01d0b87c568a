#pragma once

// Tiles of products of many rows: what a tile multiplies with, and where its sums go: a Row takes two
// neighbouring outputs at a time, n and n + 1 of those from an even output on. `Before` is what is read for
// that. kPairs: there are no single outputs, and pairs are aligned.

#include "core/backend/cuda/products_bf16.cuh"

namespace volley::cuda {

// What a tile reads of tables before its sums are there.
struct NothingEarly {};

struct LinearTiles {
  static constexpr int kWeights = 1;
  using Before = float2;

  LinearTiles(const LinearsArgs& args, Accumulate accumulates, int64_t tile_out)
      : targets(args, tile_out), accumulate(accumulates) {}
  unsigned tiles() const { return targets.tiles(); }
  int target_count() const { return targets.count(); }
  const ProductTarget& target(int index) const { return targets.target(index); }

  class Tile {
   public:
    __device__ Tile(const LinearTiles& all, unsigned tile)
        : place_(all.targets.find(tile)), adds_(all.accumulate == Accumulate::kAdd) {}
    __device__ unsigned index() const { return place_.tile; }
    __device__ int target(int) const { return place_.index; }  // of a weight
    __device__ NothingEarly early(int64_t, int64_t) const { return {}; }
    __device__ bool pairs() const { return stores<float2>(); }
    __device__ bool fours() const { return stores<float4>(); }
    __device__ int out_features() const { return static_cast<int>(place_.target.out_features); }
    __device__ const uint4* panel(int, int panel, int steps) const {
      return panel_of(place_.target, panel, steps);
    }

    class Row {
     public:
      __device__ Row(const Tile& tile, int64_t row, int64_t rows, int out)
          : to_(tile.place_.target.out + row * tile.out_features() + out),
            bias_(tile.place_.target.bias != nullptr ? tile.place_.target.bias + out : nullptr),
            left_(row < rows ? tile.out_features() - out : 0),
            adds_(tile.adds_) {}
      __device__ bool has(int n) const { return n < left_; }
      template <bool kPairs>
      __device__ Before read(int n) const {
        Before before{0.0f, 0.0f};
        if constexpr (kPairs) {
          if (adds_ && has(n)) before = *reinterpret_cast<const float2*>(to_ + n);
        } else {
          if (adds_ && has(n)) before.x = to_[n];
          if (adds_ && has(n + 1)) before.y = to_[n + 1];
        }
        return before;
      }
      // Four outputs at a time, where the tile has `fours`.
      __device__ float4 read_four(int n) const {
        float4 before = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (adds_ && has(n)) before = *reinterpret_cast<const float4*>(to_ + n);
        return before;
      }
      __device__ void store_four(int n, float4 sum, const float4& before) const {
        if (!has(n)) return;
        if (bias_ != nullptr) {
          sum = {sum.x + bias_[n], sum.y + bias_[n + 1], sum.z + bias_[n + 2], sum.w + bias_[n + 3]};
        }
        if (adds_) sum = {before.x + sum.x, before.y + sum.y, before.z + sum.z, before.w + sum.w};
        *reinterpret_cast<float4*>(to_ + n) = sum;
      }

      template <bool kPairs>
      __device__ void store(int n, const float2 (&sums)[kWeights], const Before& before) const {
        float2 sum = sums[0];
        if (bias_ != nullptr) {
          sum.x += has(n) ? bias_[n] : 0.0f;
          sum.y += has(n + 1) ? bias_[n + 1] : 0.0f;
        }
        if (adds_) sum = {before.x + sum.x, before.y + sum.y};
        if constexpr (kPairs) {
          if (has(n)) *reinterpret_cast<float2*>(to_ + n) = sum;
        } else {
          if (has(n)) to_[n] = sum.x;
          if (has(n + 1)) to_[n + 1] = sum.y;
        }
      }

     private:
      float* to_;
      const float* bias_;
      int left_;
      bool adds_;
    };
    __device__ Row row(int64_t row, int64_t rows, int out) const { return {*this, row, rows, out}; }

   private:
    // Whether all rows are whole vectors.
    template <typename Vector>
    __device__ bool stores() const {
      return out_features() % static_cast<int>(sizeof(Vector) / sizeof(float)) == 0 &&
             is_aligned(place_.target.out, sizeof(Vector));
    }

    ProductTargets::Place place_;
    bool adds_;
  };

  ProductTargets targets;
  Accumulate accumulate;
};

struct GatedTiles {
  static constexpr int kWeights = 2;
  struct Before {};

  GatedTiles(const GatedLinearsArgs& args, const PackedRows* out, int64_t tile_out)
      : targets(args),
        packed(out != nullptr ? *out : PackedRows{}),
        count(blocks_of(args.gate.weight->out_features, tile_out)) {}
  unsigned tiles() const { return count; }
  static int target_count() { return kWeights; }
  const ProductTarget& target(int index) const { return index == 0 ? targets.gate : targets.up; }

  class Tile {
   public:
    __device__ Tile(const GatedTiles& all, unsigned tile) : all_(all), index_(tile) {}
    __device__ unsigned index() const { return index_; }
    __device__ int target(int weight) const { return weight; }
    __device__ NothingEarly early(int64_t, int64_t) const { return {}; }
    __device__ bool pairs() const { return out_features() % 2 == 0; }
    __device__ int out_features() const { return static_cast<int>(all_.targets.gate.out_features); }
    __device__ const uint4* panel(int weight, int panel, int steps) const {
      return panel_of(weight == 0 ? all_.targets.gate : all_.targets.up, panel, steps);
    }

    // The block of eight rows of a packed result that holds `row`, or null.
    __device__ uint4* packed_blocks(int64_t row) const {
      return all_.packed.data != nullptr ? all_.packed.part(row / 8, 0) : nullptr;
    }
    __device__ uint32_t joined_pair(int out, float2 gated, float2 raised) const {
      return two_bf16(all_.targets.joined(out, gated.x, raised.x),
                      all_.targets.joined(out + 1, gated.y, raised.y));
    }

    class Row {
     public:
      __device__ Row(const Tile& tile, int64_t row, int64_t rows, int out)
          : targets_(tile.all_.targets), out_(out), row_(static_cast<int>(row % 8)) {
        const PackedRows& packed = tile.all_.packed;
        if (packed.data != nullptr) {
          blocks_ = packed.part(row / 8, 0);
          rows = (rows + kTileRows - 1) / kTileRows * kTileRows;
        } else {
          to_ = targets_.out + row * tile.out_features() + out;
        }
        left_ = row < rows ? tile.out_features() - out : 0;
      }
      __device__ bool has(int n) const { return n < left_; }
      template <bool kPairs>
      __device__ Before read(int) const {
        return {};
      }
      template <bool kPairs>
      __device__ void store(int n, const float2 (&sums)[kWeights], const Before&) const {
        if (!has(n)) return;
        const int out = out_ + n;
        const float first = targets_.joined(out, sums[0].x, sums[1].x);
        const float second = kPairs || has(n + 1) ? targets_.joined(out + 1, sums[0].y, sums[1].y) : 0.0f;
        if (blocks_ != nullptr) {
          const int place = block_place(row_ * 4 + out % kStep / kLaneInputs);
          *reinterpret_cast<uint32_t*>(reinterpret_cast<std::byte*>(blocks_ + (out / kStep * kWarp + place)) +
                                       out % kLaneInputs * 2) = two_bf16(first, second);
        } else {
          to_[n] = first;
          if (kPairs || has(n + 1)) to_[n + 1] = second;
        }
      }

     private:
      const GatedTargets& targets_;
      uint4* blocks_ = nullptr;
      float* to_ = nullptr;
      int out_;
      int row_;
      int left_;
    };
    __device__ Row row(int64_t row, int64_t rows, int out) const { return {*this, row, rows, out}; }

   private:
    const GatedTiles& all_;
    unsigned index_;
  };

  GatedTargets targets;
  PackedRows packed;
  unsigned count;
};

}  // namespace volley::cuda
