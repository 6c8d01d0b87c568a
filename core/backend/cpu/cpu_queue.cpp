#include "core/backend/cpu/cpu_queue.h"

#include <algorithm>
#include <cstring>

#include "core/backend/channel_bytes.h"
#include "core/backend/cpu/attention.h"
#include "core/backend/cpu/convolution.h"
#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/grouped_convolution.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/backend/cpu/parallel.h"
#include "core/backend/visible_keys.h"

namespace volley {
namespace {

// Rough nanoseconds of one thread for an element, for deciding whether threads are worth waking.
constexpr double kCopy = 0.15, kSimple = 0.3, kExponential = 1.0;

// Elements [to, to + count) of keys or values become these numbers, rounded to the cache's type.
void store_elements(const float* from, int64_t count, std::byte* elements, CacheType type, int64_t to) {
  if (type == CacheType::kF32) {
    std::copy_n(from, count, reinterpret_cast<float*>(elements) + to);
  } else {
    convert_to_bf16(from, count, reinterpret_cast<uint16_t*>(elements) + to);
  }
}

// Of keys and values.
void copy_elements(const CachePlane& plane, int64_t from, int64_t to, int64_t count) {
  const int64_t bytes = cache_element_bytes(plane.type);
  for (std::byte* elements : {plane.keys, plane.values})
    std::copy_n(elements + from * bytes, count * bytes, elements + to * bytes);
}

void copy_floats(const float* from, int64_t count, float* to) {
  if (count > 0) std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float));
}

// A row's angles.
int64_t rope_work_bytes(const RopeArgs& args) {
  return args.x.shape[2] * static_cast<int64_t>(sizeof(float));
}

}  // namespace

void CpuQueue::gather_rows(const GatherRowsArgs& args) {
  const int64_t width = args.table.shape[-1];
  for (int64_t r = 0; r < args.ids.size(); ++r) {
    const int32_t id = args.ids.data[r];
    if (id < 0) continue;
    VOLLEY_ASSERT(id < args.table.shape[0]);
    copy_floats(args.table.data + id * width, width, args.out.data + r * width);
  }
}

void CpuQueue::gather_weight_rows(const GatherWeightRowsArgs& args) {
  const int64_t width = args.weight.in_features;
  share_ranges(threads_, args.ids.size(), static_cast<double>(args.out.size()) * kExponential,
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   if (args.ids.data[r] >= 0)
                     unpack_row(args.weight, args.ids.data[r], args.out.data + r * width);
                 }
               });
}

void CpuQueue::copy(const CopyArgs& args) {
  share_ranges(threads_, args.x.size(), static_cast<double>(args.x.size()) * kCopy,
               [&](int64_t begin, int64_t end) {
                 copy_floats(args.x.data + begin, end - begin, args.out.data + begin);
               });
}

void CpuQueue::add_rows(const AddRowsArgs& args) {
  const int64_t width = args.table.shape[-1];
  for (int64_t r = 0; r < args.ids.size(); ++r) {
    const int32_t id = args.ids.data[r];
    if (id < 0) continue;
    VOLLEY_ASSERT(id < args.table.shape[0]);
    float* out = args.out.data + r * width;
    volley::add(out, args.table.data + id * width, width, out);
  }
}

void CpuQueue::rms_norm(const RmsNormArgs& args) {
  const int64_t width = args.weight.size();
  const int64_t rows = args.x.size() / width;
  share_ranges(threads_, rows, static_cast<double>(args.x.size()) * kSimple, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      rms_norm_row({.x = args.x.data + r * width,
                    .weight = args.weight.data,
                    .width = width,
                    .eps = args.eps,
                    .out = args.out.data + r * width});
    }
  });
}

void CpuQueue::layer_norm(const LayerNormArgs& args) {
  const int64_t width = args.weight.size();
  const int64_t rows = args.x.size() / width;
  share_ranges(threads_, rows, static_cast<double>(args.x.size()) * kSimple, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      layer_norm_row({.x = args.x.data + r * width,
                      .weight = args.weight.data,
                      .bias = args.bias.data,
                      .width = width,
                      .eps = args.eps,
                      .out = args.out.data + r * width});
    }
  });
}

void CpuQueue::linear(const LinearArgs& args) {
  device_->products.run(args, threads_, scratch_);
}

void CpuQueue::linears(const LinearsArgs& args) {
  device_->products.run(args, threads_, scratch_);
}

void CpuQueue::gated_linears(const GatedLinearsArgs& args) {
  if (!device_->products.run(args, threads_, scratch_)) Queue::gated_linears(args);
}

void CpuQueue::normed_linears(const NormedLinearsArgs& args) {
  if (!device_->products.run(args, threads_, scratch_)) Queue::normed_linears(args);
}

void CpuQueue::normed_gated_linears(const NormedGatedLinearsArgs& args) {
  if (!device_->products.run(args, threads_, scratch_)) Queue::normed_gated_linears(args);
}

void CpuQueue::activate(const ActivateArgs& args) {
  share_ranges(threads_, args.x.size(), static_cast<double>(args.x.size()) * kExponential,
               [&](int64_t begin, int64_t end) {
                 volley::activate(args.activation, args.x.data + begin, end - begin);
               });
}

void CpuQueue::silu_mul(const SiluMulArgs& args) {
  share_ranges(threads_, args.out.size(), static_cast<double>(args.out.size()) * kExponential,
               [&](int64_t begin, int64_t end) {
                 volley::silu_mul(args.gate.data + begin, args.up.data + begin, end - begin,
                                  args.out.data + begin);
               });
}

void CpuQueue::add(const AddArgs& args) {
  share_ranges(threads_, args.out.size(), static_cast<double>(args.out.size()) * kCopy,
               [&](int64_t begin, int64_t end) {
                 volley::add(args.a.data + begin, args.b.data + begin, end - begin, args.out.data + begin);
               });
}

void reserve_rope(const RopeArgs& args, int64_t threads, ScratchPool& scratch) {
  if (args.x.shape[0] > 0) ScratchPool::ThreadLease(scratch, threads, rope_work_bytes(args));
}

void CpuQueue::rope(const RopeArgs& args) {
  const int64_t rows = args.x.shape[0], heads = args.x.shape[1], width = args.x.shape[2];
  if (rows == 0) return;
  const int64_t half = width / 2;
  const int64_t components = args.positions.size() / rows;
  const int64_t columns = half / components;
  const ScratchPool::ThreadLease angles(scratch_, threads_.threads(), rope_work_bytes(args));
  const double guess = static_cast<double>(args.x.size()) * kSimple;
  share_ranges(threads_, rows, guess, [&](int64_t begin, int64_t end, int64_t thread) {
    // A row's angles side by side: every head turns by the same ones.
    auto* cosines = angles.of<float>(thread);
    float* sines = cosines + half;
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t c = 0; c < components; ++c) {
        const int64_t position = args.positions.data[r * components + c];
        VOLLEY_ASSERT(position >= 0 && position < args.cos.shape[0]);
        copy_floats(args.cos.data + position * columns, columns, cosines + c * columns);
        copy_floats(args.sin.data + position * columns, columns, sines + c * columns);
      }
      for (int64_t h = 0; h < heads; ++h) {
        rotate_head({.x = args.x.data + (r * heads + h) * width,
                     .cosines = cosines,
                     .sines = sines,
                     .width = width,
                     .layout = args.layout});
      }
    }
  });
}

void CpuQueue::write_cache(const WriteCacheArgs& args) {
  const PlaneLayout layout(args.plane);
  const int64_t rows = args.keys.shape[0], width = layout.width;
  const double guess = static_cast<double>(rows * layout.groups * width) * 2 * kSimple;
  share_ranges(threads_, rows, guess, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t entry = written_entry(args, r);
      if (entry < 0) continue;
      for (int64_t g = 0; g < layout.groups; ++g) {
        const int64_t from = (r * layout.groups + g) * width;
        const int64_t to = layout.offset(entry) + g * layout.group_stride();
        store_elements(args.keys.data + from, width, args.plane.keys, args.plane.type, to);
        store_elements(args.values.data + from, width, args.plane.values, args.plane.type, to);
      }
    }
  });
}

void CpuQueue::attention(const AttentionArgs& args) {
  run_attention(args, threads_, scratch_);
}
void CpuQueue::attention_weights(const AttentionWeightsArgs& args) {
  run_attention_weights(args, threads_);
}
void CpuQueue::dense_attention(const DenseAttentionArgs& args) {
  run_dense_attention(args, threads_, scratch_);
}

void CpuQueue::move_entries(const MoveEntriesArgs& args) {
  const int32_t* pages = args.cache.block_table.data + args.slot * args.cache.block_table.shape[1];
  const auto place = [&](int64_t logical) {
    return int64_t{pages[logical / kPageSize]} * kPageSize + logical % kPageSize;
  };
  for (const CachePlane& plane : args.planes) {
    const PlaneLayout layout(plane);
    for (size_t i = 0; i + 1 < args.moves.size(); i += 2) {
      const int64_t from = layout.offset(place(args.moves[i])), to = layout.offset(place(args.moves[i + 1]));
      if (from == to) continue;
      for (int64_t g = 0; g < layout.groups; ++g) {
        const int64_t group = g * layout.group_stride();
        copy_elements(plane, from + group, to + group, layout.width);
      }
    }
  }
  args.cache.lengths.data[args.slot] = args.length;
}

void CpuQueue::copy_page(const CopyPageArgs& args) {
  for (const CachePlane& plane : args.planes) {
    const int64_t page = PlaneLayout(plane).page_size();
    copy_elements(plane, args.from * page, args.to * page, page);
  }
}

void CpuQueue::conv2d(const Conv2dArgs& args) {
  convolve(args, ConvInput(args.x));
}

void CpuQueue::convolve(const Conv2dArgs& args, const ConvInput& input) {
  if (args.weight.type == WeightType::kF32) {
    run_convolution(args, input, threads_, scratch_);
  } else {
    run_grouped_convolution({.convolution = args,
                             .input = input,
                             .products = device_->products.grouped(),
                             .threads = threads_,
                             .scratch = scratch_});
  }
}

bool CpuQueue::copies_input_once(const Conv2dArgs& args) const {
  if (args.stride_w > 1) return false;
  if (args.weight.type == WeightType::kF32) return volley::copies_input_once(args, threads_.threads());
  return volley::copies_input_once(args, device_->products.grouped(), threads_.threads());
}

void CpuQueue::find_moments(const GroupNormArgs& args) {
  const int64_t area = args.x.shape[2] * args.x.shape[3], channels = args.x.shape[1] / args.groups;
  const int64_t items = args.x.shape[0] * args.groups;
  moments_.resize(static_cast<size_t>(items));
  share_items(threads_, items, static_cast<double>(args.x.size()) * kSimple, [&](int64_t item) {
    moments_[static_cast<size_t>(item)] = group_moments(
        {.x = args.x.data + item * channels * area, .channels = channels, .area = area, .eps = args.eps});
  });
}

void CpuQueue::group_norm(const GroupNormArgs& args) {
  const int64_t channels = args.x.shape[1], area = args.x.shape[2] * args.x.shape[3];
  find_moments(args);
  const double guess =
      static_cast<double>(args.x.size()) * (args.swish == Swish::kAfter ? kExponential : kSimple);
  share_items(threads_, args.x.shape[0] * channels, guess, [&](int64_t plane) {
    const int64_t channel = plane % channels;
    normalize_points({.x = args.x.data + plane * area,
                      .count = area,
                      .moments = moments_[static_cast<size_t>(plane / (channels / args.groups))],
                      .weight = args.weight.data[channel],
                      .bias = args.bias.data[channel],
                      .swish = args.swish,
                      .out = args.out.data + plane * area});
  });
}

void CpuQueue::normed_convs(const NormedConvsArgs& args) {
  if (args.convs.size() > 1 || !copies_input_once(args.convs.front())) return Queue::normed_convs(args);
  find_moments(args.norm);
  convolve(args.convs.front(), ConvInput(args.norm, moments_));
}

void CpuQueue::upsampled_conv(const UpsampledConvArgs& args) {
  if (!copies_input_once(args.conv)) return Queue::upsampled_conv(args);
  convolve(args.conv, ConvInput(args.upsample));
}

void CpuQueue::upsample2x(const Upsample2xArgs& args) {
  const int64_t planes = args.x.shape[0] * args.x.shape[1], height = args.x.shape[2], width = args.x.shape[3];
  share_ranges(threads_, planes * height, static_cast<double>(args.out.size()) * kSimple,
               [&](int64_t begin, int64_t end) {
                 for (int64_t row = begin; row < end; ++row) {
                   const float* x = args.x.data + row * width;
                   float* out = args.out.data + row * 4 * width;
                   for (int64_t i = 0; i < width; ++i) out[2 * i] = out[2 * i + 1] = x[i];
                   copy_floats(out, 2 * width, out + 2 * width);
                 }
               });
}

void CpuQueue::channel_bytes(const ChannelBytesArgs& args) {
  const int64_t channels = args.x.shape[1], area = args.x.shape[2] * args.x.shape[3];
  for (int64_t n = 0; n < args.x.shape[0]; ++n) {
    const float* planes = args.x.data + n * channels * area;
    uint8_t* out = args.out.data + n * channels * area;
    share_ranges(
        threads_, area, static_cast<double>(channels * area) * kSimple,
        [&](int64_t begin, int64_t end) { volley::channel_bytes(planes, channels, area, begin, end, out); });
  }
}

void CpuQueue::transpose(const TransposeArgs& args) {
  const int64_t items = args.x.shape[0], rows = args.x.shape[1], columns = args.x.shape[2];
  constexpr int64_t kBlock = 32;  // a block of both matrices stays in the first-level cache
  const int64_t bands = (rows + kBlock - 1) / kBlock;
  share_items(threads_, items * bands, static_cast<double>(args.x.size()) * kSimple, [&](int64_t item) {
    const float* x = args.x.data + item / bands * rows * columns;
    float* out = args.out.data + item / bands * rows * columns;
    const int64_t first = item % bands * kBlock, end = std::min(rows, first + kBlock);
    for (int64_t column = 0; column < columns; column += kBlock) {
      for (int64_t j = column; j < std::min(columns, column + kBlock); ++j) {
        for (int64_t i = first; i < end; ++i) out[j * rows + i] = x[i * columns + j];
      }
    }
  });
}

void CpuQueue::l2_normalize(const L2NormalizeArgs& args) {
  const int64_t width = args.x.shape[-1];
  share_ranges(threads_, args.x.size() / width, static_cast<double>(args.x.size()) * kSimple,
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   l2_normalize_row({.x = args.x.data + r * width,
                                     .width = width,
                                     .eps = args.eps,
                                     .out = args.out.data + r * width});
                 }
               });
}

// Distances are summed as the reference sums them, so that near ties fall the same way.
void CpuQueue::nearest_rows(const NearestRowsArgs& args) {
  const int64_t rows = args.table.shape[0], width = args.table.shape[1];
  share_ranges(threads_, args.ids.size(), static_cast<double>(args.ids.size() * args.table.size()),
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) {
                   const float* x = args.x.data + r * width;
                   float best = 0.0f;
                   int32_t best_id = -1;
                   for (int64_t t = 0; t < rows; ++t) {
                     const float* entry = args.table.data + t * width;
                     float distance = 0.0f;
                     for (int64_t i = 0; i < width; ++i) distance += (x[i] - entry[i]) * (x[i] - entry[i]);
                     if (best_id < 0 || distance < best) {
                       best = distance;
                       best_id = static_cast<int32_t>(t);
                     }
                   }
                   args.ids.data[r] = best_id;
                 }
               });
}

void CpuQueue::sample(const SampleArgs& args) {
  sampler_.run(args, threads_);
}

void CpuQueue::upload(const void* host, void* device, int64_t bytes) {
  if (bytes > 0) std::memcpy(device, host, static_cast<size_t>(bytes));
}

void CpuQueue::download(const void* device, void* host, int64_t bytes) {
  if (bytes > 0) std::memcpy(host, device, static_cast<size_t>(bytes));
}

}  // namespace volley
