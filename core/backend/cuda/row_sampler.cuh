#pragma once

// The sampling rule of core/backend/sampling.h for one row, by a team of blocks.

#include "core/backend/cuda/launch.cuh"
#include "core/backend/cuda/sampled_row.cuh"
#include "core/base/noise.h"

namespace volley::cuda::sampling {

// Samples one row. Each thread keeps to its own places of the share, so that steps need no wait in between.
template <int kBlocks>
class RowSampler {
 public:
  __device__ RowSampler(const Inputs& in, const Outputs& out, float4* share, Shared<kBlocks>& shared)
      : in_(in),
        out_(out),
        row_index_(blockIdx.x / kBlocks),
        row_(shared.row),
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
    if (threadIdx.x == 0) {
      shared_.row = in_.rows[row_index_];
      shared_.kept = 0;
    }
    __syncthreads();
    await_previous();
    load();
    if (row_.repetition_penalty != 1.0f) penalise();
    team_.ready();
    spread_ = team_.all_joined(own_spread(), Spread{excluded(), -excluded()});
    if (spread_.largest == excluded()) return write_no_choice();
    const bool filters = row_.temperature > 0.0f && (row_.top_p < 1.0f || takes_top_k());
    if (filters) filter();
    write(team_.all_joined(filters ? choose_of_kept() : choose_of_all(), nobody()));
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

  __device__ Spread own_spread() const {
    Spread own{excluded(), -excluded()};
    visit([&](float value) {
      if (value != excluded()) own = joined(own, Spread{value, value});
    });
    return own;
  }

  template <typename MassOf, typename LimitOf>
  __device__ Cut find_cut_of(MassOf mass_of, LimitOf limit_of) {
    const auto visit_all = [&](auto f) { visit(f); };
    const EvenCutFinder<kBlocks, kThreads> even(team_, shared_.cut.bins, shared_.even, spread_);
    Cut cut;
    if (even.find(visit_all, mass_of, limit_of, cut)) return cut;
    return find_cut(team_, shared_.cut, visit_all, mass_of, limit_of);
  }

  __device__ bool takes_top_k() const {
    return row_.top_k > 0 && row_.top_k < in_.vocab;
  }

  // Excludes every token below the k-th largest logit; ties with it stay.
  __device__ void filter_top_k() {
    if (!takes_top_k()) return;
    const Cut cut = find_cut_of([](float value) { return value == excluded() ? 0u : 1u; },
                                [&](Mass) { return static_cast<double>(row_.top_k); });
    if (!cut.exists) return;
    change([&](float value, int) { return value < cut.value ? excluded() : value; });
  }

  // Keeps the first tokens by (logit descending, id ascending) until their mass reaches p; at least one.
  __device__ void filter_top_p() {
    if (row_.top_p >= 1.0f) return;
    // Probability mass in units of 2^-40 of the largest; at least one, so that no bin with a token looks
    // empty.
    const auto mass_of = [&](float value) {
      if (value == excluded()) return Mass{0};
      return max(static_cast<Mass>(exp(static_cast<double>(value - spread_.largest)) * 0x1p40 + 0.5),
                 Mass{1});
    };
    const auto p = static_cast<double>(row_.top_p);
    const Cut cut =
        find_cut_of(mass_of, [&](Mass total) { return fmax(p * static_cast<double>(total), 0.0); });
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

  // Of four ids from begin_ + 4 * quad on.
  __device__ std::array<uint32_t, 4> noise_bits_of(int quad) const {
    const NoiseKey key{.seed = row_.seed,
                       .stream = row_.stream,
                       .purpose = static_cast<NoisePurpose>(row_.noise_purpose),
                       .draw = row_.draw,
                       .position = row_.position};
    return noise_block(key, static_cast<uint32_t>(begin_ / 4 + quad));
  }

  // By logit plus noise; without noise when greedy.
  __device__ Candidate choose_of_all() const {
    const bool noisy = row_.temperature > 0.0f;
    Candidate own = nobody();
    strided(0, quads_, [&](int quad) {
      const float4 value = values_[quad];
      const auto bits = noisy ? noise_bits_of(quad) : std::array<uint32_t, 4>{};
      const auto consider_one = [&](float logit, int lane) {
        if (logit == excluded()) return;
        const float noise = noisy ? gumbel_from_bits(bits[lane]) : 0.0f;
        own = joined(own, Candidate{logit + noise, begin_ + 4 * quad + lane});
      };
      consider_one(value.x, 0);
      consider_one(value.y, 1);
      consider_one(value.z, 2);
      consider_one(value.w, 3);
    });
    return own;
  }

  // Behind filters, which leave few: those in the share are listed first, so that threads have equal numbers.
  __device__ Candidate choose_of_kept() {
    constexpr int kMost = sizeof(shared_.cut.bins) / sizeof(int);
    int* const places = reinterpret_cast<int*>(shared_.cut.bins);
    const int lane = threadIdx.x % kWarp;
    for (int first = 0; first < quads_; first += kThreads) {
      const int quad = first + static_cast<int>(threadIdx.x);
      const float none = excluded();
      const float4 value = quad < quads_ ? values_[quad] : float4{none, none, none, none};
      const bool kept[4] = {value.x != none, value.y != none, value.z != none, value.w != none};
      const int own = kept[0] + kept[1] + kept[2] + kept[3];
      int place = warp_prefix_sum(own);
      int base = 0;
      if (lane == kWarp - 1 && place > 0) base = atomicAdd(&shared_.kept, place);
      place += __shfl_sync(kAllLanes, base, kWarp - 1) - own;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (kept[i] && place < kMost) places[place] = 4 * quad + i;
        if (kept[i]) ++place;
      }
    }
    __syncthreads();
    if (shared_.kept > kMost) return choose_of_all();
    Candidate own = nobody();
    strided(0, shared_.kept, [&](int i) {
      const int place = places[i];
      const auto bits = noise_bits_of(place / 4);
      const uint32_t low = place % 2 == 0 ? bits[0] : bits[1], high = place % 2 == 0 ? bits[2] : bits[3];
      const float logit = reinterpret_cast<const float*>(values_)[place];
      own = joined(own, Candidate{logit + gumbel_from_bits(place % 4 < 2 ? low : high), begin_ + place});
    });
    return own;
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

  __device__ void write(Candidate token) {
    if (team_.rank() == 0 && threadIdx.x == 0) out_.tokens[row_index_] = token.id;
    if (out_.probability == nullptr && out_.distribution == nullptr && out_.top == 0) return;
    Sums own{0, 0};
    visit([&](float value) {
      const float below = value - spread_.largest;
      const float weight = expf(below);
      own.weight += __float2ull_rn(weight * kUnits);
      own.moment += __float2ll_rn(weight > 0.0f ? weight * below * kUnits : 0.0f);
    });
    const Sums sums = team_.all_joined(own, Sums{0, 0});
    const auto units = static_cast<double>(sums.weight);
    const auto scale = static_cast<float>(static_cast<double>(kUnits) / units);
    const auto probability = [&](float logit) { return expf(logit - spread_.largest) * scale; };
    if (out_.probability != nullptr && threadIdx.x == 0 && token.id >= begin_ && token.id < end_) {
      out_.probability[row_index_] = probability(reinterpret_cast<const float*>(values_)[token.id - begin_]);
      // -sum p log p of p = weight / sum of weights.
      out_.entropy[row_index_] = static_cast<float>(log(units / static_cast<double>(kUnits)) -
                                                    static_cast<double>(sums.moment) / units);
    }
    if (out_.distribution == nullptr && out_.top == 0) return;
    __syncthreads();  // the token's logit is read
    float* distribution = out_.distribution == nullptr ? nullptr : out_.distribution + row_index_ * in_.vocab;
    change([&](float value, int id) {
      const float p = probability(value);
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
  const SampleRow& row_;
  Shared<kBlocks>& shared_;
  Team<kBlocks, kThreads> team_;
  float4* const values_;  // logits, then probabilities of ids begin .. end
  const int begin_;
  const int end_;
  const int quads_;
  Spread spread_{};  // of all that can be chosen
};

}  // namespace volley::cuda::sampling
