#pragma once

// How the inputs of a product on tensor cores are cut, and rows as its lanes hold them. Letters: R rows, N
// outputs, K inputs.
//
// The K inputs of a row are steps of kStep, and the steps are cut into kSlices slices. A sum over the inputs
// is (s0 + s1) + (s2 + s3), where s is the sum of a slice's steps one after the other. Four lanes hold a
// row's step: lane l of a warp holds inputs 8 * (l % 4) .. + 7 of row l / 4.

#include <cuda_bf16.h>

#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/launch.cuh"

namespace volley::cuda {

inline constexpr int kSlices = 4;
inline constexpr int kStep = 32;       // inputs
inline constexpr int kLaneInputs = 8;  // of a step
inline constexpr int kTileOut = 8;     // outputs of a multiply-accumulate
inline constexpr int kTileRows = 16;   // rows of one

// First step of a slice.
__host__ __device__ constexpr int slice_begin(int slice, int steps) {
  return slice * steps / kSlices;
}
__device__ inline float join_slices(float first, float second, float third, float fourth) {
  return (first + second) + (third + fourth);
}

// A lane's inputs of a row, in f32.
struct LaneInputs {
  float4 low;
  float4 high;
};

// Rows of a matrix [count, in_features].
struct InputRows {
  InputRows(const float* data, int64_t columns, int64_t rows)
      : x(data),
        in_features(static_cast<int>(columns)),
        count(rows),
        aligned(columns % kStep == 0 && reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0) {}

  const float* x;
  int in_features;
  int64_t count;
  bool aligned;  // lanes may read their inputs at once

  __host__ __device__ int steps() const { return (in_features + kStep - 1) / kStep; }

  // As below, where `aligned`.
  __device__ LaneInputs load_aligned(int64_t row, int step, int lane) const {
    if (row >= count) return {make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    const auto* from =
        reinterpret_cast<const float4*>(x + row * in_features + step * kStep + lane % 4 * kLaneInputs);
    return {from[0], from[1]};
  }
  // Zeros behind the last row and behind a row's end.
  __device__ LaneInputs load(int64_t row, int step, int lane) const {
    LaneInputs inputs{make_float4(0.0f, 0.0f, 0.0f, 0.0f), make_float4(0.0f, 0.0f, 0.0f, 0.0f)};
    if (row >= count) return inputs;
    const int k = step * kStep + lane % 4 * kLaneInputs;
    const float* from = x + row * in_features + k;
    if (aligned) {
      inputs.low = reinterpret_cast<const float4*>(from)[0];
      inputs.high = reinterpret_cast<const float4*>(from)[1];
    } else {
      const auto at = [&](int i) { return k + i < in_features ? from[i] : 0.0f; };
      inputs.low = make_float4(at(0), at(1), at(2), at(3));
      inputs.high = make_float4(at(4), at(5), at(6), at(7));
    }
    return inputs;
  }
};

__device__ inline uint32_t two_bf16(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline uint4 rounded(const LaneInputs& inputs) {
  return make_uint4(two_bf16(inputs.low.x, inputs.low.y), two_bf16(inputs.low.z, inputs.low.w),
                    two_bf16(inputs.high.x, inputs.high.y), two_bf16(inputs.high.z, inputs.high.w));
}

// Lane q of four gives its i-th value to lane i, and has lane i's q-th then.
__device__ inline uint4 transposed_of_four(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const int q = static_cast<int>(threadIdx.x) % 4;
  const bool high = q / 2 != 0, odd = q % 2 != 0;
  // Pairs of values change places between lanes two apart, then values between neighbours.
  const uint32_t first = __shfl_xor_sync(kAllLanes, high ? a : c, 2),
                 second = __shfl_xor_sync(kAllLanes, high ? b : d, 2);
  const uint32_t a2 = high ? first : a, b2 = high ? second : b, c2 = high ? c : first, d2 = high ? d : second;
  const uint32_t third = __shfl_xor_sync(kAllLanes, odd ? a2 : b2, 1),
                 fourth = __shfl_xor_sync(kAllLanes, odd ? c2 : d2, 1);
  return odd ? make_uint4(third, b2, fourth, d2) : make_uint4(a2, third, c2, fourth);
}

// ---- Root mean square of rows. Products take rows that are `weighted`, and multiply their sums by the rows'
// scales, 1 / rms: whoever makes a part of a row can round it before the scale is known.

struct NormWeights {
  const float* weight = nullptr;  // [K]
  float eps = 0.0f;
  float each = 0.0f;  // 1 / K

  // Of a row's sums, from the sum of its squares. Not by a root and a quotient, whose code takes longer to be
  // fetched than it runs where a program passes by.
  __device__ float scale(float sum_of_squares) const { return rsqrtf(sum_of_squares * each + eps); }
};
inline NormWeights norm_weights(const RmsNormArgs& args) {
  return {.weight = args.weight.data, .eps = args.eps, .each = 1.0f / static_cast<float>(args.weight.size())};
}

// The weights in shared memory, where they can be before the rows are there.
class HeldNorm {
 public:
  __device__ explicit HeldNorm(float* memory) : memory_(memory) {}
  static int64_t bytes(const InputRows& rows) { return int64_t{rows.steps()} * kStep * 4; }

  // By all threads of a block, which meet before anyone loads.
  __device__ void hold(const NormWeights& norm, const InputRows& rows) const {
    for (int k = static_cast<int>(threadIdx.x); k < rows.steps() * kStep; k += static_cast<int>(blockDim.x))
      memory_[k] = k < rows.in_features ? norm.weight[k] : 0.0f;
  }
  __device__ LaneInputs load(int step, int lane) const {
    const auto* from = reinterpret_cast<const float4*>(memory_ + step * kStep + lane % 4 * kLaneInputs);
    return {from[0], from[1]};
  }

 private:
  float* memory_;
};

// Sum over the four lanes of a row.
__device__ inline float row_sum(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

__device__ inline float squares(const LaneInputs& inputs) {
  const float4 &a = inputs.low, &b = inputs.high;
  return (fmaf(b.x, b.x, a.x * a.x) + fmaf(b.y, b.y, a.y * a.y)) +
         (fmaf(b.z, b.z, a.z * a.z) + fmaf(b.w, b.w, a.w * a.w));
}

// The same in the first of eight neighbouring lanes, each of which has one of the inputs.
__device__ inline float squares_of_eight(float input) {
  const float other = __shfl_down_sync(kAllLanes, input, 4);
  float sum = fmaf(other, other, input * input);
  sum += __shfl_xor_sync(kAllLanes, sum, 1);
  return sum + __shfl_xor_sync(kAllLanes, sum, 2);
}

// Puts the sum of a step's squares, of eight rows, to shared memory [steps, kGroups, 8].
template <int kGroups>
__device__ void hold_squares(const LaneInputs& inputs, int step, int steps, int group, float* partials) {
  const int lane = threadIdx.x % kWarp;
  const float sum = row_sum(squares(inputs));
  if (lane % 4 == 0 && step < steps) partials[(step * kGroups + group) * 8 + lane / 4] = sum;
}

// The sum of a row's squares is that of kWarp sums, each of every kWarp-th step's: sums i and i + 16 are
// joined, then those 8 apart, and so on.
__device__ inline float sum_of_four(float first, float second, float third, float fourth) {
  return (first + second) + (third + fourth);
}
// By a warp, a lane of which has a sum each.
__device__ inline float join_lanes(float sum) {
#pragma unroll
  for (int apart = kWarp / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(kAllLanes, sum, apart);
  return sum;
}
// By a warp: `squares` of the steps, `stride` apart in shared memory.
__device__ inline float sum_of_squares(const float* squares, int steps, int stride) {
  float sum = 0.0f;
  for (int step = static_cast<int>(threadIdx.x) % kWarp; step < steps; step += kWarp)
    sum += squares[step * stride];
  return join_lanes(sum);
}

inline int64_t rms_partials_bytes(const InputRows& rows, int groups) {
  return int64_t{rows.steps()} * groups * 8 * 4;
}

// `weight` is the lane's of the same inputs.
__device__ inline LaneInputs normed(const LaneInputs& inputs, float scale, const LaneInputs& weight) {
  return {make_float4(inputs.low.x * scale * weight.low.x, inputs.low.y * scale * weight.low.y,
                      inputs.low.z * scale * weight.low.z, inputs.low.w * scale * weight.low.w),
          make_float4(inputs.high.x * scale * weight.high.x, inputs.high.y * scale * weight.high.y,
                      inputs.high.z * scale * weight.high.z, inputs.high.w * scale * weight.high.w)};
}
// The same without the scale.
__device__ inline LaneInputs weighted(const LaneInputs& inputs, const LaneInputs& weight) {
  return {make_float4(inputs.low.x * weight.low.x, inputs.low.y * weight.low.y, inputs.low.z * weight.low.z,
                      inputs.low.w * weight.low.w),
          make_float4(inputs.high.x * weight.high.x, inputs.high.y * weight.high.y,
                      inputs.high.z * weight.high.z, inputs.high.w * weight.high.w)};
}

}  // namespace volley::cuda
