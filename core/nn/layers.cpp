#include "core/nn/layers.h"

#include <cmath>

namespace volley {
namespace {

float attention_scale(const AttentionShape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.head_width)); }

void tap_attention(Queue& queue, const AttentionArgs& attention, int32_t layer,
                   std::span<const AttentionTapOutput> taps) {
  for (const AttentionTapOutput& wanted : taps) {
    if (wanted.tap.layer != layer) continue;
    queue.attention_weights({.attention = attention,
                             .head = wanted.tap.head,
                             .out = wanted.out.rows(0, attention.q.shape[0])});
  }
}

}  // namespace

LayerNorm load_layer_norm(WeightLoader& loader, const std::string& name, int64_t width, float eps) {
  return {.weight = loader.tensor(name + ".weight", {width}), .bias = loader.tensor(name + ".bias", {width}), .eps = eps};
}

void SelfAttention::apply(const AttentionCall& call, const Rope& rope) const {
  const StepInputs& in = call.in;
  const int64_t rows = call.x.shape[0];
  const auto [heads, kv_heads, width] = call.shape;
  const Tensor queries = in.arena.tensor({rows, heads, width});    // [R, H, D]
  const Tensor keys = in.arena.tensor({rows, kv_heads, width});    // [R, G, D]
  const Tensor values = in.arena.tensor({rows, kv_heads, width});  // [R, G, D]
  q.apply(in.queue, in.phase, call.x, queries);
  k.apply(in.queue, in.phase, call.x, keys);
  v.apply(in.queue, in.phase, call.x, values);
  if (q_norm.weight.shape.rank() > 0) {
    q_norm.apply(in.queue, queries, queries);
    k_norm.apply(in.queue, keys, keys);
  }
  const Indices positions = in.positions.rows(0, rows);
  rope.apply(in.queue, positions, queries);
  rope.apply(in.queue, positions, keys);
  const CachePlane& plane = in.cache.plane(call.plane);
  in.queue.write_cache(
      {.keys = keys, .values = values, .plane = plane, .cache = in.cache.tables(), .step = in.tables});
  const Tensor mixed = in.arena.tensor(queries.shape);  // [R, H, D]
  const AttentionArgs attention{.q = queries,
                                .plane = plane,
                                .cache = in.cache.tables(),
                                .step = in.tables,
                                .scale = attention_scale(call.shape),
                                .out = mixed};
  in.queue.attention(attention);
  tap_attention(in.queue, attention, call.layer, call.out.attention);
  out.apply(in.queue, in.phase, mixed, call.residual, Accumulate::kAdd);
}

void CrossAttention::apply(const AttentionCall& call) const {
  const StepInputs& in = call.in;
  const Tensor queries = in.arena.tensor({call.x.shape[0], call.shape.heads, call.shape.head_width});  // [R, H, D]
  q.apply(in.queue, in.phase, call.x, queries);
  const Tensor mixed = in.arena.tensor(queries.shape);  // [R, H, D]
  const AttentionArgs attention{.q = queries,
                                .plane = in.memory->plane(call.plane),
                                .cache = in.memory->tables(),
                                .step = in.tables,
                                .source = KeySource::kMemory,
                                .scale = attention_scale(call.shape),
                                .out = mixed};
  in.queue.attention(attention);
  tap_attention(in.queue, attention, call.layer, call.out.cross_attention);
  out.apply(in.queue, in.phase, mixed, call.residual, Accumulate::kAdd);
}

void CrossAttention::project(Queue& queue, Arena& arena, const AttentionShape& shape, ConstTensor memory,
                             const KvCache& cache, const StepTables& tables, int64_t plane) const {
  const Tensor keys = arena.tensor({memory.shape[0], shape.kv_heads, shape.head_width});  // [T, G, D]
  const Tensor values = arena.tensor(keys.shape);                                         // [T, G, D]
  k.apply(queue, Phase::kEncoder, memory, keys);
  v.apply(queue, Phase::kEncoder, memory, values);
  queue.write_cache({.keys = keys, .values = values, .plane = cache.plane(plane), .cache = cache.tables(), .step = tables});
}

void SwiGlu::apply(Queue& queue, Arena& arena, Phase phase, ConstTensor x, Tensor residual) const {
  const Tensor gated = arena.tensor({x.shape[0], gate.weight.out_features});  // [R, F]
  const Tensor raised = arena.tensor(gated.shape);                            // [R, F]
  gate.apply(queue, phase, x, gated);
  up.apply(queue, phase, x, raised);
  queue.silu_mul({.gate = gated, .up = raised, .out = gated});
  down.apply(queue, phase, gated, residual, Accumulate::kAdd);
}

void GeluFeedForward::apply(Queue& queue, Arena& arena, Phase phase, ConstTensor x, Tensor residual) const {
  const Tensor hidden = arena.tensor({x.shape[0], fc1.weight.out_features});  // [R, F]
  fc1.apply(queue, phase, x, hidden);
  queue.activate({.activation = Activation::kGeluErf, .x = hidden});
  fc2.apply(queue, phase, hidden, residual, Accumulate::kAdd);
}

Tensor embed_rows(const StepInputs& in, ConstTensor table, int64_t rows) {
  const Tensor x = in.arena.tensor({rows, table.shape[1]});  // [rows, dim]
  // The gather leaves rows without a token alone: they keep the given vectors.
  if (in.embeddings.data != nullptr) in.queue.copy({.x = in.embeddings.rows(0, rows), .out = x});
  in.queue.gather_rows({.table = table, .ids = in.tokens.rows(0, rows), .out = x});
  return x;
}

void tap_hidden(const StepInputs& in, const StepOutputs& out, int32_t layer, ConstTensor x) {
  for (const HiddenTap& tap : out.hidden) {
    if (tap.layer == layer) in.queue.copy({.x = x, .out = tap.out.rows(0, x.shape[0])});
  }
}

}  // namespace volley
