// Masked decoding with several candidates.
// Ref: "Whisfusion: parallel ASR decoding via a diffusion transformer" (parallel diffusion decoding).
#include "core/decode/masked.h"

#include <algorithm>
#include <numeric>

#include "core/base/noise.h"
#include "core/decode/methods.h"

namespace volley {
namespace {

class NoiseMasks : public MaskUniforms {
 public:
  float at(const Generation& generation, const Draw& draw) override {
    return uniform({.seed = generation.seed,
                    .stream = generation.stream,
                    .purpose = NoisePurpose::kMask,
                    .draw = static_cast<uint32_t>(draw.step),
                    .position = static_cast<uint32_t>(draw.position - std::ssize(generation.prompt.rows))},
                   static_cast<uint32_t>(draw.candidate));
  }
};

struct Progress {
  const Generation* generation = nullptr;
  std::vector<SequenceLease> sequences;  // one a candidate; nothing is ever committed to them
  MaskedCandidates result;
  std::vector<std::vector<uint8_t>> hidden;  // of the step in flight
  int64_t running = 0;                       // candidates in the step in flight
  int64_t first_step_index = 0;
};

SequenceStep make_step(const StepModel& model, const Progress& progress, int64_t candidate) {
  const auto c = static_cast<size_t>(candidate);
  const std::vector<int32_t>& tokens = progress.result.tokens[c];
  SequenceStep step{.sequence = progress.sequences[c].id(),
                    .phase = Phase::kDecode,
                    .visibility = {.kind = MaskKind::kFull},
                    .write = CacheWrite::kNone,
                    .memory = progress.generation->memory};
  for (size_t j = 0; j < tokens.size(); ++j) {
    step.rows.push_back({.token = progress.hidden[c][j] ? progress.generation->mask_token : tokens[j],
                         .position = model.position(static_cast<int64_t>(j))});
    step.wanted.logits.push_back(static_cast<int32_t>(j));
  }
  return step;
}

float mean_confidence(std::span<const int32_t> tokens, std::span<const float> confidence, int32_t pad) {
  float sum = 0.0f;
  int64_t count = 0;
  for (size_t j = 0; j < tokens.size(); ++j) {
    if (tokens[j] == pad) continue;
    sum += confidence[j];
    ++count;
  }
  return sum / static_cast<float>(std::max<int64_t>(1, count));
}

}  // namespace

std::vector<MaskedCandidates> MaskedLoop::run(Session& session, std::span<const Generation> generations,
                                              const DecodeControl& control) const {
  check_generations(generations);
  refuse_constraints(generations, "masked");
  NoiseMasks own_masks;
  MaskUniforms& masks = uniforms != nullptr ? *uniforms : own_masks;
  if (session.model().traits().logit_shift != 0) {
    throw Error("--decoder masked: model " + session.model().traits().family +
                    " predicts the next place, not its own",
                ErrorKind::kUsage);
  }
  std::vector<Progress> all;
  for (const Generation& generation : generations) {
    Progress progress{.generation = &generation};
    std::vector<int32_t> tokens;
    for (const StepRow& row : generation.prompt.rows) tokens.push_back(row.token);
    tokens.resize(tokens.size() + static_cast<size_t>(generation.max_tokens), generation.mask_token);
    for (int64_t c = 0; c < candidates; ++c) progress.sequences.emplace_back(session.cache());
    progress.result.tokens.assign(static_cast<size_t>(candidates), tokens);
    progress.result.scores.assign(static_cast<size_t>(candidates), 0.0f);
    progress.hidden.assign(static_cast<size_t>(candidates), std::vector<uint8_t>(tokens.size(), 0));
    all.push_back(std::move(progress));
  }

  const auto step_count = static_cast<int64_t>(mask_ratios.size());
  int64_t step = 0;
  for (; step < step_count && !control.stop.stop_requested(); ++step) {
    const double ratio = mask_ratios[static_cast<size_t>(step)];
    std::vector<SequenceStep> steps;
    std::vector<SampleRow> rows;
    for (size_t g = 0; g < all.size(); ++g) {
      Progress& progress = all[g];
      const size_t prompt = progress.generation->prompt.rows.size();
      for (int64_t c = 0; c < candidates; ++c) {
        for (size_t j = prompt; j < progress.hidden[0].size(); ++j) {
          progress.hidden[static_cast<size_t>(c)][j] =
              masks.at(*progress.generation, {.generation = static_cast<int64_t>(g),
                                              .candidate = c,
                                              .step = step,
                                              .position = static_cast<int64_t>(j)}) <
              static_cast<float>(ratio);  // as torch compares
        }
      }
      // Candidates that are all hidden have the same input: one of them stands for all.
      progress.running = ratio >= 1.0 ? 1 : candidates;
      progress.first_step_index = static_cast<int64_t>(steps.size());
      for (int64_t c = 0; c < progress.running; ++c) steps.push_back(make_step(session.model(), progress, c));
      ++progress.result.forwards;
      progress.result.rows += progress.running * static_cast<int64_t>(progress.hidden[0].size());
    }
    session.step(steps);
    for (size_t s = 0; s < steps.size(); ++s) {
      for (size_t j = 0; j < steps[s].rows.size(); ++j) {
        rows.push_back({.logits_row = session.logits_row(static_cast<int64_t>(s), static_cast<int64_t>(j)),
                        .temperature = 0.0f});
      }
    }
    const Samples samples = session.sample(rows, {}, {.certainty = true});
    size_t next = 0;
    for (size_t g = 0; g < all.size(); ++g) {
      Progress& progress = all[g];
      const size_t length = progress.hidden[0].size();
      for (int64_t c = 0; c < candidates; ++c) {
        const size_t from = next + (progress.running == 1 ? 0 : static_cast<size_t>(c) * length);
        std::vector<int32_t>& tokens = progress.result.tokens[static_cast<size_t>(c)];
        std::vector<int32_t> positions, changed;
        for (size_t j = 0; j < length; ++j) {
          if (progress.hidden[static_cast<size_t>(c)][j] == 0) continue;
          tokens[j] = samples.tokens[from + j];
          positions.push_back(static_cast<int32_t>(j - progress.generation->prompt.rows.size()));
          changed.push_back(tokens[j]);
        }
        progress.result.scores[static_cast<size_t>(c)] = mean_confidence(
            tokens, std::span(samples.probability).subspan(from, length), progress.generation->pad_token);
        if (control.observer != nullptr) {
          control.observer->on_step({.generation = static_cast<int64_t>(g),
                                     .candidate = c,
                                     .step = step,
                                     .positions = positions,
                                     .tokens = changed,
                                     .proposed = static_cast<int64_t>(positions.size()),
                                     .accepted = static_cast<int64_t>(positions.size()),
                                     .source = "masked rows",
                                     .is_final = step == step_count - 1,
                                     .done = step == step_count - 1 ? progress.generation->max_tokens : 0,
                                     .total = progress.generation->max_tokens});
        }
      }
      next += static_cast<size_t>(progress.running) * length;
    }
  }
  std::vector<MaskedCandidates> results;
  for (Progress& progress : all) {
    MaskedCandidates& result = progress.result;
    result.finished = step == step_count;
    result.best = std::ranges::max_element(result.scores) - result.scores.begin();
    results.push_back(std::move(result));
  }
  return results;
}

namespace {

class Masked : public Decoder {
 public:
  explicit Masked(const OptionReader& options)
      : loop_{.candidates = options.integer("candidates", 1, 1024),
              .mask_ratios = options.numbers("ratios", 0.0, 1.0)} {}

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    std::vector<GenerationOutput> outputs;
    const std::vector<MaskedCandidates> results = loop_.run(session, generations, control);
    for (size_t g = 0; g < results.size(); ++g) {
      const MaskedCandidates& result = results[g];
      const auto best = static_cast<size_t>(result.best);
      GenerationOutput output{.finished = result.finished,
                              .forwards = result.forwards,
                              .rows = result.rows,
                              .score = result.scores[best]};
      output.tokens.assign(
          result.tokens[best].begin() + static_cast<int64_t>(generations[g].prompt.rows.size()),
          result.tokens[best].end());
      session.statistics().tokens += generations[g].max_tokens;
      outputs.push_back(std::move(output));
    }
    return outputs;
  }
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens;
  }

 private:
  MaskedLoop loop_;
};

}  // namespace

std::unique_ptr<Decoder> make_masked(const OptionReader& options) {
  return std::make_unique<Masked>(options);
}

}  // namespace volley
