#pragma once

// The parts that transformer models share: norms, attention over a cache, feed-forward, output head. Each is
// its weights and one function that reads `x` and adds to or fills another tensor.
//
// Letters in shapes: R rows, H query heads, G key/value heads, D head width, F feed-forward width.

#include <array>
#include <cstdint>
#include <type_traits>

#include "core/nn/rope_table.h"
#include "core/nn/step.h"
#include "core/nn/weights.h"

namespace volley {

struct RmsNorm {
  Weight weight;  // [W]
  float eps = 1e-5f;

  RmsNormArgs of(ConstTensor x, Tensor out) const {
    return {.x = x, .weight = weight.view(), .eps = eps, .out = out};
  }
  void apply(Queue& queue, ConstTensor x, Tensor out) const { queue.rms_norm(of(x, out)); }
};

RmsNorm load_rms_norm(WeightLoader& loader, const std::string& name, int64_t width, float eps);

struct LayerNorm {
  Weight weight;  // [W]
  Weight bias;    // [W]
  float eps = 1e-5f;

  LayerNormArgs of(ConstTensor x, Tensor out) const {
    return {.x = x, .weight = weight.view(), .bias = bias.view(), .eps = eps, .out = out};
  }
  void apply(Queue& queue, ConstTensor x, Tensor out) const { queue.layer_norm(of(x, out)); }
};
LayerNorm load_layer_norm(WeightLoader& loader, const std::string& name, int64_t width, float eps);

// The parts of a model are aggregates of each other. An aggregate within another is written with its name,
// `.attn = SelfAttention{.q = ...}`: with braces alone, GCC 12 destroys its members twice when a later one
// throws, as a missing tensor does.

// A product with an optional bias.
struct Linear {
  LinearWeight weight;
  Weight bias;

  void apply(Queue& queue, Phase phase, ConstTensor x, Tensor out,
             Accumulate accumulate = Accumulate::kAssign) const {
    queue.linear(of(phase, x, out, accumulate));
  }
  LinearArgs of(Phase phase, ConstTensor x, Tensor out, Accumulate accumulate = Accumulate::kAssign) const {
    return {
        .x = x, .weight = weight, .bias = bias.view(), .phase = phase, .accumulate = accumulate, .out = out};
  }
  // The same among several products of the same rows.
  LinearTarget target(Tensor out) const { return {.weight = &weight, .bias = bias.view(), .out = out}; }
};

// A model's last norm and the product behind it.
struct NormedHead {
  RmsNorm norm;
  Linear linear;

  // logits [n, vocab] of x [n, dim], as write_logits makes them of the rows that it picks.
  void apply(Queue& queue, Arena& arena, Phase phase, ConstTensor x, Tensor logits) const {
    const Tensor normed = arena.tensor(x.shape);  // [n, dim]
    const std::array targets{linear.target(logits)};
    queue.normed_linears(
        {.norm = norm.of(x, normed), .linears = {.x = normed, .targets = targets, .phase = phase}});
  }
};

enum class Bias : uint8_t { kNone, kLoaded };
// NAME.weight [out, in] and, if wanted, NAME.bias [out].
Linear load_linear(WeightLoader& loader, const std::string& name, int64_t out, int64_t in,
                   Bias bias = Bias::kNone);

struct AttentionShape {
  int64_t heads = 0;       // H
  int64_t kv_heads = 0;    // G
  int64_t head_width = 0;  // D
};

// Rotary embedding as an attention layer applies it; `table` null: none.
struct Rope {
  const RopeTable* table = nullptr;
  RopeLayout layout = RopeLayout::kSplitHalf;

  RopeArgs of(Indices positions, Tensor x) const {
    return {
        .cos = table->cos.view(), .sin = table->sin.view(), .positions = positions, .layout = layout, .x = x};
  }
  void apply(Queue& queue, Indices positions, Tensor x) const {
    if (table != nullptr) queue.rope(of(positions, x));
  }
};

// One use of an attention layer: which layer of the model it is (for taps) and which cached layer it reads.
struct AttentionCall {
  const StepInputs& in;
  const StepOutputs& out;
  AttentionShape shape;
  int32_t layer = 0;
  int64_t plane = 0;
  int64_t first_row = 0;          // row of the step that row 0 of `x` is
  const RmsNorm* norm = nullptr;  // of the rows, before all else; null: none
  ConstTensor x;                  // [R, dim]
  Tensor residual;                // [R, dim], added to; may be x
};

// Attention of a step's rows over their sequence's cache.
struct SelfAttention {
  Linear q;                // [H D, dim]
  Linear k;                // [G D, dim]
  Linear v;                // [G D, dim]
  Linear out;              // [dim, H D]
  RmsNorm q_norm, k_norm;  // per head, [D]; empty: none

  // residual += out(attention(x)); writes the rows' keys and values to cached layer `plane`.
  void apply(const AttentionCall& call, const Rope& rope) const;
};

// Keys and values that several layers read.
struct SharedKeysValues {
  Linear k;  // [G D, dim]
  Linear v;  // [G D, dim]

  // Writes the rows' keys and values to cached layer `plane`; `residual` is not used.
  void write(const AttentionCall& call, const Rope& rope) const;
};

// Attention of a step's rows over their sequence's cache, whose keys and values somebody else wrote.
struct QueryAttention {
  Linear q;    // [H D, dim]
  Linear out;  // [dim, H D]

  // residual += out(attention(x)) over cached layer `plane`.
  void apply(const AttentionCall& call, const Rope& rope) const;
};

// Attention of a step's rows over their sequence's memory. Keys and values of the memory come from `project`.
struct CrossAttention {
  Linear q;    // [H D, dim]
  Linear k;    // [H D, memory dim]
  Linear v;    // [H D, memory dim]
  Linear out;  // [dim, H D]

  // residual += out(attention(x)) over layer `plane` of the memory cache.
  void apply(const AttentionCall& call) const;
  // Writes keys and values of `memory` rows, laid out by `tables`, to layer `plane` of `cache`.
  void project(Queue& queue, Arena& arena, const AttentionShape& shape, ConstTensor memory,
               const KvCache& cache, const StepTables& tables, int64_t plane) const;
};

// down(silu(gate y) * up y) of y = norm(x).
struct SwiGlu {
  Linear gate;  // [F, dim]
  Linear up;    // [F, dim]
  Linear down;  // [dim, F]

  // x += down(...), x [R, dim].
  void apply(Queue& queue, Arena& arena, Phase phase, const RmsNorm& norm, Tensor x) const;
};

// fc2(gelu(fc1 y)) of y = norm(x), the feed-forward of Whisper.
struct GeluFeedForward {
  Linear fc1;  // [F, dim]
  Linear fc2;  // [dim, F]

  // x += fc2(...), x [R, dim].
  void apply(Queue& queue, Arena& arena, Phase phase, const LayerNorm& norm, Tensor x) const;
};

// out[r] = the table's row ids[r]; rows whose id is negative are left as they are.
void gather_rows(Queue& queue, const Embedding& table, Indices ids, Tensor out);

// Embeds a step's rows: token ids by the table, given vectors as they are. Returns x [rows, dim] for the
// first `rows` rows of the step.
Tensor embed_rows(const StepInputs& in, ConstTensor table, int64_t rows);
Tensor embed_rows(const StepInputs& in, const Embedding& embedding, int64_t rows);

// Copies the hidden states behind `layer` to whoever wants them.
void tap_hidden(const StepInputs& in, const StepOutputs& out, int32_t layer, ConstTensor x);

// Fills out.logits from x [R, dim]: picks the wanted rows, applies `norm` and `head`; or picks out.head_rows.
// Hands the rows behind `norm` to whoever wants them.
template <typename Norm>
void write_logits(const StepInputs& in, const StepOutputs& out, const Norm& norm, const Linear& head,
                  ConstTensor x) {
  for (const HiddenTap& tap : out.hidden) {
    if (tap.layer == kLastNorm) norm.apply(in.queue, x, tap.out.rows(0, x.shape[0]));
  }
  const int64_t count = out.logits_rows.size();
  if (count == 0) return;
  const Tensor picked =
      out.head_rows.data != nullptr ? out.head_rows : in.arena.tensor({count, x.shape[-1]});  // [n, dim]
  const GatherRowsArgs rows{.table = x, .ids = out.logits_rows, .out = picked};
  if (out.logits.data == nullptr) return in.queue.gather_rows(rows);
  if constexpr (std::is_same_v<Norm, RmsNorm>) {
    in.queue.normed_rows_linear(
        {.rows = rows, .norm = norm.of(picked, picked), .linear = head.of(in.phase, picked, out.logits)});
  } else {
    in.queue.gather_rows(rows);
    norm.apply(in.queue, picked, picked);
    head.apply(in.queue, in.phase, picked, out.logits);
  }
}

}  // namespace volley
