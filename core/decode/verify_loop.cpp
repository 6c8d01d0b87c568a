// Draft and verify over a batch of generations with independent progress.
// Ref: Leviathan et al., "Fast inference from transformers via speculative decoding"; Miao et al.,
// "SpecInfer" (trees).
#include "core/decode/verify_loop.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>

#include "core/base/error.h"
#include "core/decode/lane.h"

namespace volley {
namespace {

// One generation and what is known of it. The last final token is the root of the next draft: it is not in
// the cache yet.
struct Progress {
  Lane lane;
  GenerationOutput output;
  std::vector<int32_t> path;  // prompt tokens, then output tokens
  ConstraintCursor cursor;    // behind the output tokens
  int64_t first_index = 0;
  DraftTree draft;           // of the step in flight
  DraftOutlook outlook;      // before that draft was made; only where lengths are chosen
  int64_t asked = 0;         // tokens of it that were chosen
  int64_t first_sample = 0;  // its rows in the step's samples
  int64_t steps = 0;
  // The path in the pool of texts.
  DraftPool::Place pooled = DraftPool::kBeginning;
  int64_t pooled_tokens = 0;

  const Generation& generation() const { return lane.generation(); }
  int64_t emitted() const { return static_cast<int64_t>(output.tokens.size()); }

  // Takes final tokens until the output is full or a stop token came; returns how many were taken.
  int64_t emit(std::span<const int32_t> tokens) {
    int64_t taken = 0;
    for (int32_t token : tokens) {
      if (output.finished) break;
      take_by_constraint(token);
      output.tokens.push_back(token);
      path.push_back(token);
      ++taken;
      output.is_complete = cursor.is_complete();
      output.finished = generation().ends_at(token, emitted()) || output.is_complete;
    }
    return taken;
  }

  void add_to(DraftPool& pool) {
    pooled = pool.add(pooled, std::span(path).subspan(static_cast<size_t>(pooled_tokens)));
    pooled_tokens = std::ssize(path);
  }

  // Only where nothing may come was a token chosen that may not.
  void take_by_constraint(int32_t token) {
    if (!cursor) return;
    if (!cursor.allows(token)) {
      throw Error("constraint: no token of the model's vocabulary may follow the first " +
                  std::to_string(generation().output_offset + emitted()) + " of the output");
    }
    const ConstraintCursor next = cursor.after(token);
    output.is_whole = next.is_broken() ? cursor.accepts() : next.accepts();
    cursor = next;
  }
};

Progress start(Session& session, const Generation& generation) {
  Progress progress{.lane = Lane(session, generation),
                    .cursor = ConstraintCursor(generation.constraint.get(), generation.stop_tokens)};
  progress.output.is_whole = progress.cursor.accepts();
  for (const StepRow& row : generation.prompt.rows) {
    if (row.kind == RowKind::kToken) progress.path.push_back(row.token);
  }
  progress.first_index = generation.first_index >= 0 ? generation.first_index
                                                     : static_cast<int64_t>(generation.prompt.rows.size());
  return progress;
}

void report(const DecodeControl& control, Session& session, const Progress& progress, int64_t index,
            int64_t emitted, int64_t proposed, int64_t accepted, std::string_view source) {
  session.statistics().tokens += emitted;
  if (control.observer == nullptr) return;
  std::vector<int32_t> positions(static_cast<size_t>(emitted));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(progress.emitted() - emitted));
  control.observer->on_step({.generation = index,
                             .step = progress.steps,
                             .positions = positions,
                             .tokens = std::span(progress.output.tokens).last(static_cast<size_t>(emitted)),
                             .proposed = proposed,
                             .accepted = accepted,
                             .source = source,
                             .done = progress.emitted(),
                             .total = progress.generation().max_tokens});
}

// What the proposer may know of the next step; a context for each of the active generations, in order.
std::vector<ProposalContext> make_contexts(const std::vector<Progress>& all, std::span<const size_t> active,
                                           int64_t vocab) {
  std::vector<ProposalContext> contexts;
  for (size_t i : active) {
    const Progress& progress = all[i];
    contexts.push_back({.generation = static_cast<int64_t>(i),
                        .path = progress.path,
                        .output_tokens = progress.emitted(),
                        // The verified draft yields one more token than it has levels.
                        .max_depth = progress.generation().max_tokens - progress.emitted() - 1,
                        .vocab_size = vocab,
                        .cursor = progress.cursor});
  }
  return contexts;
}

// Bounds the drafts by what pays. `now` says seconds.
void choose_lengths(DraftLength& length, Proposer& proposer, const std::function<double()>& now,
                    std::vector<Progress>& all, std::vector<ProposalContext>& contexts,
                    Statistics& statistics) {
  std::vector<DraftOutlook> outlooks;
  for (const ProposalContext& context : contexts) {
    DraftOutlook& outlook = all[static_cast<size_t>(context.generation)].outlook;
    outlook = {.generation = context.generation,
               .grade = context.max_depth > 0 ? proposer.grade(context) : 0,
               .longest = context.max_depth,
               .unread = proposer.unread(context),
               .tokens = context.max_depth + 1};
    outlooks.push_back(outlook);
  }
  if (length.wants_rehearsal(outlooks)) {
    std::vector<ProposalContext> unread;
    std::ranges::copy_if(contexts, std::back_inserter(unread), [&](const ProposalContext& context) {
      return all[static_cast<size_t>(context.generation)].outlook.unread > 0;
    });
    const double before = now();
    proposer.rehearse(unread);
    length.observe_rehearsal(now() - before);
  }
  const std::vector<int64_t> lengths = length.choose(outlooks);
  for (size_t c = 0; c < contexts.size(); ++c) {
    VOLLEY_ASSERT(lengths[c] >= 0 && lengths[c] <= contexts[c].max_depth);
    contexts[c].max_depth = lengths[c];
    all[static_cast<size_t>(contexts[c].generation)].asked = lengths[c];
    if (outlooks[c].grade > 0 && lengths[c] == 0) ++statistics.steps_off;
  }
}

// Takes the drafts of the next step.
void make_drafts(Proposer& proposer, std::vector<Progress>& all, std::span<const ProposalContext> contexts) {
  std::vector<DraftTree> drafts = proposer.propose_batch(contexts);
  VOLLEY_ASSERT(drafts.size() == contexts.size());
  for (size_t c = 0; c < contexts.size(); ++c) {
    DraftTree& draft = all[static_cast<size_t>(contexts[c].generation)].draft;
    draft = std::move(drafts[c]);
    draft.limit_depth(contexts[c].max_depth);
  }
}

// Fills in the root's and the draft's rows of a step under a tree mask.
void fill_step(const StepModel& model, const Progress& progress, SequenceStep& step) {
  const DraftTree& draft = progress.draft;
  const int64_t root_index = progress.first_index + progress.emitted() - 1;
  step.rows.clear();
  step.visibility.parents.clear();
  step.wanted.logits.clear();
  step.rows.push_back({.token = progress.output.tokens.back(), .position = model.position(root_index)});
  step.visibility.parents.push_back(-1);
  step.wanted.logits.push_back(0);
  for (int32_t node = 0; node < draft.size(); ++node) {
    step.rows.push_back({.token = draft.tokens[static_cast<size_t>(node)],
                         .position = model.position(root_index + draft.depth(node))});
    step.visibility.parents.push_back(draft.parents[static_cast<size_t>(node)] + 1);
    step.wanted.logits.push_back(node + 1);
  }
}

// What a step asks of sampling.
struct SampleRequest {
  std::vector<SampleRow> rows;
  std::vector<int32_t> paths;
  // Of rows under a constraint.
  std::vector<int32_t> biased;  // rows of the logits
  std::vector<float> bias;      // [biased, vocab]
};

// Takes what the constraint forbids out of the rows of the root and of every node. Behind a token that breaks
// it a row is left alone: what is chosen there is never used.
void add_bias(const Progress& progress, int64_t vocab, SampleRequest& request) {
  if (!progress.cursor) return;
  const DraftTree& draft = progress.draft;
  std::vector<ConstraintCursor> cursors{progress.cursor};  // [1 + nodes]
  for (int32_t node = -1; node < draft.size(); ++node) {
    if (node >= 0) {
      const int32_t parent = draft.parents[static_cast<size_t>(node)];
      cursors.push_back(
          cursors[static_cast<size_t>(parent + 1)].after(draft.tokens[static_cast<size_t>(node)]));
    }
    if (cursors.back().add_bias(vocab, request.bias))
      request.biased.push_back(progress.lane.logits_rows(node + 1).conditional);
  }
}

// Sampling rows for the root and every node; each sees its own path.
void add_sample_rows(const Progress& progress, int64_t vocab, SampleRequest& request) {
  std::vector<SampleRow>& rows = request.rows;
  std::vector<int32_t>& paths = request.paths;
  const DraftTree& draft = progress.draft;
  const bool has_penalty = progress.generation().chain.repetition_penalty != 1.0f;
  for (int32_t node = -1; node < draft.size(); ++node) {
    const int64_t position = progress.emitted() + (node < 0 ? 0 : draft.depth(node));
    PathRange range{.begin = static_cast<int32_t>(paths.size())};
    if (has_penalty) {
      paths.insert(paths.end(), progress.path.begin(), progress.path.end());
      for (int32_t ancestor = node; ancestor >= 0; ancestor = draft.parents[static_cast<size_t>(ancestor)]) {
        paths.push_back(draft.tokens[static_cast<size_t>(ancestor)]);
      }
      range.count = static_cast<int32_t>(paths.size()) - range.begin;
    }
    rows.push_back(make_sample_row(progress.generation().chain, progress.lane.place(position, position),
                                   progress.lane.logits_rows(node + 1), range));
  }
  add_bias(progress, vocab, request);
}

// What the target says of a generation's draft: its part of a step's samples.
TargetView view_of(const Samples& samples, const Progress& progress, int64_t vocab) {
  const auto first = static_cast<size_t>(progress.first_sample);
  const auto count = static_cast<size_t>(progress.draft.size()) + 1;
  TargetView view{.sampled = std::span(samples.tokens).subspan(first, count), .vocab_size = vocab};
  if (!samples.entropy.empty()) view.entropy = std::span(samples.entropy).subspan(first, count);
  if (samples.distribution.empty()) return view;
  const auto width = static_cast<size_t>(vocab);
  view.distribution = std::span(samples.distribution).subspan(first * width, count * width);
  return view;
}

double machine_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Samples sample(Session& session, const SampleRequest& request, const SampleWants& wants = {}) {
  session.add_to_logits(request.biased, request.bias);
  return session.sample(request.rows, request.paths, wants);
}

}  // namespace

std::vector<GenerationOutput> VerifyLoop::run(Session& session, std::span<const Generation> generations,
                                              const DecodeControl& control) const {
  check_generations(generations);
  NoiseUniforms own_uniforms;
  UniformSource& numbers = uniforms != nullptr ? *uniforms : own_uniforms;
  const int64_t vocab = session.model().traits().vocab_size;
  const auto decide = [&](const Progress& progress, const TargetView& target) {
    // With one right token, or without guesses, all rules are one.
    const bool is_coupled = target.distribution.empty() || progress.generation().chain.temperature <= 0.0f;
    if (is_coupled) return accept_coupled(progress.draft, target);
    if (acceptance == AcceptanceKind::kTypical) return accept_typical(progress.draft, target, typical);
    const OutputPlace place = progress.lane.place(progress.emitted(), progress.emitted());
    return accept_rejection(progress.draft, target, place, numbers);
  };
  const auto now = [&] {
    if (length == nullptr) return 0.0;
    return control.clock ? control.clock() : machine_seconds();
  };
  std::vector<Progress> all;
  for (const Generation& generation : generations) {
    proposer.begin(static_cast<int64_t>(all.size()), generation);
    all.push_back(start(session, generation));
    if (pool != nullptr) all.back().add_to(*pool);
  }
  const auto finish = [&] {
    std::vector<GenerationOutput> outputs;
    for (Progress& progress : all) outputs.push_back(std::move(progress.output));
    return outputs;
  };
  if (control.stop.stop_requested()) return finish();

  // The prompt's logits choose the first token.
  std::vector<Prompt> prompts;
  for (Progress& progress : all) progress.lane.add_prompts(prompts);
  const std::optional<int32_t> hidden_layer = proposer.wanted_hidden_layer();
  std::vector<int32_t> hidden_layers;
  if (hidden_layer) hidden_layers.push_back(*hidden_layer);
  const double before_prompts = now();
  const int64_t rows_before = session.statistics().prompt_rows;
  if (!session.prefill(prompts, WantLogits::kYes, hidden_layers, control.stop)) return finish();
  SampleRequest request;
  for (Progress& progress : all) add_sample_rows(progress, vocab, request);
  Samples samples = sample(session, request);
  if (length != nullptr)
    length->observe_prompt(session.statistics().prompt_rows - rows_before, now() - before_prompts);
  for (size_t i = 0; i < all.size(); ++i) {
    if (hidden_layer) {
      const std::vector<float> hidden = all[i].lane.hidden(*hidden_layer);
      proposer.observe({.generation = static_cast<int64_t>(i),
                        .draft = all[i].draft,
                        .next_token = samples.tokens[i],
                        .sampled = std::span(samples.tokens).subspan(i, 1),
                        .hidden = std::span(hidden).last(static_cast<size_t>(session.model().traits().dim))});
    }
    const int64_t emitted = all[i].emit({&samples.tokens[i], 1});
    if (pool != nullptr) all[i].add_to(*pool);
    report(control, session, all[i], static_cast<int64_t>(i), emitted, 0, 0, "prompt");
  }

  SequenceStep one{.phase = Phase::kDecode,
                   .visibility = {.kind = MaskKind::kTree},
                   .wanted = {.hidden_layers = hidden_layers}};
  std::vector<SequenceStep> steps;
  std::vector<int32_t> kept, tokens;
  while (!control.stop.stop_requested()) {
    std::vector<size_t> active;
    for (size_t i = 0; i < all.size(); ++i) {
      if (!all[i].output.finished) active.push_back(i);
    }
    if (active.empty()) break;
    std::vector<ProposalContext> contexts = make_contexts(all, active, vocab);
    if (length != nullptr) choose_lengths(*length, proposer, now, all, contexts, session.statistics());
    std::erase_if(contexts, [](const ProposalContext& context) { return context.max_depth == 0; });
    for (size_t i : active) all[i].draft = {};
    proposer.prepare(contexts, control.stop);
    if (control.stop.stop_requested()) break;
    DraftRound round;
    const double before_drafts = now();
    make_drafts(proposer, all, contexts);
    const double before_forward = now();

    size_t count = 0;  // of steps
    for (size_t i : active) {
      Progress& progress = all[i];
      fill_step(session.model(), progress, one);
      progress.lane.put_in(steps, count, one);
      ++progress.output.forwards;
      progress.output.rows += 1 + progress.draft.size();
      round.rows += 1 + progress.draft.size();
    }
    steps.resize(count);
    session.step(steps);

    request = {};
    SampleWants wants;
    for (size_t i : active) {
      all[i].first_sample = static_cast<int64_t>(request.rows.size());
      add_sample_rows(all[i], vocab, request);
      wants.distribution |= acceptance != AcceptanceKind::kCoupled && !all[i].draft.empty();
    }
    wants.certainty = wants.distribution && acceptance == AcceptanceKind::kTypical;
    samples = sample(session, request, wants);
    round.draft_seconds = before_forward - before_drafts;
    round.forward_seconds = now() - before_forward;

    std::vector<DraftRound::Lane> lanes;
    for (size_t i : active) {
      Progress& progress = all[i];
      const TargetView target = view_of(samples, progress, vocab);
      const Decision decision = decide(progress, target);
      std::vector<float> hidden;
      if (hidden_layer) hidden = progress.lane.hidden(*hidden_layer);
      proposer.observe({.generation = static_cast<int64_t>(i),
                        .draft = progress.draft,
                        .accepted = decision.accepted,
                        .next_token = decision.next_token,
                        .sampled = target.sampled,
                        .hidden = hidden});

      kept.assign(1, 0);  // the root's row, then those of the accepted nodes
      tokens.clear();
      for (int32_t node : decision.accepted) {
        kept.push_back(node + 1);
        tokens.push_back(progress.draft.tokens[static_cast<size_t>(node)]);
      }
      tokens.push_back(decision.next_token);
      if (tamper_commit) tamper_commit(kept, 1 + progress.draft.size());
      progress.lane.commit(kept);
      ++progress.steps;
      const int64_t emitted = progress.emit(tokens);
      if (pool != nullptr) progress.add_to(*pool);
      ++session.statistics().accepted[emitted];
      session.statistics().add_draft_tokens(progress.draft.size(), std::ssize(decision.accepted));
      lanes.push_back({.outlook = progress.outlook,
                       .asked = progress.asked,
                       .drafted = progress.draft.size(),
                       .accepted = std::ssize(decision.accepted),
                       .emitted = emitted});
      report(control, session, progress, static_cast<int64_t>(i), emitted, progress.draft.size(),
             static_cast<int64_t>(decision.accepted.size()), proposer.source());
    }
    round.lanes = lanes;
    if (length != nullptr) length->observe(round);
  }
  return finish();
}

}  // namespace volley
