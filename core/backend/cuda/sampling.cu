// The sampling rule of core/backend/sampling.h, a block for each row. Tokens are those of the host: the same
// noise, the same order of operations on logits; only sums of probabilities are taken in another order.
#include "core/backend/cuda/device_math.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/launch.cuh"
#include "core/base/noise.h"

namespace volley::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
constexpr int kDigits = 256;

__device__ float excluded() {
  return -INFINITY;
}

// Keys in the order of the logits; both zeros are one.
__device__ uint32_t ordered(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ float from_ordered(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}

struct Candidate {
  float value;
  int32_t id;
};
// Larger values first, then lower ids; a negative id is nobody.
__device__ bool precedes(Candidate a, Candidate b) {
  if (b.id < 0) return a.id >= 0;
  return a.id >= 0 && (a.value > b.value || (a.value == b.value && a.id < b.id));
}

struct Shared {
  union {
    unsigned counts[kDigits];
    unsigned long long masses[kDigits];
    Candidate candidates[kWarps];
    double sums[kWarps];
    float maxima[kWarps];
    int ties[kThreads];
  };
  uint32_t prefix;
  uint32_t chosen;
  unsigned long long rest;
};

__device__ Candidate block_best(Candidate best, Shared& shared) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const Candidate other{__shfl_xor_sync(kAllLanes, best.value, step),
                          __shfl_xor_sync(kAllLanes, best.id, step)};
    if (precedes(other, best)) best = other;
  }
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared.candidates[threadIdx.x / kWarp] = best;
  __syncthreads();
  best = shared.candidates[0];
  for (int w = 1; w < kWarps; ++w) {
    if (precedes(shared.candidates[w], best)) best = shared.candidates[w];
  }
  return best;
}

__device__ void process(const SampleRow& row, const float* all_logits, const int32_t* path, int vocab,
                        float* logits) {
  const float* conditional = all_logits + int64_t{row.logits_row} * vocab;
  for (int i = threadIdx.x; i < vocab; i += kThreads) logits[i] = conditional[i];
  if (row.repetition_penalty != 1.0f) {
    __syncthreads();
    for (int i = threadIdx.x; i < row.path_count; i += kThreads) {
      const int32_t id = path[row.path_begin + i];
      if (id < 0 || id >= vocab) continue;
      const float value = conditional[id];
      logits[id] = value > 0.0f ? value / row.repetition_penalty : value * row.repetition_penalty;
    }
    __syncthreads();
  }
  const float* unconditional =
      row.guidance_row >= 0 ? all_logits + int64_t{row.guidance_row} * vocab : nullptr;
  const bool tempers = row.temperature > 0.0f && row.temperature != 1.0f;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    float value = logits[i];
    if (unconditional != nullptr) value = unconditional[i] + row.guidance_scale * (value - unconditional[i]);
    if (tempers) value = value / row.temperature;
    logits[i] = isfinite(value) ? value : excluded();
  }
  __syncthreads();
}

// Finds the value of the k-th largest logit digit by digit and excludes what is below it.
__device__ void filter_top_k(int k, int vocab, float* logits, Shared& shared) {
  if (k <= 0 || k >= vocab) return;
  if (threadIdx.x == 0) {
    shared.prefix = 0;
    shared.rest = static_cast<unsigned long long>(k);
  }
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();
    for (int d = threadIdx.x; d < kDigits; d += kThreads) shared.counts[d] = 0;
    __syncthreads();
    const uint32_t mask = shift == 24 ? 0u : ~0u << (shift + 8), prefix = shared.prefix;
    for (int i = threadIdx.x; i < vocab; i += kThreads) {
      const uint32_t key = ordered(logits[i]);
      if ((key & mask) == prefix) atomicAdd(&shared.counts[key >> shift & 255u], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      auto rest = static_cast<unsigned>(shared.rest);
      int digit = kDigits - 1;
      while (shared.counts[digit] < rest) rest -= shared.counts[digit--];
      shared.rest = rest;
      shared.prefix = prefix | static_cast<uint32_t>(digit) << shift;
    }
  }
  __syncthreads();
  const float threshold = from_ordered(shared.prefix);
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    if (logits[i] < threshold) logits[i] = excluded();
  }
  __syncthreads();
}

__device__ float largest(const float* logits, int vocab, Shared& shared) {
  float most = excluded();
  for (int i = threadIdx.x; i < vocab; i += kThreads) most = fmaxf(most, logits[i]);
  most = block_max(most, shared.maxima);
  __syncthreads();
  return most;
}

// Probability mass as an integer, so that sums do not depend on the order in which threads add.
__device__ unsigned long long mass_of(float logit, float maximum) {
  return static_cast<unsigned long long>(exp(static_cast<double>(logit - maximum)) * 0x1p40 + 0.5);
}

// Keeps the first tokens by (logit descending, id ascending) until their mass reaches p; at least one. The
// last kept logit is found digit by digit: the first digit, from the top, at which the mass reaches the
// limit.
__device__ void filter_top_p(float p, int vocab, float* logits, Shared& shared) {
  if (p >= 1.0f) return;
  const float maximum = largest(logits, vocab, shared);
  if (maximum == excluded()) return;
  unsigned long long above = 0;  // mass of all larger logits
  double limit = 0.0;
  if (threadIdx.x == 0) shared.prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    __syncthreads();
    for (int d = threadIdx.x; d < kDigits; d += kThreads) shared.masses[d] = 0;
    __syncthreads();
    const uint32_t mask = shift == 24 ? 0u : ~0u << (shift + 8), prefix = shared.prefix;
    for (int i = threadIdx.x; i < vocab; i += kThreads) {
      if (logits[i] == excluded()) continue;
      const uint32_t key = ordered(logits[i]);
      // At least 1, so that no digit with a token looks empty.
      if ((key & mask) == prefix)
        atomicAdd(&shared.masses[key >> shift & 255u], max(mass_of(logits[i], maximum), 1ull));
    }
    __syncthreads();
    if (shift == 24) {
      unsigned long long total = 0;
      for (int d = 0; d < kDigits; ++d) total += shared.masses[d];
      limit = static_cast<double>(p) * static_cast<double>(total);
    }
    int found = -1;
    unsigned long long before = above;
    for (int d = kDigits - 1; d >= 0; --d) {
      const unsigned long long mass = shared.masses[d];
      if (mass == 0) continue;
      found = d;
      above = before;
      before += mass;
      if (static_cast<double>(before) >= limit) break;
    }
    __syncthreads();
    if (threadIdx.x == 0) shared.prefix = prefix | static_cast<uint32_t>(found) << shift;
  }
  __syncthreads();
  const float last = from_ordered(shared.prefix);
  // Of the logits that equal the last kept, those with the lowest ids.
  const unsigned long long mass = max(mass_of(last, maximum), 1ull);
  const int per_thread = (vocab + kThreads - 1) / kThreads;
  const int begin = min(vocab, static_cast<int>(threadIdx.x) * per_thread),
            end = min(vocab, begin + per_thread);
  int ties = 0;
  for (int i = begin; i < end; ++i) ties += logits[i] == last;
  shared.ties[threadIdx.x] = ties;
  __syncthreads();
  int rank = 0, all = 0;
  for (int t = 0; t < kThreads; ++t) {
    if (t < static_cast<int>(threadIdx.x)) rank += shared.ties[t];
    all += shared.ties[t];
  }
  int kept = above == 0 ? 1 : 0;
  while (kept < all && static_cast<double>(above + static_cast<unsigned long long>(kept) * mass) < limit)
    ++kept;
  for (int i = begin; i < end; ++i) {
    if (logits[i] < last || (logits[i] == last && rank++ >= kept)) logits[i] = excluded();
  }
  __syncthreads();
}

__device__ Candidate choose(const SampleRow& row, const float* logits, int vocab, Shared& shared) {
  const NoiseKey key{.seed = row.seed,
                     .stream = row.stream,
                     .purpose = static_cast<NoisePurpose>(row.noise_purpose),
                     .draw = row.draw,
                     .position = row.position};
  Candidate best{excluded(), -1};
  for (int block = threadIdx.x; block * 4 < vocab; block += kThreads) {
    const auto bits =
        row.temperature > 0.0f ? noise_block(key, static_cast<uint32_t>(block)) : std::array<uint32_t, 4>{};
    for (int lane = 0; lane < 4 && block * 4 + lane < vocab; ++lane) {
      const int id = block * 4 + lane;
      if (logits[id] == excluded()) continue;
      const float value = row.temperature > 0.0f ? logits[id] + gumbel_from_bits(bits[lane]) : logits[id];
      if (precedes({value, id}, best)) best = {value, id};
    }
  }
  return block_best(best, shared);
}

struct Outputs {
  int32_t* tokens;
  float* probability;
  float* entropy;
  float* distribution;
  int32_t* top_tokens;
  float* top_probability;
  int top;
};

__device__ void write_no_choice(const Outputs& out, int64_t i, int vocab) {
  if (threadIdx.x == 0) {
    out.tokens[i] = -1;
    out.probability[i] = 0.0f;
    out.entropy[i] = 0.0f;
  }
  if (out.distribution != nullptr) {
    for (int v = threadIdx.x; v < vocab; v += kThreads) out.distribution[i * vocab + v] = 0.0f;
  }
  for (int n = threadIdx.x; n < out.top; n += kThreads) {
    out.top_tokens[i * out.top + n] = -1;
    out.top_probability[i * out.top + n] = 0.0f;
  }
}

// The likeliest tokens, one after the other: each is the best of those behind the one before.
__device__ void write_top(const Outputs& out, int64_t i, const float* distribution, int vocab,
                          Shared& shared) {
  Candidate last{INFINITY, 0};
  for (int n = 0; n < out.top; ++n) {
    Candidate best{0.0f, -1};
    for (int v = threadIdx.x; v < vocab; v += kThreads) {
      const Candidate candidate{distribution[v], v};
      if (precedes(last, candidate) && precedes(candidate, best)) best = candidate;
    }
    last = block_best(best, shared);
    if (threadIdx.x == 0) {
      out.top_tokens[i * out.top + n] = last.id;
      out.top_probability[i * out.top + n] = last.value;
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    sample_rows(const float* all_logits, const SampleRow* rows, const int32_t* path, int vocab,
                float* scratch, Outputs out) {
  await_previous();
  __shared__ Shared shared;
  const int64_t i = blockIdx.x;
  const SampleRow row = rows[i];
  float* logits = scratch + i * vocab;
  process(row, all_logits, path, vocab, logits);
  if (row.temperature > 0.0f) {
    if (row.filter_order == FilterOrder::kTopKTopP) {
      filter_top_k(row.top_k, vocab, logits, shared);
      filter_top_p(row.top_p, vocab, logits, shared);
    } else {
      filter_top_p(row.top_p, vocab, logits, shared);
      filter_top_k(row.top_k, vocab, logits, shared);
    }
  }
  const Candidate token = choose(row, logits, vocab, shared);
  if (token.id < 0) return write_no_choice(out, i, vocab);
  const float maximum = largest(logits, vocab, shared);
  double total = 0.0;
  for (int v = threadIdx.x; v < vocab; v += kThreads) {
    const float weight = expf(logits[v] - maximum);
    logits[v] = weight;
    total += weight;
  }
  total = block_sum(total, shared.sums);
  const auto scale = static_cast<float>(1.0 / total);
  double entropy = 0.0;
  for (int v = threadIdx.x; v < vocab; v += kThreads) {
    const float p = logits[v] * scale;
    logits[v] = p;
    if (p > 0.0f) entropy -= static_cast<double>(p) * static_cast<double>(logf(p));
    if (out.distribution != nullptr) out.distribution[i * vocab + v] = p;
  }
  entropy = block_sum(entropy, shared.sums);
  if (threadIdx.x == 0) {
    out.tokens[i] = token.id;
    out.probability[i] = logits[token.id];
    out.entropy[i] = static_cast<float>(entropy);
  }
  __syncthreads();
  write_top(out, i, logits, vocab, shared);
}

}  // namespace

void launch_sample(const SampleArgs& args, float* scratch, const Stream& stream) {
  if (args.rows.size() == 0) return;
  launch("sample", sample_rows, static_cast<unsigned>(args.rows.size()), kThreads, stream, args.logits.data,
         args.rows.data, args.path.data, static_cast<int>(args.logits.shape[1]), scratch,
         Outputs{.tokens = args.tokens.data,
                 .probability = args.probability.data,
                 .entropy = args.entropy.data,
                 .distribution = args.distribution.data,
                 .top_tokens = args.top_tokens.data,
                 .top_probability = args.top_probability.data,
                 .top = args.top_tokens.data == nullptr ? 0 : static_cast<int>(args.top_tokens.shape[1])});
}

}  // namespace volley::cuda
