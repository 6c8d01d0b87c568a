#include "core/backend/cpu/linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/backend/cpu/parallel.h"
#include "core/io/convert.h"

namespace volley {
namespace {

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
int64_t divide_up(int64_t value, int64_t divisor) {
  return (value + divisor - 1) / divisor;
}

// Bytes of a weight's part that stays in the second-level cache beside the rows.
constexpr int64_t kPanelBytes = 512 * 1024;

// One thread's nanoseconds for a product: its multiplications, or reading its weight.
double product_guess(int64_t rows, int64_t weight_bytes) {
  return static_cast<double>(weight_bytes) * (0.05 + 0.005 * static_cast<double>(rows));
}

// How an f32 weight is cut. A function of its shape alone, so that the same bits come out on every call.
struct PanelPlan {
  PanelPlan(int64_t out_features, int64_t in_features) {
    // A weight has at least eight panels where it is wide enough, so that threads find work.
    constexpr int64_t kStep = 64;
    const int64_t fitting = kPanelBytes / (in_features * 4) / kStep * kStep;
    const int64_t sharing = round_up(divide_up(out_features, 8), kStep);
    columns = std::max(kStep, std::min(fitting, sharing));
    panels = std::max<int64_t>(1, divide_up(out_features, columns));
    full = {.depth = in_features, .columns = columns};
    last = full;
    last.columns = round_up(out_features - (panels - 1) * columns, kGroupColumns);
  }

  int64_t columns = 0;  // output features of every panel but the last
  int64_t panels = 0;
  PanelShape full, last;

  const PanelShape& shape(int64_t panel) const { return panel + 1 < panels ? full : last; }
  int64_t tile_bytes() const { return kSliceRows * full.columns * 4; }
};

// First bytes of a packed f32 weight; the panels follow.
struct alignas(64) PackedHeader {
  int64_t panel_stride = 0;  // bytes from a panel to the next
};

PackedHeader header_of(const PanelPlan& plan, const PanelProducts& products) {
  return {plan.panels > 1 ? round_up(products.packed_bytes(plan.full), 64) : 0};
}

bool are_one_grouped_kind(std::span<const LinearTarget> targets) {
  const WeightType type = targets.front().weight->type;
  return type != WeightType::kF32 && std::ranges::all_of(targets, [&](const LinearTarget& target) {
           return target.weight->type == type;
         });
}

std::unique_ptr<const GroupedProducts> choose_grouped(ProductKernels kernels) {
  if (kernels == ProductKernels::kBest) {
    if (auto amx = make_amx_products()) return amx;
  }
  if (kernels != ProductKernels::kVector) {
    if (auto avx512 = make_avx512_products()) return avx512;
  }
  return make_vector_products();
}

}  // namespace

LinearProducts::LinearProducts(ProductKernels kernels) : grouped_(choose_grouped(kernels)) {
  if (kernels == ProductKernels::kBest) f32_ = make_library_products();
  if (f32_ == nullptr) f32_ = make_own_products();
}

bool LinearProducts::has_native_bf16() const {
  return grouped_->row_format(WeightType::kBF16) == RowFormat::kBF16;
}

LinearWeight LinearProducts::pack(const HostView& weight, WeightType type, const HostMemory& memory,
                                  ThreadPool& threads) const {
  VOLLEY_ASSERT(weight.shape.rank() == 2);
  return type == WeightType::kF32 ? pack_f32(weight, memory) : pack_weight(weight, type, memory, threads);
}

PackedBytes LinearProducts::packed_bytes(const Shape& shape, WeightType type) const {
  if (type != WeightType::kF32) {
    const PackedExtents extents(shape[0], shape[1], type);
    return {.data = extents.panel_bytes(), .beside = extents.scale_bytes()};
  }
  const PanelPlan plan(shape[0], shape[1]);
  return {.data = static_cast<int64_t>(sizeof(PackedHeader)) +
                  (plan.panels - 1) * header_of(plan, *f32_).panel_stride + f32_->packed_bytes(plan.last)};
}

LinearWeight LinearProducts::pack_f32(const HostView& weight, const HostMemory& memory) const {
  const int64_t out_features = weight.shape[0], in_features = weight.shape[1];
  const PanelPlan plan(out_features, in_features);
  const PackedHeader header = header_of(plan, *f32_);
  if (first_non_finite(weight) >= 0) throw Error("weight with a value that is not finite");
  const std::vector<float> values = to_f32(weight);

  LinearWeight packed{.type = WeightType::kF32, .out_features = out_features, .in_features = in_features};
  packed.data = memory.allocate(packed_bytes(weight.shape, WeightType::kF32).data);
  std::memcpy(packed.data.data(), &header, sizeof(header));
  std::vector<float> transposed;
  for (int64_t p = 0; p < plan.panels; ++p) {
    const PanelShape& shape = plan.shape(p);
    transposed.assign(static_cast<size_t>(shape.depth * shape.columns), 0.0f);
    const int64_t first = p * plan.columns;
    const int64_t count = std::min(shape.columns, out_features - first);
    for (int64_t c = 0; c < count; ++c) {
      for (int64_t k = 0; k < in_features; ++k) {
        transposed[k * shape.columns + c] = values[(first + c) * in_features + k];
      }
    }
    f32_->pack(shape, transposed.data(), packed.data.data() + sizeof(header) + p * header.panel_stride);
  }
  return packed;
}

void LinearProducts::run(const LinearArgs& args, ThreadPool& threads, ScratchPool& scratch) const {
  const int64_t rows = args.out.size() / args.weight.out_features;
  VOLLEY_ASSERT(args.x.size() == rows * args.weight.in_features);
  if (rows == 0) return;
  if (args.weight.type == WeightType::kF32) {
    run_f32(args, threads, scratch);
  } else {
    const LinearTarget target{.weight = &args.weight, .bias = args.bias, .out = args.out};
    run_grouped({.x = args.x, .targets = {&target, 1}, .accumulate = args.accumulate}, threads, scratch);
  }
}

void LinearProducts::run(const LinearsArgs& args, ThreadPool& threads, ScratchPool& scratch) const {
  VOLLEY_ASSERT(!args.targets.empty());
  const LinearWeight& first = *args.targets.front().weight;
  const int64_t rows = args.x.size() / first.in_features;
  for (const LinearTarget& target : args.targets) {
    VOLLEY_ASSERT(target.weight->in_features == first.in_features);
    VOLLEY_ASSERT(target.out.size() == rows * target.weight->out_features);
  }
  if (rows == 0) return;
  if (are_one_grouped_kind(args.targets))
    return run_grouped({.x = args.x, .targets = args.targets}, threads, scratch);
  for (const LinearTarget& target : args.targets) {
    run({.x = args.x, .weight = *target.weight, .bias = target.bias, .out = target.out}, threads, scratch);
  }
}

void LinearProducts::run_f32(const LinearArgs& args, ThreadPool& threads, ScratchPool& scratch) const {
  const LinearWeight& weight = args.weight;
  const int64_t rows = args.out.size() / weight.out_features;
  const PanelPlan plan(weight.out_features, weight.in_features);
  const auto* header = reinterpret_cast<const PackedHeader*>(weight.data.data());
  const std::byte* panels = weight.data.data() + sizeof(PackedHeader);

  // Several groups of slices only where the panels alone would leave threads idle.
  const int64_t slices = divide_up(rows, kSliceRows);
  const int64_t groups = std::min(slices, divide_up(4 * threads.threads(), plan.panels));
  const double guess = product_guess(rows, weight.out_features * weight.in_features * 4);
  const ScratchPool::ThreadLease tiles(scratch, threads.threads(), plan.tile_bytes());
  share_items(threads, plan.panels * groups, guess, [&](int64_t item, int64_t thread) {
    const int64_t panel = item / groups, group = item % groups;
    const PanelShape& shape = plan.shape(panel);
    const int64_t first = panel * plan.columns;
    const int64_t columns = std::min(plan.columns, weight.out_features - first);
    auto* tile = tiles.of<float>(thread);
    for (int64_t s = slices * group / groups; s < slices * (group + 1) / groups; ++s) {
      const int64_t begin = s * kSliceRows;
      const int64_t count = std::min(kSliceRows, rows - begin);
      f32_->multiply({.shape = shape,
                      .rows = count,
                      .x = args.x.data + begin * weight.in_features,
                      .panel = panels + panel * header->panel_stride,
                      .out = tile});
      store_tile({.tile = tile,
                  .tile_stride = shape.columns,
                  .rows = count,
                  .columns = columns,
                  .bias = args.bias.data == nullptr ? nullptr : args.bias.data + first,
                  .accumulate = args.accumulate,
                  .out = args.out.data + begin * weight.out_features + first,
                  .out_stride = weight.out_features});
    }
  });
}

namespace {

// Rows [rows, width] as a grouped kernel reads them, padded with zeros to `depth`; quantised ones with their
// scales.
struct SourceRows {
  RowFormat format = RowFormat::kBF16;
  int64_t rows = 0;
  int64_t width = 0;
  int64_t depth = 0;
  std::byte* values = nullptr;  // [rows, depth]
  float* scales = nullptr;      // [rows, depth / 32]
  float* sums = nullptr;        // [rows, depth / 32], for q4_1
};

void convert_row(const float* x, const SourceRows& to, int64_t row) {
  std::byte* out = to.values + row * to.depth * row_element_bytes(to.format);
  switch (to.format) {
    case RowFormat::kRoundedF32: {
      auto* values = reinterpret_cast<float*>(out);
      round_to_bf16(x, to.width, values);
      std::fill(values + to.width, values + to.depth, 0.0f);
      return;
    }
    case RowFormat::kBF16: {
      auto* values = reinterpret_cast<uint16_t*>(out);
      convert_to_bf16(x, to.width, values);
      std::fill(values + to.width, values + to.depth, uint16_t{0});
      return;
    }
    case RowFormat::kSigned8:
    case RowFormat::kBiased8:
    case RowFormat::kInterleaved16:
      const int64_t first = row * (to.depth / kDepthStep);
      QuantizeRowArgs args{.x = x,
                           .width = to.width,
                           .format = to.format,
                           .out = out,
                           .scales = to.scales + first,
                           .sums = to.sums == nullptr ? nullptr : to.sums + first};
      if (to.format == RowFormat::kInterleaved16) {
        const int64_t slice = row / kSliceRows * kSliceRows;
        const RowBlocks blocks(std::min(kSliceRows, to.rows - slice), kInterleavedRows);
        const int64_t block = blocks.of(row - slice), begin = slice + blocks.begin(block);
        args.out = reinterpret_cast<int16_t*>(to.values) + begin * to.depth + (row - begin) * 4;
        args.quad_stride = blocks.size(block) * 4;
      }
      quantize_row(args);
      return;
  }
}

}  // namespace

// Parts of the weights: enough for the threads, small enough for the cache, in steps that the kernels like.
struct LinearProducts::GroupedParts {
  GroupedParts(const GroupedArgs& args, RowFormat format, int64_t threads)
      : like(*args.targets.front().weight),
        rows(args.x.size() / like.in_features),
        shared(kGroupColumns, like.in_features, like.type),
        held_rows(round_up(rows, kRowTile)),
        row_bytes(shared.depth * row_element_bytes(format)),
        blocks(shared.depth / kDepthStep) {
    constexpr int64_t kGroupStep = 4;
    for (const LinearTarget& target : args.targets) {
      all_groups += divide_up(target.weight->out_features, kGroupColumns);
    }
    const int64_t sharing = round_up(divide_up(all_groups, 16 * threads), kGroupStep);
    const int64_t fitting =
        std::max(kGroupStep, kPanelBytes / shared.group_bytes() / kGroupStep * kGroupStep);
    groups = std::min(sharing, fitting);
    for (const LinearTarget& target : args.targets) count += of(target);
  }

  int64_t of(const LinearTarget& target) const {
    return divide_up(target.weight->out_features, groups * kGroupColumns);
  }
  // Of the rows as kernels read them, with their scales and sums; of what a thread multiplies at once.
  int64_t source_bytes() const { return held_rows * (row_bytes + 2 * blocks * 4); }
  int64_t tile_bytes() const { return kSliceRows * groups * kGroupColumns * 4; }

  const LinearWeight& like;
  int64_t rows = 0;
  PackedExtents shared;  // what all targets have in common: a group
  int64_t held_rows = 0;
  int64_t row_bytes = 0;
  int64_t blocks = 0;      // of a row
  int64_t all_groups = 0;  // of all targets
  int64_t groups = 0;      // of a part
  int64_t count = 0;       // of parts
};

void LinearProducts::reserve(const LinearArgs& args, int64_t threads, ScratchPool& scratch) const {
  const LinearTarget target{.weight = &args.weight, .bias = args.bias, .out = args.out};
  reserve(LinearsArgs{.x = args.x, .targets = {&target, 1}}, threads, scratch);
}

void LinearProducts::reserve(const LinearsArgs& args, int64_t threads, ScratchPool& scratch) const {
  if (args.x.size() == 0) return;
  const auto reserve_grouped = [&](std::span<const LinearTarget> targets) {
    const WeightType type = targets.front().weight->type;
    const GroupedParts parts({.x = args.x, .targets = targets}, grouped_->row_format(type), threads);
    const auto source = scratch.take(parts.source_bytes());
    ScratchPool::ThreadLease(scratch, threads, parts.tile_bytes());
  };
  if (are_one_grouped_kind(args.targets)) return reserve_grouped(args.targets);
  for (const LinearTarget& target : args.targets) {
    const LinearWeight& weight = *target.weight;
    if (weight.type != WeightType::kF32) {
      reserve_grouped({&target, 1});
    } else {
      ScratchPool::ThreadLease(scratch, threads,
                               PanelPlan(weight.out_features, weight.in_features).tile_bytes());
    }
  }
}

void LinearProducts::run_grouped(const GroupedArgs& args, ThreadPool& threads, ScratchPool& scratch) const {
  const RowFormat format = grouped_->row_format(args.targets.front().weight->type);
  const GroupedParts parts(args, format, threads.threads());
  const PackedExtents& shared = parts.shared;
  const int64_t width = parts.like.in_features, rows = parts.rows, blocks = parts.blocks,
                row_bytes = parts.row_bytes, part_groups = parts.groups;
  const auto source = scratch.take(parts.source_bytes());
  auto* row_scales = reinterpret_cast<float*>(source.as<std::byte>() + parts.held_rows * row_bytes);
  const SourceRows converted{
      .format = format,
      .rows = rows,
      .width = width,
      .depth = shared.depth,
      .values = source.as<std::byte>(),
      .scales = row_scales,
      .sums = parts.like.type == WeightType::kQ4_1 ? row_scales + parts.held_rows * blocks : nullptr};
  share_ranges(threads, rows, static_cast<double>(rows * shared.depth) * 0.1,
               [&](int64_t begin, int64_t end) {
                 for (int64_t r = begin; r < end; ++r) convert_row(args.x.data + r * width, converted, r);
               });

  const int64_t slices = divide_up(rows, kSliceRows);
  const int64_t shares = std::min(slices, divide_up(4 * threads.threads(), parts.count));
  const int64_t offset = 0;
  const ScratchPool::ThreadLease tiles(scratch, threads.threads(), parts.tile_bytes());
  const double guess = product_guess(rows, parts.all_groups * shared.group_bytes());
  share_items(threads, parts.count * shares, guess, [&](int64_t item, int64_t thread) {
    const int64_t share = item % shares;
    int64_t part = item / shares;
    const LinearTarget* target = args.targets.data();
    for (; part >= parts.of(*target); ++target) part -= parts.of(*target);
    const LinearWeight& weight = *target->weight;
    const int64_t group = part * part_groups;
    const int64_t groups = std::min(part_groups, divide_up(weight.out_features, kGroupColumns) - group);
    const int64_t first = group * kGroupColumns;
    auto* tile = tiles.of<float>(thread);
    for (int64_t s = slices * share / shares; s < slices * (share + 1) / shares; ++s) {
      const int64_t begin = s * kSliceRows;
      const int64_t count = std::min(kSliceRows, rows - begin);
      const GroupedProductArgs product{
          .rows = count,
          .x = converted.values + begin * row_bytes,
          .row_stride = shared.depth,
          .offsets = &offset,
          .segment_depth = shared.depth,
          .row_scales = converted.scales + begin * blocks,
          .row_sums = converted.sums == nullptr ? nullptr : converted.sums + begin * blocks,
          .panels = weight.data.data() + group * shared.group_bytes(),
          .scales = reinterpret_cast<const uint16_t*>(weight.scales.data()) + group * shared.group_scales(),
          .groups = groups,
          .following = divide_up(weight.out_features, kGroupColumns) - group - groups,
          .out = tile};
      if (weight.type == WeightType::kBF16) {
        grouped_->multiply_bf16(product);
      } else if (weight.type == WeightType::kQ8_0) {
        grouped_->multiply_q8_0(product);
      } else {
        grouped_->multiply_q4_1(product);
      }
      store_tile({.tile = tile,
                  .tile_stride = groups * kGroupColumns,
                  .rows = count,
                  .columns = std::min(groups * kGroupColumns, weight.out_features - first),
                  .bias = target->bias.data == nullptr ? nullptr : target->bias.data + first,
                  .accumulate = args.accumulate,
                  .out = target->out.data + begin * weight.out_features + first,
                  .out_stride = weight.out_features});
    }
  });
}

}  // namespace volley
