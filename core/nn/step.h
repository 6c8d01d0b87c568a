#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/nn/arena.h"
#include "core/nn/kv_cache.h"

namespace volley {

// ---- What a caller asks for

enum class RowKind : uint8_t {
  kToken,      // a token id, embedded by the model
  kEmbedding,  // a given vector
  kQuery,      // only asks: has a position, writes no key and value, is seen by no other row
};

// One new row of a sequence. Positions are free of cache order and have as many components as the model
// states.
struct StepRow {
  RowKind kind = RowKind::kToken;
  int32_t token = -1;
  std::array<int32_t, 3> position{};

  bool operator==(const StepRow&) const = default;
};

// Who sees whom among the new rows of a sequence. Query rows are seen by nobody, whatever the mask.
enum class MaskKind : uint8_t {
  kCausal,       // row i sees rows 0 .. i
  kFull,         // every row sees every row
  kBlockCausal,  // row i sees the rows of its own and earlier blocks of `block` rows
  kTree,         // row i sees itself and its ancestors by `parents`
  kBits,         // row i sees row j where bits[i * rows + j]
};

// Which keys the rows of a sequence see: committed entries below `context`, and new rows by the mask.
struct Visibility {
  MaskKind kind = MaskKind::kCausal;
  int64_t block = 0;
  std::vector<int32_t> parents;  // of each row, an earlier row or -1
  std::vector<uint8_t> bits;
  int32_t context = kAllContext;
};

// What becomes of the rows' keys and values.
enum class CacheWrite : uint8_t {
  kNone,     // the other rows of this step see them, then they are gone
  kScratch,  // appended behind the committed entries until `commit`
  kReplace,  // written over committed entries `replaced`, one for each row
};

struct AttentionTap {
  int32_t layer = 0;
  int32_t head = 0;
  bool operator==(const AttentionTap&) const = default;
};

// In place of a layer: the rows behind the model's last norm, which its output head reads.
inline constexpr int32_t kLastNorm = -1;

// What a step shall hand out for a sequence.
struct WantedOutputs {
  std::vector<int32_t> logits;                // rows
  std::vector<int32_t> hidden_layers;         // hidden states behind these layers or kLastNorm, all rows
  std::vector<AttentionTap> attention;        // attention weights on the sequence's own keys
  std::vector<AttentionTap> cross_attention;  // attention weights on the memory
};

// One sequence's part of a step.
struct SequenceStep {
  SequenceId sequence = SequenceId::kNone;
  Phase phase = Phase::kDecode;
  std::vector<StepRow> rows;
  std::vector<float> embeddings;  // [embedding rows, dim], in row order
  Visibility visibility;
  CacheWrite write = CacheWrite::kScratch;
  std::vector<int32_t> replaced;
  int32_t guidance = -1;                  // index in the step of the unconditional partner, or -1
  SequenceId memory = SequenceId::kNone;  // in the session's memory cache
  std::vector<int32_t> layers;            // subset to run, increasing; empty: all
  WantedOutputs wanted;
};

// ---- What a model says of itself

// Row kinds and masks a model was built for; a step with others is refused.
struct ModelTraits {
  std::string family;
  int64_t vocab_size = 0;     // width of the logits
  int64_t token_rows = 0;     // token ids a row may hold: vocabulary, then conditions and special ids
  int64_t dim = 0;            // width of embedding rows and hidden states
  int64_t layers = 0;         // that `layers` may choose from
  int64_t cached_layers = 0;  // planes of the cache
  int64_t heads = 0;          // query heads
  int64_t kv_heads = 0;
  int64_t head_width = 0;
  // Storage of the products' weights.
  WeightType weight_type = WeightType::kF32;
  int64_t memory_layers = 0;        // planes of the memory cache; 0: takes no memory
  int64_t memory_width = 0;         // of an encoder's output rows
  int64_t position_components = 1;  // 1 to 3
  int64_t max_position = 0;         // every component is below this
  int64_t logit_shift = 1;          // row at position p predicts position p + shift
  int32_t query_token = -1;         // whose embedding a query row starts from; -1: the model decides
  std::vector<RowKind> row_kinds;
  std::vector<RowKind> logit_kinds;  // kinds of rows that have logits; empty: all
  std::vector<MaskKind> masks;
};

// ---- What a model gets

struct HiddenTap {
  int32_t layer = 0;  // or kLastNorm
  Tensor out;         // [R, dim]
};

struct AttentionTapOutput {
  AttentionTap tap;
  Tensor out;  // [R, max keys]
};

// A step in the backend's memory. Rows of all sequences follow each other: token and embedding rows first,
// query rows last. Everything that changes between steps of one shape is read from device memory at fixed
// addresses.
struct StepInputs {
  Queue& queue;
  Arena& arena;
  const KvCache& cache;
  const KvCache* memory = nullptr;
  Phase phase = Phase::kDecode;
  int64_t rows = 0;        // R
  int64_t query_rows = 0;  // of them, at the end
  Indices tokens;          // [R], query_token for query rows, negative where there is no token
  ConstTensor embeddings;  // [R, dim] for embedding rows, or data == nullptr
  Indices positions;       // [R, components]
  StepTables tables;
  std::span<const int32_t> layers;  // to run, increasing

  int64_t content_rows() const { return rows - query_rows; }
};

struct StepOutputs {
  Indices logits_rows;  // [n] rows whose logits are wanted
  Tensor logits;        // [n, vocab], or data == nullptr: those of StepModel::head come later
  Tensor head_rows;     // [n, dim] then, which it reads: in front of the last norm
  std::span<const HiddenTap> hidden;
  std::span<const AttentionTapOutput> attention;
  std::span<const AttentionTapOutput> cross_attention;
};

// Rows of an encoder's output that a model's cross-attention shall read, laid out in the memory cache.
struct MemoryInputs {
  Queue& queue;
  Arena& arena;
  const KvCache& cache;
  ConstTensor rows;   // [T, width of the memory]
  StepTables tables;  // one sequence of T scratch rows
};

struct NormedHead;

// A network that turns new rows and a cache into logits. Config and weights, nothing else: const, shareable,
// and without cache, sampler, loop or tokenizer.
class StepModel {
 public:
  virtual ~StepModel() = default;
  virtual const ModelTraits& traits() const = 0;
  // Runs the rows of one step. Called by Session, which has checked the step against the traits.
  virtual void step(const StepInputs& in, const StepOutputs& out) const = 0;
  // What makes logits of the last layer's rows, if there is nothing else to it: a step may then be asked for
  // those rows in place of logits. Default: null.
  virtual const NormedHead* head() const { return nullptr; }
  // Writes the keys and values of a memory to the memory cache. Only for models with memory_layers.
  virtual void project_memory(const MemoryInputs& in) const;
  // Position of the row at index `index` of a sequence (prompt first). Default: the index itself.
  virtual std::array<int32_t, 3> position(int64_t index) const { return {static_cast<int32_t>(index), 0, 0}; }
};

}  // namespace volley
