// Dense attention of heads of 64 elements with bf16 operands by wgmma: softmax and sums are f32. A team of
// four warps takes 64 rows of a head and goes over the item's keys in tiles, in order; the teams of a block
// share the tiles, which come to shared memory some early. While a team weighs the scores of a tile, its
// products of the weights of the tile before are under way, and those of other teams. A row's sequence of
// operations depends on its item's number of rows alone.
#include "core/backend/cuda/dense_planes.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/row_groups.cuh"

namespace volley::cuda {
namespace {

constexpr int kKeys = 128;                                // of a tile
constexpr int kTileBytes = kKeys * kDenseWidth * 2;       // of keys, or values
constexpr int kQueryBytes = kTeamRows * kDenseWidth * 2;  // of a team
constexpr int kRoundThreads = 256;

__global__ void __launch_bounds__(kRoundThreads)
    round_dense_planes(const float* queries, const float* keys, const float* values, bool aligned,
                       DensePlanes planes, int64_t count) {
  await_previous();
  const int64_t index = int64_t{blockIdx.x} * kRoundThreads + threadIdx.x;
  if (index >= count) return;
  const int kind = static_cast<int>(blockIdx.y);
  const float* from = (kind == DensePlanes::kQueries ? queries
                       : kind == DensePlanes::kKeys  ? keys
                                                     : values) +
                      index * kLaneInputs;
  float2 pairs[kLaneInputs / 2];
#pragma unroll
  for (int i = 0; i < kLaneInputs / 2; ++i) {
    pairs[i] = aligned ? reinterpret_cast<const float2*>(from)[i] : float2{from[2 * i], from[2 * i + 1]};
  }
  const int64_t line = index / DensePlanes::kVectors;
  planes.vectors(kind, line / planes.heads,
                 static_cast<int>(line % planes.heads))[index % DensePlanes::kVectors] =
      make_uint4(planes.two_rounded(kind, pairs[0]), planes.two_rounded(kind, pairs[1]),
                 planes.two_rounded(kind, pairs[2]), planes.two_rounded(kind, pairs[3]));
}

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
// Rows of 128 bytes in 128-byte swizzle.
__device__ Matrix swizzled_rows(const void* first) {
  constexpr uint32_t kEight = 8 * kDenseWidth * 2;
  Matrix matrix(first, kEight);
  matrix.kind = kEight >> 4 | 1u << 30;
  return matrix;
}

// sums += 64 rows of weights by 16 keys times 16 keys by 64 columns, which lie side by side.
__device__ void multiply_values(float (&sums)[32], const uint4& a, const Matrix& values) {
  asm volatile(
      "{\n"
      ".reg .b64 b;\n"
      "mov.b64 b, {%36, %37};\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, b, 1, 1, 1, 1;\n"
      "}"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]), "+f"(sums[4]), "+f"(sums[5]),
        "+f"(sums[6]), "+f"(sums[7]), "+f"(sums[8]), "+f"(sums[9]), "+f"(sums[10]), "+f"(sums[11]),
        "+f"(sums[12]), "+f"(sums[13]), "+f"(sums[14]), "+f"(sums[15]), "+f"(sums[16]), "+f"(sums[17]),
        "+f"(sums[18]), "+f"(sums[19]), "+f"(sums[20]), "+f"(sums[21]), "+f"(sums[22]), "+f"(sums[23]),
        "+f"(sums[24]), "+f"(sums[25]), "+f"(sums[26]), "+f"(sums[27]), "+f"(sums[28]), "+f"(sums[29]),
        "+f"(sums[30]), "+f"(sums[31])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(values.place), "r"(values.kind));
}

// The softmax of two rows, l / 4 and l / 4 + 8 of a warp's, in base 2; four lanes hold a row.
struct TwoRows {
  float most[2] = {-INFINITY, -INFINITY};
  float sums[2] = {0.0f, 0.0f};  // of the lane's weights

  // Scores of a tile become weights. Returns what keeps of all that was before, of each row.
  __device__ float2 take(float (&scores)[kKeys / 2]) {
    float kept[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float parts[2] = {most[half], most[half]};
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i)
        parts[i % 2] = fmaxf(parts[i % 2], scores[i / 2 * 4 + half * 2 + i % 2]);
      float joined = fmaxf(parts[0], parts[1]);
      joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, 1));
      joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, 2));
      kept[half] = power_of_two(most[half] - joined);
      most[half] = joined;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float added[4] = {};
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i) {
        float& score = scores[i / 2 * 4 + half * 2 + i % 2];
        score = power_of_two(score - most[half]);
        added[i % 4] += score;
      }
      sums[half] = fmaf(sums[half], kept[half], (added[0] + added[1]) + (added[2] + added[3]));
    }
    return {kept[0], kept[1]};
  }
  // One over the sum of a row's weights.
  __device__ float share(int half) const {
    float all = sums[half];
    all += __shfl_xor_sync(kAllLanes, all, 1);
    all += __shfl_xor_sync(kAllLanes, all, 2);
    return 1.0f / all;
  }
};
#endif

struct DenseResults {
  PackedRows packed;  // or, without data,
  float* out;
  bool puts_pairs;  // their places are aligned
};

// kBlocks of them share a processor.
template <int kTeams_, int kBlocks_, int kStages_>
struct DenseShape {
  static constexpr int kTeams = kTeams_, kBlocks = kBlocks_, kStages = kStages_;
  static constexpr int kThreads = kTeams * kTeam, kRows = kTeams * kTeamRows;
  static constexpr int kQueries = kTeams * kQueryBytes, kStageBytes = 2 * kTileBytes;
  static constexpr int64_t kSharedBytes = kQueries + kStages * kStageBytes;
};

template <typename Shape>
__global__ void __launch_bounds__(Shape::kThreads, Shape::kBlocks)
    attend_planes(const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap keys,
                  const __grid_constant__ CUtensorMap values, const __grid_constant__ DensePlanes planes,
                  const __grid_constant__ DenseResults results) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  constexpr int kStages = Shape::kStages;
  alignas(1024) extern __shared__ std::byte shared[];
  __shared__ Barrier full_queries, full_keys[kStages], full_values[kStages], empty[kStages];
  const int warp = __shfl_sync(kAllLanes, threadIdx.x / kWarp, 0), lane = threadIdx.x % kWarp;
  const int team = warp / 4, tiles = (planes.rows + kKeys - 1) / kKeys;
  const int first_row = static_cast<int>(blockIdx.x) * Shape::kRows;
  const int plane = static_cast<int>(blockIdx.y);
  if (threadIdx.x == 0) {
    full_queries.init(1);
    for (int s = 0; s < kStages; ++s) {
      full_keys[s].init(1);
      full_values[s].init(1);
      empty[s].init(Shape::kTeams * 4);
    }
    publish_barriers();
  }
  __syncthreads();
  std::byte* const stages = shared + Shape::kQueries;
  const auto bring = [&](int tile) {
    const int s = tile % kStages;
    std::byte* const to = stages + s * Shape::kStageBytes;
    full_keys[s].arrive_and_announce(kTileBytes);
    copy_box(to, keys, {tile * kKeys, plane}, full_keys[s]);
    full_values[s].arrive_and_announce(kTileBytes);
    copy_box(to + kTileBytes, values, {tile * kKeys, plane}, full_values[s]);
  };
  await_previous();
  if (threadIdx.x == 0) {
    full_queries.arrive_and_announce(Shape::kQueries);
    for (int t = 0; t < Shape::kTeams; ++t)
      copy_box(shared + t * kQueryBytes, queries, {first_row + t * kTeamRows, plane}, full_queries);
    for (int tile = 0; tile < kStages && tile < tiles; ++tile) bring(tile);
  }

  const Matrix own = swizzled_rows(shared + team * kQueryBytes), all_keys = swizzled_rows(stages),
               all_values = swizzled_rows(stages + kTileBytes);
  float scores[kKeys / 2], sums[kDenseWidth / 2];
#pragma unroll
  for (float& sum : sums) sum = 0.0f;
  TwoRows rows;
  const auto score = [&](int tile) {
    const int stage = tile % kStages * Shape::kStageBytes;
    begin_groups();
    GroupMultiply<kKeys / 2>::begin(scores, own, all_keys.moved(stage));
#pragma unroll
    for (int i = 1; i < kDenseWidth / 16; ++i)
      GroupMultiply<kKeys / 2>::add(scores, own.moved(i * 32), all_keys.moved(stage + i * 32));
    end_group();
  };
  uint4 weights[kKeys / 16];
  const auto multiply = [&](int tile) {
    const int s = tile % kStages;
    full_values[s].wait(tile / kStages % 2);
    begin_groups();
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i)
      multiply_values(sums, weights[i], all_values.moved(s * Shape::kStageBytes + i * 16 * kDenseWidth * 2));
    end_group();
  };
  // Keys behind the last weigh nothing.
  const auto hide = [&](int tile) {
    const int left = planes.rows - tile * kKeys - lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) scores[i] = i / 4 * 8 + i % 2 >= left ? -INFINITY : scores[i];
  };
  const auto round = [&] {
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      const float(&w)[kKeys / 2] = scores;
      const int e = i * 8;
      weights[i] = make_uint4(two_bf16(w[e], w[e + 1]), two_bf16(w[e + 2], w[e + 3]),
                              two_bf16(w[e + 4], w[e + 5]), two_bf16(w[e + 6], w[e + 7]));
    }
  };
  full_queries.wait(0);
  full_keys[0].wait(0);
  score(0);
  await_groups<0>();
  pin(scores);
  if (tiles == 1) hide(0);
  rows.take(scores);
  round();
  // Products of a tile's weights, and the weights of the next.
#pragma unroll 1
  for (int tile = 0; tile + 1 < tiles; ++tile) {
    full_keys[(tile + 1) % kStages].wait((tile + 1) / kStages % 2);
    score(tile + 1);
    multiply(tile);
    await_groups<1>();
    pin(scores);
    if (tile + 2 == tiles) hide(tile + 1);
    const float2 kept = rows.take(scores);
    await_groups<0>();
    pin(sums);
    if (lane == 0) empty[tile % kStages].arrive();
#pragma unroll
    for (int i = 0; i < kDenseWidth / 2; ++i) sums[i] *= i % 4 < 2 ? kept.x : kept.y;
    round();
    // What all have left is filled again; several teams have a tile's time to leave it.
    constexpr int kLag = Shape::kTeams > 1 ? 1 : 0;
    static_assert(kStages > 1 + kLag);
    if (const int next = tile - kLag + kStages; tile >= kLag && next < tiles && threadIdx.x == 0) {
      empty[next % kStages].wait((next / kStages - 1) % 2);
      bring(next);
    }
  }
  multiply(tiles - 1);
  await_groups<0>();
  pin(sums);

  const int head = plane % planes.heads;
  const int64_t item_row = int64_t{plane / planes.heads} * planes.rows;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float share = rows.share(half);
    const int row = first_row + team * kTeamRows + warp % 4 * kTileRows + lane / 4 + half * 8;
    const bool exists = row < planes.rows;
    if (results.packed.data != nullptr) {
      const int64_t at = item_row + row;
      uint4* const blocks = results.packed.part(at / 8, head * (kDenseWidth / kStep));
      const int place = block_place(static_cast<int>(at % 8 * 4 + lane % 4));
#pragma unroll
      for (int step = 0; step < kDenseWidth / kStep; ++step) {
        uint32_t pairs[4];
#pragma unroll
        for (int p = 0; p < 4; ++p) {
          const float* sum = sums + (step * 4 + p) * 4 + half * 2;
          pairs[p] = two_bf16(sum[0] * share, sum[1] * share);
        }
        const uint4 vector = transposed_of_four(pairs[0], pairs[1], pairs[2], pairs[3]);
        if (exists) blocks[step * kWarp + place] = vector;
      }
      continue;
    }
    if (!exists) continue;
    float* to = results.out + ((item_row + row) * planes.heads + head) * kDenseWidth + lane % 4 * 2;
#pragma unroll
    for (int p = 0; p < kDenseWidth / kTileOut; ++p) {
      const float first = sums[p * 4 + half * 2] * share, second = sums[p * 4 + half * 2 + 1] * share;
      if (results.puts_pairs) {
        *reinterpret_cast<float2*>(to + p * kTileOut) = make_float2(first, second);
      } else {
        to[p * kTileOut] = first;
        to[p * kTileOut + 1] = second;
      }
    }
  }
#endif
}

template <typename Shape>
void launch_shape(const DensePlanes& planes, const DenseResults& results, const Stream& stream) {
  const auto rows = static_cast<cuuint64_t>(planes.rows);
  const auto map = [&](DensePlanes::Kind kind, cuuint32_t box) {
    return tensor_map(
        BoxMap{.elements = planes.plane(kind),
               .sizes = {kDenseWidth, rows, static_cast<cuuint64_t>(planes.items * planes.heads)},
               .strides = {kDenseWidth * 2, rows * kDenseWidth * 2},
               .box = {kDenseWidth, box, 1},
               .swizzle = CU_TENSOR_MAP_SWIZZLE_128B});
  };
  launch("dense_attention wgmma", attend_planes<Shape>,
         Geometry{.grid = dim3(blocks_of(planes.rows, Shape::kRows),
                               static_cast<unsigned>(planes.items * planes.heads)),
                  .threads = Shape::kThreads,
                  .shared_bytes = Shape::kSharedBytes},
         stream, map(DensePlanes::kQueries, kTeamRows), map(DensePlanes::kKeys, kKeys),
         map(DensePlanes::kValues, kKeys), planes, results);
}

}  // namespace

void launch_round_dense_planes(const DenseAttentionArgs& args, const DensePlanes& planes,
                               const Stream& stream) {
  const int64_t vectors = args.q.size() / kLaneInputs;
  const bool aligned = is_aligned(args.q.data, sizeof(float2)) && is_aligned(args.k.data, sizeof(float2)) &&
                       is_aligned(args.v.data, sizeof(float2));
  launch("round queries, keys, values", round_dense_planes,
         dim3(blocks_of(vectors, kRoundThreads), DensePlanes::kCount), kRoundThreads, stream, args.q.data,
         args.k.data, args.v.data, aligned, planes, vectors);
}

// Few rows are spread over all processors; the bits are the same.
void launch_dense_planes(const DensePlanes& planes, const PackedRows& packed, float* out,
                         const Stream& stream) {
  const DenseResults results{packed, out, is_aligned(out, sizeof(float2))};
  using Large = DenseShape<3, 1, 4>;
  if (blocks_of(planes.rows, Large::kRows) * planes.items * planes.heads >= stream.processors * 2)
    return launch_shape<Large>(planes, results, stream);
  launch_shape<DenseShape<1, 3, 2>>(planes, results, stream);
}

}  // namespace volley::cuda
