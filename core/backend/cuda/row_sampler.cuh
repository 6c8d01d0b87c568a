#pragma once

// The sampling rule of core/backend/sampling.h for one row, by a team of blocks.

#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/mass_cut.cuh"
#include "core/backend/cuda/team.cuh"
#include "core/base/noise.h"

namespace volley::cuda::sampling {

constexpr int kThreads = 512;  // of a block

__device__ inline float excluded() {
  return -INFINITY;
}

struct Candidate {
  float value;
  int32_t id;
};
// Larger values first, then lower ids; a negative id is nobody.
__device__ inline bool precedes(Candidate a, Candidate b) {
  if (b.id < 0) return a.id >= 0;
  return a.id >= 0 && (a.value > b.value || (a.value == b.value && a.id < b.id));
}
__device__ inline Candidate joined(Candidate a, Candidate b) {
  return precedes(b, a) ? b : a;
}
__device__ inline Candidate nobody() {
  return {excluded(), -1};
}

struct Largest {
  float logit;
};
__device__ inline Largest joined(Largest a, Largest b) {
  return {fmaxf(a.logit, b.logit)};
}

struct Choice {
  Candidate token;  // by logit plus noise
  Largest largest;
};
__device__ inline Choice joined(const Choice& a, const Choice& b) {
  return {joined(a.token, b.token), joined(a.largest, b.largest)};
}

struct Sums {
  double weight;  // exp(logit - largest)
  double moment;  // that times logit - largest
};
__device__ inline Sums joined(const Sums& a, const Sums& b) {
  return {a.weight + b.weight, a.moment + b.moment};
}

struct Inputs {
  const float* logits;
  const SampleRow* rows;
  const int32_t* path;
  int vocab;
  int share;       // ids of a block, a multiple of 4
  float* scratch;  // [m, blocks, share], or nullptr: shared memory holds a share
};

struct Outputs {
  int32_t* tokens;
  float* probability;
  float* entropy;
  float* distribution;
  int32_t* top_tokens;
  float* top_probability;
  int top;
};

template <int kBlocks>
struct Shared {
  typename Team<kBlocks, kThreads>::Memory team;
  CutMemory<kBlocks> cut;
  int ties[kThreads / kWarp];
};

// Four logits of neighbouring ids; places behind the vocabulary are excluded.
__device__ inline float4 logits_at(const float* row, int id, int vocab) {
  if (id + 4 <= vocab && reinterpret_cast<uintptr_t>(row + id) % sizeof(float4) == 0) {
    return *reinterpret_cast<const float4*>(row + id);
  }
  const auto at = [&](int i) { return i < vocab ? row[i] : excluded(); };
  return {at(id), at(id + 1), at(id + 2), at(id + 3)};
}

// f(i) for this thread's part of begin .. end. Not unrolled: most rows take one turn, and code is long to
// fetch.
template <typename F>
__device__ void strided(int begin, int end, F f) {
#pragma unroll 1
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kThreads) f(i);
}

// Samples one row. Each thread keeps to its own places of the share, so that steps need no wait in between.
template <int kBlocks>
class RowSampler {
 public:
  __device__ RowSampler(const Inputs& in, const Outputs& out, float4* share, Shared<kBlocks>& shared)
      : in_(in),
        out_(out),
        row_index_(blockIdx.x / kBlocks),
        row_(in.rows[row_index_]),
        shared_(shared),
        team_(shared.team),
        values_(in.scratch == nullptr
                    ? share
                    : reinterpret_cast<float4*>(in.scratch + int64_t{blockIdx.x} * in.share)),
        begin_(min(in.vocab, team_.rank() * in.share)),
        end_(min(in.vocab, begin_ + in.share)),
        quads_((end_ - begin_ + 3) / 4) {}

  __device__ void run() {
    team_.begin();
    // The noise needs no logits: that of each thread's first place is made while the operation in front runs.
    const float4 first_noise = static_cast<int>(threadIdx.x) < quads_ ? noise(threadIdx.x) : float4{};
    await_previous();
    load();
    if (row_.repetition_penalty != 1.0f) penalise();
    team_.ready();
    if (row_.temperature > 0.0f) filter();
    const Choice choice = choose(first_noise);
    if (choice.token.id < 0) return write_no_choice();
    write(choice);
  }

 private:
  // f(value) for every value of this thread; values behind the vocabulary are excluded ones.
  template <typename F>
  __device__ void visit(F f) const {
    strided(0, quads_, [&](int quad) {
      const float4 value = values_[quad];
      f(value.x);
      f(value.y);
      f(value.z);
      f(value.w);
    });
  }
  // The value of every place becomes f(value, id).
  template <typename F>
  __device__ void change(F f) {
    strided(0, quads_, [&](int quad) {
      const int id = begin_ + 4 * quad;
      const float4 value = values_[quad];
      values_[quad] = {f(value.x, id), f(value.y, id + 1), f(value.z, id + 2), f(value.w, id + 3)};
    });
  }

  __device__ const float* conditional() const { return in_.logits + int64_t{row_.logits_row} * in_.vocab; }
  __device__ const float* unconditional() const {
    return in_.logits + int64_t{row_.guidance_row} * in_.vocab;
  }
  __device__ bool guided() const { return row_.guidance_row >= 0; }

  // What the filters see: guidance and temperature.
  __device__ float processed(float value, float unconditional) const {
    if (guided()) value = unconditional + row_.guidance_scale * (value - unconditional);
    if (row_.temperature > 0.0f && row_.temperature != 1.0f) value = value / row_.temperature;
    return isfinite(value) ? value : excluded();
  }

  __device__ void load() {
    constexpr int kAtOnce = 2;  // loads in flight, twice that with guidance
    for (int first = threadIdx.x; first < quads_; first += kAtOnce * kThreads) {
      float4 c[kAtOnce], u[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int quad = first + i * kThreads;
        if (quad >= quads_) continue;
        c[i] = logits_at(conditional(), begin_ + 4 * quad, in_.vocab);
        u[i] = guided() ? logits_at(unconditional(), begin_ + 4 * quad, in_.vocab) : float4{};
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int quad = first + i * kThreads;
        if (quad >= quads_) continue;
        values_[quad] = {processed(c[i].x, u[i].x), processed(c[i].y, u[i].y), processed(c[i].z, u[i].z),
                         processed(c[i].w, u[i].w)};
      }
    }
  }

  // Tokens on the path again, from their logits: a token counts once, however often it stands there.
  __device__ void penalise() {
    __syncthreads();
    float* values = reinterpret_cast<float*>(values_);
    strided(0, row_.path_count, [&](int i) {
      const int32_t id = in_.path[row_.path_begin + i];
      if (id < begin_ || id >= end_) return;
      float value = conditional()[id];
      value = value > 0.0f ? value / row_.repetition_penalty : value * row_.repetition_penalty;
      values[id - begin_] = processed(value, guided() ? unconditional()[id] : 0.0f);
    });
    __syncthreads();
  }

  // Excludes every token below the k-th largest logit; ties with it stay.
  __device__ void filter_top_k() {
    if (row_.top_k <= 0 || row_.top_k >= in_.vocab) return;
    const Cut cut = find_cut(
        team_, shared_.cut, [&](auto f) { visit(f); },
        [](float value) { return Mass{value == excluded() ? 0u : 1u}; },
        [&](Mass) { return static_cast<double>(row_.top_k); });
    if (!cut.exists) return;
    change([&](float value, int) { return value < cut.value ? excluded() : value; });
  }

  // Keeps the first tokens by (logit descending, id ascending) until their mass reaches p; at least one.
  __device__ void filter_top_p() {
    if (row_.top_p >= 1.0f) return;
    Largest own{excluded()};
    visit([&](float value) { own.logit = fmaxf(own.logit, value); });
    const float largest = team_.all_joined(own, Largest{excluded()}).logit;
    if (largest == excluded()) return;
    // Probability mass in units of 2^-40 of the largest; at least one, so that no digit with a token looks
    // empty.
    const auto mass_of = [&](float value) {
      if (value == excluded()) return Mass{0};
      return max(static_cast<Mass>(exp(static_cast<double>(value - largest)) * 0x1p40 + 0.5), Mass{1});
    };
    const auto p = static_cast<double>(row_.top_p);
    const Cut cut = find_cut(
        team_, shared_.cut, [&](auto f) { visit(f); }, mass_of,
        [&](Mass total) { return fmax(p * static_cast<double>(total), 0.0); });
    if (!cut.exists) return;
    const Mass mass = mass_of(cut.value);
    const int ties = static_cast<int>(cut.equal / mass);
    // The fewest ties, one at least if there is nothing above, with which the mass reaches the limit.
    int kept = cut.above == 0 ? 1 : 0;
    for (int most = ties; kept < most;) {
      const int middle = kept + (most - kept) / 2;
      if (static_cast<double>(cut.above + static_cast<Mass>(middle) * mass) < cut.limit) {
        kept = middle + 1;
      } else {
        most = middle;
      }
    }
    if (kept < ties) exclude_ties(cut.value, kept);
    change([&](float value, int) { return value < cut.value ? excluded() : value; });
  }

  // Of the values that equal `tied`, all behind the first `kept`.
  __device__ void exclude_ties(float tied, int kept) {
    int count = 0;
    visit([&](float value) { count += value == tied ? 1 : 0; });
    const int* counts = team_.gathered(warp_sum(count));
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
    int rank = 0;  // of the next tie
    for (int i = lane; i < team_.rank() * team_.kWarps; i += kWarp) rank += counts[i];
    rank = warp_sum(rank);
    for (int first = 0; first < quads_; first += kThreads) {
      const int quad = first + static_cast<int>(threadIdx.x);
      float4 value = quad < quads_ ? values_[quad] : float4{excluded(), excluded(), excluded(), excluded()};
      const int own = (value.x == tied) + (value.y == tied) + (value.z == tied) + (value.w == tied);
      const int in_warp = warp_prefix_sum(own);
      if (lane == kWarp - 1) shared_.ties[warp] = in_warp;
      __syncthreads();
      int place = rank + in_warp - own;
      for (int w = 0; w < team_.kWarps; ++w) {
        if (w < warp) place += shared_.ties[w];
        rank += shared_.ties[w];
      }
      __syncthreads();
      const auto decide = [&](float& v) {
        if (v == tied && place++ >= kept) v = excluded();
      };
      decide(value.x);
      decide(value.y);
      decide(value.z);
      decide(value.w);
      if (quad < quads_) values_[quad] = value;
    }
  }

  // Gumbel noise of four ids; none when greedy.
  __device__ float4 noise(int quad) const {
    if (!(row_.temperature > 0.0f)) return float4{};
    const NoiseKey key{.seed = row_.seed,
                       .stream = row_.stream,
                       .purpose = static_cast<NoisePurpose>(row_.noise_purpose),
                       .draw = row_.draw,
                       .position = row_.position};
    const auto bits = noise_block(key, static_cast<uint32_t>(begin_ / 4 + quad));
    return {gumbel_from_bits(bits[0]), gumbel_from_bits(bits[1]), gumbel_from_bits(bits[2]),
            gumbel_from_bits(bits[3])};
  }

  __device__ Choice choose(const float4& first_noise) {
    Choice own{nobody(), {excluded()}};
    strided(0, quads_, [&](int quad) {
      const float4 value = values_[quad];
      const float4 noise_of = quad == static_cast<int>(threadIdx.x) ? first_noise : noise(quad);
      const int id = begin_ + 4 * quad;
      const auto consider = [&](float logit, float gumbel, int lane) {
        if (logit == excluded()) return;
        if (logit + gumbel > own.token.value) own.token = {logit + gumbel, id + lane};  // ids ascend
        own.largest.logit = fmaxf(own.largest.logit, logit);
      };
      consider(value.x, noise_of.x, 0);
      consider(value.y, noise_of.y, 1);
      consider(value.z, noise_of.z, 2);
      consider(value.w, noise_of.w, 3);
    });
    return team_.all_joined(own, Choice{nobody(), {excluded()}});
  }

  __device__ void write_no_choice() {
    const bool leads = team_.rank() == 0;
    if (leads && threadIdx.x == 0) {
      out_.tokens[row_index_] = -1;
      if (out_.probability != nullptr) {
        out_.probability[row_index_] = 0.0f;
        out_.entropy[row_index_] = 0.0f;
      }
    }
    if (out_.distribution != nullptr) {
      float* distribution = out_.distribution + row_index_ * in_.vocab;
      strided(begin_, end_, [&](int id) { distribution[id] = 0.0f; });
    }
    strided(0, leads ? out_.top : 0, [&](int n) {
      out_.top_tokens[row_index_ * out_.top + n] = -1;
      out_.top_probability[row_index_ * out_.top + n] = 0.0f;
    });
  }

  __device__ void write(const Choice& choice) {
    if (team_.rank() == 0 && threadIdx.x == 0) out_.tokens[row_index_] = choice.token.id;
    if (out_.probability == nullptr && out_.distribution == nullptr && out_.top == 0) return;
    Sums own{0.0, 0.0};
    change([&](float value, int) {
      const float below = value - choice.largest.logit;
      const float weight = expf(below);
      own.weight += static_cast<double>(weight);
      if (weight > 0.0f) own.moment += static_cast<double>(weight) * static_cast<double>(below);
      return weight;
    });
    const Sums sums = team_.all_joined(own, Sums{0.0, 0.0});
    const auto scale = static_cast<float>(1.0 / sums.weight);
    if (out_.probability != nullptr && threadIdx.x == 0 && choice.token.id >= begin_ &&
        choice.token.id < end_) {
      const float weight = reinterpret_cast<const float*>(values_)[choice.token.id - begin_];
      out_.probability[row_index_] = weight * scale;
      // -sum p log p of p = weight / sum of weights.
      out_.entropy[row_index_] = static_cast<float>(log(sums.weight) - sums.moment / sums.weight);
    }
    if (out_.distribution == nullptr && out_.top == 0) return;
    __syncthreads();  // the weight is read
    float* distribution = out_.distribution == nullptr ? nullptr : out_.distribution + row_index_ * in_.vocab;
    change([&](float weight, int id) {
      const float p = weight * scale;
      if (distribution != nullptr && id < in_.vocab) distribution[id] = p;
      return p;
    });
    write_top();
  }

  // The likeliest tokens, one after the other: each is the best of those behind the one before.
  __device__ void write_top() {
    Candidate last{INFINITY, 0};
    for (int n = 0; n < out_.top; ++n) {
      Candidate best = nobody();
      strided(0, quads_, [&](int quad) {
        const float4 p = values_[quad];
        const int id = begin_ + 4 * quad;
        const auto consider = [&](Candidate candidate) {
          if (candidate.id < in_.vocab && precedes(last, candidate)) best = joined(best, candidate);
        };
        consider({p.x, id});
        consider({p.y, id + 1});
        consider({p.z, id + 2});
        consider({p.w, id + 3});
      });
      last = team_.all_joined(best, nobody());
      if (team_.rank() == 0 && threadIdx.x == 0) {
        out_.top_tokens[row_index_ * out_.top + n] = last.id;
        out_.top_probability[row_index_ * out_.top + n] = last.value;
      }
    }
  }

  __device__ void filter() {
    const int turn_of_k = row_.filter_order == FilterOrder::kTopKTopP ? 0 : 1;
#pragma unroll 1  // so that each filter's code is there once
    for (int turn = 0; turn < 2; ++turn) {
      if (turn == turn_of_k) {
        filter_top_k();
      } else {
        filter_top_p();
      }
    }
  }

  const Inputs& in_;
  const Outputs& out_;
  const int64_t row_index_;
  const SampleRow row_;
  Shared<kBlocks>& shared_;
  Team<kBlocks, kThreads> team_;
  float4* const values_;  // logits, then weights, then probabilities of ids begin .. end
  const int begin_;
  const int end_;
  const int quads_;
};

}  // namespace volley::cuda::sampling
