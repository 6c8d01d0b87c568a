// Outputs longer than the context: drop a part of what came first, and go on.
// Ref: the context shift of llama.cpp (n_keep, half of the rest is dropped). There keys stay in the cache
// and are rotated to their new positions, with what dropped tokens left in them; here what stays runs again,
// so that it is what a prompt of these tokens would be.
#include "core/decode/context_shift.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "core/base/error.h"

namespace volley {
namespace {

// A constraint behind the first tokens of an output.
class RestOfConstraint : public Constraint {
 public:
  RestOfConstraint(std::shared_ptr<const Constraint> whole, State state)
      : whole_(std::move(whole)), start_(state) {}

  State start() const override { return start_; }
  State next(State state, int32_t token) const override { return whole_->next(state, token); }
  bool accepts(State state) const override { return whole_->accepts(state); }
  std::shared_ptr<const TokenSet> allowed(State state) const override { return whole_->allowed(state); }
  int32_t foreseen(State state) const override { return whole_->foreseen(state); }

 private:
  std::shared_ptr<const Constraint> whole_;
  State start_;
};

// An output in the making. A stretch of it is what one context holds.
class ShiftingOutput {
 public:
  ShiftingOutput(const StepModel& model, const Generation& request, const ContextShift& shift)
      : model_(model), request_(request), shift_(shift) {
    VOLLEY_ASSERT(!request.unconditional && request.prompt.embeddings.empty() && request.given.empty());
    for (const StepRow& row : request.prompt.rows) tokens_.push_back(row.token);
    VOLLEY_ASSERT(std::ssize(tokens_) < shift.context && shift.keep + 2 <= shift.context);
    if (request.constraint) state_ = request.constraint->start();
  }

  bool is_done() const { return is_done_; }
  const GenerationOutput& output() const { return output_; }

  // The next stretch as a generation of its own. This must stay where it is until the stretch is taken.
  Generation stretch() {
    Generation made = request_;
    made.prompt = token_prompt(model_, tokens_);
    made.output_offset = request_.output_offset + std::ssize(output_.tokens);
    made.max_tokens =
        std::min(shift_.context - std::ssize(tokens_), request_.max_tokens - std::ssize(output_.tokens));
    if (request_.constraint)
      made.constraint = std::make_shared<const RestOfConstraint>(request_.constraint, state_);
    ended_ = false;
    if (request_.ends_with) {
      made.ends_with = [this](int32_t token) { return ended_ = request_.ends_with(token); };
    }
    return made;
  }

  // Takes a stretch that was decoded, and where the output goes on drops what does not stay.
  void take(const GenerationOutput& made) {
    if (dropped_ > 0 && !made.tokens.empty()) ++output_.shifts;
    dropped_ = 0;
    for (const int32_t token : made.tokens) {
      if (request_.constraint) state_ = request_.constraint->next(state_, token);
      output_.tokens.push_back(token);
      tokens_.push_back(token);
    }
    output_.forwards += made.forwards;
    output_.rows += made.rows;
    output_.finished = made.finished;
    output_.is_whole = made.is_whole;
    output_.is_complete = made.is_complete;
    const bool has_ended =
        ended_ || made.is_complete || std::ssize(output_.tokens) == request_.max_tokens ||
        (!made.tokens.empty() && std::ranges::count(request_.stop_tokens, made.tokens.back()) > 0);
    is_done_ = !made.finished || has_ended;
    first_step_ = steps_;
    if (is_done_) return;
    VOLLEY_ASSERT(std::ssize(tokens_) == shift_.context);
    tokens_ = shifted(tokens_, shift_.keep);
    dropped_ = shift_.context - std::ssize(tokens_);
    is_told_ = false;
  }

  // An event of the stretch, as one of the whole output.
  void tell(StepEvent event, int64_t generation, Observer& observer) {
    const auto before = static_cast<int32_t>(std::ssize(output_.tokens));
    if (!std::exchange(is_told_, true)) {
      observer.on_shift({.generation = generation,
                         .step = steps_,
                         .kept = shift_.keep,
                         .dropped = dropped_,
                         .done = before});
    }
    std::vector<int32_t> positions(event.positions.begin(), event.positions.end());
    for (int32_t& position : positions) position += before;
    event.generation = generation;
    event.step += first_step_;
    event.positions = positions;
    event.done += before;
    event.total = request_.max_tokens;
    steps_ = event.step + 1;
    observer.on_step(event);
  }

 private:
  const StepModel& model_;
  const Generation& request_;
  ContextShift shift_;
  std::vector<int32_t> tokens_;  // of the stretch: its prompt, and what was taken
  Constraint::State state_ = Constraint::kBroken;
  GenerationOutput output_;
  bool ended_ = false;  // as the request's ends_with said of the last token
  bool is_done_ = false;
  int64_t steps_ = 0;
  int64_t first_step_ = 0;  // of the stretch
  int64_t dropped_ = 0;     // before the stretch; a shift that brought no token is none
  bool is_told_ = true;     // of that
};

// Tells of the stretches of a batch.
class StretchObserver : public Observer {
 public:
  StretchObserver(Observer& observer, std::vector<ShiftingOutput>& all, std::span<const size_t> batch)
      : observer_(observer), all_(all), batch_(batch) {}

  void on_step(const StepEvent& event) override {
    const size_t generation = batch_[static_cast<size_t>(event.generation)];
    all_[generation].tell(event, static_cast<int64_t>(generation), observer_);
  }

 private:
  Observer& observer_;
  std::vector<ShiftingOutput>& all_;
  std::span<const size_t> batch_;
};

}  // namespace

std::vector<int32_t> shifted(std::span<const int32_t> tokens, int64_t keep) {
  const int64_t rest = std::ssize(tokens) - keep;
  VOLLEY_ASSERT(keep >= 0 && rest > 0);
  std::vector<int32_t> left(tokens.begin(), tokens.begin() + keep);
  left.insert(left.end(), tokens.begin() + keep + (rest + 1) / 2, tokens.end());
  return left;
}

std::vector<int32_t> fitted(std::span<const int32_t> prompt, const ContextShift& shift) {
  if (std::ssize(prompt) < shift.context) return {prompt.begin(), prompt.end()};
  // Each time that the context is full, so many are left of it.
  const int64_t rest = shift.context - shift.keep;
  const int64_t dropped = (rest + 1) / 2;
  const int64_t beyond = std::ssize(prompt) - shift.context;
  const int64_t times = beyond / dropped + 1;
  std::vector<int32_t> left(prompt.begin(), prompt.begin() + shift.keep);
  left.insert(left.end(), prompt.begin() + shift.keep + times * dropped, prompt.end());
  return left;
}

std::vector<GenerationOutput> decode_shifting(const Decoder& decoder, Session& session,
                                              std::span<const Generation> generations,
                                              std::span<const ContextShift> shifts,
                                              const DecodeControl& control) {
  check_generations(generations);
  VOLLEY_ASSERT(generations.size() == shifts.size());
  std::vector<ShiftingOutput> all;
  all.reserve(generations.size());
  for (size_t i = 0; i < generations.size(); ++i)
    all.emplace_back(session.model(), generations[i], shifts[i]);
  while (true) {
    std::vector<size_t> batch;
    for (size_t i = 0; i < all.size(); ++i) {
      if (!all[i].is_done()) batch.push_back(i);
    }
    if (batch.empty()) break;
    std::vector<Generation> stretches;
    for (const size_t i : batch) stretches.push_back(all[i].stretch());
    DecodeControl of_stretch = control;
    std::optional<StretchObserver> observer;
    if (control.observer != nullptr) of_stretch.observer = &observer.emplace(*control.observer, all, batch);
    const std::vector<GenerationOutput> made = decoder.decode(session, stretches, of_stretch);
    for (size_t b = 0; b < batch.size(); ++b) all[batch[b]].take(made[b]);
  }
  std::vector<GenerationOutput> outputs;
  for (const ShiftingOutput& output : all) outputs.push_back(output.output());
  return outputs;
}

int64_t shifting_entries(const Decoder& decoder, const Generation& generation, const ContextShift& shift) {
  Generation stretch = generation;
  const int64_t room = shift.context - std::ssize(generation.prompt.rows);
  stretch.max_tokens = std::min(generation.max_tokens, room);
  return decoder.entries(stretch);
}

}  // namespace volley
