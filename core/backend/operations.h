#pragma once

// The operations a backend offers, each with a named argument struct. They are generic: none knows a model.
// Activations are f32 between operations; every tensor is dense and row-major in the backend's memory.
//
// Letters in shapes: R rows (tokens of all sequences of a step), S sequences, H query heads, G key/value
// heads, D head width, V vocabulary, N pictures, C channels.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "core/backend/buffer.h"
#include "core/tensor/tensor.h"

namespace volley {

// Where a product stands in a generation. A backend may choose a kernel by phase and weight shape, never by
// the number of rows.
enum class Phase : uint8_t { kPrompt, kDecode, kEncoder };

// Storage of a weight for products.
//   bf16  weights and rows are rounded to bf16, sums are f32
//   q8_0  weights and rows are rounded to blocks of 32 8-bit integers with a scale (core/backend/q8_0.h)
//   q4_1  weights are rounded to blocks of 32 4-bit numbers with a scale and an offset (core/backend/q4_1.h),
//   rows as
//         with q8_0. Only where DeviceInfo::has_blocks
enum class WeightType : uint8_t { kF32, kBF16, kQ8_0, kQ4_1 };
constexpr std::string_view weight_type_name(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return "f32";
    case WeightType::kBF16:
      return "bf16";
    case WeightType::kQ8_0:
      return "q8_0";
    case WeightType::kQ4_1:
      return "q4_1";
  }
  return "?";
}
// Weights that are blocks of integers with scales.
constexpr bool is_quantized(WeightType type) {
  return type == WeightType::kQ8_0 || type == WeightType::kQ4_1;
}

// A weight [out_features, in_features] in the backend's own packed layout.
struct LinearWeight {
  Buffer data;
  Buffer scales;  // q8_0, q4_1
  WeightType type = WeightType::kF32;
  int64_t out_features = 0;
  int64_t in_features = 0;
};

// A convolution's weight [out_channels, in_channels, kernel_h, kernel_w], packed, and its bias
// [out_channels]. Storage is f32 or bf16; with bf16 the inputs are rounded too.
struct ConvWeight {
  Buffer data;
  Buffer bias;
  WeightType type = WeightType::kF32;
  int64_t out_channels = 0;
  int64_t in_channels = 0;
  int64_t kernel_h = 0;
  int64_t kernel_w = 0;
};

// out[r] = table[ids[r]]; rows whose id is negative are left as they are.
struct GatherRowsArgs {
  ConstTensor table;  // [T, W]
  Indices ids;        // [R]
  Tensor out;         // [R, W]
};

// out[r] = row ids[r] of a packed quantised weight, each value scale * quant (+ offset) rounded to f32; rows
// whose id is negative are left as they are. Only where DeviceInfo::has_blocks.
struct GatherWeightRowsArgs {
  const LinearWeight& weight;  // q8_0 or q4_1
  Indices ids;                 // [R]
  Tensor out;                  // [R, in_features]
};

// out = x.
struct CopyArgs {
  ConstTensor x;
  Tensor out;
};

// out[r] += table[ids[r]]; negative ids add nothing.
struct AddRowsArgs {
  ConstTensor table;  // [T, W]
  Indices ids;        // [R]
  Tensor out;         // [R, W]
};

// out = x * weight / sqrt(mean(x^2) + eps), per row.
struct RmsNormArgs {
  ConstTensor x;       // [R, W]
  ConstTensor weight;  // [W]
  float eps = 1e-5f;
  Tensor out;  // [R, W]; may be x
};

// out = (x - mean) / sqrt(variance + eps) * weight + bias, per row.
struct LayerNormArgs {
  ConstTensor x;       // [R, W]
  ConstTensor weight;  // [W]
  ConstTensor bias;    // [W]
  float eps = 1e-5f;
  Tensor out;  // [R, W]; may be x
};

enum class Accumulate : uint8_t { kAssign, kAdd };

// out (+)= x * weight^T + bias. Bits of out[r] depend on x[r], the weight and the phase alone.
struct LinearArgs {
  ConstTensor x;  // [R, in_features]
  const LinearWeight& weight;
  ConstTensor bias;  // [out_features], or data == nullptr
  Phase phase = Phase::kDecode;
  Accumulate accumulate = Accumulate::kAssign;
  Tensor out;  // [R, out_features]
};

// Several products of the same rows: out = x * weight^T + bias for each. Weights agree in in_features. The
// bits are those of the products one by one.
struct LinearTarget {
  const LinearWeight* weight = nullptr;
  ConstTensor bias;  // [out_features], or data == nullptr
  Tensor out;        // [R, out_features]
};
struct LinearsArgs {
  ConstTensor x;  // [R, in_features]
  std::span<const LinearTarget> targets;
  Phase phase = Phase::kDecode;
};

// out = silu(x * gate^T) * (x * up^T), both with their biases: `linears`, then `silu_mul`. The targets' own
// outputs are scratch memory of the operation.
struct GatedLinearsArgs {
  ConstTensor x;  // [R, in_features]
  LinearTarget gate;
  LinearTarget up;
  Phase phase = Phase::kDecode;
  Tensor out;  // [R, out_features]; may be the gate's output
};

// `rms_norm`, then products of what it gave: linears.x is norm.out, scratch memory of the operation that need
// not be written. No output overlaps norm.x, which others may still read while it is stored.
//
// A norm multiplies a row by its scale, 1 / rms, which a product of bf16 may also do with its sums: rounding
// x * weight errs as little as rounding x * scale * weight. A device that does so gives bits that differ from
// those of the two operations. Which of the two it does follows from the weights of the call and the phase
// alone, here and wherever an operation below has a norm in front of a product.
struct NormedLinearsArgs {
  RmsNormArgs norm;
  LinearsArgs linears;
};
struct NormedGatedLinearsArgs {
  RmsNormArgs norm;
  GatedLinearsArgs linears;
};

// `normed_gated_linears`, then `linear` of what it gave: down.x is gates.linears.out, scratch memory of the
// operation that need not be written. down.out may be gates.norm.x, which is read before.
struct FeedForwardArgs {
  NormedGatedLinearsArgs gates;
  LinearArgs down;
};

enum class Activation : uint8_t { kSilu, kGeluErf, kGeluTanh };

// x = activation(x), elementwise.
struct ActivateArgs {
  Activation activation;
  Tensor x;
};

// `layer_norm`, `linear` of what it gave, `activate`, and `linear` of that: up.x is norm.out and down.x is
// up.out, scratch memory of the operation that need not be written. down.out may be norm.x.
struct ActivatedFeedForwardArgs {
  LayerNormArgs norm;
  LinearArgs up;  // assigns
  Activation activation;
  LinearArgs down;
};

// out = silu(gate) * up, elementwise.
struct SiluMulArgs {
  ConstTensor gate;
  ConstTensor up;
  Tensor out;  // may be gate or up
};

// out = a + b, elementwise.
struct AddArgs {
  ConstTensor a;
  ConstTensor b;
  Tensor out;  // may be a or b
};

// Which two elements of a head rotate together.
enum class RopeLayout : uint8_t {
  kAdjacent,   // (2i, 2i+1), the original Llama layout
  kSplitHalf,  // (i, i + D/2), the transformers/NeoX layout
};

// Rotary embedding. Pair i of a row turns by the angle whose cosine and sine stand in the tables at
// [position component that owns pair i, column of pair i]. A row of zeros in both tables makes the head's
// vector zero, as LlamaGen's condition tokens need.
struct RopeArgs {
  ConstTensor cos;    // [P, D / 2 / components]
  ConstTensor sin;    // like cos
  Indices positions;  // [R, components]: component c owns pairs [c * D/2/components, (c+1) * D/2/components)
  RopeLayout layout = RopeLayout::kSplitHalf;
  Tensor x;  // [R, H, D], rotated in place
};

// ---- Cache and attention

inline constexpr int64_t kPageSize = 64;           // entries of a cache page
inline constexpr int64_t kKeyChunk = 256;          // keys reduced together in attention over f32
inline constexpr int32_t kAllContext = INT32_MAX;  // row_context: every committed entry
inline constexpr int32_t kNoEntry = INT32_MIN;     // row_entry: the row writes no key and value

// row_entry of a row that replaces committed entry `entry`.
constexpr int32_t replaced_entry(int32_t entry) {
  return -1 - entry;
}

// Type of cached keys and values. What is written is rounded to it (to nearest, ties to even); attention
// reads it exactly, as f32.
enum class CacheType : uint8_t { kF32, kBF16 };
constexpr int64_t cache_element_bytes(CacheType type) {
  return type == CacheType::kF32 ? 4 : 2;
}

// Keys and values of one cached layer, in pages; a head's entries of a page lie side by side.
struct CachePlane {
  std::byte* keys = nullptr;    // [pages, G, kPageSize, D] elements of `type`
  std::byte* values = nullptr;  // like keys
  Shape shape;
  CacheType type = CacheType::kF32;

  // The elements of a plane in f32.
  float* f32_keys() const { return f32(keys); }
  float* f32_values() const { return f32(values); }

 private:
  float* f32(std::byte* elements) const {
    VOLLEY_ASSERT(type == CacheType::kF32);
    return reinterpret_cast<float*>(elements);
  }
};

// Where each cached sequence's entries lie; device memory at fixed addresses.
struct CacheTables {
  View<int32_t> lengths;      // [slots] committed entries
  View<int32_t> block_table;  // [slots, pages per slot] page of each kPageSize entries
};

// Who sees what in a step; device memory at fixed addresses. The visible keys of a row, in logical order, are
// the first min(length, row_context) committed entries of its sequence, then the scratch rows
// 0 .. row_prefix - 1 of this step, then tail[row_tail_begin .. + row_tail_count). Scratch row j of a
// sequence lies at entry length + j.
struct StepTables {
  Indices row_sequence;     // [R] index of the row's sequence in this step; negative: padding, inert
  Indices row_entry;        // [R] scratch row to write, replaced_entry(e), or kNoEntry
  Indices row_context;      // [R]
  Indices row_prefix;       // [R]
  Indices row_tail_begin;   // [R]
  Indices row_tail_count;   // [R]
  Indices tail;             // scratch rows, logical order
  Indices sequence_slot;    // [S] slot of the sequence in its cache
  Indices sequence_memory;  // [S] slot in the memory cache, or negative
};

// Writes the rows' keys and values into their entries.
struct WriteCacheArgs {
  ConstTensor keys;    // [R, G, D]
  ConstTensor values;  // [R, G, D]
  const CachePlane& plane;
  const CacheTables& cache;
  const StepTables& step;
  int64_t first_row = 0;  // row 0 of `keys` is row `first_row` of the tables
};

// rope(queries), rope(keys), write_cache(write): keys.x is write.keys. There may be no queries or no keys
// (x.data == nullptr); `write` names plane and tables in any case. The rotated keys need not be left in
// keys.x.
struct RotateAndWriteArgs {
  RopeArgs queries;
  RopeArgs keys;
  WriteCacheArgs write;
};

// `gather_rows`, then `normed_linears` of what it gathers, in its place and of one product: how some rows of
// a step become logits. All ids are there, and nothing is added to (Accumulate::kAssign). What is gathered
// need not be left in `rows.out`.
struct NormedRowsLinearArgs {
  GatherRowsArgs rows;
  RmsNormArgs norm;
  LinearArgs linear;
};

// `normed_linears`, then `rotate_and_write` of its outputs: what attention reads. Outputs are queries, keys
// and values in this order; without queries the last two, without keys the first. Keys and values need not be
// left in their outputs.
struct AttentionInputsArgs {
  NormedLinearsArgs projections;
  RotateAndWriteArgs turned;
};

enum class KeySource : uint8_t {
  kSequence,  // the row's own sequence, as StepTables says
  kMemory,    // all entries of the sequence's memory
};

// out[r, h] = softmax(scale * q[r, h] . k) . v over the visible keys of row r; query head h reads key/value
// head h / (H / G). What is added to what, and when, follows from the keys' logical indices alone (in chunks
// of kKeyChunk whose partial results are joined in order, or as a device does it for a type of cache), so the
// result does not depend on where entries lie or on what else is in the step. A row that sees no key yields
// zeros.
struct AttentionArgs {
  ConstTensor q;  // [R, H, D]
  const CachePlane& plane;
  const CacheTables& cache;
  const StepTables& step;
  KeySource source = KeySource::kSequence;
  int64_t first_row = 0;  // row 0 of `q` is row `first_row` of the tables
  float scale = 1.0f;
  Tensor out;  // [R, H, D]
};

// `attention`, then `linear` of what it gave: output.x is attention.out, scratch memory of the operation that
// need not be written. What a row that attention leaves alone gets is not defined.
struct AttentionOutputArgs {
  AttentionArgs attention;
  LinearArgs output;
};

// The attention weights themselves, of one head: out[r, i] for the i-th visible key, zero beyond.
struct AttentionWeightsArgs {
  AttentionArgs attention;  // `out` unused
  int64_t head = 0;
  Tensor out;  // [R, max keys]
};

// What operands of a product between activations may be rounded to; its sums are f32.
enum class Operands : uint8_t { kF32, kBF16 };
// The operands that suit products of such weights.
constexpr Operands operands_of(WeightType weights) {
  return weights == WeightType::kBF16 ? Operands::kBF16 : Operands::kF32;
}

// Self-attention without a cache: item b's T rows see all T rows of item b. The same reduction order as
// `attention` has over f32; with bf16 operands, where a device rounds to them, an order of its own, which
// depends on T alone.
struct DenseAttentionArgs {
  ConstTensor q;  // [B, T, H, D]
  ConstTensor k;  // [B, T, H, D]
  ConstTensor v;  // [B, T, H, D]
  float scale = 1.0f;
  // kBF16: queries, keys, values and weights may be rounded. A device may keep them in f32, which is nearer.
  Operands operands = Operands::kF32;
  Tensor out;  // [B, T, H, D]
};

// `layer_norm`, `linears` of what it gave, `dense_attention` of their outputs (queries, keys and values, in
// this order), and `linear` of what that gave. norm.out, the outputs of the projections and attention.out are
// scratch memory of the operation that need not be written. output.out may be norm.x.
struct DenseSelfAttentionArgs {
  LayerNormArgs norm;
  LinearsArgs projections;
  DenseAttentionArgs attention;
  LinearArgs output;
};

// In every plane, entry move[2i+1] of slot becomes what entry move[2i] of it was; moves happen in order and
// each source is at or after its destination. Then lengths[slot] = length.
struct MoveEntriesArgs {
  std::span<const CachePlane> planes;
  CacheTables cache;
  int64_t slot = 0;
  std::span<const int32_t> moves;  // host memory; pairs (from, to)
  int32_t length = 0;
};

// In every plane, page `to` becomes a copy of page `from`.
struct CopyPageArgs {
  std::span<const CachePlane> planes;
  int32_t from = 0;
  int32_t to = 0;
};

// ---- Pictures and signals

// 2-D convolution (a signal is a picture of height 1). Padding is zeros.
struct Conv2dArgs {
  ConstTensor x;  // [N, C, h, w]
  const ConvWeight& weight;
  int64_t stride_h = 1, stride_w = 1;
  int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  Accumulate accumulate = Accumulate::kAssign;
  Tensor out;  // [N, out_channels, (h + pad_top + pad_bottom - kernel_h) / stride_h + 1, ...]
};

enum class Swish : uint8_t { kNone, kAfter };

struct GroupNormArgs {
  ConstTensor x;  // [N, C, h, w]
  int64_t groups = 32;
  float eps = 1e-6f;
  ConstTensor weight;  // [C]
  ConstTensor bias;    // [C]
  Swish swish = Swish::kNone;
  Tensor out;  // like x; may be x
};

// Every pixel becomes a 2x2 block.
struct Upsample2xArgs {
  ConstTensor x;  // [N, C, h, w]
  Tensor out;     // [N, C, 2h, 2w]
};

// Values of about -1 .. 1 as bytes (core/backend/channel_bytes.h), the channels of a point side by side.
struct ChannelBytesArgs {
  ConstTensor x;      // [N, C, h, w]
  View<uint8_t> out;  // [N, h, w, C]
};

// `group_norm`, then convolutions, at least one, of what it gave: each conv's x is norm.out, scratch memory
// of the operation that need not be written. norm.out may be norm.x, whose contents are then unspecified; a
// conv.out is neither of them.
struct NormedConvsArgs {
  GroupNormArgs norm;
  std::span<const Conv2dArgs> convs;
};

// `upsample2x`, then a convolution of what it gave: conv.x is upsample.out, scratch memory of the operation
// that need not be written. conv.out is neither of them, nor upsample.x.
struct UpsampledConvArgs {
  Upsample2xArgs upsample;
  Conv2dArgs conv;
};

// out[b, j, i] = x[b, i, j].
struct TransposeArgs {
  ConstTensor x;  // [B, I, J]
  Tensor out;     // [B, J, I]
};

// out = x / max(|x|_2, eps), per row.
struct L2NormalizeArgs {
  ConstTensor x;  // [R, W]
  float eps = 1e-12f;
  Tensor out;  // may be x
};

// ids[r] = index of the table row nearest to x[r] (Euclidean; ties go to the lowest index).
struct NearestRowsArgs {
  ConstTensor x;      // [R, W]
  ConstTensor table;  // [T, W]
  View<int32_t> ids;  // [R]
};

// ---- Sampling

enum class FilterOrder : uint32_t { kTopKTopP, kTopPTopK };

// How one row of logits becomes a token. The chain, in this order: repetition penalty, guidance, temperature,
// filters, then token = argmax(logits + Gumbel noise); ties go to the lowest id. Logits that are no finite
// number cannot be chosen; a row of nothing else gives token -1. Plain data: a table of these is uploaded
// once a step.
struct SampleRow {
  int32_t logits_row = 0;
  int32_t guidance_row = -1;    // row of the unconditional logits, or negative
  float guidance_scale = 1.0f;  // logits = u + scale * (c - u)
  float temperature = 1.0f;     // 0: greedy (no noise, filters irrelevant)
  int32_t top_k = 0;            // keep tokens whose logit is at least the k-th largest; 0: all
  float top_p = 1.0f;           // keep the smallest head of the sorted distribution with mass >= p; 1: all
  FilterOrder filter_order = FilterOrder::kTopKTopP;
  uint32_t noise_purpose = 0;  // NoisePurpose
  uint64_t seed = 0;
  uint32_t stream = 0;
  uint32_t draw = 0;
  uint32_t position = 0;
  float repetition_penalty =
      1.0f;                // divides positive and multiplies negative logits of tokens on the row's path
  int32_t path_begin = 0;  // tokens on the row's path, in SampleArgs::path
  int32_t path_count = 0;
};

struct SampleArgs {
  ConstTensor logits;          // [n, V]
  View<const SampleRow> rows;  // [m]
  Indices path;                // token ids
  View<int32_t> tokens;        // [m]
  // [m] the token's probability in the filtered distribution (greedy: unfiltered, T 1), or data == nullptr;
  // and the entropy of that distribution in nats, if the probability is wanted.
  Tensor probability;
  Tensor entropy;
  Tensor distribution;       // [m, V] that distribution, or data == nullptr
  View<int32_t> top_tokens;  // [m, n] its n likeliest tokens, likeliest first, or data == nullptr
  Tensor top_probability;    // [m, n] and their probabilities
};

}  // namespace volley
