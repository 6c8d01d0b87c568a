// Speculative decoding: a small model of the same vocabulary runs a few tokens ahead, one by one, and the
// target verifies them in one forward. `draft` couples the two: the small model chooses by the noise that the
// target will choose by, so the more alike their distributions, the more often they choose alike, and the
// output is sequential decoding's. `draft-rejection` draws by noise of its own and accepts with probability
// p/q.
// Ref: Leviathan et al. 2023, "Fast inference from transformers via speculative decoding"; Chen et al. 2023,
// "Accelerating large language model decoding with speculative sampling" (both the rejection rule; coupled
// noise is ours). With length=schedule the draft length is that of Hugging Face transformers' assisted
// generation: two more after a draft that was right throughout, one less after any other.
#include <algorithm>
#include <numeric>

#include "core/base/error.h"
#include "core/decode/lane.h"
#include "core/decode/methods.h"
#include "core/decode/verify_loop.h"

namespace volley {
namespace {

enum class LengthRule : uint8_t { kSchedule, kFixed, kAdaptive };

LengthRule length_rule(const std::string& name) {
  return name == "schedule" ? LengthRule::kSchedule
         : name == "fixed"  ? LengthRule::kFixed
                            : LengthRule::kAdaptive;
}

// Lets a small model propose chains. It has a session of its own, whose cache holds the prompt and the part
// of the output that drafts were made from.
class SmallModelProposer : public Proposer {
 public:
  struct Options {
    int64_t longest = 0;
    LengthRule length = LengthRule::kSchedule;
    AcceptanceKind acceptance = AcceptanceKind::kCoupled;
  };
  SmallModelProposer(Session& session, const Options& options) : session_(session), options_(options) {}

  std::string_view source() const override { return "draft model"; }

  void begin(int64_t generation, const Generation& request) override {
    VOLLEY_ASSERT(generation == std::ssize(runners_));
    runners_.push_back({.lane = Lane(session_, request),
                        .length = options_.length == LengthRule::kSchedule
                                      ? std::min(options_.longest, kFirstLength)
                                      : options_.longest,
                        .fits = prompt_fits(request)});
  }

  DraftTree propose(const ProposalContext& context) override { return propose_batch({&context, 1})[0]; }

  void prepare(std::span<const ProposalContext> contexts, const std::stop_token& stop) override {
    std::vector<Prompt> prompts;
    for (const ProposalContext& context : contexts) {
      Runner& runner = runner_of(context);
      if (runner.has_prompt || draft_length(runner, context) == 0) continue;
      runner.lane.add_prompts(prompts);
      runner.has_prompt = true;
    }
    session_.prefill(prompts, WantLogits::kNo, {}, stop);
  }

  int64_t unread(const ProposalContext& context) override {
    const Runner& runner = runner_of(context);
    if (runner.has_prompt || draft_length(runner, context) == 0) return 0;
    const Generation& request = runner.lane.generation();
    return std::ssize(request.prompt.rows) +
           (request.unconditional ? std::ssize(request.unconditional->rows) : 0);
  }

  // Runs the prompt's first token, which stays out of the cache.
  void rehearse(std::span<const ProposalContext> contexts) override {
    SequenceStep step{.phase = Phase::kDecode, .visibility = {.kind = MaskKind::kCausal}};
    step.wanted.logits = {0};
    std::vector<SequenceStep> steps;
    for (const ProposalContext& context : contexts) {
      Lane& lane = runner_of(context).lane;
      step.rows = {lane.generation().prompt.rows.front()};
      lane.add_to(steps, step);
    }
    session_.step(steps);
    std::vector<SampleRow> rows;
    for (const ProposalContext& context : contexts) {
      const Lane& lane = runner_of(context).lane;
      rows.push_back(make_sample_row(lane.generation().chain, lane.place(0, 0), lane.logits_rows(0), {}));
    }
    session_.sample(rows);
  }

  // Nothing where the small model's positions end.
  int64_t grade(const ProposalContext& context) override {
    return draft_length(runner_of(context), context) > 0 ? 1 : 0;
  }

  std::vector<DraftTree> propose_batch(std::span<const ProposalContext> contexts) override {
    std::vector<DraftTree> drafts(contexts.size());
    std::vector<int64_t> lengths;
    for (const ProposalContext& context : contexts) {
      Runner& runner = runner_of(context);
      runner.confirmed = context.output_tokens;
      lengths.push_back(draft_length(runner, context));
    }

    for (int64_t depth = 0;; ++depth) {
      std::vector<SequenceStep> steps;
      std::vector<size_t> active;
      for (size_t i = 0; i < contexts.size(); ++i) {
        if (depth >= lengths[i]) continue;
        active.push_back(i);
        Runner& runner = runner_of(contexts[i]);
        runner.lane.add_to(steps, make_step(runner, contexts[i], drafts[i]));
      }
      if (active.empty()) return drafts;
      session_.step(steps);
      extend(contexts, active, drafts);
    }
  }

  void observe(const Verification& verification) override {
    if (verification.draft.empty()) return;
    Runner& runner = runners_[static_cast<size_t>(verification.generation)];
    const auto accepted = std::ssize(verification.accepted);
    // Rows of refused tokens leave the cache.
    if (const int64_t right = runner.confirmed + accepted; runner.cached > right) {
      runner.lane.crop_output(right);
      runner.cached = right;
    }
    if (options_.length != LengthRule::kSchedule) return;
    runner.length = accepted == verification.draft.size() ? std::min(runner.length + 2, options_.longest)
                                                          : std::max<int64_t>(runner.length - 1, 1);
  }

 private:
  static constexpr int64_t kFirstLength = 4;

  // A generation as the small model follows it.
  struct Runner {
    Lane lane;
    int64_t length = 0;  // of the next draft
    bool fits = true;    // the prompt's positions exist in the small model
    bool has_prompt = false;
    int64_t cached = 0;     // output tokens whose rows are in the cache, drafted ones included
    int64_t confirmed = 0;  // output tokens that were final when the last draft was made
  };

  Runner& runner_of(const ProposalContext& context) {
    return runners_[static_cast<size_t>(context.generation)];
  }

  bool is_position(const std::array<int32_t, 3>& position) const {
    return std::ranges::all_of(
        position, [&](int32_t component) { return component < session_.model().traits().max_position; });
  }

  bool prompt_fits(const Generation& request) const {
    const auto fit = [&](const PromptRows& prompt) {
      return std::ranges::all_of(prompt.rows, [&](const StepRow& row) { return is_position(row.position); });
    };
    return fit(request.prompt) && (!request.unconditional || fit(*request.unconditional));
  }

  std::array<int32_t, 3> position_of(const Runner& runner, int64_t output_token) const {
    const Generation& request = runner.lane.generation();
    const int64_t first = request.first_index >= 0 ? request.first_index : std::ssize(request.prompt.rows);
    return session_.model().position(first + output_token);
  }

  // How many tokens to draft now: none where the small model's positions end.
  int64_t draft_length(const Runner& runner, const ProposalContext& context) const {
    if (!runner.fits) return 0;
    const int64_t wanted = std::min(runner.length, context.max_depth);
    // A draft of n tokens runs the last final token and n - 1 of its own.
    int64_t last = runner.cached;
    while (last < context.output_tokens - 1 + wanted && is_position(position_of(runner, last))) ++last;
    return std::max<int64_t>(last - (context.output_tokens - 1), 0);
  }

  // At first the final tokens that the cache lacks, then the draft's last token.
  SequenceStep make_step(const Runner& runner, const ProposalContext& context, const DraftTree& draft) const {
    SequenceStep step{.phase = Phase::kDecode, .visibility = {.kind = MaskKind::kCausal}};
    const auto add = [&](int32_t token) {
      step.rows.push_back(
          {.token = token, .position = position_of(runner, runner.cached + std::ssize(step.rows))});
    };
    if (draft.empty()) {
      for (int32_t token : context.path.last(static_cast<size_t>(context.output_tokens - runner.cached)))
        add(token);
    } else {
      add(draft.tokens.back());
    }
    step.wanted.logits = {static_cast<int32_t>(step.rows.size()) - 1};
    return step;
  }

  // Keeps the rows of the step and gives every draft in it one more token.
  void extend(std::span<const ProposalContext> contexts, std::span<const size_t> active,
              std::vector<DraftTree>& drafts) {
    std::vector<SampleRow> rows;
    std::vector<int32_t> paths;
    std::vector<int32_t> biased;  // rows of the logits
    std::vector<float> bias;      // [biased, vocab]
    const int64_t vocab = session_.model().traits().vocab_size;
    for (size_t i : active) {
      Runner& runner = runner_of(contexts[i]);
      const LogitsChain& chain = runner.lane.generation().chain;
      const int64_t position = contexts[i].output_tokens + drafts[i].size();
      PathRange path{.begin = static_cast<int32_t>(paths.size())};
      if (chain.repetition_penalty != 1.0f) {
        paths.insert(paths.end(), contexts[i].path.begin(), contexts[i].path.end());
        paths.insert(paths.end(), drafts[i].tokens.begin(), drafts[i].tokens.end());
        path.count = static_cast<int32_t>(paths.size()) - path.begin;
      }
      rows.push_back(
          make_sample_row(chain, runner.lane.place(position, position), runner.lane.logits_rows(0), path));
      // A draft that is accepted by rejection must not know the noise of the target's own choice.
      if (options_.acceptance == AcceptanceKind::kRejection)
        rows.back().noise_purpose = static_cast<uint32_t>(NoisePurpose::kDraft);

      // What the target may not choose is not guessed.
      ConstraintCursor cursor = contexts[i].cursor;
      for (const int32_t token : drafts[i].tokens) cursor = cursor.after(token);
      if (cursor.add_bias(vocab, bias)) biased.push_back(rows.back().logits_row);

      std::vector<int32_t> kept(static_cast<size_t>(position - runner.cached));
      std::iota(kept.begin(), kept.end(), 0);
      runner.lane.commit(kept);
      runner.cached = position;
    }
    const bool wants_distribution = options_.acceptance == AcceptanceKind::kRejection;
    session_.add_to_logits(biased, bias);
    const Samples samples = session_.sample(rows, paths, {.distribution = wants_distribution});
    for (size_t a = 0; a < active.size(); ++a) {
      DraftTree& draft = drafts[active[a]];
      draft.add(static_cast<int32_t>(draft.size()) - 1, samples.tokens[a]);
      if (!wants_distribution) continue;
      const auto q = samples.distribution.begin() + static_cast<int64_t>(a) * vocab;
      draft.distribution.insert(draft.distribution.end(), q, q + vocab);
    }
  }

  Session& session_;
  Options options_;
  std::vector<Runner> runners_;
};

class Draft : public Decoder {
 public:
  Draft(std::string name, AcceptanceKind acceptance, const OptionReader& options, Drafters drafters)
      : name_(std::move(name)),
        options_{.longest = options.integer("draft", 1, 255),
                 .length = length_rule(options.choice("length", {"schedule", "fixed", "adaptive"})),
                 .acceptance = acceptance},
        drafters_(std::move(drafters)) {
    require_coupled(name_, options_.length == LengthRule::kAdaptive, acceptance);
  }

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    check_generations(generations);
    check(session.model().traits(), generations);
    Session::Options room{.sequences = 0};
    for (const Generation& generation : generations) {
      room.sequences += generation.unconditional ? 2 : 1;
      room.entries = std::max(room.entries, prompt_entries(generation) + generation.max_tokens);
    }
    Session draft_session(*drafters_.model, drafters_.backend, room);
    SmallModelProposer proposer(draft_session, options_);
    DraftLength length;
    auto outputs = VerifyLoop{.proposer = proposer,
                              .acceptance = options_.acceptance,
                              .length = options_.length == LengthRule::kAdaptive ? &length : nullptr}
                       .run(session, generations, control);
    session.statistics().add_draft(draft_session.statistics());
    return outputs;
  }
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens + options_.longest;
  }

 private:
  void check(const ModelTraits& target, std::span<const Generation> generations) const {
    const auto require = [&](bool condition, const std::string& fault) {
      if (!condition) throw Error("--decoder " + name_ + ": " + fault, ErrorKind::kUsage);
    };
    require(drafters_.model != nullptr, "needs a draft model, and there is none");
    const ModelTraits& small = drafters_.model->traits();
    require(small.vocab_size == target.vocab_size,
            "the draft model's vocabulary has " + std::to_string(small.vocab_size) + " tokens, the model's " +
                std::to_string(target.vocab_size) + "; they must be one");
    require(small.position_components == target.position_components,
            "the draft model's positions have " + std::to_string(small.position_components) +
                " components, the model's " + std::to_string(target.position_components));
    require(small.logit_shift == 1, "draft model " + small.family + " does not predict the next token");
    require(small.memory_layers == 0,
            "draft model " + small.family + " needs a memory, which drafts have not");
    for (const Generation& generation : generations) {
      const auto is_readable = [](const PromptRows& prompt) {
        return std::ranges::all_of(prompt.rows,
                                   [](const StepRow& row) { return row.kind == RowKind::kToken; });
      };
      require(is_readable(generation.prompt) &&
                  (!generation.unconditional || is_readable(*generation.unconditional)) &&
                  generation.memory == SequenceId::kNone,
              "a draft model reads prompts of tokens only");
    }
  }

  std::string name_;
  SmallModelProposer::Options options_;
  Drafters drafters_;
};

}  // namespace

std::unique_ptr<Decoder> make_draft(const OptionReader& options, const Drafters& drafters) {
  return std::make_unique<Draft>("draft", AcceptanceKind::kCoupled, options, drafters);
}

std::unique_ptr<Decoder> make_draft_rejection(const OptionReader& options, const Drafters& drafters) {
  return std::make_unique<Draft>("draft-rejection", AcceptanceKind::kRejection, options, drafters);
}

}  // namespace volley
