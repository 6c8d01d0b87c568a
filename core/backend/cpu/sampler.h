#pragma once

#include <cstdint>
#include <vector>

#include "core/backend/operations.h"
#include "core/base/thread_pool.h"

namespace volley {

// The sampling rule of core/backend/sampling.h: penalties and filters are its own code, noise, choice and softmax
// are vector kernels. Tokens equal the scalar rule's, always; probabilities agree to rounding.
class Sampler {
 public:
  void run(const SampleArgs& args, ThreadPool& threads);

 private:
  // Of one thread.
  struct Work {
    std::vector<float> logits, noise, distribution, values;
    std::vector<int32_t> order;
  };
  static void sample_row(const SampleArgs& args, int64_t row, Work& work);

  std::vector<Work> work_;
};

}  // namespace volley
