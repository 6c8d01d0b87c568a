#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "core/decode/acceptance.h"
#include "core/decode/decoder.h"
#include "core/decode/draft_length.h"
#include "core/decode/draft_pool.h"
#include "core/decode/proposer.h"

namespace volley {

// The loop of every draft-and-verify method: propose, run the root and the draft in one step, accept, keep
// the accepted rows. Sequential decoding is this loop with empty drafts.
struct VerifyLoop {
  Proposer& proposer;
  AcceptanceKind acceptance = AcceptanceKind::kCoupled;
  TypicalRule typical;  // of kTypical
  // Chooses how long drafts may be, by what steps take; null: as long as the proposer makes them. It counts a
  // draft's tokens as rows one behind the other, so the proposer's drafts are to be chains.
  DraftLength* length = nullptr;
  // Gets the prompts' tokens and what comes to be final behind them, step by step, in the order of the
  // generations; may be null.
  DraftPool* pool = nullptr;
  UniformSource* uniforms = nullptr;  // null: the generation's own noise
  // Test hook: changes which of a step's rows a lane keeps; a wrong choice must be caught by the property
  // tests.
  std::function<void(std::vector<int32_t>& kept, int64_t rows)> tamper_commit;

  std::vector<GenerationOutput> run(Session& session, std::span<const Generation> generations,
                                    const DecodeControl& control) const;
};

}  // namespace volley
