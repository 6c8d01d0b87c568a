#pragma once

#include <algorithm>
#include <cstdint>

#include "core/backend/operations.h"

namespace volley {

// Geometry of a band of output rows. Its input is copied into planes with the padding written out, one for
// each phase of the stride: plane (py, px) holds the points (y * stride_h + py, x * stride_w + px). In such a
// plane the points that a tap reads for neighbouring outputs are neighbours, and an output row ends where the
// next begins, save for the columns of the kernel's width that are computed and thrown away.
struct ConvolutionBand {
  ConvolutionBand(const Conv2dArgs& a, int64_t band_rows) : args(a), rows(band_rows) {
    const ConvWeight& w = args.weight;
    out_width = args.out.shape[3];
    plane_width = out_width + (w.kernel_w - 1) / args.stride_w;
    plane_rows = rows + (w.kernel_h - 1) / args.stride_h;
    phases_w = std::min(args.stride_w, w.kernel_w);
    phases_h = std::min(args.stride_h, w.kernel_h);
    positions = (rows - 1) * plane_width + out_width;
  }

  int64_t phases() const { return phases_h * phases_w; }
  int64_t plane_size() const { return plane_rows * plane_width; }
  // Where tap (ky, kx) reads for output position 0, in points from the first plane.
  int64_t offset(int64_t ky, int64_t kx) const {
    const int64_t phase = (ky % args.stride_h) * phases_w + kx % args.stride_w;
    return (phase * plane_rows + ky / args.stride_h) * plane_width + kx / args.stride_w;
  }

  const Conv2dArgs& args;
  int64_t rows = 0;  // of output
  int64_t out_width = 0, plane_width = 0, plane_rows = 0, phases_h = 0, phases_w = 0;
  int64_t positions = 0;  // of one output channel, thrown-away columns included
};

// Rows of a band: its input, `element_bytes` an element, stays in the second-level cache, and a lone picture
// still gives every thread some.
inline int64_t band_rows(const Conv2dArgs& args, int64_t channels, int64_t element_bytes) {
  constexpr int64_t kBandBytes = 1024 * 1024;
  const int64_t halo = (args.weight.kernel_h - 1) / args.stride_h;
  const ConvolutionBand row(args, 1);
  const int64_t row_bytes =
      channels * row.phases() * row.plane_size() * element_bytes / std::max<int64_t>(1, 1 + halo);
  return std::clamp<int64_t>(kBandBytes / std::max<int64_t>(1, row_bytes) - halo, 1, args.out.shape[2]);
}

// Checks that the extents of a convolution fit together.
inline void assert_convolution(const Conv2dArgs& args) {
  const ConvWeight& w = args.weight;
  const int64_t height = args.x.shape[2] + args.pad_top + args.pad_bottom;
  const int64_t width = args.x.shape[3] + args.pad_left + args.pad_right;
  VOLLEY_ASSERT(args.x.shape[1] == w.in_channels && args.out.shape[1] == w.out_channels);
  VOLLEY_ASSERT(args.out.shape[2] == (height - w.kernel_h) / args.stride_h + 1);
  VOLLEY_ASSERT(args.out.shape[3] == (width - w.kernel_w) / args.stride_w + 1);
}

}  // namespace volley
