// Reference sampling: the scalar rule of sampling.h, row by row.
#include "core/backend/sampling.h"

#include <vector>

#include "core/backend/cpu/reference/reference_queue.h"

namespace volley {

void ReferenceQueue::sample(const SampleArgs& args) {
  const int64_t vocab = args.logits.shape[1];
  std::vector<float> logits(static_cast<size_t>(vocab)), distribution(static_cast<size_t>(vocab)), values;
  std::vector<int32_t> order;
  for (int64_t i = 0; i < args.rows.size(); ++i) {
    const SampleRow& row = args.rows.data[i];
    sampling::processed_logits(args, row, logits);
    if (row.temperature > 0.0f) sampling::filter(row, logits, values, order);
    const int32_t token = sampling::choose(row, logits);
    if (token < 0) {
      sampling::write_no_choice(args, i);
      continue;
    }
    args.tokens.data[i] = token;
    if (!sampling::wants_distribution(args)) continue;
    const float entropy = sampling::softmax(logits, distribution);
    if (args.probability.data != nullptr) {
      args.entropy.data[i] = entropy;
      args.probability.data[i] = distribution[token];
    }
    sampling::write_top(args, i, distribution, order);
    if (args.distribution.data != nullptr) {
      std::copy(distribution.begin(), distribution.end(), args.distribution.data + i * vocab);
    }
  }
}

}  // namespace volley
