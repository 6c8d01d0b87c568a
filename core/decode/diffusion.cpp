// Masked diffusion in blocks: the output begins as hidden places, and each step fills those of the current
// block of which the model is surest; what is filled stays. A block ends when nothing of it is hidden.
// Ref: Nie et al., "Large Language Diffusion Models" (LLaDA), `generate`; Wu et al., "Fast-dLLM" (NVlabs,
// v1), for the caches. There the rows of a batch wait for each other; here each has its own steps, so that an
// output can be made alone. An output ends with its stop token, with nothing hidden before it: the rest of
// the places is not filled. Prefix cache: a block's first step runs all rows and keeps the entries before the
// block; the next ones run the block and all behind it. Dual cache: all entries are kept, and the next steps
// run the block's rows only, which replace theirs. Both read entries that are as old as the block's first
// step. Fast-dLLM's first version runs a second step of every block, even if the first filled all of it; the
// option `second_forward` does so. Under a constraint the guesses of a step are chosen together, so that they
// keep it and the rest of the output can be filled (constrained_guess.h); what is filled of them is chosen as
// ever.
#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/decode/canvas_loop.h"
#include "core/decode/constrained_guess.h"
#include "core/decode/diffusion_settings.h"
#include "core/decode/hidden_guesses.h"
#include "core/decode/lane.h"
#include "core/decode/methods.h"

namespace volley {
namespace {

using Settings = DiffusionSettings;
using Cache = Settings::Cache;

// One output in the making: its canvas of places and the block that is being filled.
class Canvas {
 public:
  // `constrained` is null without a constraint.
  Canvas(Session& session, const Generation& generation, const Settings& settings,
         std::shared_ptr<ConstrainedBlock> constrained)
      : session_(&session),
        settings_(&settings),
        lane_(session, generation),
        output_(generation, std::move(constrained)) {
    tokens_.assign(static_cast<size_t>(generation.max_tokens), generation.mask_token);
    begin_block();
  }

  bool is_finished() const { return output_.is_finished() && !owes_forward_; }
  GenerationOutput take_output() { return output_.take(); }

  // Adds the next forward and asks for the logits of the block: of all its places, so that the steps of a
  // block have one shape, though only hidden ones are sampled.
  void add_to(std::vector<SequenceStep>& steps) {
    const bool is_whole = settings_->cache == Cache::kOff || step_in_block_ == 0;
    const int64_t first_place = is_whole ? 0 : block_begin_;
    const int64_t last_place = !is_whole && settings_->cache == Cache::kDual ? block_end_ : places();
    const int64_t first_row = is_whole ? prompt() : 0;  // of the places, in the step
    SequenceStep step{
        .phase = Phase::kDecode, .visibility = {.kind = MaskKind::kFull}, .write = CacheWrite::kNone};
    for (int64_t place = first_place; place < last_place; ++place) step.rows.push_back(row_of(place));
    hidden_.clear();
    for (int64_t place = block_begin_; place < block_end_; ++place) {
      if (is_hidden(place)) hidden_.push_back(static_cast<int32_t>(place));
      step.wanted.logits.push_back(static_cast<int32_t>(first_row + place - first_place));
    }
    output_.count_forward(first_row + last_place - first_place);
    if (is_whole) {
      lane_.clear();
      if (settings_->cache != Cache::kOff) step.write = CacheWrite::kScratch;
      return lane_.add_with_prompts(steps, step);
    }
    if (settings_->cache == Cache::kDual) {
      step.write = CacheWrite::kReplace;
      step.replaced.resize(step.rows.size());
      std::iota(step.replaced.begin(), step.replaced.end(), static_cast<int32_t>(prompt() + block_begin_));
    }
    lane_.add_to(steps, std::move(step));
  }

  // Keeps what the later steps of the block read.
  void keep_entries() {
    if (settings_->cache == Cache::kOff || step_in_block_ > 0) return;
    std::vector<int32_t> kept(
        static_cast<size_t>(prompt() + (settings_->cache == Cache::kDual ? places() : block_begin_)));
    std::iota(kept.begin(), kept.end(), 0);
    lane_.commit(kept);
  }

  void add_sample_rows(std::vector<SampleRow>& rows) {
    std::vector<int32_t> wanted;
    for (const int32_t place : hidden_) wanted.push_back(place - static_cast<int32_t>(block_begin_));
    guesses_.ask(lane_, {.places = hidden_, .wanted = wanted, .done = done_, .step = step_}, rows);
  }

  void take(const Samples& samples, int64_t index, const DecodeControl& control) {
    const auto done = std::ssize(output_.tokens());
    const auto [guesses, certainty] = output_.guess(
        guesses_, samples,
        std::span(tokens_).subspan(static_cast<size_t>(done), static_cast<size_t>(block_end_ - done)),
        settings_->rule.certainty);
    std::vector<int32_t> filled, tokens;
    for (const int32_t chosen : settings_->rule.choose(certainty, scheduled())) {
      const auto i = static_cast<size_t>(chosen);
      const int32_t guess = guesses[i];
      // A model may guess that a place is hidden: it is looked at again.
      if (guess == lane_.generation().mask_token) continue;
      filled.push_back(hidden_[i]);
      tokens.push_back(guess);
    }
    if (filled.empty() && !hidden_.empty()) {  // the same step would come again for ever
      const auto i = static_cast<size_t>(settings_->rule.surest(certainty));
      filled.push_back(hidden_[i]);
      tokens.push_back(guesses_.likeliest_other(*session_, i));
    }
    for (size_t i = 0; i < filled.size(); ++i) tokens_[static_cast<size_t>(filled[i])] = tokens[i];
    done_ += std::ssize(filled);
    const int64_t emitted = advance();
    session_->statistics().tokens += emitted;
    if (!filled.empty()) ++session_->statistics().accepted[std::ssize(filled)];
    if (control.observer != nullptr) {
      control.observer->on_step({.generation = index,
                                 .step = step_,
                                 .positions = filled,
                                 .tokens = tokens,
                                 .proposed = std::ssize(hidden_),
                                 .accepted = std::ssize(filled),
                                 .source = "masked rows",
                                 .done = done_,
                                 .total = places()});
    }
    ++step_;
    ++step_in_block_;
    const bool is_filled = std::ssize(output_.tokens()) == block_end_;
    if (!is_filled && !output_.is_finished()) return;
    owes_forward_ =
        settings_->always_second && settings_->cache != Cache::kOff && step_in_block_ == 1 && is_filled;
    if (owes_forward_ || output_.is_finished()) return;
    block_begin_ = block_end_;
    begin_block();
  }

 private:
  int64_t prompt() const { return std::ssize(lane_.generation().prompt.rows); }
  int64_t first_index() const {
    return lane_.generation().first_index >= 0 ? lane_.generation().first_index : prompt();
  }
  int64_t places() const { return lane_.generation().max_tokens; }
  bool is_hidden(int64_t place) const {
    return tokens_[static_cast<size_t>(place)] == lane_.generation().mask_token;
  }

  StepRow row_of(int64_t place) const {
    return {.token = tokens_[static_cast<size_t>(place)],
            .position = session_->model().position(first_index() + place)};
  }

  void begin_block() {
    block_end_ = std::min(places(), block_begin_ + settings_->block_length);
    step_in_block_ = 0;
    const int64_t blocks = (places() + settings_->block_length - 1) / settings_->block_length;
    const int64_t block = block_begin_ / settings_->block_length;
    const int64_t steps = settings_->steps == 0
                              ? block_end_ - block_begin_
                              : settings_->steps / blocks + (block < settings_->steps % blocks);
    schedule_ = unmask_schedule(block_end_ - block_begin_, steps);
  }

  // Places that the running step shall fill. There may be more steps than planned: a guess may be no token.
  int64_t scheduled() const {
    return step_in_block_ < std::ssize(schedule_) ? schedule_[static_cast<size_t>(step_in_block_)] : 1;
  }

  // Hands out what is whole from the left. Returns how many tokens.
  int64_t advance() {
    const auto before = std::ssize(output_.tokens());
    while (!output_.is_finished() && !is_hidden(std::ssize(output_.tokens())))
      output_.add(tokens_[output_.tokens().size()]);
    return std::ssize(output_.tokens()) - before;
  }

  Session* session_;
  const Settings* settings_;
  Lane lane_;
  FilledOutput output_;
  std::vector<int32_t> tokens_;  // of all places
  int64_t done_ = 0;             // places filled
  int64_t step_ = 0;
  int64_t block_begin_ = 0;
  int64_t block_end_ = 0;
  int64_t step_in_block_ = 0;
  bool owes_forward_ = false;      // of a block that is filled
  std::vector<int64_t> schedule_;  // of the block
  // Of the step in flight.
  std::vector<int32_t> hidden_;  // places to be guessed
  HiddenGuesses guesses_;
};

class Diffusion : public Decoder {
 public:
  explicit Diffusion(const OptionReader& options) : settings_(read_diffusion_settings(options)) {}

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    check(session.model().traits(), generations);
    std::vector<Canvas> all;
    const auto constrained =
        constrained_blocks(generations, session.model().traits().vocab_size, "diffusion");
    for (size_t i = 0; i < generations.size(); ++i)
      all.emplace_back(session, generations[i], settings_, constrained[i]);
    return run_canvases(session, all, HiddenGuesses::wants(generations, settings_.rule.certainty), control);
  }

  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens;
  }

  void check_length(int64_t tokens) const override {
    const int64_t blocks = (tokens + settings_.block_length - 1) / settings_.block_length;
    if (settings_.steps == 0 || settings_.steps >= blocks) return;
    throw Error("--decoder diffusion: steps=" + std::to_string(settings_.steps) + " for " +
                    std::to_string(blocks) + " blocks of " + std::to_string(settings_.block_length) +
                    " tokens: expected at least one a block",
                ErrorKind::kUsage);
  }

 private:
  void check(const ModelTraits& traits, std::span<const Generation> generations) const {
    const auto refuse = [](const std::string& fault) {
      throw Error("--decoder diffusion: " + fault, ErrorKind::kUsage);
    };
    check_generations(generations);
    if (traits.logit_shift != 0 || std::ranges::count(traits.masks, MaskKind::kFull) == 0)
      refuse("model " + traits.family + " predicts no hidden places");
    for (const Generation& generation : generations) {
      if (generation.mask_token < 0) refuse("model " + traits.family + " has no mask token");
      if (generation.chain.repetition_penalty != 1.0f) refuse("knows no repetition penalty");
      if (generation.unconditional && generation.unconditional->rows.size() != generation.prompt.rows.size())
        refuse("the guidance partner's prompt has another length");
      check_length(generation.max_tokens);
    }
  }

  Settings settings_;
};

}  // namespace

std::unique_ptr<Decoder> make_diffusion(const OptionReader& options) {
  return std::make_unique<Diffusion>(options);
}

}  // namespace volley
