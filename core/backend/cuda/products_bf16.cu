// Products with bf16 weights on tensor cores: which kernel takes them, and how weights and rows are packed.
// An output has the same bits from all kernels: the joined sums of its slices (row_parts.cuh), times the
// row's scale if it is normed.
#include "core/backend/cuda/products_bf16.cuh"

#include <array>

#include "core/backend/cuda/kernels.h"

namespace volley::cuda {
namespace {

__global__ void pack_bf16(const float* weight, int64_t out, int64_t in, int64_t steps, int64_t count,
                          uint16_t* packed) {
  await_previous();
  const int64_t i = int64_t{blockIdx.x} * 256 + threadIdx.x;
  if (i >= count) return;
  const int64_t value = i % kLaneInputs, lane = block_place(static_cast<int>(i / kLaneInputs % kWarp)),
                step = i / (kLaneInputs * kWarp) % steps, panel = i / (kLaneInputs * kWarp * steps);
  const int64_t n = panel * kTileOut + lane / 4, k = step * kStep + lane % 4 * kLaneInputs + value;
  const __nv_bfloat16 rounded = __float2bfloat16_rn(n < out && k < in ? weight[n * in + k] : 0.0f);
  packed[i] = __bfloat16_as_ushort(rounded);
}

// Rounds rows, weighted if kNormed, whose scales it finds then: a block takes eight, each of its warps every
// kRoundWarps-th step.
constexpr int kRoundWarps = 16;

struct RoundRows {
  InputRows rows;
  NormWeights norm;  // if kNormed
  PackedRows packed;
  float* scales;  // if kNormed: of all rows that are packed
};

template <bool kNormed>
__global__ void __launch_bounds__(kRoundWarps* kWarp) round_rows(RoundRows args) {
  extern __shared__ float partials[];  // if kNormed; then the norm's weights
  const InputRows& rows = args.rows;
  const int steps = rows.steps(), lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t row = int64_t{blockIdx.x} * 8 + lane / 4;
  const HeldNorm weight(partials + steps * 8);
  if constexpr (kNormed) {
    weight.hold(args.norm, rows);
    __syncthreads();
  }
  await_previous();
#pragma unroll 4
  for (int step = warp; step < steps; step += kRoundWarps) {
    LaneInputs inputs = rows.load(row, step, lane);
    if constexpr (kNormed) {
      hold_squares<1>(inputs, step, steps, 0, partials);
      inputs = weighted(inputs, weight.load(step, lane));
    }
    args.packed.part(blockIdx.x, step)[block_place(lane)] = rounded(inputs);
  }
  if constexpr (kNormed) {
    __syncthreads();
    static_assert(kRoundWarps >= 8);
    if (warp >= 8) return;
    const float scale = args.norm.scale(sum_of_squares(partials + warp, steps, 8));
    if (lane == 0) args.scales[int64_t{blockIdx.x} * 8 + warp] = scale;
  }
}

int64_t packed_rows(int64_t rows) {
  return ceil_div(rows, kTileRows) * kTileRows;
}

// Packs the rows to `scratch` unless they are.
ManyRows many_rows(const BF16Products& products, std::byte* scratch, const Stream& stream) {
  const InputRows& rows = products.rows;
  if (products.packed != nullptr) return {.packed = *products.packed, .count = rows.count};
  const PackedRows packed{reinterpret_cast<uint4*>(scratch), rows.steps()};
  const bool norms = products.norm != nullptr;
  auto* const scales =
      norms ? reinterpret_cast<float*>(scratch + PackedRows::bytes(rows.count, rows.in_features)) : nullptr;
  launch(
      "round rows", norms ? round_rows<true> : round_rows<false>,
      Geometry{.grid = dim3(static_cast<unsigned>(packed_rows(rows.count) / 8)),
               .threads = kRoundWarps * kWarp,
               .shared_bytes = norms ? rms_partials_bytes(rows, 1) + HeldNorm::bytes(rows) : 0},
      stream,
      RoundRows{
          .rows = rows, .norm = norms ? *products.norm : NormWeights{}, .packed = packed, .scales = scales});
  return {.packed = packed, .count = rows.count, .scales = scales};
}

// Whether the few-row kernel takes them. A norm needs all of the inputs in shared memory.
bool takes_few_rows(int64_t rows, int64_t in_features, bool norms, bool has_wgmma) {
  constexpr int64_t kMostNormed = 8192;
  const bool few =
      rows <= (has_wgmma && in_features > kSlices * kStep ? kMostFewRowsBesideWgmma : kMostFewRows);
  return few && (!norms || in_features <= kMostNormed);
}

// Rows of a product, and the norm that comes first, if any.
class NormedRows {
 public:
  NormedRows(ConstTensor x, const RmsNormArgs* norm, const LinearWeight& weight)
      : products_{.rows = input_rows(norm != nullptr ? norm->x : x, weight)} {
    if (norm == nullptr) return;
    weights_ = norm_weights(*norm);
    products_.norm = &weights_;
  }
  // Rows that are packed.
  NormedRows(const PackedRows& packed, int64_t rows, const LinearWeight& weight)
      : products_{.rows = {nullptr, weight.in_features, rows}, .packed = &packed} {}
  NormedRows(const NormedRows&) = delete;
  NormedRows& operator=(const NormedRows&) = delete;

  const BF16Products& products() const { return products_; }
  int64_t count() const { return products_.rows.count; }
  bool few(const Stream& stream) const {
    return takes_few_rows(count(), products_.rows.in_features, products_.norm != nullptr, stream.has_wgmma);
  }

 private:
  NormWeights weights_;
  BF16Products products_;
};

void multiply(const NormedRows& rows, const LinearsArgs& args, Accumulate accumulate, std::byte* scratch,
              const Stream& stream) {
  if (args.phase == Phase::kEncoder && stream.has_wgmma) {
    VOLLEY_ASSERT(rows.products().norm == nullptr);  // chains have no scales
    return multiply_chains(many_rows(rows.products(), scratch, stream), args, accumulate, stream);
  }
  if (rows.few(stream)) return multiply_few_rows(rows.products(), args, accumulate, stream);
  const ManyRows many = many_rows(rows.products(), scratch, stream);
  if (stream.has_wgmma && row_groups_take(many)) return multiply_row_groups(many, args, accumulate, stream);
  multiply_many_rows(many, args, accumulate, stream);
}

void multiply_gated(const NormedRows& rows, const GatedLinearsArgs& args, const PackedRows* out,
                    std::byte* scratch, const Stream& stream) {
  if (rows.few(stream)) return multiply_few_rows(rows.products(), args, out, stream);
  const ManyRows many = many_rows(rows.products(), scratch, stream);
  if (stream.has_wgmma && row_groups_take(many)) return multiply_row_groups(many, args, out, stream);
  multiply_many_rows(many, args, out, stream);
}

}  // namespace

int64_t rounded_rows_bytes(int64_t rows, int64_t in_features) {
  return PackedRows::bytes(rows, in_features) + packed_rows(rows) * static_cast<int64_t>(sizeof(float));
}

void launch_products_bf16(const LinearsArgs& args, const RmsNormArgs* norm, Accumulate accumulate,
                          std::byte* scratch, const Stream& stream) {
  const NormedRows rows(args.x, norm, *args.targets.front().weight);
  if (rows.count() == 0) return;
  multiply(rows, args, accumulate, scratch, stream);
}

void launch_normed_rows_linear_bf16(const NormedRowsLinearArgs& args, std::byte* scratch,
                                    const Stream& stream) {
  const auto with_products = [args](const auto& f) {
    const LinearArgs& linear = args.linear;
    const std::array targets{LinearTarget{.weight = &linear.weight, .bias = linear.bias, .out = linear.out}};
    return f(LinearsArgs{.x = linear.x, .targets = targets, .phase = linear.phase});
  };
  const auto launch_parts = [args, scratch, with_products](const Stream& on) {
    launch_gather_rows(args.rows, on);
    with_products([&](const LinearsArgs& products) {
      launch_products_bf16(products, &args.norm, Accumulate::kAssign, scratch, on);
    });
  };
  const NormWeights norm = norm_weights(args.norm);
  const PickedRows picked{.ids = args.rows.ids.data, .table_rows = args.rows.table.shape[0]};
  const InputRows rows{args.rows.table.data, args.linear.weight.in_features, args.rows.ids.size()};
  const bool is_taken = with_products([&](const LinearsArgs& products) {
    return program_takes({.rows = rows, .norm = &norm}, picked, products, launch_parts, stream);
  });
  if (!is_taken) launch_parts(stream);
}

void launch_gated_products_bf16(const GatedLinearsArgs& args, const RmsNormArgs* norm, std::byte* scratch,
                                const Stream& stream) {
  const NormedRows rows(args.x, norm, *args.gate.weight);
  if (rows.count() == 0) return;
  multiply_gated(rows, args, nullptr, scratch, stream);
}

bool takes_feed_forward_bf16(const LinearWeight& gate) {
  return gate.out_features % kStep == 0;
}

int64_t feed_forward_bytes(int64_t rows, const LinearWeight& gate) {
  return PackedRows::bytes(rows, gate.out_features) + rounded_rows_bytes(rows, gate.in_features);
}

void launch_feed_forward_bf16(const FeedForwardArgs& args, std::byte* scratch, const Stream& stream) {
  const LinearWeight& gate = *args.gates.linears.gate.weight;
  const NormedRows rows(args.gates.linears.x, &args.gates.norm, gate);
  if (rows.count() == 0) return;
  const PackedRows gated{.data = reinterpret_cast<uint4*>(scratch),
                         .steps = static_cast<int>(ceil_div(gate.out_features, kStep))};
  scratch += PackedRows::bytes(rows.count(), gate.out_features);
  multiply_gated(rows, args.gates.linears, &gated, scratch, stream);
  const std::array targets{
      LinearTarget{.weight = &args.down.weight, .bias = args.down.bias, .out = args.down.out}};
  multiply(NormedRows(gated, rows.count(), args.down.weight),
           {.x = args.down.x, .targets = targets, .phase = args.down.phase}, args.down.accumulate, scratch,
           stream);
}

namespace {

// Few rows are more where wgmma does not take them.
bool are_few_rows(const AttentionInputsArgs& args, const Abilities& abilities) {
  const RmsNormArgs& norm = args.projections.norm;
  return takes_few_rows(norm.x.size() / norm.weight.size(), norm.weight.size(), true,
                        abilities.has_wgmma && row_groups_take(args));
}

}  // namespace

bool takes_attention_inputs_bf16(const AttentionInputsArgs& args, const Abilities& abilities) {
  if (are_few_rows(args, abilities)) return few_rows_take(args);
  return abilities.has_wgmma && row_groups_take(args);
}

void launch_attention_inputs_bf16(const AttentionInputsArgs& args, std::byte* scratch, const Stream& stream) {
  const NormedLinearsArgs& projections = args.projections;
  const NormedRows rows(projections.linears.x, &projections.norm,
                        *projections.linears.targets.front().weight);
  if (rows.count() == 0) return;
  if (are_few_rows(args, stream)) return multiply_few_rows(rows.products(), args, stream);
  multiply_row_groups(many_rows(rows.products(), scratch, stream), args, stream);
}

bool takes_attention_output_bf16(const AttentionOutputArgs& args) {
  const int64_t width = args.attention.q.shape[2];
  return args.attention.plane.type == CacheType::kBF16 && args.output.weight.type == WeightType::kBF16 &&
         takes_bf16_vectors(width) && width % kStep == 0;
}

int64_t attention_output_bytes(int64_t rows, const LinearWeight& output) {
  return PackedRows::bytes(rows, output.in_features);
}

void launch_attention_output_bf16(const AttentionOutputArgs& args, std::byte* scratch, const Stream& stream) {
  const LinearWeight& weight = args.output.weight;
  VOLLEY_ASSERT(weight.in_features == args.attention.q.shape[1] * args.attention.q.shape[2]);
  const PackedRows mixed{.data = reinterpret_cast<uint4*>(scratch),
                         .steps = static_cast<int>(weight.in_features / kStep)};
  launch_bf16_attention(args.attention, mixed, stream);
  const std::array targets{LinearTarget{.weight = &weight, .bias = args.output.bias, .out = args.output.out}};
  multiply(NormedRows(mixed, args.attention.q.shape[0], weight),
           {.x = args.output.x, .targets = targets, .phase = args.output.phase}, args.output.accumulate,
           nullptr, stream);
}

int64_t packed_elements_bf16(int64_t out, int64_t in) {
  return panels_of(out) * kTileOut * ceil_div(in, kStep) * kStep;
}

void launch_pack_bf16(const float* weight, int64_t out, int64_t in, uint16_t* packed, const Stream& stream) {
  const int64_t count = packed_elements_bf16(out, in);
  launch("pack bf16", pack_bf16, blocks_of(count, 256), 256, stream, weight, out, in, ceil_div(in, kStep),
         count, packed);
}

}  // namespace volley::cuda
