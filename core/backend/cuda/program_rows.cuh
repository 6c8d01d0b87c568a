#pragma once

// How the rows of a product's phase get to the shared memory of each block, rounded, by the warps that
// multiply. Where to find them is known before they are there. Places of rows that do not exist keep what
// they hold: a row of a multiply-accumulate bears on no other.

#include "core/backend/cuda/program_block.cuh"

namespace volley::cuda {

// ---- Rows that are normed

// A warp's share of eight rows: a row, or a part of one where there are more warps than rows. Four lanes hold
// a step of the row, a warp eight of them.
struct RowShare {
  static constexpr int kWarpSteps = kWarp / 4;

  __device__ RowShare(const InputRows& rows, int first_row) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp,
              count = min(8, static_cast<int>(rows.count) - first_row);
    warps = count > 4 ? 1 : count > 2 ? 2 : count > 1 ? 4 : 8;
    static_assert(kMultiplyWarps == 8);
    row = warp / warps;
    first = warp % warps * kWarpSteps;
    end = row < count ? rows.steps() : 0;
    stride = warps * kWarpSteps;
    x = rows.x + int64_t{first_row + row} * rows.in_features + lane % 4 * kLaneInputs;
  }
  __device__ LaneInputs load(int step) const {
    if (step >= end) return {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    const auto* from = reinterpret_cast<const float4*>(x + step * kStep);
    return {from[0], from[1]};
  }

  int warps;   // of a row
  int row;     // of the eight
  int first;   // step of the warp
  int stride;  // from there to its next steps
  int end;     // of the row's steps; 0: there is no such row
  const float* x;
};

// The norm's weights are at `norm`.
template <int kGroups>
__device__ void hold_normed_eight(const FewRows& args, const ProgramBlock<kGroups>& block, StagePlace norm,
                                  int eight, const RowShare& share) {
  constexpr int kHeld = 6;  // of a lane's steps; the rest is read twice
  const int lane = static_cast<int>(threadIdx.x) % kWarp, own = lane / 4;
  LaneInputs held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) held[i] = share.load(share.first + i * share.stride + own);
  float* const squares_of_steps = block.squares_of(share.row, args.rows.steps());
  const auto put_squares = [&](int step, const LaneInputs& inputs) {
    const float sum = row_sum(squares(inputs));
    if (lane % 4 == 0 && step < share.end) squares_of_steps[step] = sum;
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int first = share.first + i * share.stride;
    if (first < share.end) put_squares(first + own, held[i]);
  }
#pragma unroll 1
  for (int first = share.first + kHeld * share.stride; first < share.end; first += share.stride)
    put_squares(first + own, share.load(first + own));
  if (share.warps > 1) {
    meet_warps();
  } else {
    __syncwarp();
  }
  const float scale = rms_scale(sum_of_steps(squares_of_steps, share.end), args.rows, args.norm.eps);
  uint4* const to = block.rows + eight * kWarp + block_place(share.row * 4 + lane % 4);
  const auto put = [&](int step, const LaneInputs& inputs) {
    const StagePlace place = norm.moved(step / kNormSteps, block.ring);
    const auto* from =
        reinterpret_cast<const float4*>(block.ring.stage(place.stage)) + step % kNormSteps * 8 + lane % 4 * 2;
    to[step * kGroups * kWarp] = rounded(normed(inputs, scale, {from[0], from[1]}));
  };
#pragma unroll
  for (int i = 0; i < kHeld; ++i) {
    const int step = share.first + i * share.stride + own;
    if (step < share.end) put(step, held[i]);
  }
#pragma unroll 1
  for (int step = share.first + kHeld * share.stride + own; step < share.end; step += share.stride)
    put(step, share.load(step));
  meet_warps();
}

// `share`: of the first eight rows.
template <int kGroups>
__device__ void hold_normed_rows(const FewRows& args, const ProgramBlock<kGroups>& block, StagePlace norm,
                                 const RowShare& share) {
  hold_normed_eight(args, block, norm, 0, share);
#pragma unroll 1
  for (int eight = 1; eight < kGroups; ++eight)
    hold_normed_eight(args, block, norm, eight, RowShare(args.rows, eight * 8));
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

// `share`: of the first eight rows.
template <int kGroups>
__device__ void hold_packed_rows(const FewRows& args, const ProgramBlock<kGroups>& block,
                                 const PackedShare& share) {
  copy_packed_eight(block, 0, share);
#pragma unroll 1
  for (int eight = 1; eight < kGroups; ++eight) copy_packed_eight(block, eight, PackedShare(args, eight));
  end_copies();
  await_copies<0>();
  meet_warps();
}

}  // namespace volley::cuda
