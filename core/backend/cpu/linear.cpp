#include "core/backend/cpu/linear.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/parallel.h"
#include "core/io/convert.h"

namespace volley {
namespace {

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
int64_t divide_up(int64_t value, int64_t divisor) { return (value + divisor - 1) / divisor; }

// How a weight is cut. A function of its shape and storage alone, so that the same bits come out on every call.
struct PanelPlan {
  PanelPlan(int64_t out_features, int64_t in_features, WeightType type, const PanelGranularity& granularity) {
    depth = round_up(in_features, granularity.depth);
    // A panel stays in the second-level cache beside the rows; a weight has at least eight where it is wide enough,
    // so that threads find work.
    constexpr int64_t kPanelBytes = 512 * 1024;
    constexpr int64_t kStep = 64;
    const int64_t element = type == WeightType::kF32 ? 4 : 2;
    const int64_t fitting = kPanelBytes / (depth * element) / kStep * kStep;
    const int64_t sharing = round_up(divide_up(out_features, 8), kStep);
    columns = std::max(kStep, std::min(fitting, sharing));
    panels = std::max<int64_t>(1, divide_up(out_features, columns));
    full = {.depth = depth, .columns = columns, .type = type};
    last = full;
    last.columns = std::max(granularity.least_columns,
                            round_up(out_features - (panels - 1) * columns, granularity.columns));
  }

  int64_t columns = 0;  // output features of every panel but the last
  int64_t panels = 0;
  int64_t depth = 0;
  PanelShape full, last;

  const PanelShape& shape(int64_t panel) const { return panel + 1 < panels ? full : last; }
};

// First bytes of a packed weight; the panels follow.
struct alignas(64) PackedHeader {
  int64_t panel_stride = 0;  // bytes from a panel to the next
};

}  // namespace

LinearProducts::LinearProducts(ProductKernels kernels) {
  if (kernels == ProductKernels::kOwn) return;
  library_f32_ = make_library_products(WeightType::kF32);
  library_bf16_ = make_library_products(WeightType::kBF16);
}

const PanelProducts& LinearProducts::kernels(WeightType type) const {
  const auto& library = type == WeightType::kF32 ? library_f32_ : library_bf16_;
  return library != nullptr ? *library : *own_;
}

LinearWeight LinearProducts::pack(const HostView& weight, WeightType type, const HostMemory& memory) const {
  VOLLEY_ASSERT(weight.shape.rank() == 2);
  const int64_t out_features = weight.shape[0], in_features = weight.shape[1];
  const PanelProducts& family = kernels(type);
  const PanelPlan plan(out_features, in_features, type, family.granularity(type));
  const PackedHeader header{plan.panels > 1 ? round_up(family.packed_bytes(plan.full), 64) : 0};
  const std::vector<float> values = to_f32(weight);

  LinearWeight packed{.type = type, .out_features = out_features, .in_features = in_features};
  packed.data = memory.allocate(static_cast<int64_t>(sizeof(header)) + (plan.panels - 1) * header.panel_stride +
                                family.packed_bytes(plan.last));
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
    family.pack(shape, transposed.data(), packed.data.data() + sizeof(header) + p * header.panel_stride);
  }
  return packed;
}

namespace {

// The rows as the kernel reads them: padded and rounded to bf16 where it asks for that.
void convert_sources(const LinearArgs& args, SourceFormat format, int64_t rows, int64_t depth, void* out,
                     ThreadPool& threads) {
  const int64_t real_rows = args.out.size() / args.weight.out_features;
  const int64_t width = args.weight.in_features;
  share_ranges(threads, rows, static_cast<double>(rows * depth) * 0.1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* x = args.x.data + r * width;
      const int64_t kept = r < real_rows ? width : 0;
      if (format == SourceFormat::kRoundedF32) {
        round_to_bf16(x, kept, static_cast<float*>(out) + r * depth);
      } else {
        auto* to = static_cast<uint16_t*>(out) + r * depth;
        convert_to_bf16(x, kept, to);
        std::fill(to + kept, to + depth, uint16_t{0});
      }
    }
  });
}

}  // namespace

void LinearProducts::run(const LinearArgs& args, ThreadPool& threads, ScratchPool& scratch) const {
  const LinearWeight& weight = args.weight;
  const int64_t rows = args.out.size() / weight.out_features;
  VOLLEY_ASSERT(args.x.size() == rows * weight.in_features);
  if (rows == 0) return;
  const PanelProducts& family = kernels(weight.type);
  const PanelGranularity granularity = family.granularity(weight.type);
  const PanelPlan plan(weight.out_features, weight.in_features, weight.type, granularity);
  const auto* header = reinterpret_cast<const PackedHeader*>(weight.data.data());
  const std::byte* panels = weight.data.data() + sizeof(PackedHeader);

  const SourceFormat format = family.source_format(weight.type);
  const int64_t element = format == SourceFormat::kBF16 ? 2 : 4;
  const int64_t padded_rows = round_up(rows, granularity.rows);
  const bool converts = format != SourceFormat::kF32;
  const auto converted = scratch.take(converts ? padded_rows * plan.depth * element : 0);
  const auto* x = reinterpret_cast<const std::byte*>(args.x.data);
  if (converts) {
    convert_sources(args, format, padded_rows, plan.depth, converted.as<void>(), threads);
    x = converted.as<std::byte>();
  }

  // Several groups of slices only where the panels alone would leave threads idle.
  const int64_t slices = divide_up(rows, kSliceRows);
  const int64_t groups = std::min(slices, divide_up(4 * threads.threads(), plan.panels));
  const double guess = static_cast<double>(rows * weight.out_features * weight.in_features) / 100.0;
  share_items(threads, plan.panels * groups, guess, [&](int64_t item) {
    const int64_t panel = item / groups, group = item % groups;
    const PanelShape& shape = plan.shape(panel);
    const int64_t first = panel * plan.columns;
    const int64_t columns = std::min(plan.columns, weight.out_features - first);
    const auto tile = scratch.take(kSliceRows * shape.columns * 4);
    for (int64_t s = slices * group / groups; s < slices * (group + 1) / groups; ++s) {
      const int64_t begin = s * kSliceRows;
      const int64_t count = std::min(kSliceRows, rows - begin);
      family.multiply({.shape = shape,
                       .rows = round_up(count, granularity.rows),
                       .x = x + begin * plan.depth * element,
                       .panel = panels + panel * header->panel_stride,
                       .out = tile.as<float>()});
      store_tile({.tile = tile.as<float>(),
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

}  // namespace volley
