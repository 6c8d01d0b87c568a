#include "core/backend/cpu/sampler.h"

#include <algorithm>

#include "core/backend/cpu/parallel.h"
#include "core/backend/cpu/sampling_kernels.h"
#include "core/backend/sampling.h"

namespace volley {

void Sampler::run(const SampleArgs& args, ThreadPool& threads) {
  const int64_t rows = args.rows.size(), vocab = args.logits.shape[1];
  if (rows == 0) return;
  const int64_t pieces = std::min(rows, threads.threads());
  if (static_cast<int64_t>(work_.size()) < pieces) work_.resize(static_cast<size_t>(pieces));
  share_items(threads, pieces, static_cast<double>(rows * vocab) * 3.0, [&](int64_t piece) {
    for (int64_t row = rows * piece / pieces; row < rows * (piece + 1) / pieces; ++row) {
      sample_row(args, row, work_[piece]);
    }
  });
}

void Sampler::sample_row(const SampleArgs& args, int64_t row, Work& work) {
  const SampleRow& how = args.rows.data[row];
  const int64_t vocab = args.logits.shape[1];
  work.logits.resize(static_cast<size_t>(vocab));
  sampling::processed_logits(args, how, work.logits);
  const float* noise = nullptr;
  if (how.temperature > 0.0f) {
    sampling::filter(how, work.logits, work.values, work.order);
    work.noise.resize(static_cast<size_t>(vocab + kGumbelPadding));
    gumbel_row(sampling::noise_key(how), vocab, work.noise.data());
    noise = work.noise.data();
  }
  const int32_t token = choose_token(work.logits, noise);
  if (token < 0) return sampling::write_no_choice(args, row);
  args.tokens.data[row] = token;
  if (!sampling::wants_distribution(args)) return;
  float* distribution = nullptr;
  if (args.distribution.data != nullptr) {
    distribution = args.distribution.data + row * vocab;
  } else {
    work.distribution.resize(static_cast<size_t>(vocab));
    distribution = work.distribution.data();
  }
  const float entropy = softmax_row(work.logits, distribution);
  if (args.probability.data != nullptr) {
    args.entropy.data[row] = entropy;
    args.probability.data[row] = distribution[token];
  }
  sampling::write_top(args, row, {distribution, static_cast<size_t>(vocab)}, work.order);
}

}  // namespace volley
