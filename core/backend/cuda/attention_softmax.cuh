#pragma once

// The arithmetic of attention over a cache in bf16, on tensor cores.
//
// Queries and weights are f32. Each is split into two bf16 that sum to it but for 2^-18 of it: of the 16 rows
// of a multiply-accumulate eight are the high parts of eight rows, and eight the low parts. Letters as in
// multiply_accumulate.cuh: lane l holds what is row l / 4 of eight.

#include "core/backend/cuda/attention_keys.cuh"
#include "core/backend/cuda/multiply_accumulate.cuh"

namespace volley::cuda {

// ---- Arithmetic of a lane

constexpr int kHalfRows = 8;  // in one multiply-accumulate

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

// Parts of a row's softmax that are joined one after the other.
struct JoinedSoftmax {
  float maximum = -INFINITY;
  float sum = 0.0f;
  // By what a weighted sum so far is multiplied, and the next part's.
  float kept = 1.0f;
  float share = 0.0f;

  // Whether the next part has seen any key; if not, it changes nothing.
  __device__ bool add(float next_maximum, float next_sum) {
    if (next_maximum == -INFINITY) return false;
    const float joined = fmaxf(maximum, next_maximum);
    kept = power_of_two(maximum - joined);
    share = power_of_two(next_maximum - joined);
    maximum = joined;
    sum = join(sum, next_sum);
    return true;
  }
  __device__ float join(float total, float next) const { return fmaf(next, share, total * kept); }
};

// What of a group lies between its keys and its values: rows' weights, as high and low parts.
template <int kSteps, int kHalves>
struct Weights {
  uint4 parts[kHalves][Heads<kSteps>::kKeyTiles / 2];
};

// Scores of a run of a warp for all rows.
template <int kSteps, int kHalves, typename Keys>
__device__ void multiply_keys(const Keys& keys, int stage, const QueryParts (&queries)[kHalves][kSteps],
                              Sums (&products)[kHalves][Heads<kSteps>::kKeyTiles]) {
  constexpr int kKeyTiles = Heads<kSteps>::kKeyTiles;
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
}

template <int kSteps, int kHalves, typename Keys>
__device__ Weights<kSteps, kHalves> weigh(const Keys& keys, const Run& run,
                                          const Sums (&products)[kHalves][Heads<kSteps>::kKeyTiles],
                                          float scale, State<kSteps> (&states)[kHalves]) {
  using Shape = Heads<kSteps>;
  constexpr int kKeyTiles = Shape::kKeyTiles;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const bool is_whole = keys.is_whole(run);
  Weights<kSteps, kHalves> weights;
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
      weights.parts[h][part] = {first.high, first.low, second.high, second.low};
    }
  }
  return weights;
}

template <int kSteps, int kHalves, typename Keys>
__device__ void add_values(const Keys& keys, const Run& run, int stage,
                           const Weights<kSteps, kHalves>& weights, State<kSteps> (&states)[kHalves]) {
  using Shape = Heads<kSteps>;
  constexpr int kKeyTiles = Shape::kKeyTiles;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto add = [&](int part, int h, const uint4& values, Sums& first, Sums& second) {
    multiply_accumulate(first.values, weights.parts[h][part], values.x, values.y);
    multiply_accumulate(second.values, weights.parts[h][part], values.z, values.w);
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

}  // namespace volley::cuda
