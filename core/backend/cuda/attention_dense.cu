// Dense attention with bf16 operands on tensor cores: softmax and sums are f32. A first kernel rounds keys
// and values (attention_dense.cuh). A block then takes 64 rows of a head, each warp 16 of them, and goes over
// the item's keys in tiles, in order. A row's sequence of operations depends on its item's number of rows
// alone. Heads wider than kMostNarrow are attention_dense_wide.cu's, and those of 64 elements
// attention_dense_wgmma.cu's where there is wgmma.
//
// Letters as in multiply_accumulate.cuh: lane l holds rows l / 4 and l / 4 + 8 of 16, and of 8 columns
// 2 * (l % 4) and the next.
#include "core/backend/cuda/attention_dense.cuh"

#include "core/backend/cuda/dense_planes.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/multiply_accumulate.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kStages = 2;  // tiles in shared memory
constexpr int kMostNarrow = 128;
constexpr int kMostWidth = 512;

// There are kernels for heads of these numbers of elements.
int64_t padded_width(int64_t width) {
  for (const int64_t known : {32, 64, 128, 256}) {
    if (width <= known) return known;
  }
  return kMostWidth;
}

struct RoundRows {
  const float* keys;
  const float* values;
  uint4* to;      // the rounded keys, then the values
  int64_t count;  // of vectors of one of them
  int rows;
  int heads;
  int width;
  int padded_width;
  bool aligned;  // vectors of a row's elements, in memory
};

__global__ void __launch_bounds__(kThreads) round_rows(RoundRows args) {
  await_previous();
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= args.count) return;
  const int vectors = args.padded_width / kVector, padded = (args.rows + kKeys - 1) / kKeys * kKeys;
  const int first = static_cast<int>(index % vectors) * kVector;
  const int64_t line = index / vectors;
  const int row = static_cast<int>(line % padded), head = static_cast<int>(line / padded % args.heads);
  const int64_t item = line / padded / args.heads;
  const float* from = (blockIdx.y == 0 ? args.keys : args.values) +
                      ((item * args.rows + row) * args.heads + head) * args.width + first;
  float values[kVector];
  const bool whole = row < args.rows && first + kVector <= args.width && args.aligned;
  if (whole) {
    reinterpret_cast<float4*>(values)[0] = reinterpret_cast<const float4*>(from)[0];
    reinterpret_cast<float4*>(values)[1] = reinterpret_cast<const float4*>(from)[1];
  } else {
#pragma unroll
    for (int i = 0; i < kVector; ++i) values[i] = row < args.rows && first + i < args.width ? from[i] : 0.0f;
  }
  args.to[blockIdx.y * args.count + index] =
      make_uint4(two_bf16(values[0], values[1]), two_bf16(values[2], values[3]),
                 two_bf16(values[4], values[5]), two_bf16(values[6], values[7]));
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads, kWidth <= 64 ? 4 : 1) dense_rows_bf16(DenseRows args) {
  using Tile = Lines<kWidth>;
  constexpr int kSteps = kWidth / kDepth, kPanels = kWidth / kPanel, kKeyPanels = kKeys / kPanel;
  constexpr uint32_t kStageBytes = 2 * Tile::kTileBytes;  // keys, then values
  extern __shared__ __align__(1024) uint4 shared[];
  const uint32_t memory = shared_address(shared);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t head = blockIdx.y, item = blockIdx.z, base = args.base(item, head);
  const int tiles = args.tiles();
  await_previous();

  const int64_t lines = (item * args.heads + head) * tiles * Tile::kTileVectors;
  const auto bring = [&](int tile) {
    const uint32_t stage = memory + tile % kStages * kStageBytes;
    const int64_t from = lines + int64_t{tile} * Tile::kTileVectors;
    Tile::template bring<kThreads>(stage, args.keys + from);
    Tile::template bring<kThreads>(stage + Tile::kTileBytes, args.values + from);
    end_copies();
  };
  bring(0);

  const int row = (blockIdx.x * kWarps + warp) * kDepth + lane / 4;  // and row + 8
  uint4 queries[kSteps];
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
    const int column = s * kDepth + lane % 4 * 2;
    queries[s] =
        make_uint4(args.two_queries(base, row, column), args.two_queries(base, row + 8, column),
                   args.two_queries(base, row, column + 8), args.two_queries(base, row + 8, column + 8));
  }
  // Of a tile: where the lane reads keys (eight of two panels, two vectors) and values (16, one vector of two
  // panels).
  const uint32_t read_key = memory + Tile::place(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  const uint32_t read_value = memory + Tile::kTileBytes + Tile::place(lane % 16, lane / 16);

  float sums[kPanels][4] = {};
  RowSoftmax softmax[2];  // of the lane's rows
  for (int tile = 0; tile < tiles; ++tile) {
    await_copies<0>();
    __syncthreads();
    if (tile + 1 < tiles) bring(tile + 1);
    const uint32_t stage = tile % kStages * kStageBytes;

    float scores[kKeyPanels][4] = {};
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int p = 0; p < kKeyPanels; p += 2) {
        const uint4 b = matrices(turned(read_key + stage, 2 * s) + p * kPanel * Tile::kBytes);
        multiply_accumulate(scores[p], queries[s], b.x, b.y);
        multiply_accumulate(scores[p + 1], queries[s], b.z, b.w);
      }
    }
    if (const int left = args.rows - tile * kKeys; left < kKeys) {
#pragma unroll
      for (int p = 0; p < kKeyPanels; ++p) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (p * kPanel + lane % 4 * 2 + e % 2 >= left) scores[p][e] = -INFINITY;
        }
      }
    }

#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float* own[2 * kKeyPanels];
#pragma unroll
      for (int i = 0; i < 2 * kKeyPanels; ++i) own[i] = &scores[i / 2][2 * half + i % 2];
      const float kept = softmax[half].take(own);
      if (__any_sync(kAllLanes, kept != 1.0f)) {
#pragma unroll
        for (int p = 0; p < kPanels; ++p) {
          sums[p][2 * half] *= kept;
          sums[p][2 * half + 1] *= kept;
        }
      }
    }

#pragma unroll
    for (int s = 0; s < kKeys / kDepth; ++s) {
      const float *low = scores[2 * s], *high = scores[2 * s + 1];
      const uint4 weights = make_uint4(two_bf16(low[0], low[1]), two_bf16(low[2], low[3]),
                                       two_bf16(high[0], high[1]), two_bf16(high[2], high[3]));
#pragma unroll
      for (int p = 0; p < kPanels; p += 2) {
        const uint4 b = transposed_matrices(turned(read_value + stage, p) + s * kDepth * Tile::kBytes);
        multiply_accumulate(sums[p], weights, b.x, b.y);
        multiply_accumulate(sums[p + 1], weights, b.z, b.w);
      }
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float share = softmax[half].share();
#pragma unroll
    for (int p = 0; p < kPanels; ++p) {
      args.put(base, row + 8 * half, p * kPanel + lane % 4 * 2, sums[p][2 * half] * share,
               sums[p][2 * half + 1] * share);
    }
  }
}

constexpr int64_t narrow_rows_shared_bytes(int64_t padded_width) {
  return kStages * 2 * kKeys * padded_width * 2;
}
static_assert(narrow_rows_shared_bytes(64) == kStages * 2 * Lines<64>::kTileBytes);
int64_t shared_bytes(int64_t padded_width) {
  return padded_width <= kMostNarrow ? narrow_rows_shared_bytes(padded_width)
                                     : wide_rows_shared_bytes(padded_width);
}

template <int kWidth>
void launch_narrow_rows(const DenseRows& rows, int64_t items, const Stream& stream) {
  launch("dense_attention bf16", dense_rows_bf16<kWidth>,
         Geometry{.grid = dim3(blocks_of(rows.rows, kWarps * kDepth), static_cast<unsigned>(rows.heads),
                               static_cast<unsigned>(items)),
                  .threads = kThreads,
                  .shared_bytes = narrow_rows_shared_bytes(kWidth)},
         stream, rows);
}

// Elements of the rounded keys, or values.
int64_t rounded_elements(const DenseAttentionArgs& args) {
  return args.q.shape[0] * args.q.shape[2] * ceil_div(args.q.shape[1], kKeys) * kKeys *
         padded_width(args.q.shape[3]);
}

}  // namespace

bool takes_dense_bf16(const DenseAttentionArgs& args, const Abilities& abilities) {
  const int64_t width = args.q.shape[3];
  return args.operands == Operands::kBF16 && width <= kMostWidth &&
         shared_bytes(padded_width(width)) <= abilities.shared_bytes;
}

int64_t dense_attention_scratch_bytes(const DenseAttentionArgs& args, const Abilities& abilities) {
  if (takes_dense_planes(args, abilities)) return dense_planes(args, nullptr).bytes();
  return 2 * 2 * rounded_elements(args);
}

void launch_dense_attention_bf16(const DenseAttentionArgs& args, std::byte* scratch, const Stream& stream) {
  if (takes_dense_planes(args, stream)) {
    const DensePlanes planes = dense_planes(args, scratch);
    launch_round_dense_planes(args, planes, stream);
    return launch_dense_planes(planes, {}, args.out.data, stream);
  }
  constexpr float kLog2E = 1.4426950408889634f;
  const int64_t width = padded_width(args.q.shape[3]), vectors = rounded_elements(args) / kVector;
  auto* keys = reinterpret_cast<uint4*>(scratch);
  const DenseRows rows{.q = args.q.data,
                       .keys = keys,
                       .values = keys + vectors,
                       .rows = static_cast<int>(args.q.shape[1]),
                       .heads = static_cast<int>(args.q.shape[2]),
                       .width = static_cast<int>(args.q.shape[3]),
                       .scale = args.scale * kLog2E,
                       .out = args.out.data,
                       .puts_pairs = args.q.shape[3] % 2 == 0 && is_aligned(args.out.data, sizeof(float2))};
  launch("round keys and values", round_rows, dim3(blocks_of(vectors, kThreads), 2), kThreads, stream,
         RoundRows{.keys = args.k.data,
                   .values = args.v.data,
                   .to = keys,
                   .count = vectors,
                   .rows = rows.rows,
                   .heads = rows.heads,
                   .width = rows.width,
                   .padded_width = static_cast<int>(width),
                   .aligned = args.q.shape[3] % 4 == 0 && is_aligned(args.k.data, sizeof(float4)) &&
                              is_aligned(args.v.data, sizeof(float4))});
  const int64_t items = args.q.shape[0];
  switch (width) {
    case 32:
      return launch_narrow_rows<32>(rows, items, stream);
    case 64:
      return launch_narrow_rows<64>(rows, items, stream);
    case kMostNarrow:
      return launch_narrow_rows<kMostNarrow>(rows, items, stream);
    default:
      return launch_wide_rows(rows, items, stream);
  }
}

}  // namespace volley::cuda
