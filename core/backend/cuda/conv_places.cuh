#pragma once

// Which inputs an output point of a convolution reads.

#include "core/backend/operations.h"

namespace volley::cuda {

struct ConvPlaces {
  explicit ConvPlaces(const Conv2dArgs& args)
      : x(args.x.data),
        channels(static_cast<int>(args.x.shape[1])),
        height(static_cast<int>(args.x.shape[2])),
        width(static_cast<int>(args.x.shape[3])),
        out_channels(static_cast<int>(args.out.shape[1])),
        out_height(static_cast<int>(args.out.shape[2])),
        out_width(static_cast<int>(args.out.shape[3])),
        kernel_h(static_cast<int>(args.weight.kernel_h)),
        kernel_w(static_cast<int>(args.weight.kernel_w)),
        stride_h(static_cast<int>(args.stride_h)),
        stride_w(static_cast<int>(args.stride_w)),
        pad_top(static_cast<int>(args.pad_top)),
        pad_left(static_cast<int>(args.pad_left)) {}

  __host__ __device__ int out_area() const { return out_height * out_width; }

  // The input under tap `tap` (row by row) of output point `point`, or 0 in the padding and behind the last
  // point.
  __device__ float input(int64_t map, int channel, int tap, int point) const {
    const int row = point / out_width * stride_h + tap / kernel_w - pad_top;
    const int column = point % out_width * stride_w + tap % kernel_w - pad_left;
    if (row < 0 || row >= height || column < 0 || column >= width || point >= out_area()) return 0.0f;
    return x[((map * channels + channel) * height + row) * width + column];
  }

  const float* x;
  int channels, height, width;
  int out_channels, out_height, out_width;
  int kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left;
};

}  // namespace volley::cuda
