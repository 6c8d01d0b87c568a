#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <string_view>
#include <vector>

#include "core/decode/draft_tree.h"
#include "core/decode/generation.h"

namespace volley {

// A generation as a proposer sees it.
struct ProposalContext {
  int64_t generation = 0;         // index in the request
  std::span<const int32_t> path;  // the prompt's tokens, then all final output tokens
  int64_t output_tokens = 0;      // of them final; the draft starts at this index of the output
  int64_t max_depth = 0;          // deeper nodes could never be used
  int64_t vocab_size = 0;
  ConstraintCursor cursor;  // behind the path: guesses that it does not allow are never right
};

// What a verification found.
struct Verification {
  int64_t generation = 0;
  const DraftTree& draft;
  std::span<const int32_t> accepted;  // nodes, from the root down
  int32_t next_token = 0;             // behind the last accepted node
  std::span<const int32_t> sampled;   // [1 + nodes] the target's token behind the root and behind each node
  std::span<const float> hidden;      // [1 + nodes, dim] of the same rows, if the proposer wants them
};

// Guesses what comes next; never reads weights of the target. Drafts must not depend on the noise that
// chooses the target's tokens at the drafted positions when acceptance is by rejection.
class Proposer {
 public:
  virtual ~Proposer() = default;
  virtual std::string_view source() const = 0;
  virtual void begin(int64_t generation, const Generation& request) {
    (void)generation;
    (void)request;
  }
  // How good a draft made now would be, from 0 (there is none) to kDraftGrades - 1; see acceptance_rates.h.
  // Not asked before each draft.
  virtual int64_t grade(const ProposalContext& context) {
    (void)context;
    return 1;
  }
  // Rows that `prepare` will run for this generation, with the first draft.
  virtual int64_t unread(const ProposalContext& context) {
    (void)context;
    return 0;
  }
  // Does what drafting one token for each of these generations, none of them prepared, takes; changes
  // nothing.
  virtual void rehearse(std::span<const ProposalContext> contexts) { (void)contexts; }
  // Does what is needed once before the first draft for these generations, and no part of any draft's price.
  // May leave it half done when stopped: no draft is asked for then.
  virtual void prepare(std::span<const ProposalContext> contexts, const std::stop_token& stop) {
    (void)contexts;
    (void)stop;
  }
  virtual DraftTree propose(const ProposalContext& context) = 0;
  // Drafts for all generations of a step, in the order of `contexts`. A proposer that runs a network
  // overrides this: its forwards then serve the whole batch.
  virtual std::vector<DraftTree> propose_batch(std::span<const ProposalContext> contexts) {
    std::vector<DraftTree> drafts;
    for (const ProposalContext& context : contexts) drafts.push_back(propose(context));
    return drafts;
  }
  virtual void observe(const Verification& verification) { (void)verification; }
  // A layer of the target, or kLastNorm, whose rows `observe` shall get. Who wants them is told of each
  // prompt, too, as of an empty draft behind it, whose root is the prompt's last row.
  virtual std::optional<int32_t> wanted_hidden_layer() const { return std::nullopt; }
};

// Ranked guesses for the single next token: what a tree of fixed shape is filled from.
class CandidateSource {
 public:
  virtual ~CandidateSource() = default;
  virtual std::string_view source() const = 0;
  // At most `count` distinct tokens that may follow `path`, likeliest first.
  virtual std::vector<int32_t> candidates(std::span<const int32_t> path, int64_t count) = 0;
  // How good the first of them is, as Proposer::grade.
  virtual int64_t grade(std::span<const int32_t> path) { return candidates(path, 1).empty() ? 0 : 1; }
};

}  // namespace volley
