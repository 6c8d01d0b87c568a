#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

#include "core/decode/kept_prompts.h"
#include "core/decode/statistics.h"
#include "core/nn/step.h"

namespace volley {

struct HostTables;

// Tokens chosen from logits, on the host.
struct Samples {
  std::vector<int32_t> tokens;         // [m]
  std::vector<float> probability;      // [m], or empty
  std::vector<float> entropy;          // [m] nats, or empty
  std::vector<float> distribution;     // [m, vocab], or empty
  std::vector<int32_t> top_tokens;     // [m, top], or empty
  std::vector<float> top_probability;  // [m, top], or empty
};
enum class WantLogits : uint8_t { kNo, kYes };
// Who reads the logits of a step. If only `sample` does, those of many rows are made there, some at a time.
enum class LogitsUse : uint8_t { kAny, kSampled };
// What comes back beside the tokens.
struct SampleWants {
  bool certainty = false;  // probability and entropy
  bool distribution = false;
  int64_t top = 0;  // likeliest tokens of each row
};

// A generation's working memory on one backend: queue, caches, scratch memory, statistics. Many sessions may
// share one model and one backend; a session is used by one thread at a time.
class Session {
 public:
  struct Options {
    int64_t sequences = 1;         // in the cache at once
    int64_t entries = 0;           // a sequence may hold
    int64_t pages = 0;             // 0: enough for all at full length
    int64_t memory_sequences = 0;  // encoder outputs at once
    int64_t memory_entries = 0;    // rows of one
    int64_t row_bucket = 1;        // steps are padded with inert rows to a multiple of this
    // Prompts whose beginnings stay in the cache for later ones that begin alike. They take room that nobody
    // else needs, and give it back.
    int64_t kept_prompts = 0;
  };

  // `model` must outlive the session. Throws Error when memory is short.
  Session(const StepModel& model, std::shared_ptr<const Backend> backend, const Options& options);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Runs new rows of some sequences together. Sequences that differ in phase or layer subset run as separate
  // passes of the same step. Outputs are valid until the next step. Throws Error naming the field the model
  // cannot run.
  void step(std::span<const SequenceStep> steps, LogitsUse use = LogitsUse::kAny);
  // Runs whole prompts on the prompt path in chunks cut at multiples of 256 entries and commits them.
  // Afterwards the logits of the i-th prompt's last row are row i of logits(), if wanted, and hidden(i,
  // layer) are the rows of its last chunk, for each of `hidden_layers`. Chunks that earlier prompts had, or
  // all of these have, in the same places run once (Options::kept_prompts): a chunk's bits depend on nothing
  // but its rows and those before it. Returns false if it was stopped between two chunks: then the sequences
  // hold parts of their prompts.
  bool prefill(std::span<const Prompt> prompts, WantLogits want = WantLogits::kYes,
               std::span<const int32_t> hidden_layers = {}, const std::stop_token& stop = {});

  // Cuts a sequence back to the first `length` rows of its prompt: drops everything from a chunk border on
  // and runs the prompt again from there, so that every row has the bits of a prompt of that length. Leaves
  // the last row's logits.
  void crop_prompt(const Prompt& prompt, int64_t length);

  // Logits of the last step, [n, vocab], in the backend's memory. Not of one for LogitsUse::kSampled.
  ConstTensor logits() const { return logits_; }
  // Which row of logits() holds the `wanted`-th wanted row of the `sequence`-th sequence of the step.
  int32_t logits_row(int64_t sequence, int64_t wanted) const {
    return first_logits_row_[static_cast<size_t>(sequence)] + static_cast<int32_t>(wanted);
  }
  // Copies of the last step's outputs.
  std::vector<float> logits_on_host(int64_t row) const;
  // Hidden states behind `layer`, or kLastNorm, of the sequence's rows, [rows, dim]; they must have been
  // wanted.
  std::vector<float> hidden(int64_t sequence, int32_t layer) const;
  // Attention weights of the sequence's rows, [rows, columns]; they must have been wanted.
  struct AttentionRows {
    int64_t columns = 0;
    std::vector<float> weights;
  };
  AttentionRows attention(int64_t sequence, AttentionTap tap) const;
  AttentionRows cross_attention(int64_t sequence, AttentionTap tap) const;

  // Chooses a token for each row, by rows of the last step's logits. Throws Error when a row has no finite
  // logit.
  Samples sample(std::span<const SampleRow> rows, std::span<const int32_t> path = {},
                 const SampleWants& wants = {});

  // Adds `bias`, [rows.size(), vocab], to rows of the last step's logits, each named once: minus infinity
  // takes a token out of the choice. Of a guidance pair the conditional row is enough.
  void add_to_logits(std::span<const int32_t> rows, std::span<const float> bias);

  // Projects an encoder's output [T, width] for the model's cross-attention. Shared by all sequences that
  // name it. Outputs of the last step are gone afterwards when the rows come from the host.
  SequenceId add_memory(ConstTensor rows);
  SequenceId add_memory(std::span<const float> rows);

  const StepModel& model() const { return model_; }
  const Backend& backend() const { return *backend_; }
  Queue& queue() { return *queue_; }
  KvCache& cache() { return cache_; }
  KvCache& memory() { return *memory_; }
  Statistics& statistics() { return statistics_; }

 private:
  // Rows of logits that are made at once at most where they are made for `sample` alone.
  static constexpr int64_t kMostLogits = 1024;
  struct Pass;
  // Reserves what the step writes; kept prompts make room.
  void reserve(const SequenceStep& step);
  // Gives the prompts what is in the cache of them, and says how many entries of each; nothing if stopped.
  std::optional<std::vector<int64_t>> take_kept(std::span<const Prompt> prompts, const std::stop_token& stop);
  // Runs each prompt from its entry `done` on; false if stopped.
  bool run_chunks(std::span<const Prompt> prompts, std::span<const int64_t> done, WantLogits want,
                  std::span<const int32_t> hidden_layers, const std::stop_token& stop);
  // Sequences of a step that run together, by index.
  using Groups = std::vector<std::vector<int32_t>>;
  static Groups passes_of(std::span<const SequenceStep> steps);
  // Where a step runs: on the session's own queue and arena, or on those of a plan, which has no tables.
  struct ExecutionContext {
    Queue& queue;
    Arena& arena;
  };
  bool is_plan(const ExecutionContext& execution) const { return &execution.arena != &arena_; }
  void run_passes(std::span<const SequenceStep> steps, const Groups& groups,
                  const ExecutionContext& execution);
  void run_pass(std::span<const SequenceStep> steps, std::span<const int32_t> indices, Pass& pass,
                const ExecutionContext& execution);
  // Gives all scratch memory back, after making sure that this step finds enough.
  void make_room(std::span<const SequenceStep> steps, const Groups& groups);
  // The sample rows from `begin` on whose logits are made together, and which logits those are.
  struct SamplePart {
    size_t end = 0;
    int64_t first_logits = 0;
    int64_t logits = 0;
  };
  static SamplePart part_of(std::span<const SampleRow> rows, size_t begin);
  struct SampleTargets {
    View<int32_t> tokens;
    Tensor probability, entropy, distribution;
    View<int32_t> top_tokens;
    Tensor top_probability;
  };
  void sample_in_parts(std::span<const SampleRow> rows, Indices path, const SampleTargets& all);
  void sample_by(ConstTensor logits, std::span<const SampleRow> rows, Indices path,
                 const SampleTargets& targets);
  // Tables of a pass in the backend's memory, by one copy.
  struct DeviceTables {
    StepTables step;
    Indices tokens;
    Indices positions;  // [R, components]
    Indices logits_rows;
  };
  DeviceTables upload_tables(const HostTables& host, size_t buffer, const ExecutionContext& execution);
  // All that the operations of a pass depend on, save the contents of the tables.
  std::vector<int64_t> recording_key(const StepInputs& in, const StepOutputs& out) const;
  Indices upload(std::vector<Buffer>& buffers, size_t slot, std::span<const int32_t> values, Shape shape);
  AttentionRows download_attention(int64_t sequence, std::span<const AttentionTapOutput> taps,
                                   AttentionTap tap) const;

  const StepModel& model_;
  std::shared_ptr<const Backend> backend_;
  std::unique_ptr<Queue> queue_;
  Options options_;
  KvCache cache_;
  KeptPrompts kept_prompts_;
  std::unique_ptr<KvCache> memory_;
  Arena arena_;
  Statistics statistics_;

  // Device tables, a buffer a pass: their addresses change only when a step outgrows them.
  std::vector<Buffer> table_buffers_;
  std::vector<int32_t> packed_tables_;  // [numbers of all tables of a pass]
  std::vector<Buffer> sample_buffers_;

  // The largest step so far: larger ones may need more scratch memory.
  int64_t most_rows_ = 0;
  int64_t most_logits_ = 0;
  int64_t logits_rows_ = 0;  // of the last step
  bool has_logits_ = true;   // all at once

  // Outputs of the last step.
  Tensor logits_;
  Tensor head_rows_;  // [n, dim] in place of logits
  std::vector<int32_t> first_logits_row_;
  struct SequenceOutputs {
    std::span<const int32_t> packed_rows;  // in the pass
    size_t pass = 0;
  };
  std::vector<SequenceOutputs> sequence_outputs_;
  std::vector<Pass> passes_;
};

}  // namespace volley
