#include "core/backend/cpu/convolution.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/backend/cpu/convolution_band.h"
#include "core/backend/cpu/convolution_kernels.h"
#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/parallel.h"
#include "core/io/convert.h"

namespace volley {
namespace {

int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}
int64_t round_up(int64_t value, int64_t multiple) {
  return divide_up(value, multiple) * multiple;
}

// A band with its input in planes of one channel each.
struct Band : ConvolutionBand {
  Band(const Conv2dArgs& a, int64_t band_rows) : ConvolutionBand(a, band_rows) {
    // The last vectors read past the last position, in every plane into the next one.
    input_size = args.weight.in_channels * phases() * plane_size() + 8 * kPositionPadding;
    out_stride = round_up(positions, kPositionPadding) + 8 * kPositionPadding;
  }

  // Copies the band that begins at output row `first` of picture `n`. `work`: a row.
  void copy_input(const ConvInput& input, int64_t n, int64_t first, float* work, float* planes) const {
    const int64_t channels = args.x.shape[1], height = args.x.shape[2], width = args.x.shape[3];
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t py = 0; py < phases_h; ++py) {
        for (int64_t px = 0; px < phases_w; ++px) {
          for (int64_t r = 0; r < plane_rows; ++r, planes += plane_width) {
            const int64_t y = (first + r) * args.stride_h + py - args.pad_top;
            const float* row = y < 0 || y >= height ? nullptr : input.row(n, c, y, work);
            copy_row(row, width, px - args.pad_left, planes);
          }
        }
      }
    }
    std::fill(planes, planes + 8 * kPositionPadding, 0.0f);
  }

  // out[i] = row[start + i * stride_w], zero outside the row.
  void copy_row(const float* row, int64_t width, int64_t start, float* out) const {
    if (row == nullptr) {
      std::fill(out, out + plane_width, 0.0f);
      return;
    }
    const int64_t stride = args.stride_w;
    const int64_t begin = std::min(plane_width, start < 0 ? divide_up(-start, stride) : 0);
    const int64_t end = std::clamp(start < width ? divide_up(width - start, stride) : 0, begin, plane_width);
    std::fill(out, out + begin, 0.0f);
    if (stride == 1) {
      std::copy(row + start + begin, row + start + end, out + begin);
    } else {
      for (int64_t i = begin; i < end; ++i) out[i] = row[start + i * stride];
    }
    std::fill(out + end, out + plane_width, 0.0f);
  }

  int64_t input_size = 0, out_stride = 0;
};

}  // namespace

int64_t convolution_bias_bytes(int64_t channels) {
  return round_up(channels, kChannelTile) * 4;
}

ConvWeight describe_convolution(const Shape& shape, const HostView& bias, const HostMemory& memory) {
  VOLLEY_ASSERT(shape.rank() == 4);
  const int64_t channels = shape[0], padded = round_up(channels, kChannelTile);
  ConvWeight described{.bias = memory.allocate(convolution_bias_bytes(channels)),
                       .out_channels = channels,
                       .in_channels = shape[1],
                       .kernel_h = shape[2],
                       .kernel_w = shape[3]};
  auto* values = reinterpret_cast<float*>(described.bias.data());
  std::fill(values, values + padded, 0.0f);
  if (bias.data != nullptr) {
    VOLLEY_ASSERT(bias.shape.size() == channels);
    copy_to_f32(bias, values);
  }
  return described;
}

PackedBytes convolution_bytes(const Shape& shape) {
  const int64_t bias = convolution_bias_bytes(shape[0]);
  return {.data = bias * shape[1] * shape[2] * shape[3], .beside = bias};
}

// Packed: [ceil(out / kChannelTile), in * kh * kw, kChannelTile].
ConvWeight pack_convolution(const HostView& weight, const HostView& bias, const HostMemory& memory) {
  ConvWeight packed = describe_convolution(weight.shape, bias, memory);
  const std::vector<float> values = to_f32(weight);
  const int64_t channels = packed.out_channels, padded = round_up(channels, kChannelTile);
  const int64_t taps = packed.in_channels * packed.kernel_h * packed.kernel_w;
  packed.data = memory.allocate(convolution_bytes(weight.shape).data);
  auto* data = reinterpret_cast<float*>(packed.data.data());
  for (int64_t o = 0; o < padded; ++o) {
    for (int64_t k = 0; k < taps; ++k) {
      data[(o / kChannelTile * taps + k) * kChannelTile + o % kChannelTile] =
          o < channels ? values[o * taps + k] : 0.0f;
    }
  }
  return packed;
}

namespace {

int64_t taps_of(const ConvWeight& weight) {
  return weight.in_channels * weight.kernel_h * weight.kernel_w;
}
int64_t work_bytes(const Band& band) {
  return (band.input_size + kChannelTile * band.out_stride + 2 * taps_of(band.args.weight) +
          band.args.x.shape[3]) *
         4;
}
// Rows of a band.
int64_t rows_of(const Conv2dArgs& args) {
  return band_rows(args, args.weight.in_channels, 4);
}
bool is_empty(const Conv2dArgs& args) {
  return args.x.shape[0] == 0 || args.out.shape[2] <= 0 || args.out.shape[3] <= 0;
}

// How a convolution is cut: into bands of output rows, and the tiles of its output channels into shares.
struct Cut {
  Cut(const Conv2dArgs& args, int64_t threads)
      : rows(rows_of(args)),
        bands(divide_up(args.out.shape[2], rows)),
        tiles(divide_up(args.weight.out_channels, kChannelTile)),
        shares(std::clamp<int64_t>(divide_up(2 * threads, args.x.shape[0] * bands), 1, tiles)) {}

  int64_t rows = 0, bands = 0, tiles = 0, shares = 0;
};

}  // namespace

void reserve_convolution(const Conv2dArgs& args, int64_t threads, ScratchPool& scratch) {
  if (!is_empty(args)) ScratchPool::ThreadLease(scratch, threads, work_bytes(Band(args, rows_of(args))));
}

bool copies_input_once(const Conv2dArgs& args, int64_t threads) {
  return is_empty(args) || Cut(args, threads).shares == 1;
}

void run_convolution(const Conv2dArgs& args, const ConvInput& input, ThreadPool& threads,
                     ScratchPool& scratch) {
  const ConvWeight& w = args.weight;
  const int64_t batch = args.x.shape[0], out_h = args.out.shape[2], out_w = args.out.shape[3];
  assert_convolution(args);
  if (is_empty(args)) return;

  const int64_t taps = taps_of(w);
  const Cut cut(args, threads.threads());
  const int64_t rows = cut.rows, bands = cut.bands, tiles = cut.tiles, shares = cut.shares;
  const double guess = static_cast<double>(batch * out_h * out_w * w.out_channels * taps) / 30.0;
  const ScratchPool::ThreadLease work(scratch, threads.threads(), work_bytes(Band(args, rows)));
  share_items(threads, batch * bands * shares, guess, [&](int64_t item, int64_t thread) {
    const int64_t share = item % shares, n = item / shares / bands;
    const int64_t first = item / shares % bands * rows;
    const Band band(args, std::min(rows, out_h - first));
    auto* offsets = work.of<int64_t>(thread);
    auto* planes = reinterpret_cast<float*>(offsets + taps);
    float* out = planes + band.input_size;
    float* row = out + kChannelTile * band.out_stride;
    band.copy_input(input, n, first, row, planes);
    int64_t tap = 0;
    for (int64_t c = 0; c < w.in_channels; ++c) {
      for (int64_t ky = 0; ky < w.kernel_h; ++ky) {
        for (int64_t kx = 0; kx < w.kernel_w; ++kx)
          offsets[tap++] = c * band.phases() * band.plane_size() + band.offset(ky, kx);
      }
    }
    for (int64_t tile = tiles * share / shares; tile < tiles * (share + 1) / shares; ++tile) {
      convolve_tile({.x = planes,
                     .offsets = offsets,
                     .taps = taps,
                     .weight = reinterpret_cast<const float*>(w.data.data()) + tile * taps * kChannelTile,
                     .bias = reinterpret_cast<const float*>(w.bias.data()) + tile * kChannelTile,
                     .positions = band.positions,
                     .out = out,
                     .out_stride = band.out_stride});
      for (int64_t o = tile * kChannelTile; o < std::min(w.out_channels, (tile + 1) * kChannelTile); ++o) {
        store_tile({.tile = out + o % kChannelTile * band.out_stride,
                    .tile_stride = band.plane_width,
                    .rows = band.rows,
                    .columns = out_w,
                    .accumulate = args.accumulate,
                    .out = args.out.data + ((n * w.out_channels + o) * out_h + first) * out_w,
                    .out_stride = out_w});
      }
    }
  });
}

}  // namespace volley
