// Products with bf16 weights of Phase::kEncoder by wgmma, of any number of rows: an output is one chain over
// the inputs, in order, whatever the tile.
#include <algorithm>
#include <array>

#include "core/backend/cuda/chain_groups.cuh"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/rounded_tiles.cuh"

namespace volley::cuda {
namespace {

// What a tile takes in a block, in nanoseconds, as measured on an H100: two steps of inputs, and what
// surrounds them.
struct TileCost {
  int two_steps;
  int rest;
};

// Launches the shape whose tiles take the least in all; `cut(shape)` cuts the outputs. Shapes differ in time
// alone.
template <typename CutOutputs>
void multiply(const ManyRows& rows, const Stream& stream, const CutOutputs& cut) {
  int64_t least = INT64_MAX;
  void (*best)(const ManyRows&, const Stream&, const CutOutputs&) = nullptr;
  const auto offer = [&]<typename Shape>(Shape shape, const TileCost& cost) {
    const int64_t tiles = ceil_div(rows.count, Shape::kRows) * cut(shape).tiles();
    const int64_t of_tile = int64_t{cost.two_steps} * ceil_div(rows.packed.steps, 2);
    const int64_t time = ceil_div(tiles, stream.processors) * (of_tile + cost.rest);
    if (time >= least) return;
    least = time;
    best = [](const ManyRows& r, const Stream& s, const CutOutputs& c) {
      launch_chains<Shape>(c(Shape()), r, s);
    };
  };
  offer(ChainShape<1, 2, 4>(), {160, 900});
  offer(ChainShape<1, 2, 8>(), {245, 1000});
  offer(ChainShape<2, 1, 12>(), {290, 1500});
  offer(ChainShape<2, 1, 16>(), {360, 1900});
  offer(TurnShape(), {425, 800});
  best(rows, stream, cut);
}

}  // namespace

void multiply_chains(const ManyRows& rows, const LinearsArgs& args, Accumulate accumulate,
                     const Stream& stream) {
  multiply(rows, stream,
           [&]<typename Shape>(Shape) { return LinearTiles(args, accumulate, Shape::kPanels * kTileOut); });
}

void multiply_gelu_chains(const ManyRows& rows, const LinearsArgs& args, const PackedRows& out,
                          const Stream& stream) {
  multiply(rows, stream,
           [&]<typename Shape>(Shape) { return GeluTiles(args, out, Shape::kPanels * kTileOut); });
}

void multiply_chains(const ManyRows& rows, const LinearsArgs& args, const DensePlanes& out,
                     const Stream& stream) {
  multiply(rows, stream,
           [&]<typename Shape>(Shape) { return DenseTiles(args, out, Shape::kPanels * kTileOut); });
}

// ---- What encoders do at once

namespace {

bool are_chains(WeightType type, Phase phase) {
  return type == WeightType::kBF16 && phase == Phase::kEncoder;
}
int64_t rows_of(const LayerNormArgs& norm) {
  return norm.x.size() / norm.weight.size();
}
int64_t packed_bytes(const LayerNormArgs& norm) {
  return PackedRows::bytes(rows_of(norm), norm.weight.size());
}
PackedRows packed_rows(std::byte* data, int64_t width) {
  return {.data = reinterpret_cast<uint4*>(data), .steps = static_cast<int>(width / kStep)};
}
void multiply_packed(const PackedRows& packed, int64_t rows, const LinearArgs& args, const Stream& stream) {
  const std::array targets{LinearTarget{.weight = &args.weight, .bias = args.bias, .out = args.out}};
  multiply_chains({packed, rows}, {.x = args.x, .targets = targets}, args.accumulate, stream);
}

}  // namespace

bool takes_activated_feed_forward_bf16(const ActivatedFeedForwardArgs& args) {
  const LinearWeight& up = args.up.weight;
  return args.activation == Activation::kGeluErf && are_chains(up.type, args.up.phase) &&
         are_chains(args.down.weight.type, args.down.phase) && takes_packed_layer_norm(args.norm) &&
         up.out_features % kStep == 0;
}

int64_t activated_feed_forward_bytes(const ActivatedFeedForwardArgs& args) {
  return packed_bytes(args.norm) + PackedRows::bytes(rows_of(args.norm), args.up.weight.out_features);
}

void launch_activated_feed_forward_bf16(const ActivatedFeedForwardArgs& args, std::byte* scratch,
                                        const Stream& stream) {
  const int64_t rows = rows_of(args.norm);
  const PackedRows normed = packed_rows(scratch, args.up.weight.in_features),
                   activated = packed_rows(scratch + packed_bytes(args.norm), args.up.weight.out_features);
  launch_packed_layer_norm(args.norm, normed, stream);
  const std::array targets{LinearTarget{.weight = &args.up.weight, .bias = args.up.bias, .out = args.up.out}};
  multiply_gelu_chains({normed, rows}, {.x = args.up.x, .targets = targets}, activated, stream);
  multiply_packed(activated, rows, args.down, stream);
}

bool takes_dense_self_attention_bf16(const DenseSelfAttentionArgs& args, const Abilities& abilities) {
  const LinearsArgs& projections = args.projections;
  const auto takes = [&](const LinearTarget& target) {
    return are_chains(target.weight->type, projections.phase) &&
           target.weight->out_features == args.attention.q.shape[2] * kDenseWidth;
  };
  const Shape& queries = args.attention.q.shape;
  return takes_dense_planes(args.attention, abilities) &&
         std::ssize(projections.targets) == DensePlanes::kCount &&
         std::ranges::all_of(projections.targets, takes) && rows_of(args.norm) == queries[0] * queries[1] &&
         args.output.weight.in_features == queries[2] * kDenseWidth &&
         are_chains(args.output.weight.type, args.output.phase) && takes_packed_layer_norm(args.norm);
}

int64_t dense_self_attention_bytes(const DenseSelfAttentionArgs& args) {
  return std::max(packed_bytes(args.norm),
                  PackedRows::bytes(rows_of(args.norm), args.output.weight.in_features)) +
         dense_planes(args.attention, nullptr).bytes();
}

void launch_dense_self_attention_bf16(const DenseSelfAttentionArgs& args, std::byte* scratch,
                                      const Stream& stream) {
  const int64_t rows = rows_of(args.norm);
  const DensePlanes planes = dense_planes(args.attention, scratch);
  scratch += planes.bytes();
  // What attention gives lies where the normed rows were.
  const PackedRows normed = packed_rows(scratch, args.norm.weight.size()),
                   mixed = packed_rows(scratch, args.output.weight.in_features);
  launch_packed_layer_norm(args.norm, normed, stream);
  multiply_chains({normed, rows}, args.projections, planes, stream);
  launch_dense_planes(planes, mixed, nullptr, stream);
  multiply_packed(mixed, rows, args.output, stream);
}

}  // namespace volley::cuda
