#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/decode/generation.h"
#include "core/decode/observer.h"
#include "core/decode/session.h"
#include "core/nn/draft_heads.h"

namespace volley {

// What a method promises about its output.
enum class DecoderClass : uint8_t {
  kSameTokens,        // sequential decoding's tokens for the same seed
  kSameDistribution,  // sequential decoding's distribution
  kLossy,             // neither; an option says how far it may go
  kOwnModel,          // the number of steps is part of what the model means; no sameness is claimed
};
std::string_view decoder_class_name(DecoderClass kind);

// What the model that a method runs predicts.
enum class DecoderModel : uint8_t {
  kCausal,               // the next token
  kRandomOrder,          // tokens at positions that it is asked for
  kMasked,               // all hidden places
  kMaskedDiffusion,      // hidden places, of which some are filled in each step
  kBlockDiffusion,       // hidden places of a block, behind blocks that do not see it
  kSequentialDiffusion,  // hidden places of a window, behind a causal prefix
};

// Whether its methods guess several places of an output at once and keep some of the guesses.
inline bool fills_hidden_places(DecoderModel model) {
  return model == DecoderModel::kMaskedDiffusion || model == DecoderModel::kBlockDiffusion ||
         model == DecoderModel::kSequentialDiffusion;
}

// A decoding method: what is proposed, what is accepted, what the cache keeps. Stateless between runs.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // Makes all outputs as one batch. The session must have room for two sequences (one without guidance) for
  // each generation, of `entries` below. Throws Error when the model cannot run the method.
  virtual std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                               const DecodeControl& control) const = 0;
  // Cache entries a sequence needs for this generation.
  virtual int64_t entries(const Generation& generation) const = 0;
  // Throws Error kUsage if the method's options do not fit an output of at most `tokens`, whatever the model.
  virtual void check_length(int64_t /*tokens*/) const {}
};

// A method and its options, as "NAME" or "NAME:key=value,key=value".
struct DecoderSpec {
  std::string name;
  std::map<std::string, std::string> options;
};
// Throws Error kUsage.
DecoderSpec parse_decoder_spec(std::string_view text);

// The same text: "NAME:key=value,key=value".
std::string decoder_text(const DecoderSpec& spec);
// States every option of the method. Throws Error kUsage.
void state_options(DecoderSpec& spec);
// Lets no draft be longer than `tokens` by the method's own option: `draft`, jacobi's `window`, the levels of
// tree's `widths`, `heads`, lookahead's `N`, which counts one more. Throws Error kUsage naming --draft-max
// for a method without drafts, for an option that is given already, and beyond the option's range.
void limit_drafts(DecoderSpec& spec, int64_t tokens);
// Lengths that adapt to the machine become fixed: what memory must hold at the most.
void plan_longest_drafts(DecoderSpec& spec);

// What proposes, for methods that need it, and the backend that it was built on; it must outlive the decoder.
// A decoder makes its session or queue for each run, as it keeps nothing between runs.
struct Drafters {
  const StepModel* model = nullptr;   // a second model; null: there is none
  const DraftHeads* heads = nullptr;  // of the model that verifies; null: there are none
  std::shared_ptr<const Backend> backend;
};

// One row of the registry; also feeds help texts and documentation.
struct DecoderOption {
  std::string name;
  std::string fallback;
  std::string meaning;
};
struct DecoderInfo {
  std::string name;
  DecoderClass kind = DecoderClass::kSameTokens;
  std::string kind_note;  // when an option changes the class
  DecoderModel model = DecoderModel::kCausal;
  std::string needs;  // the model in words
  bool needs_draft_model = false;
  bool needs_heads = false;
  std::string length_option;  // the one that says how long a draft may be; empty: nothing is drafted
  std::string summary;
  std::string paper;
  std::vector<DecoderOption> options;
};
const std::vector<DecoderInfo>& decoder_registry();

// Throws Error kUsage for unknown names (suggesting the nearest), options and values. A method that needs a
// draft model or heads can be made without them, to check its options; its `decode` throws Error kUsage then,
// and when they do not fit the model. Other methods take no notice of `drafters`.
std::unique_ptr<Decoder> make_decoder(const DecoderSpec& spec, const Drafters& drafters = {});
// The class of a method with these options.
DecoderClass decoder_class(const DecoderSpec& spec);
// What the method's model predicts. Throws Error kUsage for unknown names.
DecoderModel decoder_model(const DecoderSpec& spec);
// Whether the method proposes by a second model. Throws Error kUsage for unknown names.
bool needs_draft_model(const DecoderSpec& spec);
// Whether it proposes by heads on the model's hidden rows. Throws Error kUsage for unknown names.
bool needs_heads(const DecoderSpec& spec);

}  // namespace volley
