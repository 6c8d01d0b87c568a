#pragma once

// How the rows of a product's phase get to the shared memory of each block, rounded, by the warps that
// multiply. Where to find them is known before they are there. Places of rows that do not exist keep what
// they hold: a row of a multiply-accumulate bears on no other.

#include "core/backend/cuda/program_block.cuh"

namespace volley::cuda {

// Posted rows are looked at only where something is a NaN: what is missing is. Waits until nothing of a
// thread's steps is missing, which are copied again then.
__device__ inline __noinline__ void await_posted(const uint4* from, int first, int stride, int end) {
  for (int step = first; step < end; step += stride) {
    while (lacks_any(read_posted(from + step * kWarp))) continue;
  }
}

// ---- Rows that are normed and that no phase hands on

// A warp's share of rows: two neighbours, or parts of them where there are more warps than pairs of rows.
// Four lanes hold a step of a row, a warp four steps of both: so lanes read the norm's weights for both rows
// at once, and what they write side by side lies in different banks.
struct RowShare {
  static constexpr int kWarpSteps = kWarp / 8;

  __device__ explicit RowShare(const FewRows& args) : steps(args.rows.steps()) {
    const InputRows& rows = args.rows;
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    const int count = static_cast<int>(rows.count), pairs = (count + 1) / 2;
    static_assert(kMultiplyWarps == 8 && kTileRows == 16);
    const int warps = pairs > 4 ? 1 : pairs > 2 ? 2 : pairs > 1 ? 4 : 8;  // of two rows
    const int pair = warp / warps;
    row = pair * 2 + lane / 4 % 2;
    first = warp % warps * kWarpSteps;
    stride = warps * kWarpSteps;
    end = row < count ? steps : 0;
    warp_end = pair < pairs ? steps : 0;
    const int known = row < count ? row : 0;
    x = rows.x + (args.picked.ids != nullptr ? args.picked.ids[known] : known) * rows.in_features +
        lane % 4 * kLaneInputs;
  }
  // The lane's, of the warp's steps from `step` on.
  __device__ static int own(int step) { return step + static_cast<int>(threadIdx.x) % kWarp / 8; }
  __device__ LaneInputs load(int step) const {
    if (step >= end) return {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    const auto* from = reinterpret_cast<const float4*>(x + step * kStep);
    return {from[0], from[1]};
  }

  int steps;
  int row;       // of the lane
  int first;     // step of the warp
  int stride;    // from there to its next steps
  int end;       // behind the steps of the lane's row; 0: there is no such row
  int warp_end;  // behind those of the warp's rows
  const float* x;
};

// The norm's weights are at `norm`. Behind it, the scales of rows and the weights of the phase's first units
// are there, too.
template <int kGroups>
__device__ void hold_normed_rows(const FewRows& args, const ProgramBlock<kGroups>& block, StagePlace norm,
                                 const RowShare& share) {
  constexpr int kTogether = 4;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  float* const squares_of_steps = block.squares_of(share.row, share.steps);
  uint4* const to = block.rows + share.row / 8 * kWarp + block_place(share.row % 8 * 4 + lane % 4);
#pragma unroll 1
  for (int first = share.first; first < share.warp_end; first += kTogether * share.stride) {
    LaneInputs inputs[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) inputs[i] = share.load(share.own(first + i * share.stride));
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (first + i * share.stride >= share.warp_end) break;
      const int step = share.own(first + i * share.stride);
      const float sum = row_sum(squares(inputs[i]));
      if (step >= share.end) continue;
      if (lane % 4 == 0) squares_of_steps[step] = sum;
      const StagePlace place = norm.moved(step / kNormSteps, block.ring);
      const auto* from = reinterpret_cast<const float4*>(block.ring.stage(place.stage)) +
                         step % kNormSteps * 8 + lane % 4 * 2;
      to[step * kGroups * kWarp] = rounded(weighted(inputs[i], {from[0], from[1]}));
    }
  }
  meet_warps();
#pragma unroll 1
  for (int row = warp; row < args.rows.count; row += kMultiplyWarps) {
    const float scale = args.norm.scale(sum_of_squares(block.squares_of(row, share.steps), share.steps, 1));
    if (lane == 0) block.scales[row] = scale;
  }
  await_weights();
}

// ---- Rows that are packed

// A thread's vectors of eight rows: one of every stride-th step's block.
struct PackedShare {
  __device__ PackedShare(const FewRows& args, int eight) {
    const auto thread = static_cast<int>(threadIdx.x);
    const int count = min(8, static_cast<int>(args.rows.count) - eight * 8);
    const int log_vectors = count > 4 ? 5 : count > 2 ? 4 : count > 1 ? 3 : 2;  // of a block that are dealt
    vector = thread & ((1 << log_vectors) - 1);
    first = thread >> log_vectors;
    stride = kMultiplyThreads >> log_vectors;
    end = vector < count * 4 ? args.packed.steps : 0;
    from = args.packed.part(eight, 0) + vector;
  }

  int vector;
  int first;
  int stride;
  int end;
  const uint4* from;
};

template <int kGroups>
__device__ void copy_packed_eight(const ProgramBlock<kGroups>& block, int eight, const PackedShare& share) {
#pragma unroll 4
  for (int step = share.first; step < share.end; step += share.stride)
    copy_async(block.rows + (step * kGroups + eight) * kWarp + share.vector, share.from + step * kWarp);
}

// The scales of rows that an earlier phase hands on, from squares of eights, four of which are a step's.
// Waits for what is missing of them.
template <int kGroups>
__device__ void hold_scales(const FewRows& args, const ProgramBlock<kGroups>& block) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int steps = args.packed.steps, count = static_cast<int>(args.rows.count);
  const auto* from = reinterpret_cast<const uint4*>(args.squares);
  static_assert(kMultiplyWarps == 8);
  float sums[kGroups] = {};
#pragma unroll 1
  for (int step = lane; step < steps; step += kWarp) {
    uint4 fours[kGroups];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (g * 8 + warp < count) fours[g] = read_posted(from + (g * 8 + warp) * steps + step);
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      if (g * 8 + warp >= count) break;
      while (is_any_missing(fours[g])) fours[g] = read_posted(from + (g * 8 + warp) * steps + step);
      sums[g] += sum_of_four(__uint_as_float(fours[g].x), __uint_as_float(fours[g].y),
                             __uint_as_float(fours[g].z), __uint_as_float(fours[g].w));
    }
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const float scale = args.norm.scale(join_lanes(sums[g]));
    if (lane == 0) block.scales[g * 8 + warp] = scale;
  }
}

// `share`: of the first eight rows.
template <int kGroups>
__device__ void hold_packed_rows(const FewRows& args, const ProgramBlock<kGroups>& block,
                                 const PackedShare& share) {
  copy_packed_eight(block, 0, share);
#pragma unroll 1
  for (int eight = 1; eight < kGroups; ++eight) copy_packed_eight(block, eight, PackedShare(args, eight));
  end_copies();
  if (args.squares != nullptr) hold_scales(args, block);
  await_copies<0>();
  await_weights();
}

// By the multiplying warps, if some may have been missing: copies rows that are posted again.
template <int kGroups>
__device__ void hold_packed_rows_again(const FewRows& args, const ProgramBlock<kGroups>& block) {
#pragma unroll 1
  for (int eight = 0; eight < kGroups; ++eight) {
    const PackedShare share(args, eight);
    await_posted(share.from, share.first, share.stride, share.end);
    copy_packed_eight(block, eight, share);
  }
  end_copies();
  await_copies<0>();
  meet_warps();
}

}  // namespace volley::cuda
