#include "core/backend/cpu/grouped_convolution.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/backend/cpu/channel_order.h"
#include "core/backend/cpu/convolution.h"
#include "core/backend/cpu/convolution_band.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/backend/cpu/parallel.h"
#include "core/base/error.h"
#include "core/io/convert.h"

namespace volley {
namespace {

int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

int64_t padded_channels(int64_t channels) {
  return divide_up(channels, kDepthStep) * kDepthStep;
}
int64_t padded_channels(const ConvWeight& weight) {
  return padded_channels(weight.in_channels);
}

// Points of a band with their channels side by side, as a kernel reads its rows: bf16, or f32 rounded to it.
class PointPlanes {
 public:
  PointPlanes(const ConvolutionBand& band, RowFormat format, std::byte* memory)
      : band_(band), format_(format), channels_(padded_channels(band.args.weight)), memory_(memory) {}

  static int64_t bytes(const ConvolutionBand& band, RowFormat format) {
    return band.phases() * band.plane_size() * padded_channels(band.args.weight) * row_element_bytes(format);
  }

  // Of `copy_input`: a row of all channels, if it has to be made.
  static int64_t work_bytes(const Conv2dArgs& args) { return args.x.shape[1] * args.x.shape[3] * 4; }

  // Copies the band that begins at output row `first` of picture `n`.
  void copy_input(const ConvInput& input, int64_t n, int64_t first, float* work) const {
    const Conv2dArgs& args = band_.args;
    int64_t row = 0;
    for (int64_t py = 0; py < band_.phases_h; ++py) {
      for (int64_t px = 0; px < band_.phases_w; ++px) {
        for (int64_t r = 0; r < band_.plane_rows; ++r, ++row) {
          const int64_t y = (first + r) * args.stride_h + py - args.pad_top;
          std::byte* out = memory_ + row * band_.plane_width * point_bytes();
          if (y < 0 || y >= args.x.shape[2]) {
            std::fill(out, out + band_.plane_width * point_bytes(), std::byte{0});
          } else {
            copy_row(channels_of_row(input, n, y, work), px - args.pad_left, out);
          }
        }
      }
    }
  }

 private:
  int64_t point_bytes() const { return channels_ * row_element_bytes(format_); }

  // A row of a picture: the channels' stretches of it.
  struct Channels {
    const float* first = nullptr;
    int64_t stride = 0;
  };
  Channels channels_of_row(const ConvInput& input, int64_t n, int64_t y, float* work) const {
    const Shape& shape = band_.args.x.shape;  // [N, C, h, w]
    if (input.is_in_memory()) return {input.row(n, 0, y, work), shape[2] * shape[3]};
    for (int64_t c = 0; c < shape[1]; ++c) input.row(n, c, y, work + c * shape[3]);
    return {work, shape[3]};
  }

  // Pixel i = point start + i * stride_w of the row, zero outside it.
  void copy_row(const Channels& row, int64_t start, std::byte* out) const {
    const Conv2dArgs& args = band_.args;
    const int64_t width = args.x.shape[3], stride = args.stride_w;
    const int64_t begin = std::min(band_.plane_width, start < 0 ? divide_up(-start, stride) : 0);
    const int64_t end =
        std::clamp(start < width ? divide_up(width - start, stride) : 0, begin, band_.plane_width);
    std::fill(out, out + begin * point_bytes(), std::byte{0});
    std::fill(out + end * point_bytes(), out + band_.plane_width * point_bytes(), std::byte{0});
    if (begin == end) return;
    interleave_channels({.planes = row.first + start + begin * stride,
                         .plane_stride = row.stride,
                         .channels = args.x.shape[1],
                         .padded_channels = channels_,
                         .points = end - begin,
                         .point_stride = stride,
                         .format = format_,
                         .out = out + begin * point_bytes()});
  }

  const ConvolutionBand& band_;
  RowFormat format_;
  int64_t channels_;
  std::byte* memory_;
};

}  // namespace

PackedBytes grouped_convolution_bytes(const Shape& shape) {
  const PackedExtents extents(shape[0], shape[2] * shape[3] * padded_channels(shape[1]), WeightType::kBF16);
  return {.data = extents.panel_bytes(), .beside = convolution_bias_bytes(shape[0])};
}

ConvWeight pack_grouped_convolution(const HostView& weight, const HostView& bias, const HostMemory& memory,
                                    ThreadPool& threads) {
  ConvWeight packed = describe_convolution(weight.shape, bias, memory);
  packed.type = WeightType::kBF16;
  const std::vector<float> values = to_f32(weight);
  const int64_t taps = packed.kernel_h * packed.kernel_w, channels = padded_channels(packed);
  std::vector<float> ordered(static_cast<size_t>(packed.out_channels * taps * channels), 0.0f);
  for (int64_t o = 0; o < packed.out_channels; ++o) {
    for (int64_t c = 0; c < packed.in_channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) {
        ordered[(o * taps + t) * channels + c] = values[(o * packed.in_channels + c) * taps + t];
      }
    }
  }
  const HostView view{reinterpret_cast<const std::byte*>(ordered.data()),
                      DType::kF32,
                      {packed.out_channels, taps * channels}};
  packed.data = pack_weight(view, WeightType::kBF16, memory, threads).data;
  return packed;
}

LinearWeight grouped_convolution_as_linear(const ConvWeight& weight) {
  return {.data = weight.data,
          .type = WeightType::kBF16,
          .out_features = weight.out_channels,
          .in_features = weight.kernel_h * weight.kernel_w * padded_channels(weight)};
}

ConvWeight grouped_convolution_from_linear(const LinearWeight& weight, const HostView& bias,
                                           const Shape& shape, const HostMemory& memory) {
  ConvWeight convolution = describe_convolution(shape, bias, memory);
  convolution.type = WeightType::kBF16;
  convolution.data = weight.data;
  const LinearWeight expected = grouped_convolution_as_linear(convolution);
  if (weight.type != expected.type || weight.out_features != expected.out_features ||
      weight.in_features != expected.in_features) {
    throw Error("packed weight does not fit a convolution " + shape.to_string());
  }
  return convolution;
}

namespace {

// How a convolution is cut: into bands of output rows, and the groups of its weight into shares.
struct Cut {
  Cut(const Conv2dArgs& args, RowFormat row_format, int64_t threads)
      : format(row_format),
        channels(padded_channels(args.weight)),
        taps(args.weight.kernel_h * args.weight.kernel_w),
        extents(args.weight.out_channels, taps * channels, WeightType::kBF16),
        rows(band_rows(args, channels, row_element_bytes(format))),
        bands(divide_up(args.out.shape[2], rows)),
        shares(std::clamp<int64_t>(divide_up(4 * threads, args.x.shape[0] * bands), 1, extents.groups)) {}

  static bool is_empty(const Conv2dArgs& args) {
    return args.x.shape[0] == 0 || args.out.shape[2] <= 0 || args.out.shape[3] <= 0;
  }
  // Positions that are multiplied before they are stored, whole slices: results of a channel then lie in
  // longer stretches. Planes are often so far apart that few of their lines fit the caches at a time.
  int64_t stretch(const ConvolutionBand& band) const {
    constexpr int64_t kTileBytes = 256 * 1024;
    const int64_t slice_bytes = kSliceRows * most_groups() * kGroupColumns * 4;
    const int64_t slices = std::clamp<int64_t>(kTileBytes / slice_bytes, 1, 8);
    return kSliceRows * std::min(slices, divide_up(band.positions, kSliceRows));
  }
  // Of a band of the largest share.
  int64_t tile_bytes(const ConvolutionBand& band) const {
    return stretch(band) * most_groups() * kGroupColumns * 4;
  }
  // Of the largest band and share.
  int64_t most_work_bytes(const Conv2dArgs& args) const {
    const ConvolutionBand band(args, rows);
    return PointPlanes::bytes(band, format) + tile_bytes(band) + taps * 8 + PointPlanes::work_bytes(args);
  }
  int64_t most_groups() const { return divide_up(extents.groups, shares); }

  RowFormat format;
  int64_t channels = 0, taps = 0;
  PackedExtents extents;
  int64_t rows = 0, bands = 0, shares = 0;
};

}  // namespace

void reserve_grouped_convolution(const ReserveGroupedConvolutionArgs& call) {
  const Conv2dArgs& args = call.convolution;
  if (Cut::is_empty(args)) return;
  const Cut cut(args, call.products.row_format(WeightType::kBF16), call.threads);
  ScratchPool::ThreadLease(call.scratch, call.threads, cut.most_work_bytes(args));
}

bool copies_input_once(const Conv2dArgs& args, const GroupedProducts& products, int64_t threads) {
  return Cut::is_empty(args) || Cut(args, products.row_format(WeightType::kBF16), threads).shares == 1;
}

void run_grouped_convolution(const GroupedConvolutionArgs& call) {
  const Conv2dArgs& args = call.convolution;
  const ConvWeight& w = args.weight;
  assert_convolution(args);
  const int64_t batch = args.x.shape[0], out_h = args.out.shape[2], out_w = args.out.shape[3];
  if (Cut::is_empty(args)) return;

  const Cut cut(args, call.products.row_format(WeightType::kBF16), call.threads.threads());
  const PackedExtents& extents = cut.extents;
  const RowFormat format = cut.format;
  const int64_t channels = cut.channels, taps = cut.taps, rows = cut.rows, bands = cut.bands,
                shares = cut.shares;
  const double guess = static_cast<double>(batch * out_h * out_w * w.out_channels * taps * channels) / 300.0;
  const ScratchPool::ThreadLease work(call.scratch, call.threads.threads(), cut.most_work_bytes(args));
  share_items(call.threads, batch * bands * shares, guess, [&](int64_t item, int64_t thread) {
    const int64_t share = item % shares, n = item / shares / bands;
    const int64_t first = item / shares % bands * rows;
    const int64_t group = extents.groups * share / shares;
    const int64_t groups = extents.groups * (share + 1) / shares - group;
    const ConvolutionBand band(args, std::min(rows, out_h - first));
    const int64_t plane_bytes = PointPlanes::bytes(band, format);
    auto* points = work.of<std::byte>(thread);
    float* tile = reinterpret_cast<float*>(points + plane_bytes);
    auto* offsets = reinterpret_cast<int64_t*>(points + plane_bytes + cut.tile_bytes(band));
    PointPlanes(band, format, points)
        .copy_input(call.input, n, first, reinterpret_cast<float*>(offsets + taps));
    for (int64_t t = 0; t < taps; ++t) {
      offsets[t] = band.offset(t / w.kernel_w, t % w.kernel_w) * channels;
    }
    const int64_t stretch = cut.stretch(band);
    for (int64_t begin = 0; begin < band.positions; begin += stretch) {
      const int64_t count = std::min(stretch, band.positions - begin);
      for (int64_t slice = 0; slice < count; slice += kSliceRows) {
        call.products.multiply_bf16({.rows = std::min(kSliceRows, count - slice),
                                     .x = points + (begin + slice) * channels * row_element_bytes(format),
                                     .row_stride = channels,
                                     .offsets = offsets,
                                     .segments = taps,
                                     .segment_depth = channels,
                                     .panels = w.data.data() + group * extents.group_bytes(),
                                     .groups = groups,
                                     .out = tile + slice * groups * kGroupColumns});
      }
      // Runs of positions of one output row.
      for (int64_t position = begin; position < begin + count;) {
        const int64_t y = position / band.plane_width, x = position % band.plane_width;
        const int64_t run = std::min(band.plane_width - x, begin + count - position);
        const int64_t kept = std::clamp<int64_t>(out_w - x, 0, run);
        const int64_t o = group * kGroupColumns;
        if (kept > 0) {
          scatter_channels({.tile = tile + (position - begin) * groups * kGroupColumns,
                            .tile_stride = groups * kGroupColumns,
                            .points = kept,
                            .channels = std::min(groups * kGroupColumns, w.out_channels - o),
                            .bias = reinterpret_cast<const float*>(w.bias.data()) + o,
                            .accumulate = args.accumulate,
                            .out = args.out.data + ((n * w.out_channels + o) * out_h + first + y) * out_w + x,
                            .plane_stride = out_h * out_w});
        }
        position += run;
      }
    }
  });
}

}  // namespace volley
