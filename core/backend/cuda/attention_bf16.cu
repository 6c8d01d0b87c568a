// Attention of few rows over a paged cache in bf16. Groups of lanes take every so-many-th key, in rounds of
// eight, each lane eight elements of it; a group keeps the softmax over its own keys, and groups are joined
// in order at the end. Which group takes the i-th visible key, and when, depends on i and the head's width
// alone.
//
// A lane copies what it will read of keys and values into shared memory at once, so that there is one wait
// for both, no register holds what is on its way, and no lane waits for another before the end.
#include <climits>

#include "core/backend/cuda/attention_rows.cuh"
#include "core/backend/cuda/kernels.h"

namespace volley::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kElements = 8;    // of a key, that a lane reads at once
constexpr int kSteps = 8;       // keys of a group in a round
constexpr int kRowsAtOnce = 2;  // whose queries are in registers
constexpr int kBlocks = 3;      // of a processor: 192 KiB of keys and values on their way
constexpr int kStagedVectors = kWarps * 2 * kSteps * kWarp;

// ---- Copies that run beside the thread; groups of them end in order.

__device__ inline void copy_vector(uint4* shared, const std::byte* from, bool there) {
  const int bytes = there ? 16 : 0;  // the rest becomes zeros
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(from), "r"(bytes)
               : "memory");
}
__device__ inline void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for all groups of copies but the last kLast.
template <int kLast>
__device__ void await_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLast) : "memory");
}
__device__ inline void prefetch(const std::byte* address) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

// ---- Arithmetic of a lane

struct alignas(16) Vector {
  float values[kElements];
};

__device__ inline Vector unpacked(uint4 bits) {
  const uint32_t pairs[] = {bits.x, bits.y, bits.z, bits.w};
  Vector vector;
#pragma unroll
  for (int i = 0; i < kElements; ++i) {
    vector.values[i] = __uint_as_float(i % 2 == 0 ? pairs[i / 2] << 16 : pairs[i / 2] & 0xffff0000u);
  }
  return vector;
}

__device__ inline float dot(const Vector& a, const Vector& b) {
  float sum = a.values[0] * b.values[0];
#pragma unroll
  for (int i = 1; i < kElements; ++i) sum = fmaf(a.values[i], b.values[i], sum);
  return sum;
}

// What a sum counts whose weights are exp(score - maximum), where `joined` is the maximum.
__device__ inline float share(float maximum, float joined) {
  return maximum == joined ? 1.0f : expf(maximum - joined);
}

// The sums, over each eight lanes, of parts(t) for t = 0 .. 7: lane j gets that of t = j % 8. At each level
// two halves of the lanes swap what the other is to hold.
template <int kBit, int kRows, typename Parts>
__device__ void fold(const Parts& parts, int t, float (&sums)[kRows]) {
  if constexpr (kBit == kSteps) {
    parts(t, sums);
  } else {
    float others[kRows];
    fold<2 * kBit>(parts, t, sums);
    fold<2 * kBit>(parts, t + kBit, others);
    const bool upper = (threadIdx.x & kBit) != 0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float given = upper ? sums[r] : others[r];
      sums[r] = (upper ? others[r] : sums[r]) + __shfl_xor_sync(kAllLanes, given, kBit);
    }
  }
}

// ---- A warp's part of a block: one head of the rows of a block

// Lanes that share a key; keys of all warps in a step and in a round.
template <int kLanes>
struct Split {
  static constexpr int kGroups = kWarp / kLanes;
  static constexpr int kStepKeys = kWarps * kGroups;
  static constexpr int kRoundKeys = kSteps * kStepKeys;
};

template <int kLanes, int kRows>
class WarpKeys : Split<kLanes> {
  using Split<kLanes>::kGroups;
  using Split<kLanes>::kStepKeys;
  using Split<kLanes>::kRoundKeys;

 public:
  __device__ WarpKeys(const CacheAttention& args, const BlockRows<kRows>& rows, const RowCounts<kRows>& known,
                      uint4* staged)
      : args_(args),
        rows_(rows),
        known_(known),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        first_(static_cast<int>(threadIdx.x) / kWarp * kGroups),
        column_(lane_ % kLanes * kElements),
        is_wide_(column_ < args.layout.width),
        group_(args.group_offset(static_cast<int>(blockIdx.x))),
        keys_(staged + threadIdx.x / kWarp * (2 * kSteps * kWarp) + lane_),
        values_(keys_ + kSteps * kWarp) {
    find(0);
  }

  // Whether the warp has keys in a round.
  __device__ bool has(int round) const { return round * kRoundKeys + first_ < known_.most; }

  // Takes note of a round's places, which depend on tables only.
  __device__ void find(int round) {
    constexpr int kKeys = kSteps * kGroups;  // of a warp, one a lane
    const int n = lane_ % kKeys;
    const int i = index(round, n / kGroups) - lane_ / kLanes + n % kGroups;
    place_ = i < known_.shared ? static_cast<uint32_t>(place(0, i) / kElements) : 0;
  }
  // Asks for the found places' lines.
  __device__ void prefetch_found() const {
    if (place_ == 0) return;
    const int64_t offset = int64_t{place_} * kElements * 2;
    for (int64_t b = 0; b < args_.layout.width * 2; b += 128) {
      prefetch(args_.keys + offset + b);
      prefetch(args_.values + offset + b);
    }
  }

  // Copies what the rows share, of the places found.
  __device__ void copy_keys(int round) const { copy_shared(round, args_.keys, keys_); }
  __device__ void copy_values(int round) const { copy_shared(round, args_.values, values_); }
  // Copies what of a round a row sees for itself over what the last row saw.
  __device__ void copy_own(int round, int row) const {
    const int steps = steps_of(round);
    for (int t = 0; t < min(steps, kSteps); ++t) {
      const int i = index(round, t);
      if (i < known_.shared) continue;
      const bool there = is_wide_ && i < rows_.counts[row];
      const int64_t from = there ? (place(row, i) + column_) * 2 : 0;
      copy_vector(keys_ + t * kWarp, args_.keys + from, there);
      copy_vector(values_ + t * kWarp, args_.values + from, there);
    }
  }

  // Scores of some rows: those of the round's steps, one a lane (of step lane % 8).
  template <int kCount>
  __device__ void score(int round, const Vector (&queries)[kCount], float (&scores)[kCount]) const {
    const int steps = steps_of(round);
    const auto parts = [&](int t, float(&sums)[kCount]) {
#pragma unroll
      for (int r = 0; r < kCount; ++r) sums[r] = 0.0f;
      if (t >= steps) return;
      const Vector key = unpacked(keys_[t * kWarp]);
#pragma unroll
      for (int r = 0; r < kCount; ++r) sums[r] = dot(queries[r], key);
    };
    fold<1>(parts, 0, scores);
#pragma unroll
    for (int r = 0; r < kCount; ++r) {
#pragma unroll
      for (int step = kSteps; step < kLanes; step *= 2)
        scores[r] += __shfl_xor_sync(kAllLanes, scores[r], step);
      scores[r] *= args_.scale;
    }
  }

  // The lane's step of a round is one that a row sees.
  __device__ bool sees(int row, int round) const {
    return index(round, lane_ % kSteps) < rows_.counts[row];
  }

  // totals += weights * values of a round, for some rows; lane t of a group holds the weight of step t.
  template <int kCount>
  __device__ void add_values(int round, const float* weights, Vector* totals) const {
    const int steps = steps_of(round);
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
      if (t >= steps) break;
      const Vector value = unpacked(values_[t * kWarp]);
#pragma unroll
      for (int r = 0; r < kCount; ++r) {
        const float weight = __shfl_sync(kAllLanes, weights[r], t, kLanes);
#pragma unroll
        for (int e = 0; e < kElements; ++e)
          totals[r].values[e] = fmaf(weight, value.values[e], totals[r].values[e]);
      }
    }
  }

  // Whether rows see keys of their own in a round.
  __device__ bool has_own(int round) const {
    return known_.most > known_.shared && (round + 1) * kRoundKeys > known_.shared;
  }

 private:
  // Which visible key the lane's group takes in a step.
  __device__ int index(int round, int t) const {
    return round * kRoundKeys + t * kStepKeys + first_ + lane_ / kLanes;
  }
  __device__ int steps_of(int round) const {
    return (known_.most - round * kRoundKeys - first_ + kStepKeys - 1) / kStepKeys;
  }
  // Of a row's i-th visible key, in elements.
  __device__ int64_t place(int row, int i) const {
    return args_.layout.offset(rows_.visible(row).entry(i)) + group_;
  }

  // Places of keys that rows see for themselves are left to copy_own: of two copies to one place on their way
  // at once either may come last.
  __device__ void copy_shared(int round, const std::byte* plane, uint4* staged) const {
    const int steps = steps_of(round);
    const int end = known_.most > known_.shared ? known_.shared : INT_MAX;
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
      const int64_t found = __shfl_sync(kAllLanes, place_, t * kGroups + lane_ / kLanes);
      if (t >= steps) break;
      const int i = index(round, t);
      if (i >= end) continue;
      const bool there = is_wide_ && i < known_.shared;
      copy_vector(staged + t * kWarp, plane + (found * kElements + (there ? column_ : 0)) * 2, there);
    }
  }

  const CacheAttention& args_;
  const BlockRows<kRows>& rows_;
  const RowCounts<kRows>& known_;
  const int lane_;
  const int first_;   // key of the warp's first group in step 0
  const int column_;  // of the lane's elements
  const bool is_wide_;
  const int64_t group_;
  uint4* keys_;  // the lane's, of step 0; steps are kWarp apart
  uint4* values_;
  uint32_t place_ = 0;  // of the key that the lane found, in vectors
};

// The softmax of a group of lanes over its keys so far.
template <int kRows>
struct State {
  float maxima[kRows];
  float sums[kRows];  // of the lane's own steps
  Vector totals[kRows];
  float weights[kRows];  // of the round

  __device__ State() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      maxima[r] = -INFINITY;
      sums[r] = 0.0f;
      totals[r] = Vector{};
    }
  }

  __device__ void scale(int row, float factor) {
    sums[row] *= factor;
#pragma unroll
    for (float& total : totals[row].values) total *= factor;
  }

  // Turns a row's score into its weight.
  __device__ void weigh(int row, float score, bool sees) {
    float joined = fmaxf(maxima[row], sees ? score : -INFINITY);
#pragma unroll
    for (int step = kSteps / 2; step > 0; step /= 2)
      joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, step));
    scale(row, share(maxima[row], joined));
    maxima[row] = joined;
    weights[row] = sees ? expf(score - joined) : 0.0f;
    sums[row] += weights[row];
  }

  // Joins the groups of the warp, by one tree.
  template <int kLanes>
  __device__ void join_groups() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int step = kSteps / 2; step > 0; step /= 2) sums[r] += __shfl_xor_sync(kAllLanes, sums[r], step);
      float joined = maxima[r];
#pragma unroll
      for (int step = kLanes; step < kWarp; step *= 2)
        joined = fmaxf(joined, __shfl_xor_sync(kAllLanes, joined, step));
      scale(r, share(maxima[r], joined));
      maxima[r] = joined;
#pragma unroll
      for (int step = kLanes; step < kWarp; step *= 2) {
        sums[r] += __shfl_xor_sync(kAllLanes, sums[r], step);
#pragma unroll
        for (float& total : totals[r].values) total += __shfl_xor_sync(kAllLanes, total, step);
      }
    }
  }
};

// Weights of rows [first, + kCount) in a round.
template <int kCount, int kLanes, int kRows>
__device__ void weigh(const WarpKeys<kLanes, kRows>& keys, int round,
                      const float (&queries)[kRows][kLanes * kElements], int first, State<kRows>& state) {
  const int column = static_cast<int>(threadIdx.x) % kLanes * kElements;
  Vector q[kCount];
#pragma unroll
  for (int r = 0; r < kCount; ++r) q[r] = *reinterpret_cast<const Vector*>(&queries[first + r][column]);
  float scores[kCount];
  keys.score(round, q, scores);
#pragma unroll
  for (int r = 0; r < kCount; ++r) state.weigh(first + r, scores[r], keys.sees(first + r, round));
}

template <int kLanes, int kRows>
__global__ void __launch_bounds__(kThreads, kBlocks) attend_bf16(CacheAttention args) {
  constexpr int kWidth = kLanes * kElements;
  constexpr int kPass = kRows < kRowsAtOnce ? kRows : kRowsAtOnce;
  extern __shared__ uint4 staged[];
  __shared__ BlockRows<kRows> rows;
  __shared__ alignas(16) float queries[kRows][kWidth];
  __shared__ float maxima[kWarps][kRows], sums[kWarps][kRows];
  const auto range = BlockRows<kRows>::range(args);
  rows.find(args, range);
  __syncthreads();
  const RowCounts<kRows> known(rows);
  WarpKeys<kLanes, kRows> keys(args, rows, known, staged);
  // Most entries were written long before the operation in front of this one. Those that it writes now are
  // only asked for, not read.
  keys.prefetch_found();
  await_previous();
  if (!known.any()) return;
  keys.copy_keys(0);
  end_copies();
  keys.copy_values(0);
  end_copies();
  const int width = static_cast<int>(args.layout.width);
  const int64_t stride = int64_t{args.heads} * width, at = range.first * stride + blockIdx.x * width;
  for (int i = threadIdx.x; i < kRows * kWidth; i += kThreads) {
    const int r = i / kWidth, d = i % kWidth;
    const bool there = range.first + r < range.end && d < width;
    queries[r][d] = there ? args.q[at + r * stride + d] : 0.0f;
  }
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  State<kRows> state;
  for (int round = 0; keys.has(round); ++round) {
    const bool more = keys.has(round + 1);
    if (keys.has_own(round)) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        keys.copy_own(round, r);
        end_copies();
        await_copies<0>();
        weigh<1>(keys, round, queries, r, state);
        keys.template add_values<1>(round, state.weights + r, state.totals + r);
      }
      if (!more) break;
      keys.find(round + 1);
      keys.copy_keys(round + 1);
      end_copies();
      keys.copy_values(round + 1);
      end_copies();
      continue;
    }
    await_copies<1>();
#pragma unroll
    for (int r = 0; r < kRows; r += kPass) weigh<kPass>(keys, round, queries, r, state);
    if (more) {
      keys.find(round + 1);
      keys.copy_keys(round + 1);
    }
    end_copies();
    await_copies<1>();
    keys.template add_values<kRows>(round, state.weights, state.totals);
    if (more) keys.copy_values(round + 1);
    end_copies();
  }

  state.template join_groups<kLanes>();
  // What a warp has read is no longer needed: its place takes the warp's sums.
  static_assert(kRows * kWidth * 4 <= kSteps * kWarp * 16);
  const auto totals_of = [&](int w) { return reinterpret_cast<float*>(staged + w * (2 * kSteps * kWarp)); };
  __syncwarp();
  if (lane < kLanes) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      *reinterpret_cast<Vector*>(totals_of(warp) + r * kWidth + lane * kElements) = state.totals[r];
      if (lane == 0) {
        maxima[warp][r] = state.maxima[r];
        sums[warp][r] = state.sums[r];
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRows * kWidth; i += kThreads) {
    const int r = i / kWidth, d = i % kWidth;
    if (rows.counts[r] < 0 || d >= width) continue;
    float joined = maxima[0][r];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) joined = fmaxf(joined, maxima[w][r]);
    float total = 0.0f, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float part = share(maxima[w][r], joined);
      total += totals_of(w)[r * kWidth + d] * part;
      sum += sums[w][r] * part;
    }
    args.out[at + r * stride + d] = rows.counts[r] > 0 ? total / sum : 0.0f;
  }
}

}  // namespace

bool takes_bf16_vectors(int64_t width) {
  return width % kElements == 0 && width <= kWarp * kElements;
}

void launch_bf16_attention(const AttentionArgs& args, const Stream& stream) {
  const int64_t width = args.q.shape[2];
  const auto run = [&](auto lanes, auto count) {
    const AttentionGrid grid(args, count);
    launch("attention", attend_bf16<lanes, count>,
           Geometry{.grid = grid.blocks,
                    .threads = kThreads,
                    .shared_bytes = kStagedVectors * static_cast<int64_t>(sizeof(uint4))},
           stream, grid.device);
  };
  with_rows(is_few(args) ? 1 : rows_together(args), [&](auto count) {
    if (width <= 8 * kElements) {
      run(std::integral_constant<int, 8>(), count);
    } else if (width <= 16 * kElements) {
      run(std::integral_constant<int, 16>(), count);
    } else {
      run(std::integral_constant<int, 32>(), count);
    }
  });
}

}  // namespace volley::cuda
