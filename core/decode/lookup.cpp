// Prompt lookup: the draft is what followed the last tokens when they occurred before.
// Ref: Saxena, "Prompt lookup decoding" (github.com/apoorvumang/prompt-lookup-decoding).
#include "core/decode/methods.h"
#include "core/decode/ngram.h"
#include "core/decode/verify_loop.h"

namespace volley {
namespace {

class Lookup : public Decoder {
 public:
  explicit Lookup(const OptionReader& options)
      : longest_(options.integer("ngram", 1, 64)),
        length_(options.integer("draft", 1, 255)),
        pool_(options.integer("pool", 0, kMaxPool)),
        is_adaptive_(options.choice("length", {"fixed", "adaptive"}) == "adaptive"),
        acceptance_(options.choice("accept", {"coupled", "rejection"}) == "coupled"
                        ? AcceptanceKind::kCoupled
                        : AcceptanceKind::kRejection) {
    require_coupled("lookup", is_adaptive_, acceptance_);
    require_no_pool("lookup", pool_, acceptance_);
  }

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    DraftPool own;
    DraftPool* const pool = pool_for(pool_, control, own);
    NGramSource source({.longest = longest_, .pool = pool});
    ChainProposer proposer(source, length_);
    DraftLength length;
    return VerifyLoop{.proposer = proposer,
                      .acceptance = acceptance_,
                      .length = is_adaptive_ ? &length : nullptr,
                      .pool = pool}
        .run(session, generations, control);
  }
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens + length_;
  }

 private:
  int64_t longest_;  // match
  int64_t length_;
  int64_t pool_;  // tokens
  bool is_adaptive_;
  AcceptanceKind acceptance_;
};

}  // namespace

std::unique_ptr<Decoder> make_lookup(const OptionReader& options) {
  return std::make_unique<Lookup>(options);
}

}  // namespace volley
