#include "core/backend/cpu/convolution_input.h"

namespace volley {

const float* ConvInput::row(int64_t n, int64_t channel, int64_t y, float* work) const {
  const int64_t channels = x_.shape[1], height = x_.shape[2], width = x_.shape[3];
  const float* from = x_.data + ((n * channels + channel) * height + y / factor_) * width;
  if (is_in_memory()) return from;
  if (norm_ != nullptr) {
    normalize(n, channel, from, work);
  } else {
    for (int64_t i = 0; i < width; ++i) work[2 * i] = work[2 * i + 1] = from[i];
  }
  return work;
}

void ConvInput::normalize(int64_t n, int64_t channel, const float* from, float* to) const {
  const int64_t group = channel / (x_.shape[1] / norm_->groups);
  normalize_points({.x = from,
                    .count = x_.shape[3],
                    .moments = moments_[static_cast<size_t>(n * norm_->groups + group)],
                    .weight = norm_->weight.data[channel],
                    .bias = norm_->bias.data[channel],
                    .swish = norm_->swish,
                    .out = to});
}

}  // namespace volley
