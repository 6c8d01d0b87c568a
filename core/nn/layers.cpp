#include "core/nn/layers.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace volley {
namespace {

float attention_scale(const AttentionShape& shape) {
  return 1.0f / std::sqrt(static_cast<float>(shape.head_width));
}

void tap_attention(const AttentionCall& call, const AttentionArgs& attention,
                   std::span<const AttentionTapOutput> taps) {
  for (const AttentionTapOutput& wanted : taps) {
    if (wanted.tap.layer != call.layer) continue;
    call.in.queue.attention_weights({.attention = attention,
                                     .head = wanted.tap.head,
                                     .out = wanted.out.rows(call.first_row, attention.q.shape[0])});
  }
}

// Adds the projection of what is attended to to the residual.
void mix_into(const AttentionCall& call, const AttentionArgs& attention, const Linear& out) {
  call.in.queue.attention_output({.attention = attention,
                                  .output = {.x = attention.out,
                                             .weight = out.weight,
                                             .bias = out.bias.view(),
                                             .phase = call.in.phase,
                                             .accumulate = Accumulate::kAdd,
                                             .out = call.residual}});
}

// Keys or values of a call's rows, [R, G, D].
Tensor key_rows(const AttentionCall& call) {
  return call.in.arena.tensor({call.x.shape[0], call.shape.kv_heads, call.shape.head_width});
}
Tensor query_rows(const AttentionCall& call) {
  return call.in.arena.tensor({call.x.shape[0], call.shape.heads, call.shape.head_width});
}

struct KeysValues {
  Tensor keys;    // [R, G, D] as projected
  Tensor values;  // [R, G, D]
};

void normalize(const StepInputs& in, const RmsNorm& norm, Tensor x) {
  if (norm.weight.shape.rank() > 0) norm.apply(in.queue, x, x);
}

WriteCacheArgs written_by(const AttentionCall& call, const KeysValues& rows) {
  return {.keys = rows.keys,
          .values = rows.values,
          .plane = call.in.cache.plane(call.plane),
          .cache = call.in.cache.tables(),
          .step = call.in.tables,
          .first_row = call.first_row};
}

// How keys, and queries if there are any, turn to their positions, and where keys and values go.
RotateAndWriteArgs turns_of(const AttentionCall& call, const Rope& rope, const KeysValues& rows,
                            Tensor queries) {
  const Indices positions = call.in.positions.rows(call.first_row, call.x.shape[0]);
  return {.queries = rope.of(positions, queries),
          .keys = rope.of(positions, rows.keys),
          .write = written_by(call, rows)};
}

// Products of a call's rows, normed if it asks for that; `normed` is scratch memory then.
NormedLinearsArgs projections_of(const AttentionCall& call, std::span<const LinearTarget> targets,
                                 Tensor normed) {
  return {.norm = {.x = call.x, .weight = call.norm->weight.view(), .eps = call.norm->eps, .out = normed},
          .linears = {.x = normed, .targets = targets, .phase = call.in.phase}};
}

// The same without what attention does next.
void project_rows(const AttentionCall& call, std::span<const LinearTarget> targets) {
  if (call.norm == nullptr)
    return call.in.queue.linears({.x = call.x, .targets = targets, .phase = call.in.phase});
  call.in.queue.normed_linears(projections_of(call, targets, call.in.arena.tensor(call.x.shape)));
}

// Queries and keys of a call's rows, turned; keys and values are in the cache behind it. Either may be
// missing. `rope` has a table.
void project_and_turn(const AttentionCall& call, std::span<const LinearTarget> targets,
                      const RotateAndWriteArgs& turned) {
  if (call.norm != nullptr) {
    const Tensor normed = call.in.arena.tensor(call.x.shape);  // [R, dim]
    return call.in.queue.attention_inputs(
        {.projections = projections_of(call, targets, normed), .turned = turned});
  }
  project_rows(call, targets);
  call.in.queue.rotate_and_write(turned);
}

// `queries`: [R, H, D], turned to their positions.
void attend(const AttentionCall& call, Tensor queries, const Linear& out) {
  const StepInputs& in = call.in;
  const Tensor mixed = in.arena.tensor(queries.shape);  // [R, H, D]
  const AttentionArgs attention{.q = queries,
                                .plane = in.cache.plane(call.plane),
                                .cache = in.cache.tables(),
                                .step = in.tables,
                                .first_row = call.first_row,
                                .scale = attention_scale(call.shape),
                                .out = mixed};
  mix_into(call, attention, out);
  tap_attention(call, attention, call.out.attention);
}

}  // namespace

RmsNorm load_rms_norm(WeightLoader& loader, const std::string& name, int64_t width, float eps) {
  return {.weight = loader.tensor(name + ".weight", {width}), .eps = eps};
}

LayerNorm load_layer_norm(WeightLoader& loader, const std::string& name, int64_t width, float eps) {
  return {.weight = loader.tensor(name + ".weight", {width}),
          .bias = loader.tensor(name + ".bias", {width}),
          .eps = eps};
}

Linear load_linear(WeightLoader& loader, const std::string& name, int64_t out, int64_t in, Bias bias) {
  Linear linear{.weight = loader.linear(name + ".weight", out, in)};
  if (bias == Bias::kLoaded) linear.bias = loader.tensor(name + ".bias", {out});
  return linear;
}

void SelfAttention::apply(const AttentionCall& call, const Rope& rope) const {
  const Arena::Scope scope(call.in.arena);
  const Tensor queries = query_rows(call);  // [R, H, D]
  const KeysValues rows{.keys = key_rows(call), .values = key_rows(call)};
  const std::array targets{q.target(queries), k.target(rows.keys), v.target(rows.values)};
  const bool norms_heads = q_norm.weight.shape.rank() > 0 || k_norm.weight.shape.rank() > 0;
  if (rope.table != nullptr && !norms_heads) {
    project_and_turn(call, targets, turns_of(call, rope, rows, queries));
  } else {
    project_rows(call, targets);
    normalize(call.in, k_norm, rows.keys);
    normalize(call.in, q_norm, queries);
    if (rope.table != nullptr) {
      call.in.queue.rotate_and_write(turns_of(call, rope, rows, queries));
    } else {
      call.in.queue.write_cache(written_by(call, rows));
    }
  }
  attend(call, queries, out);
}

void SharedKeysValues::write(const AttentionCall& call, const Rope& rope) const {
  const Arena::Scope scope(call.in.arena);
  const KeysValues rows{.keys = key_rows(call), .values = key_rows(call)};
  const std::array targets{k.target(rows.keys), v.target(rows.values)};
  if (rope.table != nullptr) return project_and_turn(call, targets, turns_of(call, rope, rows, {}));
  project_rows(call, targets);
  call.in.queue.write_cache(written_by(call, rows));
}

void QueryAttention::apply(const AttentionCall& call, const Rope& rope) const {
  const Arena::Scope scope(call.in.arena);
  const Tensor queries = query_rows(call);  // [R, H, D]
  const std::array targets{q.target(queries)};
  if (rope.table != nullptr) {
    project_and_turn(call, targets, turns_of(call, rope, {}, queries));
  } else {
    project_rows(call, targets);
  }
  attend(call, queries, out);
}

void CrossAttention::apply(const AttentionCall& call) const {
  const StepInputs& in = call.in;
  const Arena::Scope scope(in.arena);
  const Tensor queries =
      in.arena.tensor({call.x.shape[0], call.shape.heads, call.shape.head_width});  // [R, H, D]
  project_rows(call, std::array{q.target(queries)});
  const Tensor mixed = in.arena.tensor(queries.shape);  // [R, H, D]
  const AttentionArgs attention{.q = queries,
                                .plane = in.memory->plane(call.plane),
                                .cache = in.memory->tables(),
                                .step = in.tables,
                                .source = KeySource::kMemory,
                                .first_row = call.first_row,
                                .scale = attention_scale(call.shape),
                                .out = mixed};
  mix_into(call, attention, out);
  tap_attention(call, attention, call.out.cross_attention);
}

void CrossAttention::project(Queue& queue, Arena& arena, const AttentionShape& shape, ConstTensor memory,
                             const KvCache& cache, const StepTables& tables, int64_t plane) const {
  const Arena::Scope scope(arena);
  const Tensor keys = arena.tensor({memory.shape[0], shape.kv_heads, shape.head_width});  // [T, G, D]
  const Tensor values = arena.tensor(keys.shape);                                         // [T, G, D]
  k.apply(queue, Phase::kEncoder, memory, keys);
  v.apply(queue, Phase::kEncoder, memory, values);
  queue.write_cache(
      {.keys = keys, .values = values, .plane = cache.plane(plane), .cache = cache.tables(), .step = tables});
}

void SwiGlu::apply(Queue& queue, Arena& arena, Phase phase, const RmsNorm& norm, Tensor x) const {
  // More rows at once need more memory and are no faster.
  constexpr int64_t kMostRows = 2048;
  for (int64_t row = 0; row < x.shape[0]; row += kMostRows) {
    const Arena::Scope scope(arena);
    const Tensor part = x.rows(row, std::min(kMostRows, x.shape[0] - row));        // [R', dim]
    const Tensor gated = arena.tensor({part.shape[0], gate.weight.out_features});  // [R', F]
    const Tensor raised = arena.tensor(gated.shape);                               // [R', F]
    const Tensor normed = arena.tensor(part.shape);                                // [R', dim]
    queue.feed_forward(
        {.gates = {.norm = {.x = part, .weight = norm.weight.view(), .eps = norm.eps, .out = normed},
                   .linears = {.x = normed,
                               .gate = gate.target(gated),
                               .up = up.target(raised),
                               .phase = phase,
                               .out = gated}},
         .down = {.x = gated,
                  .weight = down.weight,
                  .bias = down.bias.view(),
                  .phase = phase,
                  .accumulate = Accumulate::kAdd,
                  .out = part}});
  }
}

void GeluFeedForward::apply(Queue& queue, Arena& arena, Phase phase, const LayerNorm& norm, Tensor x) const {
  const Arena::Scope scope(arena);
  const Tensor normed = arena.tensor(x.shape);                                // [R, dim]
  const Tensor hidden = arena.tensor({x.shape[0], fc1.weight.out_features});  // [R, F]
  queue.activated_feed_forward({.norm = norm.of(x, normed),
                                .up = fc1.of(phase, normed, hidden),
                                .activation = Activation::kGeluErf,
                                .down = fc2.of(phase, hidden, x, Accumulate::kAdd)});
}

Tensor embed_rows(const StepInputs& in, ConstTensor table, int64_t rows) {
  const Tensor x = in.arena.tensor({rows, table.shape[1]});  // [rows, dim]
  // The gather leaves rows without a token alone: they keep the given vectors.
  if (in.embeddings.data != nullptr) in.queue.copy({.x = in.embeddings.rows(0, rows), .out = x});
  in.queue.gather_rows({.table = table, .ids = in.tokens.rows(0, rows), .out = x});
  return x;
}

void gather_rows(Queue& queue, const Embedding& table, Indices ids, Tensor out) {
  if (table.is_packed()) return queue.gather_weight_rows({.weight = table.packed, .ids = ids, .out = out});
  queue.gather_rows({.table = table.table.view(), .ids = ids, .out = out});
}

Tensor embed_rows(const StepInputs& in, const Embedding& embedding, int64_t rows) {
  if (!embedding.is_packed()) return embed_rows(in, embedding.table.view(), rows);
  const Tensor x = in.arena.tensor({rows, embedding.width()});
  if (in.embeddings.data != nullptr) in.queue.copy({.x = in.embeddings.rows(0, rows), .out = x});
  gather_rows(in.queue, embedding, in.tokens.rows(0, rows), x);
  return x;
}

void tap_hidden(const StepInputs& in, const StepOutputs& out, int32_t layer, ConstTensor x) {
  for (const HiddenTap& tap : out.hidden) {
    if (tap.layer == layer) in.queue.copy({.x = x, .out = tap.out.rows(0, x.shape[0])});
  }
}

}  // namespace volley
