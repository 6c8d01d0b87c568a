#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/decode/constraint.h"
#include "core/decode/logits_chain.h"
#include "core/nn/step.h"

namespace volley {

// Rows that stand before the output.
struct PromptRows {
  std::vector<StepRow> rows;
  std::vector<float> embeddings;  // of the embedding rows
};

// An output token that is known before decoding begins.
struct GivenToken {
  int32_t position = 0;  // in the output
  int32_t token = -1;
};

// One output to be made.
struct Generation {
  PromptRows prompt;
  std::optional<PromptRows> unconditional;  // the guidance partner's prompt
  LogitsChain chain;
  uint64_t seed = 0;
  uint32_t stream = 0;  // tells generations of one seed apart
  int64_t max_tokens = 0;
  std::vector<int32_t> stop_tokens;
  // Asked behind each final token, in output order and once each, whether the output ends with it. Methods
  // that decide from left to right ask, and diffusion; empty: nothing else ends it.
  std::function<bool(int32_t token)> ends_with;
  // What the output may be; null: anything. Tokens that break it are taken out before the chain's filters.
  // The output ends where it is whole and nothing may follow. Methods that decide from left to right keep it,
  // and diffusion, which fails at once where no output of max_tokens does; the others refuse it.
  std::shared_ptr<const Constraint> constraint;
  // Index in the sequence of the first output token, which names its position; negative: the prompt's length.
  int64_t first_index = -1;
  // Output tokens that came before, where it goes on with an output: its tokens have the noise of the places
  // behind those.
  int64_t output_offset = 0;
  SequenceId memory = SequenceId::kNone;
  std::vector<int32_t>
      order;  // of output positions, for methods with a free order; empty: drawn from the noise
  // Kept as they are and seen by all others, by methods with a free order; each position at most once.
  std::vector<GivenToken> given;
  int32_t mask_token = -1;  // of masked models
  int32_t pad_token = -1;   // of masked models: not part of a candidate's score
  int64_t mask_block = 0;   // of models of hidden places that were trained to fill so many together

  // Whether final token `token`, the `count`-th, ends the output by what is said above, constraints left
  // out. Asks `ends_with`.
  bool ends_at(int32_t token, int64_t count) const;
};

// What came of it.
struct GenerationOutput {
  std::vector<int32_t> tokens;  // in output order
  bool finished = false;        // false: the run was stopped before the end
  bool is_whole = true;         // the constraint accepts it, a stop token at its end left out
  bool is_complete = false;     // it is whole, and the constraint lets nothing follow
  int64_t forwards = 0;         // decode passes this generation took part in, the prompt's not counted
  int64_t rows = 0;             // rows it had in them (of one of a guidance pair)
  int64_t shifts = 0;           // times that its context was full and a part of it dropped (context_shift.h)
  float score = 0.0f;           // methods that choose among candidates: the chosen one's
};

// Throws Error naming the field that no method can run: an empty prompt, no output, a stream beyond the
// noise's 24 bits.
void check_generations(std::span<const Generation> generations);
// Throws Error if one has a constraint: for methods that do not keep them.
void refuse_constraints(std::span<const Generation> generations, std::string_view decoder);
// Entries of the longer of a generation's prompts.
int64_t prompt_entries(const Generation& generation);

// Token rows at the model's positions for indices `first_index`, ...
PromptRows token_prompt(const StepModel& model, std::span<const int32_t> tokens, int64_t first_index = 0);

}  // namespace volley
