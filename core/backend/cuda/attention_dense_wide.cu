// Dense attention with bf16 operands, heads of up to 512 elements (attention_dense.cuh). A block takes 16
// rows of a head and goes over the item's keys in tiles, in order: its warps share the keys of a tile out
// among them to score them, meet, weigh all of them, and share the columns of the values.
//
// Letters as in multiply_accumulate.cuh: lane l holds rows l / 4 and l / 4 + 8 of 16, and of 8 columns
// 2 * (l % 4) and the next.
#include "core/backend/cuda/attention_dense.cuh"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/multiply_accumulate.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRows = 16;
constexpr int kPitch = kKeys + 8;  // of a row of scores: pairs of eight rows are in all banks
static_assert(kWarps * kPanel == kKeys);

template <int kWidth>
struct WideShared {
  static constexpr uint32_t kKeys = 0, kValues = Lines<kWidth>::kTileBytes, kQueries = 2 * kValues,
                            kScores = kQueries + kRows * Lines<kWidth>::kBytes;
  static constexpr uint32_t kScoreBytes = kRows * kPitch * 4;  // of a tile; two are in use
  static constexpr uint32_t kBytes = kScores + 2 * kScoreBytes;
};

template <int kWidth>
__global__ void __launch_bounds__(kThreads) wide_rows_bf16(DenseRows args) {
  using Tile = Lines<kWidth>;
  using Shared = WideShared<kWidth>;
  constexpr int kSteps = kWidth / kDepth, kPanels = kWidth / kPanel / kWarps;  // of a warp
  extern __shared__ __align__(1024) std::byte shared[];
  const uint32_t memory = shared_address(shared);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int first = blockIdx.x * kRows;
  const int64_t head = blockIdx.y, item = blockIdx.z, base = args.base(item, head);
  const int tiles = args.tiles();
  await_previous();

  const int64_t lines = (item * args.heads + head) * tiles * Tile::kTileVectors;
  const auto bring = [&](uint32_t place, const uint4* from, int tile) {
    if (tile < tiles)
      Tile::template bring<kThreads>(memory + place, from + lines + int64_t{tile} * Tile::kTileVectors);
    end_copies();
  };
  bring(Shared::kKeys, args.keys, 0);
  bring(Shared::kValues, args.values, 0);
#pragma unroll 8
  for (int i = threadIdx.x; i < kRows * kWidth / 2; i += kThreads) {
    const int row = i / (kWidth / 2), column = i % (kWidth / 2) * 2;
    *reinterpret_cast<uint32_t*>(shared + Shared::kQueries + Tile::place(row, column / kVector) +
                                 column % kVector * 2) = args.two_queries(base, first + row, column);
  }
  const uint32_t read_query = memory + Shared::kQueries + Tile::place(lane % 16, lane / 16);
  const uint32_t read_key = memory + Shared::kKeys + Tile::place(warp * kPanel + lane % 8, lane / 8);
  const uint32_t read_value = memory + Shared::kValues + Tile::place(lane % 16, warp * kPanels + lane / 16);

  float sums[kPanels][4] = {};
  RowSoftmax softmax[2];  // of rows l / 4 and l / 4 + 8
  for (int tile = 0; tile < tiles; ++tile) {
    await_copies<1>();  // the keys
    __syncthreads();
    float parts[2][4] = {};  // of even steps and of odd ones
#pragma unroll
    for (int s = 0; s < kSteps; s += 2) {
      const uint4 b = matrices(turned(read_key, 2 * s));
      multiply_accumulate(parts[0], matrices(turned(read_query, 2 * s)), b.x, b.y);
      multiply_accumulate(parts[1], matrices(turned(read_query, 2 * s + 2)), b.z, b.w);
    }
    auto* scores = reinterpret_cast<float*>(shared + Shared::kScores + tile % 2 * Shared::kScoreBytes);
    const int key = warp * kPanel + lane % 4 * 2, left = args.rows - tile * kKeys;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float low = parts[0][2 * half] + parts[1][2 * half];
      const float high = parts[0][2 * half + 1] + parts[1][2 * half + 1];
      *reinterpret_cast<float2*>(scores + (lane / 4 + 8 * half) * kPitch + key) =
          make_float2(key < left ? low : -INFINITY, key + 1 < left ? high : -INFINITY);
    }
    __syncthreads();
    bring(Shared::kKeys, args.keys, tile + 1);

    // Every warp weighs all keys, as it takes the weights: the same in each.
    float weights[2][kKeys / 4];  // of a row, pairs 8 keys apart
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* row = scores + (lane / 4 + 8 * half) * kPitch + lane % 4 * 2;
      float* own[kKeys / 4];
#pragma unroll
      for (int p = 0; p < kKeys / kPanel; ++p) {
        const float2 pair = *reinterpret_cast<const float2*>(row + p * kPanel);
        weights[half][2 * p] = pair.x;
        weights[half][2 * p + 1] = pair.y;
        own[2 * p] = &weights[half][2 * p];
        own[2 * p + 1] = &weights[half][2 * p + 1];
      }
      const float kept = softmax[half].take(own);
#pragma unroll
      for (int p = 0; p < kPanels; ++p) {
        sums[p][2 * half] *= kept;
        sums[p][2 * half + 1] *= kept;
      }
    }
    await_copies<1>();  // the values
    __syncthreads();
#pragma unroll
    for (int s = 0; s < kKeys / kDepth; ++s) {
      const float *low = weights[0] + 4 * s, *high = weights[1] + 4 * s;
      const uint4 a = make_uint4(two_bf16(low[0], low[1]), two_bf16(high[0], high[1]),
                                 two_bf16(low[2], low[3]), two_bf16(high[2], high[3]));
#pragma unroll
      for (int p = 0; p < kPanels; p += 2) {
        const uint4 b = transposed_matrices(turned(read_value, p) + s * kDepth * Tile::kBytes);
        multiply_accumulate(sums[p], a, b.x, b.y);
        multiply_accumulate(sums[p + 1], a, b.z, b.w);
      }
    }
    __syncthreads();
    bring(Shared::kValues, args.values, tile + 1);
  }
  await_copies<0>();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float share = softmax[half].share();
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      args.put(base, first + lane / 4 + 8 * half, (warp * kPanels + p) * kPanel + lane % 4 * 2,
               sums[p][2 * half] * share, sums[p][2 * half + 1] * share);
    }
  }
}

}  // namespace

int64_t wide_rows_shared_bytes(int64_t width) {
  return width <= 256 ? WideShared<256>::kBytes : WideShared<512>::kBytes;
}

void launch_wide_rows(const DenseRows& rows, int64_t items, const Stream& stream) {
  const auto run = [&](auto kernel) {
    launch("dense_attention bf16", kernel,
           Geometry{.grid = dim3(blocks_of(rows.rows, kRows), static_cast<unsigned>(rows.heads),
                                 static_cast<unsigned>(items)),
                    .threads = kThreads,
                    .shared_bytes = wide_rows_shared_bytes(rows.width)},
           stream, rows);
  };
  if (rows.width <= 256) {
    run(wide_rows_bf16<256>);
  } else {
    run(wide_rows_bf16<512>);
  }
}

}  // namespace volley::cuda
