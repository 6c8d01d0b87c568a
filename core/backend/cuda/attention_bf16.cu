// Attention of few rows over a paged cache in bf16, on tensor cores: a block takes a head and up to 16 rows
// of a sequence, its warps take every fourth group of 32 keys (16 of wide heads), keep a softmax each and are
// joined in order. Which warp and which place in a multiply-accumulate the i-th visible key of a row gets
// depends on i alone, and no row's sums depend on another row, so that neither do the bits.
//
// Queries and weights are f32. Each is split into two bf16 that sum to it but for 2^-18 of it: of the 16 rows
// of a multiply-accumulate eight are the high parts of eight rows, and eight the low parts. Letters as in
// multiply_accumulate.cuh: lane l holds what is row l / 4 of eight.
#include <climits>
#include <string>

#include "core/backend/cuda/attention_rows.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/multiply_accumulate.cuh"
#include "core/backend/cuda/row_parts.cuh"
#include "core/backend/cuda/shared_tiles.cuh"

namespace volley::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kHalfRows = 8;  // in one multiply-accumulate
constexpr int kElements = 8;  // of a vector of 16 bytes

// Heads of up to kSteps * kStep elements.
template <int kSteps>
struct Heads {
  static constexpr int kWidth = kSteps * kStep;
  static constexpr int kTiles = kWidth / kTileOut;
  static constexpr int kLineBytes = kWidth * 2;
  static constexpr int kKeys = kSteps <= 2 ? 32 : 16;  // of a group
  static constexpr int kKeyTiles = kKeys / kTileOut;
  static constexpr int kPlaneBytes = kKeys * kLineBytes;  // of a group's keys, or values
  static constexpr int kStageBytes = 2 * kPlaneBytes;
  static constexpr int kStages = 2;  // groups of a warp on their way
  static constexpr int kWarpBytes = kStages * kStageBytes;
  static constexpr int kHalves = kSteps <= 2 ? 2 : 1;  // at most, for sums to stay in registers
  // Vector v of the values of a key lies in place v ^ turn(key) of its line, so that the same vector of eight
  // keys comes from all banks.
  static constexpr int kTurns = kSteps % 2 == 0 ? 8 : 4;
  static __device__ int turn(int key) { return kTurns == 8 ? key % 8 : key / 2 % 4; }
  // The place of vector `v` more, where v and the vector of `address` have no bit in common.
  static __device__ uint32_t turned(uint32_t address, int v) {
    return (address ^ static_cast<uint32_t>(v % kTurns * 16)) +
           static_cast<uint32_t>(v / kTurns * kTurns * 16);
  }
};

constexpr int kBlocks = 3;  // of a processor: shared memory holds what is on its way for as many

__device__ inline void prefetch(const std::byte* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// ---- Arithmetic of a lane

struct Sums {
  float values[4] = {};  // (row l / 4, outputs 2 * (l % 4) and the next), by high parts and by low ones
};

// Two numbers as pairs of bf16 whose sums they are.
struct Parts {
  uint32_t high;
  uint32_t low;
};
__device__ inline Parts split(float first, float second) {
  const uint32_t high = two_bf16(first, second);
  return {high, two_bf16(first - __uint_as_float(high << 16), second - __uint_as_float(high & 0xffff0000u))};
}

// Eight inputs of a row, as two multiply-accumulates take them.
struct QueryParts {
  uint4 first;
  uint4 second;
};
__device__ inline QueryParts split(const LaneInputs& q) {
  const Parts a = split(q.low.x, q.low.y), b = split(q.low.z, q.low.w);
  const Parts c = split(q.high.x, q.high.y), d = split(q.high.z, q.high.w);
  return {.first = {a.high, a.low, b.high, b.low}, .second = {c.high, c.low, d.high, d.low}};
}

// ---- The rows of a block together

// What the compiler shall know to be the same in all lanes.
__device__ inline int uniform(int value) {
  return __reduce_max_sync(kAllLanes, value);
}

template <int kKeys, int kRows>
struct BlockKeys : BlockRows<kRows> {
  int most;          // keys of a row, or kInactive: no row is active
  int least;         // keys of an active row
  int longest;       // a row of `most`
  int joint_groups;  // before this one, whatever key a row sees is that of `longest`

  // Of warp 0; the others may read behind a barrier. Reads tables only.
  __device__ void find(const CacheAttention& args, const typename BlockRows<kRows>::Range& range) {
    BlockRows<kRows>::find(args, range);
    __syncwarp();
    const int lane = static_cast<int>(threadIdx.x);
    const int count = lane < kRows ? this->counts[lane] : BlockRows<kRows>::kInactive;
    const int greatest = __reduce_max_sync(kAllLanes, count);
    const int row = __ffs(static_cast<int>(__ballot_sync(kAllLanes, count == greatest))) - 1;
    int joint = INT_MAX;
    if (count >= 0) {
      const int same = this->visible(row).shared_with(this->visible(lane));
      if (same < count) joint = same / kKeys;
    }
    joint = __reduce_min_sync(kAllLanes, joint);
    const int smallest = __reduce_min_sync(kAllLanes, count >= 0 ? count : INT_MAX);
    if (lane > 0) return;
    most = greatest;
    least = smallest;
    longest = row;
    joint_groups = joint;
  }
};

// A group of keys and the row whose they are. A group that is not joint is run for each row that sees any of
// it.
struct Run {
  int group;
  int row;
};

// Where a key lies: its page, or kNowhere, and its place there.
struct Place {
  static constexpr int32_t kNowhere = -1;
  int32_t page = kNowhere;
  uint32_t entry = 0;
};

// ---- A warp's part of a block: every kWarps-th group of one head

template <int kSteps, int kRows>
class WarpKeys {
  using Shape = Heads<kSteps>;
  static constexpr int kKeys = Shape::kKeys;

 public:
  __device__ WarpKeys(const CacheAttention& args, const BlockKeys<kKeys, kRows>& rows, std::byte* staged)
      : rows_(rows),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        most_(uniform(rows.most)),
        least_(uniform(rows.least)),
        longest_(uniform(rows.longest)),
        joint_groups_(uniform(rows.joint_groups)),
        count_(lane_ < kRows ? rows.counts[lane_] : 0),
        vectors_(static_cast<uint32_t>(args.layout.width) / kElements),
        page_vectors_(static_cast<uint32_t>(kPageSize * args.layout.groups) * vectors_),
        last_bytes_(kStep * (kSteps - 1) + lane_ % 4 * kElements < args.layout.width ? 16 : 0),
        key_(staged + lane_ * 16) {
    const int64_t head = args.group_offset(static_cast<int>(blockIdx.x)) * 2;
    keys_ = args.keys + head;
    values_ = args.values + head;
    const uint32_t values = shared_address(staged) + Shape::kPlaneBytes;
    const auto line = [&](int key, int v) {
      return values + static_cast<uint32_t>(key * Shape::kLineBytes + (v ^ Shape::turn(key)) * 16);
    };
    copied_value_ = line(lane_ / 4, lane_ % 4);
    read_value_ = line(lane_ % 16, lane_ / 16);
  }

  __device__ Run first() const { return begin(uniform(static_cast<int>(threadIdx.x) / kWarp)); }
  __device__ bool has(const Run& run) const { return run.group * kKeys < most_; }
  __device__ bool is_joint(const Run& run) const { return run.group < joint_groups_; }
  __device__ Run next(const Run& run) const {
    if (!is_joint(run)) {
      const unsigned others = seeing(run.group) & ~((2u << run.row) - 1);
      if (others != 0) return {run.group, __ffs(static_cast<int>(others)) - 1};
    }
    return begin(run.group + kWarps);
  }

  // Where key lane % kKeys of a run lies, which depends on tables only.
  __device__ Place find(const Run& run) const {
    Place place;
    const int i = run.group * kKeys + lane_ % kKeys;
    if (!has(run) || i >= rows_.counts[run.row]) return place;
    const VisibleKeys& visible = rows_.visible(run.row);
    const auto logical = static_cast<uint32_t>(visible.logical(i));
    place.page = visible.page(logical);
    place.entry = logical % kPageSize;
    return place;
  }
  // Asks for the lines of a found key and its values.
  __device__ void prefetch_found(const Place& place) const {
    if (place.page == Place::kNowhere) return;
    const uint64_t from = uint64_t{vector_of(place)} * 16;
    constexpr bool kBoth = kKeys == kWarp;  // else half of the lanes ask for each
#pragma unroll
    for (int b = 0; b < Shape::kLineBytes; b += 128) {
      if (kBoth || lane_ < kKeys) prefetch(keys_ + from + b);
      if (kBoth || lane_ >= kKeys) prefetch(values_ + from + b);
    }
  }

  // Copies found keys and their values. A lane's parts of keys lie as it will read them itself.
  __device__ void copy(const Place& place, int stage) const {
    const uint32_t to = shared_address(key_) + stage;
    const uint32_t vector = place.page == Place::kNowhere ? 0 : vector_of(place);
    const unsigned found = __ballot_sync(kAllLanes, place.page != Place::kNowhere);
#pragma unroll
    for (int t = 0; t < Shape::kKeyTiles; ++t) {
      const int key = t * kTileOut + lane_ / 4;
      const uint64_t from = uint64_t{__shfl_sync(kAllLanes, vector, key)} * 16 + lane_ % 4 * 16;
      const int bytes = (found >> key & 1) != 0 ? 16 : 0;
      const uint32_t value_to = copied_value_ + stage + t * (kTileOut * Shape::kLineBytes);
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int there = step == kSteps - 1 ? min(bytes, last_bytes_) : bytes;
        copy_vector(to + (Shape::kKeyTiles * step + t) * kWarp * 16, keys_ + from + step * 64, there);
        copy_vector(Shape::turned(value_to, step * 4), values_ + from + step * 64, there);
      }
    }
  }

  // Of step `step`, the lane's part of key 8 * tile + l / 4.
  __device__ uint4 key(int stage, int step, int tile) const {
    return *reinterpret_cast<const uint4*>(key_ + stage + (Shape::kKeyTiles * step + tile) * kWarp * 16);
  }
  // Values of keys 16 * part .. + 15 and dims 8 * tile .. + 15, as two multiply-accumulates take them. `tile`
  // is even.
  __device__ uint4 values(int stage, int part, int tile) const {
    return transposed_matrices(Shape::turned(read_value_ + stage + part * (16 * Shape::kLineBytes), tile));
  }

  // Whether all active rows see all keys of a run.
  __device__ bool is_whole(const Run& run) const {
    return is_joint(run) && (run.group + 1) * kKeys <= least_;
  }
  // Keys before this one are those that a row sees in a run.
  __device__ int limit(const Run& run, int row) const {
    return is_joint(run) || run.row == row ? rows_.counts[row] : 0;
  }

 private:
  __device__ uint32_t vector_of(const Place& place) const {
    return static_cast<uint32_t>(place.page) * page_vectors_ + place.entry * vectors_;
  }
  __device__ unsigned seeing(int group) const {
    return __ballot_sync(kAllLanes, count_ > group * kKeys);
  }
  __device__ Run begin(int group) const {
    return {group, group < joint_groups_ ? longest_ : __ffs(static_cast<int>(seeing(group))) - 1};
  }

  const BlockKeys<kKeys, kRows>& rows_;
  const int lane_;
  const int most_;
  const int least_;
  const int longest_;
  const int joint_groups_;
  const int count_;         // of row lane_
  const uint32_t vectors_;  // of a key
  const uint32_t page_vectors_;
  const int last_bytes_;   // that there are of the lane's vectors of the last step
  std::byte* key_;         // the lane's, in stage 0
  const std::byte* keys_;  // of the head's group
  const std::byte* values_;
  // Shared addresses in stage 0: where the lane copies values to, and where it reads them.
  uint32_t copied_value_;
  uint32_t read_value_;
};

// The softmax of eight rows over the keys so far. Scores are in units of log2.
template <int kSteps>
struct State {
  float maximum = -INFINITY;
  float sum = 0.0f;  // of the lane's keys
  Sums totals[Heads<kSteps>::kTiles];

  // Turns a group's scores, of keys 8 * tile + 2 * (l % 4) and the next, into weights.
  template <int kCount>
  __device__ void weigh(float (&scores)[kCount], float scale) {
    float joined = fmaxf(scores[0], scores[1]);
#pragma unroll
    for (int i = 2; i < kCount; ++i) joined = fmaxf(joined, scores[i]);
    joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, 1));
    joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, 2));
    joined = fmaxf(joined * scale, maximum);
    const float base = joined == -INFINITY ? 0.0f : joined;  // of a row that has seen no key
    // What is scaled by one stays as it is, and what was never added to is zero.
    if (__any_sync(kAllLanes, joined != maximum && maximum != -INFINITY)) {
      const float factor = power_of_two(maximum - base);
      sum *= factor;
#pragma unroll
      for (Sums& tile : totals) {
#pragma unroll
        for (float& total : tile.values) total *= factor;
      }
    }
    maximum = joined;
#pragma unroll
    for (float& score : scores) {
      score = power_of_two(fmaf(score, scale, -base));
      sum += score;
    }
  }
};

// One run of a warp for all rows of the block.
template <int kSteps, int kHalves>
__device__ void add_group(const WarpKeys<kSteps, kHalves * kHalfRows>& keys, const Run& run, int stage,
                          const QueryParts (&queries)[kHalves][kSteps], float scale,
                          State<kSteps> (&states)[kHalves]) {
  using Shape = Heads<kSteps>;
  constexpr int kKeyTiles = Shape::kKeyTiles;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Sums products[kHalves][kKeyTiles];
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint4 key[kKeyTiles];
#pragma unroll
    for (int t = 0; t < kKeyTiles; ++t) key[t] = keys.key(stage, step, t);
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int t = 0; t < kKeyTiles; ++t)
        multiply_accumulate(products[h][t].values, queries[h][step].first, key[t].x, key[t].y);
#pragma unroll
      for (int t = 0; t < kKeyTiles; ++t)
        multiply_accumulate(products[h][t].values, queries[h][step].second, key[t].z, key[t].w);
    }
  }
  const bool is_whole = keys.is_whole(run);
  uint4 weights[kHalves][kKeyTiles / 2];
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    float scores[2 * kKeyTiles];
#pragma unroll
    for (int i = 0; i < 2 * kKeyTiles; ++i)
      scores[i] = products[h][i / 2].values[i % 2] + products[h][i / 2].values[i % 2 + 2];
    if (!is_whole) {
      const int end = keys.limit(run, h * kHalfRows + lane / 4) - (run.group * Shape::kKeys + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 2 * kKeyTiles; ++i)
        scores[i] = i / 2 * kTileOut + i % 2 < end ? scores[i] : -INFINITY;
    }
    states[h].weigh(scores, scale);
#pragma unroll
    for (int part = 0; part < kKeyTiles / 2; ++part) {
      const Parts first = split(scores[4 * part], scores[4 * part + 1]);
      const Parts second = split(scores[4 * part + 2], scores[4 * part + 3]);
      weights[h][part] = {first.high, first.low, second.high, second.low};
    }
  }
  const auto add = [&](int part, int h, const uint4& values, Sums& first, Sums& second) {
    multiply_accumulate(first.values, weights[h][part], values.x, values.y);
    multiply_accumulate(second.values, weights[h][part], values.z, values.w);
  };
  if (keys.is_joint(run)) {
#pragma unroll
    for (int part = 0; part < kKeyTiles / 2; ++part) {
#pragma unroll
      for (int tile = 0; tile < Shape::kTiles; tile += 2) {
        const uint4 values = keys.values(stage, part, tile);
#pragma unroll
        for (int h = 0; h < kHalves; ++h)
          add(part, h, values, states[h].totals[tile], states[h].totals[tile + 1]);
      }
    }
    return;
  }
  // Zero times what only another row sees may be no number.
#pragma unroll
  for (int part = 0; part < kKeyTiles / 2; ++part) {
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; tile += 2) {
      const uint4 values = keys.values(stage, part, tile);
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        Sums first = states[h].totals[tile], second = states[h].totals[tile + 1];
        add(part, h, values, first, second);
        if (h * kHalfRows + lane / 4 != run.row) continue;
        states[h].totals[tile] = first;
        states[h].totals[tile + 1] = second;
      }
    }
  }
}

template <int kSteps, int kHalves>
__global__ void __launch_bounds__(kThreads, kBlocks) attend_bf16(CacheAttention args) {
  using Shape = Heads<kSteps>;
  constexpr int kRows = kHalves * kHalfRows, kStages = Shape::kStages;
  constexpr int kLine = Shape::kWidth + 8;  // of a row's sums: rows of a warp lie in different banks
  static_assert(kRows * kLine * 4 <= Shape::kWarpBytes);
  alignas(128) extern __shared__ std::byte staged[];
  __shared__ BlockKeys<Shape::kKeys, kRows> rows;
  __shared__ float maxima[kWarps][kRows], sums[kWarps][kRows];
  const auto range = BlockRows<kRows>::range(args);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  if (warp == 0) rows.find(args, range);
  __syncthreads();
  const WarpKeys<kSteps, kRows> keys(args, rows, staged + warp * Shape::kWarpBytes);
  // Most entries were written long before the operation in front of this one. Those that it writes now are
  // only asked for, not read.
  Run ahead = keys.first();
  Place places[kStages];
#pragma unroll
  for (int s = 0; s < kStages; ++s) {
    places[s] = keys.find(ahead);
    ahead = keys.next(ahead);
  }
#pragma unroll
  for (int s = 0; s < kStages; ++s) keys.prefetch_found(places[s]);
  await_previous();
  if (rows.most < 0) return;
  const int width = static_cast<int>(args.layout.width);
  const int64_t stride = int64_t{args.heads} * width, at = range.first * stride + blockIdx.x * width;
  LaneInputs inputs[kHalves][kSteps];
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    const int row = h * kHalfRows + lane / 4;
    const bool is_row = range.first + row < range.end;
    const auto* q = reinterpret_cast<const float4*>(args.q + at + row * stride) + lane % 4 * 2;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const bool there = is_row && step * kStep + lane % 4 * kLaneInputs < width;
      const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
      inputs[h][step] = {there ? q[step * 8] : zero, there ? q[step * 8 + 1] : zero};
    }
  }
#pragma unroll
  for (int s = 0; s < kStages; ++s) {
    keys.copy(places[s], s * Shape::kStageBytes);
    end_copies();
  }
  QueryParts queries[kHalves][kSteps];
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) queries[h][step] = split(inputs[h][step]);
  }

  const float scale = args.scale * 1.44269504088896341f;  // log2 e
  State<kSteps> states[kHalves];
  int stage = 0;  // in bytes
  for (Run run = keys.first(); keys.has(run); run = keys.next(run)) {
    const bool more = keys.has(ahead);
    const Place place = keys.find(ahead);
    await_copies<kStages - 1>();
    __syncwarp();
    add_group<kSteps, kHalves>(keys, run, stage, queries, scale, states);
    __syncwarp();
    if (more) {
      keys.copy(place, stage);
      ahead = keys.next(ahead);
    }
    end_copies();
    stage = stage + Shape::kStageBytes == Shape::kWarpBytes ? 0 : stage + Shape::kStageBytes;
  }

  // What a warp has read is no longer needed: its place takes the warp's sums. Where there were fewer groups
  // than stages, zeros are still on their way there.
  await_copies<0>();
  __syncwarp();
  const auto totals_of = [&](int w) { return reinterpret_cast<float*>(staged + w * Shape::kWarpBytes); };
#pragma unroll
  for (int h = 0; h < kHalves; ++h) {
    const int row = h * kHalfRows + lane / 4;
    const float sum = row_sum(states[h].sum);
    if (lane % 4 == 0) {
      maxima[warp][row] = states[h].maximum;
      sums[warp][row] = sum;
    }
#pragma unroll
    for (int tile = 0; tile < Shape::kTiles; ++tile) {
      const auto& total = states[h].totals[tile].values;
      *reinterpret_cast<float2*>(totals_of(warp) + row * kLine + tile * kTileOut + lane % 4 * 2) =
          make_float2(total[0] + total[2], total[1] + total[3]);
    }
  }
  __syncthreads();
  constexpr int kVectors = Shape::kWidth / 4;
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kVectors; i += kThreads) {
    const int r = i / kVectors, d = i % kVectors * 4;
    const int count = rows.counts[r];
    if (count < 0 || d >= width) continue;
    float joined = maxima[0][r];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) joined = fmaxf(joined, maxima[w][r]);
    float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float share = power_of_two(maxima[w][r] - joined);
      const float4 part = *reinterpret_cast<const float4*>(totals_of(w) + r * kLine + d);
      total.x = fmaf(part.x, share, total.x);
      total.y = fmaf(part.y, share, total.y);
      total.z = fmaf(part.z, share, total.z);
      total.w = fmaf(part.w, share, total.w);
      sum = fmaf(sums[w][r], share, sum);
    }
    const float inverse = 1.0f / sum;
    const float results[] = {total.x * inverse, total.y * inverse, total.z * inverse, total.w * inverse};
    float* out = args.out + at + r * stride + d;
#pragma unroll
    for (int e = 0; e < 4; ++e) out[e] = count > 0 ? results[e] : 0.0f;
  }
}

}  // namespace

bool takes_bf16_vectors(int64_t width) {
  return width % (2 * kElements) == 0 && width <= 4 * kStep;
}

void launch_bf16_attention(const AttentionArgs& args, const Stream& stream) {
  const auto run = [&](auto steps, auto halves) {
    const AttentionGrid grid(args, halves * kHalfRows);
    launch("attention", attend_bf16<steps, halves>,
           Geometry{.grid = grid.blocks,
                    .threads = kThreads,
                    .shared_bytes = kWarps * int64_t{Heads<steps>::kWarpBytes}},
           stream, grid.device);
  };
  const auto run_halves = [&](auto steps) {
    if (Heads<steps>::kHalves > 1 && rows_together(args) > kHalfRows) {
      run(steps, std::integral_constant<int, Heads<steps>::kHalves>());
    } else {
      run(steps, std::integral_constant<int, 1>());
    }
  };
  switch (ceil_div(args.q.shape[2], kStep)) {
    case 1:
      return run_halves(std::integral_constant<int, 1>());
    case 2:
      return run_halves(std::integral_constant<int, 2>());
    case 3:
      return run_halves(std::integral_constant<int, 3>());
    default:
      return run_halves(std::integral_constant<int, 4>());
  }
}

}  // namespace volley::cuda
