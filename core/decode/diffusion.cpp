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
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/base/noise.h"
#include "core/decode/constrained_guess.h"
#include "core/decode/diffusion_settings.h"
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
        constrained_(std::move(constrained)),
        cursor_(generation.constraint.get(), generation.stop_tokens) {
    output_.is_whole = cursor_.accepts();
    tokens_.assign(static_cast<size_t>(generation.max_tokens), generation.mask_token);
    begin_block();
  }

  bool is_finished() const { return output_.finished && !owes_forward_; }
  GenerationOutput take_output() { return std::move(output_); }

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
    ++output_.forwards;
    output_.rows += first_row + last_place - first_place;
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

  // Rows that ask for a guess at each hidden place, then, unless guesses are the likeliest tokens anyway, for
  // the model's own distribution there: certainty is of that, whatever the guess was drawn from.
  void add_sample_rows(std::vector<SampleRow>& rows) {
    first_sample_ = rows.size();
    for (size_t i = 0; i < hidden_.size(); ++i) rows.push_back(sample_row(i, lane_.generation().chain));
    if (!is_sampled()) return;
    for (size_t i = 0; i < hidden_.size(); ++i) rows.push_back(sample_row(i, plain_chain()));
  }

  void take(const Samples& samples, int64_t index, const DecodeControl& control) {
    const std::vector<int32_t> guesses = guesses_of(samples);
    const std::vector<float> certainty = certainties(samples, guesses);
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
      tokens.push_back(likeliest_other(i));
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
    if (std::ssize(output_.tokens) < block_end_ && !output_.finished) return;
    owes_forward_ = settings_->always_second && settings_->cache != Cache::kOff && step_in_block_ == 1 &&
                    std::ssize(output_.tokens) == block_end_;
    if (owes_forward_ || output_.finished) return;
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
  bool is_sampled() const { return lane_.generation().chain.temperature > 0.0f; }

  StepRow row_of(int64_t place) const {
    return {.token = tokens_[static_cast<size_t>(place)],
            .position = session_->model().position(first_index() + place)};
  }

  void begin_block() {
    block_end_ = std::min(places(), block_begin_ + settings_->block_length);
    step_in_block_ = 0;
    if (constrained_) begin_ = {.state = cursor_.state()};  // all tokens left of the block were taken
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

  LogitsChain plain_chain() const {
    return {.guidance = lane_.generation().chain.guidance, .temperature = 0.0f};
  }

  SampleRow sample_row(size_t hidden, const LogitsChain& chain) const {
    SampleRow row = make_sample_row(chain, lane_.place(hidden_[hidden], done_),
                                    lane_.logits_rows(hidden_[hidden] - block_begin_));
    row.draw = static_cast<uint32_t>(step_);
    return row;
  }

  size_t first_plain() const { return first_sample_ + (is_sampled() ? hidden_.size() : 0); }

  // Row `index` of the samples' distributions.
  std::span<const float> distribution(const Samples& samples, size_t index) const {
    const auto vocab = static_cast<size_t>(session_->model().traits().vocab_size);
    return std::span(samples.distribution).subspan(index * vocab, vocab);
  }

  // At each hidden place.
  std::vector<int32_t> guesses_of(const Samples& samples) const {
    if (!constrained_) {
      const auto first = samples.tokens.begin() + static_cast<std::ptrdiff_t>(first_sample_);
      return {first, first + std::ssize(hidden_)};
    }
    std::vector<HiddenPlace> hidden;
    for (size_t i = 0; i < hidden_.size(); ++i) {
      hidden.push_back({.row = sample_row(i, lane_.generation().chain),
                        .drawn = distribution(samples, first_sample_ + i),
                        .plain = distribution(samples, first_plain() + i)});
    }
    return constrained_guesses(
        *constrained_,
        {.begin = begin_,
         .tokens = std::span(tokens_).subspan(static_cast<size_t>(block_begin_),
                                              static_cast<size_t>(block_end_ - block_begin_)),
         .behind = places() - block_end_},
        hidden, lane_.generation().mask_token);
  }

  // Of each hidden place, what the rule's certainty names.
  std::vector<float> certainties(const Samples& samples, std::span<const int32_t> guesses) const {
    const size_t count = hidden_.size(), plain = first_plain();
    std::vector<float> values;
    for (size_t i = 0; i < count; ++i) {
      switch (settings_->rule.certainty) {
        case Certainty::kProbability:
          values.push_back(constrained_ ? distribution(samples, plain + i)[static_cast<size_t>(guesses[i])]
                                        : probability(samples, first_sample_ + i, plain + i));
          break;
        case Certainty::kMargin:
          values.push_back(samples.top_probability[2 * (plain + i)] -
                           samples.top_probability[2 * (plain + i) + 1]);
          break;
        case Certainty::kEntropy:
          values.push_back(samples.entropy[plain + i]);
          break;
        case Certainty::kRandom: {
          const Generation& generation = lane_.generation();
          values.push_back(uniform({.seed = generation.seed,
                                    .stream = generation.stream,
                                    .purpose = NoisePurpose::kMask,
                                    .draw = static_cast<uint32_t>(step_),
                                    .position = static_cast<uint32_t>(hidden_[i])},
                                   0));
          break;
        }
      }
    }
    return values;
  }

  // The guess's probability in the plain distribution. It is drawn from one at another temperature, in which
  // its ratio to the likeliest token is the plain ratio to the power of 1 / temperature.
  float probability(const Samples& samples, size_t guess, size_t plain) const {
    if (guess == plain || samples.tokens[guess] == samples.tokens[plain]) return samples.probability[plain];
    const float ratio = samples.probability[guess] / samples.top_probability[2 * guess];
    return samples.probability[plain] * std::pow(ratio, lane_.generation().chain.temperature);
  }

  // The likeliest token of a hidden place that is not the mask itself.
  int32_t likeliest_other(size_t hidden) const {
    const SampleRow row = sample_row(hidden, plain_chain());
    const std::vector<int32_t> top = session_->sample({&row, 1}, {}, {.top = 2}).top_tokens;
    return top[0] == lane_.generation().mask_token ? top[1] : top[0];
  }

  // Hands out what is whole from the left. Returns how many tokens.
  int64_t advance() {
    const Generation& generation = lane_.generation();
    const auto before = std::ssize(output_.tokens);
    while (!output_.finished && !is_hidden(std::ssize(output_.tokens))) {
      const int32_t token = tokens_[output_.tokens.size()];
      output_.tokens.push_back(token);
      const ConstraintCursor next = cursor_.after(token);
      output_.is_whole = next.is_broken() ? cursor_.accepts() : next.accepts();
      cursor_ = next;
      output_.is_complete = cursor_.is_complete();
      const bool is_end = generation.ends_with && generation.ends_with(token);
      output_.finished = is_end || std::ssize(output_.tokens) == places() ||
                         std::ranges::count(generation.stop_tokens, token) > 0 || output_.is_complete;
    }
    return std::ssize(output_.tokens) - before;
  }

  Session* session_;
  const Settings* settings_;
  Lane lane_;
  std::shared_ptr<ConstrainedBlock> constrained_;
  ConstraintCursor cursor_;                 // behind the output's tokens
  ConstrainedBlock::AutomatonState begin_;  // of the block
  GenerationOutput output_;                 // its tokens: what is whole from the left
  std::vector<int32_t> tokens_;             // of all places
  int64_t done_ = 0;                        // places filled
  int64_t step_ = 0;
  int64_t block_begin_ = 0;
  int64_t block_end_ = 0;
  int64_t step_in_block_ = 0;
  bool owes_forward_ = false;      // of a block that is filled
  std::vector<int64_t> schedule_;  // of the block
  // Of the step in flight.
  std::vector<int32_t> hidden_;  // places to be guessed
  size_t first_sample_ = 0;
};

class Diffusion : public Decoder {
 public:
  explicit Diffusion(const OptionReader& options) : settings_(read_diffusion_settings(options)) {}

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    check(session.model().traits(), generations);
    std::vector<Canvas> all;
    const auto constrained = constrained_blocks(generations, session.model().traits().vocab_size);
    for (size_t i = 0; i < generations.size(); ++i)
      all.emplace_back(session, generations[i], settings_, constrained[i]);
    const bool is_constrained =
        std::ranges::any_of(constrained, [](const auto& one) { return one != nullptr; });
    while (!control.stop.stop_requested()) {
      std::vector<SequenceStep> steps;
      std::vector<SampleRow> rows;
      std::vector<size_t> active;
      for (size_t i = 0; i < all.size(); ++i) {
        if (all[i].is_finished()) continue;
        active.push_back(i);
        all[i].add_to(steps);
      }
      if (active.empty()) break;
      session.step(steps);
      for (const size_t i : active) {
        all[i].keep_entries();
        all[i].add_sample_rows(rows);
      }
      const Samples samples =
          rows.empty()
              ? Samples{}
              : session.sample(
                    rows, {},
                    {.certainty = true, .distribution = is_constrained, .top = wanted_top(generations)});
      for (const size_t i : active) all[i].take(samples, static_cast<int64_t>(i), control);
    }
    std::vector<GenerationOutput> outputs;
    for (Canvas& canvas : all) outputs.push_back(canvas.take_output());
    return outputs;
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

  // Likeliest tokens of each row that the certainties are made of.
  int64_t wanted_top(std::span<const Generation> generations) const {
    const bool is_sampled = std::ranges::any_of(
        generations, [](const Generation& generation) { return generation.chain.temperature > 0.0f; });
    const bool is_probability = settings_.rule.certainty == Certainty::kProbability;
    return settings_.rule.certainty == Certainty::kMargin || (is_sampled && is_probability) ? 2 : 0;
  }

  Settings settings_;
};

}  // namespace

std::unique_ptr<Decoder> make_diffusion(const OptionReader& options) {
  return std::make_unique<Diffusion>(options);
}

}  // namespace volley
