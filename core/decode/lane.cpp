#include "core/decode/lane.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "core/base/error.h"

namespace volley {

void check_generations(std::span<const Generation> generations) {
  for (size_t i = 0; i < generations.size(); ++i) {
    const Generation& generation = generations[i];
    const auto refuse = [&](const std::string& fault) {
      throw Error("generation " + std::to_string(i) + ": " + fault);
    };
    if (generation.prompt.rows.empty()) refuse("prompt: there are no rows");
    if (generation.unconditional && generation.unconditional->rows.empty())
      refuse("unconditional: there are no rows");
    if (generation.max_tokens < 1)
      refuse("max_tokens: " + std::to_string(generation.max_tokens) + ", expected at least 1");
    if (generation.stream >= 1u << 24)
      refuse("stream: " + std::to_string(generation.stream) + " is not below 2^24");
  }
}

void refuse_constraints(std::span<const Generation> generations, std::string_view decoder) {
  const auto has_one = [](const Generation& generation) { return generation.constraint != nullptr; };
  if (std::ranges::any_of(generations, has_one)) {
    throw Error("--decoder " + std::string(decoder) +
                    ": keeps no constraint; methods of causal models and diffusion do",
                ErrorKind::kUsage);
  }
}

bool Generation::ends_at(int32_t token, int64_t count) const {
  const bool is_end = ends_with && ends_with(token);
  return is_end || count == max_tokens || std::ranges::count(stop_tokens, token) > 0;
}

int64_t prompt_entries(const Generation& generation) {
  const auto conditional = std::ssize(generation.prompt.rows);
  return generation.unconditional ? std::max(conditional, std::ssize(generation.unconditional->rows))
                                  : conditional;
}

int64_t fed_entries(const Generation& generation) {
  return prompt_entries(generation) + std::max<int64_t>(generation.max_tokens - 1, 0);
}

PromptRows token_prompt(const StepModel& model, std::span<const int32_t> tokens, int64_t first_index) {
  PromptRows prompt;
  for (size_t i = 0; i < tokens.size(); ++i) {
    prompt.rows.push_back(
        {.token = tokens[i], .position = model.position(first_index + static_cast<int64_t>(i))});
  }
  return prompt;
}

Lane::Lane(Session& session, const Generation& generation)
    : session_(&session), generation_(&generation), conditional_(session.cache()) {
  if (generation.unconditional) unconditional_.emplace(session.cache());
}

void Lane::add_to(std::vector<SequenceStep>& steps, SequenceStep step) {
  step_index_ = static_cast<int64_t>(steps.size());
  step.sequence = conditional_.id();
  step.memory = generation_->memory;
  if (!unconditional_) {
    steps.push_back(std::move(step));
    return;
  }
  step.guidance = static_cast<int32_t>(step_index_) + 1;
  steps.push_back(step);
  step.guidance = -1;
  step.sequence = unconditional_->id();
  steps.push_back(std::move(step));
}

void Lane::put_in(std::vector<SequenceStep>& steps, size_t& count, const SequenceStep& step) {
  step_index_ = static_cast<int64_t>(count);
  const auto put = [&](SequenceId sequence, int32_t guidance) {
    if (count == steps.size()) steps.emplace_back();
    SequenceStep& own = steps[count++];
    own = step;
    own.sequence = sequence;
    own.memory = generation_->memory;
    own.guidance = guidance;
  };
  put(conditional_.id(), unconditional_ ? static_cast<int32_t>(step_index_) + 1 : -1);
  if (unconditional_) put(unconditional_->id(), -1);
}

void Lane::add_with_prompts(std::vector<SequenceStep>& steps, const SequenceStep& step) {
  const auto with = [&](const PromptRows& prompt) {
    VOLLEY_ASSERT(prompt.embeddings.empty() && prompt.rows.size() == generation_->prompt.rows.size());
    SequenceStep whole = step;
    whole.rows.insert(whole.rows.begin(), prompt.rows.begin(), prompt.rows.end());
    return whole;
  };
  add_to(steps, with(generation_->prompt));
  if (!unconditional_) return;
  // add_to copied the conditional rows for the partner.
  steps.back().rows = with(*generation_->unconditional).rows;
}

void Lane::add_prompts(std::vector<Prompt>& prompts) {
  step_index_ = static_cast<int64_t>(prompts.size());
  const auto add = [&](SequenceId sequence, const PromptRows& rows) {
    prompts.push_back({.sequence = sequence,
                       .rows = rows.rows,
                       .embeddings = rows.embeddings,
                       .memory = generation_->memory});
  };
  add(conditional_.id(), generation_->prompt);
  if (unconditional_) add(unconditional_->id(), *generation_->unconditional);
}

LogitsRows Lane::logits_rows(int64_t wanted) const {
  LogitsRows rows{.conditional = session_->logits_row(step_index_, wanted)};
  if (unconditional_) rows.unconditional = session_->logits_row(step_index_ + 1, wanted);
  return rows;
}

std::vector<float> Lane::hidden(int32_t layer) const {
  return session_->hidden(step_index_, layer);
}

void Lane::commit(std::span<const int32_t> rows) {
  session_->cache().commit(conditional_.id(), rows);
  if (unconditional_) session_->cache().commit(unconditional_->id(), rows);
}

void Lane::crop(int64_t entries) {
  session_->cache().crop(conditional_.id(), entries);
  if (unconditional_) session_->cache().crop(unconditional_->id(), entries);
}

void Lane::crop_output(int64_t rows) {
  session_->cache().crop(conditional_.id(), std::ssize(generation_->prompt.rows) + rows);
  if (unconditional_)
    session_->cache().crop(unconditional_->id(), std::ssize(generation_->unconditional->rows) + rows);
}

OutputPlace Lane::place(int64_t position, int64_t index) const {
  return {.seed = generation_->seed,
          .stream = generation_->stream,
          .position = generation_->output_offset + position,
          .index = generation_->output_offset + index,
          .total = generation_->output_offset + generation_->max_tokens};
}

}  // namespace volley
