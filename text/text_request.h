#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/decode/context_shift.h"
#include "core/decode/decoder.h"
#include "core/io/json.h"
#include "text/constraint/text_constraint.h"
#include "text/text_model.h"

namespace volley::text {

inline constexpr int64_t kMaxTokens = 1 << 24;  // of an answer
inline constexpr int64_t kMaxPrompts = 1000000;
inline constexpr double kMaxCfgScale = 1000.0;

enum class Check : uint8_t { kNo, kYes };

// How an answer goes on that fills the model's context: its first tokens stay, and of the rest the later half
// (ContextShift). A prompt that is too long is treated alike.
struct ShiftRule {
  static constexpr int64_t kWholePrompt = -1;
  // First tokens of the prompt that stay, or kWholePrompt. None: those before the first words that someone
  // says, which are the start of the text and the system prompt, where the chat format puts it there.
  std::optional<int64_t> keep;
};

// What one answer is made of, besides what a request's answers have in common.
struct TextPrompt {
  std::string text;                   // to be continued, where the request names no chat format
  std::vector<ChatMessage> messages;  // else: a conversation that ends with what a user says
  uint64_t seed = 0;
};

// What makes a run's tokens what they are, besides the weights and the storage they are multiplied in. Each
// prompt can be answered alone.
struct TextRequest {
  std::string model;        // its name
  std::string draft_model;  // the name of the small one that drafts; empty: the decoder has none
  std::string heads;        // the name of the draft heads; empty: the decoder has none
  std::optional<ChatFormat> chat_format;  // none: plain completion
  std::vector<TextPrompt> prompts;
  int64_t max_tokens = 256;                // of an answer; the model's context may end it earlier
  std::optional<ShiftRule> context_shift;  // none: a full context ends an answer
  std::vector<std::string> stops;          // texts that end an answer, and are no part of it
  // What an answer has to be; none: anything. Does not go with `stops`.
  std::optional<TextConstraint> constraint;
  DecoderSpec decoder;       // every option stated
  double temperature = 0.8;  // 0: greedy
  int64_t top_k = 40;        // 0: all
  double top_p = 0.95;       // 1: all
  // Of masked models: a second answer, to a prompt of hidden places, is what the first is led away from;
  // logits become u + (cfg_scale + 1) (c - u), as LLaDA's code counts it. 0: there is none.
  double cfg_scale = 0.0;
  Check check = Check::kNo;  // decode again sequentially and compare the tokens
};

// What the model asks of a method, and options of the method that were given by flags of their own, as
// "block_length" by --block-length.
struct MethodNeeds {
  ModelKind kind = ModelKind::kCausal;
  std::map<std::string, std::string> options;
};

// Fills `request.decoder` from what --decoder takes; "auto" is the method of a diffusion model, heads where
// the request names draft heads, else lookup, both with drafts of adaptive length. Empty: not said; then
// draft, with adaptive lengths too, where the request names a draft model and no heads, else as "auto". No
// draft will be longer than `draft_max`. A draft model and heads that the method does not use are left out of
// the request. Throws Error kUsage for methods that cannot run a model of this kind, for an option that the
// method lacks or that is given twice, for a method that lacks its draft model or heads, for context shifts
// of a diffusion model, for a constraint that its method does not keep, and for a check of a method that does
// not promise sequential decoding's tokens.
void choose_decoder(const std::string& decoder, TextRequest& request,
                    std::optional<int64_t> draft_max = std::nullopt, const MethodNeeds& needs = {});

// The format of a model's conversations: that of this name; or, for an empty name, the one of the template
// that came with it, none if none came. Throws Error kUsage for an unknown name or template.
std::optional<ChatFormat> choose_chat_format(const TextCheckpoint& checkpoint, const std::string& name);

// A prompt's tokens. Throws Error for one that is empty, not UTF-8, beyond the chat format, holds the mask
// token, or leaves no room for an answer in the model's context where that does not shift.
std::vector<int32_t> encode_prompt(const TextCheckpoint& checkpoint, const TextRequest& request,
                                   const TextPrompt& prompt);

// What stays of such a prompt and its answer when the context is full; none where the request does not ask
// for that. Throws Error if next to nothing would change.
std::optional<ContextShift> shift_of(const TextCheckpoint& checkpoint, const TextRequest& request,
                                     const TextPrompt& prompt, const std::vector<int32_t>& tokens);

// Tokens that the answer to a prompt of so many may have.
int64_t answer_limit(const TextCheckpoint& checkpoint, const TextRequest& request, int64_t prompt_tokens);

// What a prompt says, for messages: its text, or the last thing said.
const std::string& last_words(const TextPrompt& prompt);

// The fields of the `--json` schema. `read_text_request` throws Error "<subject>: key ..."; `subject` is that
// of `fields`.
nlohmann::json to_json(const TextRequest& request);
TextRequest read_text_request(const JsonFields& fields, const std::string& subject);

}  // namespace volley::text
