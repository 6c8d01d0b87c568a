#include "core/backend/cpu/linear.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/backend/cpu/elementwise.h"
#include "core/backend/cpu/grouped_linear.h"
#include "core/backend/cpu/packed_weight.h"
#include "core/backend/cpu/parallel.h"
#include "core/backend/cpu/product_parts.h"
#include "core/io/convert.h"

namespace volley {
namespace {

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
    run_grouped_linear({.x = args.x, .targets = {&target, 1}, .accumulate = args.accumulate},
                       {.products = *grouped_, .threads = threads, .scratch = scratch});
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
    return run_grouped_linear({.x = args.x, .targets = args.targets},
                              {.products = *grouped_, .threads = threads, .scratch = scratch});
  for (const LinearTarget& target : args.targets) {
    run({.x = args.x, .weight = *target.weight, .bias = target.bias, .out = target.out}, threads, scratch);
  }
}

bool LinearProducts::run(const NormedLinearsArgs& args, ThreadPool& threads, ScratchPool& scratch) const {
  const GroupedLinearArgs products{.x = args.norm.x, .targets = args.linears.targets, .norm = &args.norm};
  if (args.norm.x.size() == 0 || !are_one_grouped_kind(products.targets) ||
      !norms_rows(products, *grouped_, threads.threads()))
    return false;
  run_grouped_linear(products, {.products = *grouped_, .threads = threads, .scratch = scratch});
  return true;
}

bool LinearProducts::run(const GatedLinearsArgs& args, ThreadPool& threads, ScratchPool& scratch) const {
  const std::array targets{args.gate, args.up};
  if (args.x.size() == 0 || !are_one_grouped_kind(targets)) return false;
  run_grouped_linear({.x = args.x, .targets = targets, .gated = args.out},
                     {.products = *grouped_, .threads = threads, .scratch = scratch});
  return true;
}

bool LinearProducts::run(const NormedGatedLinearsArgs& args, ThreadPool& threads,
                         ScratchPool& scratch) const {
  const std::array targets{args.linears.gate, args.linears.up};
  const GroupedLinearArgs products{
      .x = args.norm.x, .targets = targets, .norm = &args.norm, .gated = args.linears.out};
  if (args.norm.x.size() == 0 || !are_one_grouped_kind(targets) ||
      !norms_rows(products, *grouped_, threads.threads()))
    return false;
  run_grouped_linear(products, {.products = *grouped_, .threads = threads, .scratch = scratch});
  return true;
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

void LinearProducts::reserve(const LinearArgs& args, int64_t threads, ScratchPool& scratch) const {
  const LinearTarget target{.weight = &args.weight, .bias = args.bias, .out = args.out};
  reserve(LinearsArgs{.x = args.x, .targets = {&target, 1}}, threads, scratch);
}

void LinearProducts::reserve(const LinearsArgs& args, int64_t threads, ScratchPool& scratch) const {
  if (args.x.size() == 0) return;
  if (are_one_grouped_kind(args.targets))
    return reserve_grouped_linear({.x = args.x, .targets = args.targets}, *grouped_, threads, scratch);
  for (const LinearTarget& target : args.targets) {
    const LinearWeight& weight = *target.weight;
    if (weight.type != WeightType::kF32) {
      reserve_grouped_linear({.x = args.x, .targets = {&target, 1}}, *grouped_, threads, scratch);
    } else {
      ScratchPool::ThreadLease(scratch, threads,
                               PanelPlan(weight.out_features, weight.in_features).tile_bytes());
    }
  }
}

void LinearProducts::reserve(const GatedLinearsArgs& args, int64_t threads, ScratchPool& scratch) const {
  const std::array targets{args.gate, args.up};
  if (args.x.size() == 0) return;
  if (!are_one_grouped_kind(targets)) return reserve({.x = args.x, .targets = targets}, threads, scratch);
  reserve_grouped_linear({.x = args.x, .targets = targets, .gated = args.out}, *grouped_, threads, scratch);
}

}  // namespace volley
