// Tree verification: a tree of fixed shape filled from ranked guesses and verified in one forward.
// Ref: Miao et al., "SpecInfer"; Cai et al., "Medusa" (fixed trees).
#include <numeric>

#include "core/decode/methods.h"
#include "core/decode/ngram.h"
#include "core/decode/verify_loop.h"

namespace volley {
namespace {

class Tree : public Decoder {
 public:
  explicit Tree(const OptionReader& options)
      : longest_(options.integer("ngram", 1, 64)),
        pool_(options.integer("pool", 0, kMaxPool)),
        acceptance_(options.choice("accept", {"coupled", "rejection"}) == "coupled"
                        ? AcceptanceKind::kCoupled
                        : AcceptanceKind::kRejection) {
    require_no_pool("tree", pool_, acceptance_);
    int64_t level = 1;
    for (int64_t width : options.integers("widths", 1, 16)) {
      widths_.push_back(width);
      level *= widths_.back();
      nodes_ += level;
    }
    if (nodes_ > kMaxNodes) {
      throw Error("--decoder tree: widths: " + std::to_string(nodes_) + " nodes, at most " +
                      std::to_string(kMaxNodes),
                  ErrorKind::kUsage);
    }
  }

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    DraftPool own;
    DraftPool* const pool = pool_for(pool_, control, own);
    NGramSource source({.longest = longest_, .pool = pool});
    TreeProposer proposer(source, widths_);
    return VerifyLoop{.proposer = proposer, .acceptance = acceptance_, .pool = pool}.run(session, generations,
                                                                                         control);
  }
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens + nodes_;
  }

 private:
  static constexpr int64_t kMaxNodes = 256;

  int64_t longest_;  // match
  int64_t pool_;     // tokens
  AcceptanceKind acceptance_;
  std::vector<int64_t> widths_;
  int64_t nodes_ = 0;
};

}  // namespace

std::unique_ptr<Decoder> make_tree(const OptionReader& options) {
  return std::make_unique<Tree>(options);
}

}  // namespace volley
