// Products with bf16 weights on tensor cores: which kernel takes them, and how weights are packed. An output
// has the same bits from both kernels: the joined sums of its slices (row_parts.cuh).
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
  const int64_t value = i % kLaneInputs, lane = i / kLaneInputs % kWarp,
                step = i / (kLaneInputs * kWarp) % steps, panel = i / (kLaneInputs * kWarp * steps);
  const int64_t n = panel * kTileOut + lane / 4, k = step * kStep + lane % 4 * kLaneInputs + value;
  const __nv_bfloat16 rounded = __float2bfloat16_rn(n < out && k < in ? weight[n * in + k] : 0.0f);
  packed[i] = __bfloat16_as_ushort(rounded);
}

// Whether the few-row kernel takes them. A norm needs all of the inputs in shared memory.
bool takes_few_rows(int64_t rows, int64_t in_features, bool norms) {
  constexpr int64_t kMostNormed = 8192;
  return rows <= kMostFewRows && (!norms || in_features <= kMostNormed);
}

// Rows of a product, and the norm that comes first, if any.
class NormedRows {
 public:
  NormedRows(ConstTensor x, const RmsNormArgs* norm, const LinearWeight& weight)
      : products_{.rows = input_rows(norm != nullptr ? norm->x : x, weight)} {
    if (norm == nullptr) return;
    weights_ = {.weight = norm->weight.data, .eps = norm->eps};
    products_.norm = &weights_;
  }
  // Rows that are packed.
  NormedRows(const PackedRows& packed, int64_t rows, const LinearWeight& weight)
      : products_{.rows = {nullptr, weight.in_features, rows}, .packed = &packed} {}
  NormedRows(const NormedRows&) = delete;
  NormedRows& operator=(const NormedRows&) = delete;

  const BF16Products& products() const { return products_; }
  int64_t count() const { return products_.rows.count; }
  bool few() const { return takes_few_rows(count(), products_.rows.in_features, products_.norm != nullptr); }

 private:
  NormWeights weights_;
  BF16Products products_;
};

void multiply(const NormedRows& rows, const LinearsArgs& args, Accumulate accumulate, std::byte* scratch,
              const Stream& stream) {
  if (rows.few()) return multiply_few_rows(rows.products(), args, accumulate, stream);
  multiply_many_rows(rows.products(), args, accumulate, scratch, stream);
}

void multiply_gated(const NormedRows& rows, const GatedLinearsArgs& args, const PackedRows* out,
                    std::byte* scratch, const Stream& stream) {
  if (rows.few()) return multiply_few_rows(rows.products(), args, out, stream);
  multiply_many_rows(rows.products(), args, out, scratch, stream);
}

}  // namespace

int64_t rounded_rows_bytes(int64_t rows, int64_t in_features) {
  return takes_few_rows(rows, in_features, true) ? 0 : PackedRows::bytes(rows, in_features);
}

void launch_products_bf16(const LinearsArgs& args, const RmsNormArgs* norm, Accumulate accumulate,
                          std::byte* scratch, const Stream& stream) {
  const NormedRows rows(args.x, norm, *args.targets.front().weight);
  if (rows.count() == 0) return;
  multiply(rows, args, accumulate, scratch, stream);
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
  multiply(NormedRows(gated, rows.count(), args.down.weight), {.x = args.down.x, .targets = targets},
           args.down.accumulate, scratch, stream);
}

bool takes_attention_inputs_bf16(const AttentionInputsArgs& args) {
  const RmsNormArgs& norm = args.projections.norm;
  return takes_few_rows(norm.x.size() / norm.weight.size(), norm.weight.size(), true) && few_rows_take(args);
}

void launch_attention_inputs_bf16(const AttentionInputsArgs& args, const Stream& stream) {
  const NormedLinearsArgs& projections = args.projections;
  const NormedRows rows(projections.linears.x, &projections.norm,
                        *projections.linears.targets.front().weight);
  if (rows.count() > 0) multiply_few_rows(rows.products(), args, stream);
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
