// Jacobi decoding with coupled noise: a window of guesses is verified in one forward, and what the target
// said behind the first wrong guess becomes the next guesses. The noise belongs to output positions, so the
// fixed point is sequential decoding's output, sampled or greedy. Ref: Santilli et al., "Accelerating
// transformer inference for translation via parallel decoding"; Teng et al., "Accelerating auto-regressive
// text-to-image generation with training-free speculative Jacobi decoding" (whose rejection rule is replaced
// here by coupling).
#include "core/base/noise.h"
#include "core/decode/methods.h"
#include "core/decode/verify_loop.h"

namespace volley {
namespace {

enum class FirstGuess : uint8_t { kRepeat, kRandom };

class PreviousIterate : public Proposer {
 public:
  PreviousIterate(int64_t window, FirstGuess first) : window_(window), first_(first) {}

  std::string_view source() const override { return "previous iterate"; }

  void begin(int64_t generation, const Generation& request) override {
    guesses_.resize(static_cast<size_t>(generation) + 1);
    guesses_.back() = {.seed = request.seed, .stream = request.stream};
  }

  // Guesses that were verified before are right more often than first ones.
  int64_t grade(const ProposalContext& context) override {
    return guesses_[static_cast<size_t>(context.generation)].tokens.empty() ? 1 : 2;
  }

  DraftTree propose(const ProposalContext& context) override {
    Guess& guess = guesses_[static_cast<size_t>(context.generation)];
    const auto length = static_cast<size_t>(std::min(window_, context.max_depth));
    while (guess.tokens.size() < length) {
      const auto position = context.output_tokens + static_cast<int64_t>(guess.tokens.size());
      guess.tokens.push_back(first_guess(guess, context, position));
    }
    return DraftTree::chain(std::span(guess.tokens).first(length));
  }

  void observe(const Verification& verification) override {
    // sampled[i] is what follows row i; those behind the token that is emitted last are the next guesses,
    // then those that were too far ahead for this step's draft.
    std::vector<int32_t>& tokens = guesses_[static_cast<size_t>(verification.generation)].tokens;
    const auto used = verification.accepted.size() + 1, said = verification.sampled.size();
    std::vector<int32_t> next(verification.sampled.begin() + static_cast<int64_t>(used),
                              verification.sampled.end());
    if (said < tokens.size())
      next.insert(next.end(), tokens.begin() + static_cast<int64_t>(said), tokens.end());
    tokens = std::move(next);
  }

 private:
  struct Guess {
    uint64_t seed = 0;
    uint32_t stream = 0;
    std::vector<int32_t> tokens;  // for the next output positions
  };

  int32_t first_guess(const Guess& guess, const ProposalContext& context, int64_t position) const {
    if (first_ == FirstGuess::kRepeat)
      return guess.tokens.empty() ? context.path.back() : guess.tokens.back();
    const uint32_t bits = noise_bits({.seed = guess.seed,
                                      .stream = guess.stream,
                                      .purpose = NoisePurpose::kInit,
                                      .position = static_cast<uint32_t>(position)},
                                     0);
    return static_cast<int32_t>((uint64_t{bits} * static_cast<uint64_t>(context.vocab_size)) >> 32);
  }

  int64_t window_;
  FirstGuess first_;
  std::vector<Guess> guesses_;
};

class Jacobi : public Decoder {
 public:
  explicit Jacobi(const OptionReader& options)
      : window_(options.integer("window", 1, 255)),
        is_adaptive_(options.choice("length", {"fixed", "adaptive"}) == "adaptive"),
        first_(options.choice("init", {"repeat", "random"}) == "repeat" ? FirstGuess::kRepeat
                                                                        : FirstGuess::kRandom) {}

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    PreviousIterate proposer(window_, first_);
    DraftLength length;
    return VerifyLoop{.proposer = proposer, .length = is_adaptive_ ? &length : nullptr}.run(
        session, generations, control);
  }
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens + window_;
  }

 private:
  int64_t window_;
  bool is_adaptive_;
  FirstGuess first_;
};

}  // namespace

std::unique_ptr<Decoder> make_jacobi(const OptionReader& options) {
  return std::make_unique<Jacobi>(options);
}

}  // namespace volley
