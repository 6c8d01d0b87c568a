#include "core/backend/cpu/grouped_linear.h"

#include <algorithm>

#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/parallel.h"
#include "core/backend/cpu/product_parts.h"

namespace volley {
namespace {

// Rows [rows, width] as a grouped kernel reads them, padded with zeros to `depth`; quantised ones with their
// scales.
struct SourceRows {
  RowFormat format = RowFormat::kBF16;
  int64_t rows = 0;
  int64_t width = 0;
  int64_t depth = 0;
  std::byte* values = nullptr;  // [rows, depth]
  float* scales = nullptr;      // [depth / 32, held_rows]
  float* sums = nullptr;        // [depth / 32, held_rows], for q4_1
  int64_t held_rows = 0;
};

// Blocks [begin, end) of the depth of a row, to quants.
void quantize_blocks(const float* x, const SourceRows& to, int64_t row, int64_t begin, int64_t end) {
  const int64_t first = begin * kDepthStep, place = begin * to.held_rows + row;
  QuantizeRowArgs args{.x = x + first,
                       .width = std::min(end * kDepthStep, to.width) - first,
                       .format = to.format,
                       .out = to.values + (row * to.depth + first) * row_element_bytes(to.format),
                       .scales = to.scales + place,
                       .sums = to.sums == nullptr ? nullptr : to.sums + place,
                       .scale_stride = to.held_rows};
  if (to.format == RowFormat::kInterleaved16) {
    const int64_t slice = row / kSliceRows * kSliceRows;
    const RowBlocks blocks(std::min(kSliceRows, to.rows - slice), kInterleavedRows);
    const int64_t block = blocks.of(row - slice), block_row = slice + blocks.begin(block);
    args.quad_stride = blocks.size(block) * 4;
    args.out = reinterpret_cast<int16_t*>(to.values) + block_row * to.depth + (row - block_row) * 4 +
               first / 4 * args.quad_stride;
  }
  quantize_row(args);
}

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
    case RowFormat::kInterleaved16:
      return quantize_blocks(x, to, row, 0, to.depth / kDepthStep);
  }
}

void ask_for(const void* begin, int64_t bytes) {
  constexpr int64_t kLine = 64;
  const auto* from = static_cast<const std::byte*>(begin);
  for (int64_t at = 0; at < bytes; at += kLine) __builtin_prefetch(from + at, 0, 2);
}

bool overlap(ConstTensor a, ConstTensor b) {
  return a.data < b.data + b.size() && b.data < a.data + a.size();
}

// How much is what, and who does it.
struct Plan {
  Plan(const GroupedLinearArgs& args, const GroupedProducts& products, int64_t threads)
      : parts(args.targets,
              args.gated.data != nullptr ? ProductParts::Order::kSideBySide
                                         : ProductParts::Order::kBehindEachOther,
              threads),
        format(products.row_format(args.targets.front().weight->type)),
        rows(args.rows()),
        width(args.targets.front().weight->in_features),
        depth(parts.group().depth),
        held_rows(round_up(rows, kRowTile)),
        row_bytes(depth * row_element_bytes(format)),
        blocks(depth / kDepthStep) {
    const bool is_quantized = volley::is_quantized(args.targets.front().weight->type);
    convert_guess = static_cast<double>(rows * depth) * (is_quantized ? 0.5 : 0.1);
    if (convert_guess < kWorthSharing) sources = threads;
    converts_alone = sources == threads &&
                     (args.gated.data == nullptr || !overlap(args.x, ConstTensor(args.gated))) &&
                     std::ranges::none_of(args.targets, [&](const LinearTarget& target) {
                       return overlap(args.x, ConstTensor(target.out));
                     });
  }

  // Of the rows as kernels read them, with their scales and sums, behind a row that is normed; of what a
  // thread multiplies at once.
  int64_t source_bytes() const { return depth * 4 + held_rows * (row_bytes + 2 * blocks * 4); }
  int64_t tile_bytes() const {
    return std::min(held_rows, kSliceRows) * parts.most_groups() * kGroupColumns * 4;
  }
  SourceRows source_at(float* memory, WeightType type) const {
    auto* values = reinterpret_cast<std::byte*>(memory + depth);
    auto* scales = reinterpret_cast<float*>(values + held_rows * row_bytes);
    return {.format = format,
            .rows = rows,
            .width = width,
            .depth = depth,
            .values = values,
            .scales = scales,
            .sums = type == WeightType::kQ4_1 ? scales + held_rows * blocks : nullptr,
            .held_rows = held_rows};
  }

  ProductParts parts;
  RowFormat format;
  int64_t rows = 0, width = 0, depth = 0;
  int64_t held_rows = 0;
  int64_t row_bytes = 0;
  int64_t blocks = 0;  // of a row
  double convert_guess = 0.0;
  int64_t sources = 1;          // copies of the converted rows that there is room for
  bool converts_alone = false;  // every thread for itself: sharing would take as long
};

class GroupedLinear {
 public:
  GroupedLinear(const GroupedLinearArgs& args, const GroupedLinearContext& context)
      : args_(args),
        context_(context),
        plan_(args, context.products, context.threads.threads()),
        type_(args.targets.front().weight->type),
        sources_(context.scratch, plan_.sources, plan_.source_bytes()),
        tiles_(context.scratch, context.threads.threads(), plan_.tile_bytes()) {}

  void run() {
    if (!plan_.converts_alone) {
      VOLLEY_ASSERT(args_.norm == nullptr);
      convert_together(plan_.source_at(sources_.of<float>(0), type_));
    }
    const int64_t slices = divide_up(plan_.rows, kSliceRows);
    const int64_t shares = std::min(slices, divide_up(4 * context_.threads.threads(), plan_.parts.count()));
    const double guess = product_guess(plan_.rows, plan_.parts.weight_bytes());
    share_items(context_.threads, plan_.parts.count() * shares, guess, [&](int64_t item, int64_t thread) {
      const int64_t share = item % shares;
      multiply({.part = item / shares,
                .thread = thread,
                .begin_slice = slices * share / shares,
                .end_slice = slices * (share + 1) / shares});
    });
  }

 private:
  struct Item {
    int64_t part = 0;
    int64_t thread = 0;
    int64_t begin_slice = 0, end_slice = 0;
  };

  // Threads share out the depth of quantised rows: the scales of a block's rows lie beside each other.
  void convert_together(const SourceRows& to) const {
    const auto x = [&](int64_t row) { return args_.x.data + row * plan_.width; };
    if (is_quantized(type_)) {
      share_ranges(context_.threads, plan_.blocks, plan_.convert_guess, [&](int64_t begin, int64_t end) {
        for (int64_t r = 0; r < plan_.rows; ++r) quantize_blocks(x(r), to, r, begin, end);
      });
    } else {
      share_ranges(context_.threads, plan_.rows, plan_.convert_guess, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) convert_row(x(r), to, r);
      });
    }
  }

  // `memory` begins with a row for what the norm gives.
  void convert_alone(float* memory) const {
    const SourceRows to = plan_.source_at(memory, type_);
    for (int64_t r = 0; r < plan_.rows; ++r) {
      const float* x = args_.x.data + r * plan_.width;
      if (args_.norm != nullptr) {
        rms_norm_row({.x = x,
                      .weight = args_.norm->weight.data,
                      .width = plan_.width,
                      .eps = args_.norm->eps,
                      .out = memory});
        x = memory;
      }
      convert_row(x, to, r);
    }
  }

  void multiply(const Item& item) const {
    float* memory = sources_.of<float>(plan_.converts_alone ? item.thread : 0);
    if (plan_.converts_alone && sources_.is_first_use(item.thread)) {
      const WeightStretch first = plan_.parts.first_of(item.part);
      ask_for(first.panels, first.panel_bytes);
      ask_for(first.scales, first.scale_bytes);
      convert_alone(memory);
    }
    const SourceRows source = plan_.source_at(memory, type_);
    plan_.parts.for_runs(item.part, [&](const ProductParts::Run& run, const WeightStretch& next) {
      for (int64_t s = item.begin_slice; s < item.end_slice; ++s) {
        multiply_slice(run, next, source, s * kSliceRows, tiles_.of<float>(item.thread));
      }
      if (args_.gated.data != nullptr && run.target == &args_.targets.back()) gate(run, item);
    });
  }

  void multiply_slice(const ProductParts::Run& run, const WeightStretch& next, const SourceRows& source,
                      int64_t begin, float* tile) const {
    const LinearTarget& target = *run.target;
    const LinearWeight& weight = *target.weight;
    const PackedExtents& extents = plan_.parts.group();
    const int64_t groups = run.end - run.begin, first = run.begin * kGroupColumns;
    const int64_t count = std::min(kSliceRows, plan_.rows - begin);
    const int64_t offset = 0;
    const GroupedProductArgs product{.rows = count,
                                     .x = source.values + begin * plan_.row_bytes,
                                     .row_stride = plan_.depth,
                                     .offsets = &offset,
                                     .segment_depth = plan_.depth,
                                     .row_scales = source.scales + begin,
                                     .row_sums = source.sums == nullptr ? nullptr : source.sums + begin,
                                     .scale_stride = source.held_rows,
                                     .panels = weight.data.data() + run.begin * extents.group_bytes(),
                                     .scales = reinterpret_cast<const uint16_t*>(weight.scales.data()) +
                                               run.begin * extents.group_scales(),
                                     .groups = groups,
                                     .next = next,
                                     .out = tile};
    if (type_ == WeightType::kBF16) {
      context_.products.multiply_bf16(product);
    } else if (type_ == WeightType::kQ8_0) {
      context_.products.multiply_q8_0(product);
    } else {
      context_.products.multiply_q4_1(product);
    }
    store_tile({.tile = tile,
                .tile_stride = groups * kGroupColumns,
                .rows = count,
                .columns = std::min(groups * kGroupColumns, weight.out_features - first),
                .bias = target.bias.data == nullptr ? nullptr : target.bias.data + first,
                .accumulate = args_.accumulate,
                .out = target.out.data + begin * weight.out_features + first,
                .out_stride = weight.out_features});
  }

  void gate(const ProductParts::Run& run, const Item& item) const {
    const int64_t columns = run.target->weight->out_features, first = run.begin * kGroupColumns;
    const int64_t count = std::min(run.end * kGroupColumns, columns) - first;
    const int64_t end = std::min(item.end_slice * kSliceRows, plan_.rows);
    for (int64_t r = item.begin_slice * kSliceRows; r < end; ++r) {
      const int64_t at = r * columns + first;
      silu_mul(args_.targets[0].out.data + at, args_.targets[1].out.data + at, count, args_.gated.data + at);
    }
  }

  const GroupedLinearArgs& args_;
  const GroupedLinearContext& context_;
  const Plan plan_;
  const WeightType type_;
  const ScratchPool::ThreadLease sources_;
  const ScratchPool::ThreadLease tiles_;
};

}  // namespace

void run_grouped_linear(const GroupedLinearArgs& args, const GroupedLinearContext& context) {
  GroupedLinear(args, context).run();
}

bool norms_rows(const GroupedLinearArgs& args, const GroupedProducts& products, int64_t threads) {
  return Plan(args, products, threads).converts_alone;
}

void reserve_grouped_linear(const GroupedLinearArgs& args, const GroupedProducts& products, int64_t threads,
                            ScratchPool& scratch) {
  const Plan plan(args, products, threads);
  const ScratchPool::ThreadLease sources(scratch, plan.sources, plan.source_bytes());
  const ScratchPool::ThreadLease tiles(scratch, threads, plan.tile_bytes());
}

}  // namespace volley
