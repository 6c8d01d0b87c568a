// Reference operations on pictures and signals.
#include <cmath>

#include "core/backend/channel_bytes.h"
#include "core/backend/cpu/reference/reference_queue.h"
#include "core/tensor/dtype.h"

namespace volley {

void ReferenceQueue::conv2d(const Conv2dArgs& args) {
  const ConvWeight& w = args.weight;
  const int64_t batch = args.x.shape[0], height = args.x.shape[2], width = args.x.shape[3];
  const int64_t out_h = args.out.shape[2], out_w = args.out.shape[3];
  VOLLEY_ASSERT(args.x.shape[1] == w.in_channels && args.out.shape[1] == w.out_channels);
  const auto* weight = reinterpret_cast<const float*>(w.data.data());
  const auto* bias = reinterpret_cast<const float*>(w.bias.data());
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t o = 0; o < w.out_channels; ++o) {
      for (int64_t y = 0; y < out_h; ++y) {
        for (int64_t x = 0; x < out_w; ++x) {
          float sum = bias[o];
          for (int64_t c = 0; c < w.in_channels; ++c) {
            for (int64_t ky = 0; ky < w.kernel_h; ++ky) {
              const int64_t in_y = y * args.stride_h + ky - args.pad_top;
              if (in_y < 0 || in_y >= height) continue;
              for (int64_t kx = 0; kx < w.kernel_w; ++kx) {
                const int64_t in_x = x * args.stride_w + kx - args.pad_left;
                if (in_x < 0 || in_x >= width) continue;
                float point = args.x.data[((n * w.in_channels + c) * height + in_y) * width + in_x];
                if (w.type == WeightType::kBF16) point = bf16_to_f32(f32_to_bf16(point));
                sum += point * weight[((o * w.in_channels + c) * w.kernel_h + ky) * w.kernel_w + kx];
              }
            }
          }
          float& out = args.out.data[((n * w.out_channels + o) * out_h + y) * out_w + x];
          out = args.accumulate == Accumulate::kAdd ? out + sum : sum;
        }
      }
    }
  }
}

void ReferenceQueue::group_norm(const GroupNormArgs& args) {
  const int64_t batch = args.x.shape[0], channels = args.x.shape[1];
  const int64_t area = args.x.shape[2] * args.x.shape[3];
  const int64_t group_channels = channels / args.groups;
  const int64_t size = group_channels * area;
  for (int64_t n = 0; n < batch; ++n) {
    for (int64_t g = 0; g < args.groups; ++g) {
      const int64_t offset = (n * channels + g * group_channels) * area;
      const float* x = args.x.data + offset;
      float* out = args.out.data + offset;
      double sum = 0.0;
      for (int64_t i = 0; i < size; ++i) sum += x[i];
      const double mean = sum / static_cast<double>(size);
      double squares = 0.0;
      for (int64_t i = 0; i < size; ++i) squares += (x[i] - mean) * (x[i] - mean);
      const auto scale = static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(size) + args.eps));
      for (int64_t i = 0; i < size; ++i) {
        const int64_t c = g * group_channels + i / area;
        const float y = (x[i] - static_cast<float>(mean)) * scale * args.weight.data[c] + args.bias.data[c];
        out[i] = args.swish == Swish::kAfter ? y / (1.0f + std::exp(-y)) : y;
      }
    }
  }
}

void ReferenceQueue::upsample2x(const Upsample2xArgs& args) {
  const int64_t planes = args.x.shape[0] * args.x.shape[1], height = args.x.shape[2], width = args.x.shape[3];
  for (int64_t p = 0; p < planes; ++p) {
    for (int64_t y = 0; y < 2 * height; ++y) {
      for (int64_t x = 0; x < 2 * width; ++x) {
        args.out.data[(p * 2 * height + y) * 2 * width + x] =
            args.x.data[(p * height + y / 2) * width + x / 2];
      }
    }
  }
}

void ReferenceQueue::channel_bytes(const ChannelBytesArgs& args) {
  const int64_t channels = args.x.shape[1], area = args.x.shape[2] * args.x.shape[3];
  for (int64_t n = 0; n < args.x.shape[0]; ++n) {
    for (int64_t p = 0; p < area; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        args.out.data[(n * area + p) * channels + c] =
            channel_byte(args.x.data[(n * channels + c) * area + p]);
      }
    }
  }
}

void ReferenceQueue::transpose(const TransposeArgs& args) {
  const int64_t items = args.x.shape[0], rows = args.x.shape[1], columns = args.x.shape[2];
  for (int64_t b = 0; b < items; ++b) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        args.out.data[(b * columns + j) * rows + i] = args.x.data[(b * rows + i) * columns + j];
      }
    }
  }
}

void ReferenceQueue::l2_normalize(const L2NormalizeArgs& args) {
  const int64_t width = args.x.shape[-1];
  const int64_t rows = args.x.size() / width;
  for (int64_t r = 0; r < rows; ++r) {
    const float* x = args.x.data + r * width;
    float sum = 0.0f;
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float norm = std::max(std::sqrt(sum), args.eps);
    for (int64_t i = 0; i < width; ++i) args.out.data[r * width + i] = x[i] / norm;
  }
}

void ReferenceQueue::nearest_rows(const NearestRowsArgs& args) {
  const int64_t width = args.table.shape[1];
  for (int64_t r = 0; r < args.ids.size(); ++r) {
    float best = 0.0f;
    int32_t best_id = -1;
    for (int64_t t = 0; t < args.table.shape[0]; ++t) {
      float distance = 0.0f;
      for (int64_t i = 0; i < width; ++i) {
        const float difference = args.x.data[r * width + i] - args.table.data[t * width + i];
        distance += difference * difference;
      }
      if (best_id < 0 || distance < best) {
        best = distance;
        best_id = static_cast<int32_t>(t);
      }
    }
    args.ids.data[r] = best_id;
  }
}

}  // namespace volley
