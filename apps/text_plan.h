#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apps/text_flags.h"
#include "text/heads_checkpoint.h"
#include "text/text_request.h"

namespace volley::apps {

// A line of the prompt file that cannot be answered.
struct LineFailure {
  int64_t line = 0;
  std::string message;
};

// What is to be done, apart from what someone says in a conversation.
struct TextPlan {
  text::TextRequest request;
  std::optional<text::TextCheckpoint> draft;   // the small model, of decoders that draft by one
  std::optional<text::HeadsCheckpoint> heads;  // of decoders that draft by heads
  std::vector<std::string> sources;            // of the prompts: "FILE:LINE"
  std::vector<int64_t> lines;                  // of the prompts
  std::vector<LineFailure> failures;
  std::vector<std::string> notes;  // what of the flags has no effect
};

// Throws Error kUsage for flags that do not go together, before anything is opened.
void refuse_contradictions(const TextFlags& flags);
// Throws Error for flags and prompts that do not fit the model; of a prompt file only if no line is left.
TextPlan make_plan(const TextFlags& flags, const text::TextCheckpoint& checkpoint);
// How many tokens its answer may have. Throws Error for a prompt that does not fit the model or its context.
int64_t check_prompt(const text::TextCheckpoint& checkpoint, const text::TextRequest& request,
                     const text::TextPrompt& prompt);
// The seed of the first prompt: --seed's, or a random one.
uint64_t first_seed(const SharedFlags& shared);
// How a request's tokens are made, in words.
std::string method_line(const text::TextRequest& request);

// Storage of a text model's weights: --dtype's; of auto, the file's blocks as they are where file and device
// have them, else weight_type_of(auto).
WeightStorage storage_of(const std::string& dtype, const text::TextCheckpoint& checkpoint,
                         const Backend& backend);

}  // namespace volley::apps
