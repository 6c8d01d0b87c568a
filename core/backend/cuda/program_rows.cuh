#pragma once

// How the rows of a product's phase get to the shared memory of each block, rounded, by the warps that
// multiply. Where to find them is known before they are there. Places of rows that do not exist keep what
// they hold: a row of a multiply-accumulate bears on no other.

#include "core/backend/cuda/program_block.cuh"

namespace volley::cuda {

// ---- Rows that are normed

// A warp's share of rows: up to eight rows are dealt to warps, or parts of them where there are more warps
// than rows; of more a warp has every eighth. Four lanes hold a step of a row, a warp eight of them.
struct RowShare {
  static constexpr int kWarpSteps = kWarp / 4;

  __device__ explicit RowShare(const FewRows& args) : steps(args.rows.steps()) {
    const InputRows& rows = args.rows;
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    const auto count = static_cast<int>(rows.count);
    static_assert(kMultiplyWarps == 8);
    warps = count > 4 ? 1 : count > 2 ? 2 : count > 1 ? 4 : 8;
    row = warp / warps;
    left = count - row;
    first = warp % warps * kWarpSteps;
    stride = warps * kWarpSteps;
    x = rows.x + lane % 4 * kLaneInputs;
#pragma unroll
    for (int e = 0; e < kMostEights; ++e) {
      const int own = e * 8 < left ? row + e * 8 : 0;
      places[e] = (args.picked.ids != nullptr ? args.picked.ids[own] : own) * rows.in_features;
    }
  }
  // Behind the steps of the share's row in the eight; 0: there is no such row.
  __device__ int end(int eight) const {
    return eight * 8 < left ? steps : 0;
  }
  __device__ LaneInputs load(int eight, int step) const {
    if (step >= end(eight)) return {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    const auto* from = reinterpret_cast<const float4*>(x + places[eight] + step * kStep);
    return {from[0], from[1]};
  }

  static constexpr int kMostEights = kTileRows / 8;

  int steps;
  int warps;   // of a row
  int row;     // of the first eight
  int left;    // rows from that one on
  int first;   // step of the warp
  int stride;  // from there to its next steps
  const float* x;
  int places[kMostEights];  // of rows
};

// What a warp holds of its rows: kHeld of a lane's steps; the rest is read twice.
template <int kGroups>
struct HeldRows {
  static constexpr int kHeld = kGroups == 1 ? 6 : 4;

  LaneInputs inputs[kGroups][kHeld];

  __device__ explicit HeldRows(const RowShare& share) {
    const int own = static_cast<int>(threadIdx.x) % kWarp / 4;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) inputs[g][i] = share.load(g, share.first + i * share.stride + own);
    }
  }
  // Calls f(step, inputs) with the lane's steps of its row in the eight; if kWhole, in all lanes as long as
  // any has one.
  template <bool kWhole, typename F>
  __device__ void each(const RowShare& share, int eight, const F& f) const {
    const int own = static_cast<int>(threadIdx.x) % kWarp / 4, end = share.end(eight);
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int first = share.first + i * share.stride;
      if (first + (kWhole ? 0 : own) < end) f(first + own, inputs[eight][i]);
    }
#pragma unroll 1
    for (int first = share.first + kHeld * share.stride; first + (kWhole ? 0 : own) < end;
         first += share.stride)
      f(first + own, share.load(eight, first + own));
  }
};

// The norm's weights are at `norm`. Behind it, the weights of the phase's first units are there, too. Rows of
// both eights are asked for before the first is dealt with.
template <int kGroups>
__device__ void hold_normed_rows(const FewRows& args, const ProgramBlock<kGroups>& block, StagePlace norm,
                                 const RowShare& share) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const HeldRows<kGroups> held(share);
  float* const squares_of_steps = block.squares_of(share.row, share.steps);
  float scales[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    const int end = share.end(g);
    __syncwarp();
    held.template each<true>(share, g, [&](int step, const LaneInputs& inputs) {
      const float sum = row_sum(squares(inputs));
      if (lane % 4 == 0 && step < end) squares_of_steps[step] = sum;
    });
    if (g == 0 && share.warps > 1) {
      meet_warps();
    } else {
      __syncwarp();
    }
    scales[g] = rms_scale(sum_of_steps(squares_of_steps, end), args.rows, args.norm.eps);
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g) {
    uint4* const to = block.rows + g * kWarp + block_place(share.row * 4 + lane % 4);
    held.template each<false>(share, g, [&](int step, const LaneInputs& inputs) {
      const StagePlace place = norm.moved(step / kNormSteps, block.ring);
      const auto* from = reinterpret_cast<const float4*>(block.ring.stage(place.stage)) +
                         step % kNormSteps * 8 + lane % 4 * 2;
      to[step * kGroups * kWarp] = rounded(normed(inputs, scales[g], {from[0], from[1]}));
    });
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

// `share`: of the first eight rows.
template <int kGroups>
__device__ void hold_packed_rows(const FewRows& args, const ProgramBlock<kGroups>& block,
                                 const PackedShare& share) {
  copy_packed_eight(block, 0, share);
#pragma unroll 1
  for (int eight = 1; eight < kGroups; ++eight) copy_packed_eight(block, eight, PackedShare(args, eight));
  end_copies();
  await_copies<0>();
  await_weights();
}

}  // namespace volley::cuda
