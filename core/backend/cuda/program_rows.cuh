#pragma once

// How the rows of a product's phase get to the shared memory of each block, rounded, by the warps that
// multiply. Where to find them is known before they are there. Places of rows that do not exist keep what
// they hold: a row of a multiply-accumulate bears on no other.

#include "core/backend/cuda/program_block.cuh"

namespace volley::cuda {

// ---- Posted rows, which are looked at only where something is a NaN: what is missing is. Waits until
// nothing of a lane's, or thread's, steps is missing, which are read again then.

__device__ inline __noinline__ void await_posted(const float* x, int first, int stride, int end) {
  for (int step = first; step < end; step += stride) {
    for (int i = 0; i < kLaneInputs; ++i) {
      while (is_missing(read_posted(x + step * kStep + i))) continue;
    }
  }
  look_again();
}
__device__ inline __noinline__ void await_posted(const uint4* from, int first, int stride, int end) {
  for (int step = first; step < end; step += stride) {
    while (lacks_any(read_posted(from + step * kWarp))) continue;
  }
}

// ---- Rows that are normed

// A warp's share of rows: two neighbours, or parts of them where there are more warps than pairs of rows.
// Four lanes hold a step of a row, a warp four steps of both: so lanes read the norm's weights for both rows
// at once, and what they write side by side lies in different banks.
struct RowShare {
  static constexpr int kWarpSteps = kWarp / 8;

  __device__ explicit RowShare(const FewRows& args) : steps(args.rows.steps()), posted(args.posted) {
    const InputRows& rows = args.rows;
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    const int count = static_cast<int>(rows.count), pairs = (count + 1) / 2;
    static_assert(kMultiplyWarps == 8 && kTileRows == 16);
    warps = pairs > 4 ? 1 : pairs > 2 ? 2 : pairs > 1 ? 4 : 8;
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
  // Until what is posted of the lane's steps is there.
  __device__ void await() const { await_posted(x, own(first), stride, end); }

  int steps;
  bool posted;
  int warps;     // of two rows
  int row;       // of the lane
  int first;     // step of the warp
  int stride;    // from there to its next steps
  int end;       // behind the steps of the lane's row; 0: there is no such row
  int warp_end;  // behind those of the warp's rows
  const float* x;
};

// What a lane holds of its row: kHeld of its steps; the rest is read twice.
template <int kGroups>
struct HeldRows {
  static constexpr int kHeld = kGroups == 1 ? 6 : 8;

  LaneInputs inputs[kHeld];

  __device__ explicit HeldRows(const RowShare& share) { load(share); }
  __device__ void load(const RowShare& share) {
#pragma unroll
    for (int i = 0; i < kHeld; ++i) inputs[i] = share.load(share.own(share.first + i * share.stride));
  }
  // Calls f(step, inputs) with the lane's steps of its row; if kWhole, in all lanes as long as any has one.
  template <bool kWhole, typename F>
  __device__ void each(const RowShare& share, const F& f) const {
    const auto has = [&](int first) {
      return kWhole ? first < share.warp_end : share.own(first) < share.end;
    };
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int first = share.first + i * share.stride;
      if (has(first)) f(share.own(first), inputs[i]);
    }
#pragma unroll 1
    for (int first = share.first + kHeld * share.stride; has(first); first += share.stride)
      f(share.own(first), share.load(share.own(first)));
  }
};

// The norm's weights are at `norm`. Behind it, the weights of the phase's first units are there, too.
template <int kGroups>
__device__ void hold_normed_rows(const FewRows& args, const ProgramBlock<kGroups>& block, StagePlace norm,
                                 const RowShare& share) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  HeldRows<kGroups> held(share);
  float* const squares_of_steps = block.squares_of(share.row, share.steps);
  bool again = false;
#pragma unroll 1
  do {
    float all = 0.0f;  // a NaN if anything is
    held.template each<true>(share, [&](int step, const LaneInputs& inputs) {
      const float sum = row_sum(squares(inputs));
      all += sum;
      if (lane % 4 == 0 && step < share.end) squares_of_steps[step] = sum;
    });
    again = kMayBePosted<kGroups> && share.posted && !again && __any_sync(kAllLanes, isnan(all));
    if (again) {
      share.await();
      held.load(share);
    }
  } while (again);
  if (share.warps > 1) {
    meet_warps();
  } else {
    __syncwarp();
  }
  const float scale = rms_scale(sum_of_steps(squares_of_steps, share.end), args.rows, args.norm.eps);
  uint4* const to = block.rows + share.row / 8 * kWarp + block_place(share.row % 8 * 4 + lane % 4);
  held.template each<false>(share, [&](int step, const LaneInputs& inputs) {
    const StagePlace place = norm.moved(step / kNormSteps, block.ring);
    const auto* from =
        reinterpret_cast<const float4*>(block.ring.stage(place.stage)) + step % kNormSteps * 8 + lane % 4 * 2;
    to[step * kGroups * kWarp] = rounded(normed(inputs, scale, {from[0], from[1]}));
  });
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
