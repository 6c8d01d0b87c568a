// Draft heads: small networks on the target's last hidden row guess the tokens behind the one that this row
// chose, a head for each distance; the target verifies their guesses in one forward. The heads choose by the
// noise that the target will choose by, so the more alike their distributions, the more often they choose
// alike, and the output is sequential decoding's.
// Ref: Cai et al. 2024, "Medusa: simple LLM inference acceleration framework with multiple decoding heads"
// (typical acceptance, too); Ankner et al. 2024, "Hydra: sequentially-dependent draft heads for Medusa
// decoding"; Li et al. 2024, "EAGLE-2" (trees that grow where guesses are sure); Saxena, "Prompt lookup
// decoding" (github.com/apoorvumang/prompt-lookup-decoding).
// Trees differ from Medusa's and Hydra's, which have one fixed shape for all steps: here a guess is tried as
// long as the heads give it, and those before it, a probability worth a row, and guessed behind if that is
// worth a pass of the next head. Where the text repeats itself, no head is asked: what followed the last time
// is right about as often, and free.
#include <algorithm>
#include <numeric>
#include <optional>

#include "core/base/error.h"
#include "core/decode/head_guesses.h"
#include "core/decode/head_passes.h"
#include "core/decode/lane.h"
#include "core/decode/methods.h"
#include "core/decode/ngram.h"
#include "core/decode/verify_loop.h"

namespace volley {
namespace {

// A draft in the making: more guesses than it will have.
class GrowingDraft {
 public:
  // Guesses that the next level goes on from; -1 is the root.
  const std::vector<int32_t>& frontier() const { return frontier_; }
  double probability(int32_t guess) const { return guess < 0 ? 1.0 : at(guess).probability; }

  // Tokens behind the root, down to `guess`.
  std::vector<int32_t> path(int32_t guess) const {
    std::vector<int32_t> tokens;
    for (; guess >= 0; guess = at(guess).parent) tokens.push_back(at(guess).token);
    std::ranges::reverse(tokens);
    return tokens;
  }

  void add(int32_t parent, const HeadGuess& guess) {
    guesses_.push_back(
        {.token = guess.token, .parent = parent, .probability = probability(parent) * guess.probability});
  }

  // The level is whole: the next one goes on from its `width` likeliest guesses, if they are as likely.
  void end_level(int64_t width, double least_probability) {
    frontier_.resize(guesses_.size() - level_begin_);
    std::iota(frontier_.begin(), frontier_.end(), static_cast<int32_t>(level_begin_));
    keep_likeliest(frontier_, width);
    std::erase_if(frontier_, [&](int32_t guess) { return probability(guess) < least_probability; });
    level_begin_ = guesses_.size();
  }

  // The `count` likeliest guesses. A guess is never likelier than the one before it, so they are a tree.
  DraftTree likeliest(int64_t count) const {
    std::vector<int32_t> kept(guesses_.size());
    std::iota(kept.begin(), kept.end(), 0);
    keep_likeliest(kept, count);
    DraftTree draft;
    std::vector<int32_t> nodes(guesses_.size(), -1);
    for (const int32_t guess : kept) {
      const int32_t parent = at(guess).parent;
      nodes[static_cast<size_t>(guess)] =
          draft.add(parent < 0 ? -1 : nodes[static_cast<size_t>(parent)], at(guess).token);
    }
    return draft;
  }

 private:
  struct Guess {
    int32_t token = -1;
    int32_t parent = -1;
    double probability = 0.0;  // that it and all before it are right
  };
  const Guess& at(int32_t guess) const { return guesses_[static_cast<size_t>(guess)]; }

  // Ties stay with the earlier; what is left is in order again.
  void keep_likeliest(std::vector<int32_t>& some, int64_t count) const {
    std::ranges::stable_sort(some, std::greater<>(), [&](int32_t guess) { return probability(guess); });
    some.resize(std::min(some.size(), static_cast<size_t>(count)));
    std::ranges::sort(some);
  }

  std::vector<Guess> guesses_;  // level by level
  std::vector<int32_t> frontier_{-1};
  size_t level_begin_ = 0;
};

class HeadsProposer : public Proposer {
 public:
  struct Options {
    int64_t levels = 0;  // 0: one for each head
    int64_t width = 1;
    int64_t nodes = 0;
    double confidence = 0.0;
    double further = 0.0;  // times the confidence
    int64_t copy = 0;      // tokens
    int64_t ngram = kShortestCopied;
    GuessNoise noise = GuessNoise::kTargets;
  };
  // Behind one token alone the heads are right more often than what followed it before.
  static constexpr int64_t kShortestCopied = 2;

  HeadsProposer(const DraftHeads& heads, const Backend& backend, const Options& options)
      : heads_(heads.traits()),
        options_(options),
        levels_(options.levels == 0 ? heads_.heads : std::min(options.levels, heads_.heads)),
        passes_(heads, backend),
        repeated_({.longest = options.ngram, .shortest = kShortestCopied}),
        copies_(repeated_, options.nodes) {}
  HeadsProposer(const HeadsProposer&) = delete;  // copies_ reads repeated_

  std::string_view source() const override { return "heads"; }
  std::optional<int32_t> wanted_hidden_layer() const override { return kLastNorm; }

  void begin(int64_t generation, const Generation& request) override {
    VOLLEY_ASSERT(generation == std::ssize(followed_));
    followed_.push_back({.request = &request});
  }

  // Grades of matches from kShortestCopied on, else that of heads.
  int64_t grade(const ProposalContext& context) override {
    const int64_t copied = options_.copy > 0 ? copies_.grade(context) : 0;
    return copied > 0 ? copied : kHeadsGrade;
  }

  DraftTree propose(const ProposalContext& context) override { return propose_batch({&context, 1})[0]; }

  std::vector<DraftTree> propose_batch(std::span<const ProposalContext> contexts) override {
    const StopWatch watch(passes_.statistics().decode_seconds);
    std::vector<DraftTree> trees;
    std::vector<ProposalContext> to_guess;
    for (const ProposalContext& context : contexts) {
      trees.push_back(copy(context));
      if (trees.back().empty()) to_guess.push_back(context);
    }
    if (to_guess.empty()) return trees;
    auto guessed = guess(to_guess);
    auto next = guessed.begin();
    for (DraftTree& tree : trees) {
      if (tree.empty()) tree = std::move(*next++);
    }
    return trees;
  }

  void observe(const Verification& verification) override {
    const auto row =
        verification.accepted.empty() ? 0 : static_cast<size_t>(verification.accepted.back()) + 1;
    const auto dim = static_cast<size_t>(heads_.dim);
    const std::span<const float> last = verification.hidden.subspan(row * dim, dim);
    followed_[static_cast<size_t>(verification.generation)].hidden.assign(last.begin(), last.end());
  }

  const Statistics& statistics() { return passes_.statistics(); }

 private:
  static constexpr int64_t kHeadsGrade = 1;
  static_assert(kHeadsGrade < kShortestCopied);

  struct Followed {
    const Generation* request = nullptr;
    std::vector<float> hidden;  // [dim] by which the target chose the last final token
  };
  // What is guessed next: the token behind a guess.
  struct Place {
    size_t context = 0;
    int32_t guess = -1;
    size_t row = 0;  // of the level's logits
  };

  // One token less than agrees: what agrees for longer goes on for longer. A constraint may foresee as many
  // tokens as heads would guess, whatever agrees.
  DraftTree copy(ProposalContext context) {
    if (options_.copy == 0) return {};
    const int64_t most = context.cursor ? std::max(options_.copy, levels_)
                                        : std::min(options_.copy, repeated_.longest_match(context.path) - 1);
    context.max_depth = std::min(context.max_depth, most);
    if (options_.levels > 0) context.max_depth = std::min(context.max_depth, options_.levels);
    return context.max_depth > 0 ? copies_.propose(context) : DraftTree{};
  }

  // The heads' trees.
  std::vector<DraftTree> guess(std::span<const ProposalContext> contexts) {
    std::vector<float> hidden;  // [contexts, dim]
    for (const ProposalContext& context : contexts) {
      const std::vector<float>& row = followed_[static_cast<size_t>(context.generation)].hidden;
      hidden.insert(hidden.end(), row.begin(), row.end());
    }
    std::vector<GrowingDraft> drafts(contexts.size());
    passes_.begin(hidden);
    for (int64_t level = 0; level < levels_; ++level) {
      std::vector<Place> places;
      for (size_t c = 0; c < contexts.size(); ++c) {
        if (level >= contexts[c].max_depth) continue;
        for (const int32_t guess : drafts[c].frontier()) places.push_back({.context = c, .guess = guess});
      }
      if (places.empty()) break;
      grow(level, contexts, places, drafts);
    }
    std::vector<DraftTree> trees;
    for (const GrowingDraft& draft : drafts) trees.push_back(draft.likeliest(options_.nodes));
    return trees;
  }

  // One pass of a level for all drafts. Heads that do not read guesses say the same behind all of a draft's.
  void grow(int64_t level, std::span<const ProposalContext> contexts, std::vector<Place>& places,
            std::vector<GrowingDraft>& drafts) {
    std::vector<HeadPath> paths;
    for (Place& place : places) {
      const bool is_new =
          heads_.is_chained || paths.empty() || paths.back().source != static_cast<int32_t>(place.context);
      if (is_new) {
        paths.push_back({.source = static_cast<int32_t>(place.context)});
        if (heads_.is_chained) {
          paths.back().tokens = drafts[place.context].path(place.guess);
          paths.back().tokens.insert(paths.back().tokens.begin(), contexts[place.context].path.back());
        }
      }
      place.row = paths.size() - 1;
    }
    const std::vector<float> logits = passes_.logits(level, paths);
    const auto width = static_cast<size_t>(heads_.candidates());

    std::vector<HeadGuess> guesses;  // behind the place before
    for (size_t p = 0; p < places.size(); ++p) {
      const Place& place = places[p];
      GrowingDraft& draft = drafts[place.context];
      const ProposalContext& context = contexts[place.context];
      const bool is_known = p > 0 && places[p - 1].row == place.row && !depends_on_path(context);
      if (!is_known) {
        guesses = guesses_behind(level, context, draft.path(place.guess),
                                 std::span(logits).subspan(place.row * width, width));
      }
      for (const HeadGuess& guess : guesses) {
        if (draft.probability(place.guess) * guess.probability >= options_.confidence)
          draft.add(place.guess, guess);
      }
    }
    for (GrowingDraft& draft : drafts)
      draft.end_level(options_.width, options_.further * options_.confidence);
  }

  // Whether more than the logits says what may follow.
  bool depends_on_path(const ProposalContext& context) const {
    return static_cast<bool>(context.cursor) || chain_of(context).repetition_penalty != 1.0f;
  }

  const LogitsChain& chain_of(const ProposalContext& context) const {
    return followed_[static_cast<size_t>(context.generation)].request->chain;
  }

  std::vector<HeadGuess> guesses_behind(int64_t level, const ProposalContext& context,
                                        std::span<const int32_t> guessed,
                                        std::span<const float> logits) const {
    const Generation& request = *followed_[static_cast<size_t>(context.generation)].request;
    const int64_t position = request.output_offset + context.output_tokens + level;
    ConstraintCursor cursor = context.cursor;
    for (const int32_t token : guessed) cursor = cursor.after(token);
    std::vector<int32_t> path;
    if (request.chain.repetition_penalty != 1.0f) {
      path.assign(context.path.begin(), context.path.end());
      path.insert(path.end(), guessed.begin(), guessed.end());
    }
    return best_guesses(heads_, logits,
                        {.chain = request.chain,
                         .output = {.seed = request.seed,
                                    .stream = request.stream,
                                    .position = position,
                                    .index = position,
                                    .total = request.output_offset + request.max_tokens},
                         .noise = options_.noise,
                         .path = path,
                         .cursor = cursor},
                        options_.width);
  }

  const DraftHeadsTraits& heads_;
  Options options_;
  int64_t levels_;
  HeadPasses passes_;
  NGramSource repeated_;
  ChainProposer copies_;
  std::vector<Followed> followed_;  // by generation
};

class Heads : public Decoder {
 public:
  Heads(const OptionReader& options, Drafters drafters)
      : options_{.levels = options.integer("heads", 0, 255),
                 .width = options.integer("width", 1, 16),
                 .nodes = options.integer("nodes", 1, 256),
                 .confidence = options.number("confidence", 0.0, 1.0),
                 .further = options.number("further", 0.0, 100.0),
                 .copy = options.integer("copy", 0, 255),
                 .ngram = options.integer("ngram", HeadsProposer::kShortestCopied, 64)},
        is_adaptive_(options.choice("length", {"fixed", "adaptive"}) == "adaptive"),
        typical_{.epsilon = static_cast<float>(options.number("epsilon", 0.0, 1.0)),
                 .alpha = static_cast<float>(options.number("alpha", 0.0, 1.0))},
        drafters_(std::move(drafters)) {
    if (options.choice("accept", {"coupled", "typical"}) == "typical") {
      // What is likely is accepted, not what the noise prefers.
      acceptance_ = AcceptanceKind::kTypical;
      options_.noise = GuessNoise::kNone;
    }
    require_coupled("heads", is_adaptive_, acceptance_);
    if (is_adaptive_ && options_.width > 1) {
      throw Error(
          "--decoder heads: length=adaptive: goes with width=1 only, as it counts guesses one behind "
          "the other",
          ErrorKind::kUsage);
    }
  }

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    check_generations(generations);
    check(session.model().traits());
    HeadsProposer proposer(*drafters_.heads, *drafters_.backend, options_);
    DraftLength length;
    auto outputs = VerifyLoop{.proposer = proposer,
                              .acceptance = acceptance_,
                              .typical = typical_,
                              .length = is_adaptive_ ? &length : nullptr}
                       .run(session, generations, control);
    session.statistics().add_draft(proposer.statistics());
    return outputs;
  }
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens + options_.nodes;
  }

 private:
  void check(const ModelTraits& target) const {
    const auto require = [](bool condition, const std::string& fault) {
      if (!condition) throw Error("--decoder heads: " + fault, ErrorKind::kUsage);
    };
    require(drafters_.heads != nullptr, "needs draft heads, and there are none");
    const DraftHeadsTraits& heads = drafters_.heads->traits();
    require(heads.dim == target.dim, "the heads read rows of width " + std::to_string(heads.dim) +
                                         ", the model's have " + std::to_string(target.dim));
    require(heads.vocab_size == target.vocab_size,
            "the heads' vocabulary has " + std::to_string(heads.vocab_size) + " tokens, the model's " +
                std::to_string(target.vocab_size));
    require(target.logit_shift == 1, "model " + target.family + " does not predict the next token");
  }

  HeadsProposer::Options options_;
  bool is_adaptive_;
  AcceptanceKind acceptance_ = AcceptanceKind::kCoupled;
  TypicalRule typical_;
  Drafters drafters_;
};

}  // namespace

std::unique_ptr<Decoder> make_heads(const OptionReader& options, const Drafters& drafters) {
  return std::make_unique<Heads>(options, drafters);
}

}  // namespace volley
