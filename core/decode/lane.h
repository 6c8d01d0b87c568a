#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/decode/generation.h"
#include "core/decode/session.h"

namespace volley {

// A generation in progress: its one or two cached sequences (the second is the guidance partner, which gets
// the same rows). Methods see one lane and never the pair.
class Lane {
 public:
  Lane(Session& session, const Generation& generation);

  const Generation& generation() const { return *generation_; }

  // Adds this lane's sequences to a step; `step` says everything but the sequence and the partner.
  void add_to(std::vector<SequenceStep>& steps, SequenceStep step);
  // The same in place of what `steps` holds from its `count`-th on, whose memory is used again; counts them.
  void put_in(std::vector<SequenceStep>& steps, size_t& count, const SequenceStep& step);
  // The same with each sequence's own prompt rows in front of the step's; `wanted` and `replaced` count from
  // the prompts' first row. The prompts must be of one length and hold no vectors.
  void add_with_prompts(std::vector<SequenceStep>& steps, const SequenceStep& step);
  // Adds this lane's prompts.
  void add_prompts(std::vector<Prompt>& prompts);
  // Logits rows of the `wanted`-th wanted row of the step this lane was last added to.
  LogitsRows logits_rows(int64_t wanted) const;
  // Hidden states of its rows in that step, [rows, dim]; they must have been wanted. Of the conditional
  // sequence.
  std::vector<float> hidden(int32_t layer) const;
  // Keeps the given rows of the last step in every sequence of the lane.
  void commit(std::span<const int32_t> rows);
  // Drops everything that was kept.
  void clear() { crop(0); }
  // Drops all that was kept but the first `entries`, the prompt's included.
  void crop(int64_t entries);
  // Drops all that was kept behind the prompt but its first `rows` rows.
  void crop_output(int64_t rows);

  // The place of output token `position`, of which `index` came before.
  OutputPlace place(int64_t position, int64_t index) const;

 private:
  Session* session_;
  const Generation* generation_;
  SequenceLease conditional_;
  std::optional<SequenceLease> unconditional_;
  int64_t step_index_ = 0;  // of the conditional sequence in the step being built
};

// Entries of a sequence that is fed its prompt and every token but the last.
int64_t fed_entries(const Generation& generation);

}  // namespace volley
