#pragma once

// What the kernels of dense attention with bf16 operands share. Keys and values are rounded before, item by
// item and head by head, to [rows, padded to whole tiles][kWidth], with zeros behind the last row and behind
// a head's width.

#include <cstdint>

#include "core/backend/cuda/row_parts.cuh"
#include "core/backend/cuda/shared_tiles.cuh"

namespace volley::cuda {

inline constexpr int kKeys = 64;   // of a tile
inline constexpr int kVector = 8;  // elements of 16 bytes
inline constexpr int kDepth = 16;  // inputs of a multiply-accumulate
inline constexpr int kPanel = 8;   // its columns

struct DenseRows {
  const float* q;
  const uint4* keys;  // rounded
  const uint4* values;
  int rows;
  int heads;
  int width;
  float scale;  // of base 2 exponents
  float* out;
  bool puts_pairs;  // their places are aligned

  __device__ int tiles() const { return (rows + kKeys - 1) / kKeys; }
  __device__ int64_t stride() const { return int64_t{heads} * width; }
  // Of an item's first row.
  __device__ int64_t base(int64_t item, int64_t head) const { return (item * rows * heads + head) * width; }
  // Rows and columns that do not exist are read elsewhere and become zeros: reads wait for nothing.
  __device__ uint32_t two_queries(int64_t base, int row, int column) const {
    const float* from = q + base + min(row, rows - 1) * stride();
    const float low = from[min(column, width - 1)], high = from[min(column + 1, width - 1)];
    return two_bf16(column < width ? low * scale : 0.0f, column + 1 < width ? high * scale : 0.0f);
  }
  // Of an even column and the next.
  __device__ void put(int64_t base, int row, int column, float first, float second) const {
    if (row >= rows || column >= width) return;
    float* to = out + base + row * stride() + column;
    if (puts_pairs) {
      *reinterpret_cast<float2*>(to) = make_float2(first, second);
    } else {
      to[0] = first;
      if (column + 1 < width) to[1] = second;
    }
  }
};

// Lines of kWidth elements in shared memory, which begin at multiples of 1024 bytes: vector v of a line in
// place v ^ turn, so that the same vector of eight lines comes from all banks. An even v that has no bit in
// common with that of an address may be added to it by `turned`.
template <int kWidth>
struct Lines {
  static constexpr int kVectors = kWidth / kVector;
  static constexpr int kBytes = kVectors * 16;
  static constexpr int kTileVectors = kKeys * kVectors;
  static constexpr int kTileBytes = kTileVectors * 16;
  static __device__ int turn(int line) { return kVectors % 8 == 0 ? line % 8 : line / 2 % 4; }
  static __device__ uint32_t place(int line, int vector) {
    return static_cast<uint32_t>(line * kBytes + (vector ^ turn(line)) * 16);
  }

  // A tile's share of the calling thread.
  template <int kThreads>
  static __device__ void bring(uint32_t tile, const uint4* from) {
    static_assert(kThreads % kVectors == 0 && kTileVectors % kThreads == 0);
    constexpr int kSkipped = kThreads / kVectors;  // lines from one copy to the next
    const int line = threadIdx.x / kVectors, vector = threadIdx.x % kVectors;
    const uint32_t first = tile + place(line, vector);
#pragma unroll
    for (int i = 0; i < kTileVectors / kThreads; ++i) {
      const uint32_t to =
          kSkipped % 8 == 0 ? first + i * kSkipped * kBytes : tile + place(line + i * kSkipped, vector);
      copy_vector(to, from + i * kThreads + threadIdx.x);
    }
  }
};
__device__ inline uint32_t turned(uint32_t address, int vector) {
  return address ^ static_cast<uint32_t>(vector * 16);
}

// ---- The softmax of a row over tiles, in base 2.

struct RowSoftmax {
  float most = -INFINITY;
  float sum = 0.0f;  // of the lane's weights

  // Takes the lane's scores of a tile, which become weights; four lanes hold a row. Returns what keeps of all
  // that was before.
  template <int kCount>
  __device__ float take(float* const (&scores)[kCount]) {
    float joined = most;
#pragma unroll
    for (int i = 0; i < kCount; ++i) joined = fmaxf(joined, *scores[i]);
    joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, 1));
    joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, 2));
    const float kept = power_of_two(most - joined);
    most = joined;
    float added = 0.0f;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      *scores[i] = power_of_two(*scores[i] - joined);
      added += *scores[i];
    }
    sum = fmaf(sum, kept, added);
    return kept;
  }
  // One over the sum of the row's weights.
  __device__ float share() const {
    float all = sum;
    all += __shfl_xor_sync(kAllLanes, all, 1);
    all += __shfl_xor_sync(kAllLanes, all, 2);
    return 1.0f / all;
  }
};

int64_t wide_rows_shared_bytes(int64_t width);
void launch_wide_rows(const DenseRows& rows, int64_t items, const Stream& stream);

}  // namespace volley::cuda
