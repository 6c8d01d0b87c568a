// A step of a session: its passes, their tables on the device, and what a recording of one depends on.
#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "core/decode/session.h"
#include "core/decode/session_pass.h"
#include "core/nn/step_tables.h"

namespace volley {
namespace {

template <typename T>
void append_unique(std::vector<T>& all, const std::vector<T>& some) {
  for (const T& item : some) {
    if (std::ranges::count(all, item) == 0) all.push_back(item);
  }
}

}  // namespace

Session::DeviceTables Session::upload_tables(const HostTables& host, size_t buffer,
                                             const ExecutionContext& execution) {
  // What varies in size between steps of one shape comes last: the others keep their addresses.
  const std::array<const std::vector<int32_t>*, 12> tables{
      &host.row_sequence,   &host.row_entry,      &host.row_context,   &host.row_prefix,
      &host.row_tail_begin, &host.row_tail_count, &host.sequence_slot, &host.sequence_memory,
      &host.tokens,         &host.positions,      &host.logits_rows,   &host.tail};
  constexpr int64_t kAlignment = 16;  // numbers
  std::array<int64_t, tables.size()> places{};
  packed_tables_.clear();
  for (size_t i = 0; i < tables.size(); ++i) {
    places[i] = static_cast<int64_t>(packed_tables_.size());
    packed_tables_.insert(packed_tables_.end(), tables[i]->begin(), tables[i]->end());
    packed_tables_.resize((packed_tables_.size() + kAlignment - 1) / kAlignment * kAlignment);
  }
  // A plan follows no address.
  const int32_t* first = reinterpret_cast<const int32_t*>(kAlignment);
  if (!is_plan(execution)) {
    first =
        upload(table_buffers_, buffer, packed_tables_, {static_cast<int64_t>(packed_tables_.size())}).data;
  }
  const auto table = [&](size_t i) {
    return Indices{first + places[i], {static_cast<int64_t>(tables[i]->size())}};
  };
  return {.step = {.row_sequence = table(0),
                   .row_entry = table(1),
                   .row_context = table(2),
                   .row_prefix = table(3),
                   .row_tail_begin = table(4),
                   .row_tail_count = table(5),
                   .tail = table(11),
                   .sequence_slot = table(6),
                   .sequence_memory = table(7)},
          .tokens = table(8),
          .positions = table(9).reshape({host.rows, model_.traits().position_components}),
          .logits_rows = table(10)};
}

// One for each (phase, layer subset), in order of first appearance.
Session::Groups Session::passes_of(std::span<const SequenceStep> steps) {
  Groups groups;
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto same_pass = [&](const std::vector<int32_t>& group) {
      const SequenceStep& first = steps[static_cast<size_t>(group.front())];
      return first.phase == steps[i].phase && first.layers == steps[i].layers;
    };
    const auto group = std::ranges::find_if(groups, same_pass);
    if (group == groups.end()) {
      groups.push_back({static_cast<int32_t>(i)});
    } else {
      group->push_back(static_cast<int32_t>(i));
    }
  }
  return groups;
}

void Session::step(std::span<const SequenceStep> steps, LogitsUse use) {
  check_step(model_.traits(), steps, cache_, memory_.get());
  const Groups groups = passes_of(steps);
  for (const SequenceStep& step : steps) reserve(step);
  cache_.publish();
  if (memory_ != nullptr) memory_->publish();
  // Logits rows of a pass follow each other: the model fills them as one tensor.
  first_logits_row_.assign(steps.size(), 0);
  logits_rows_ = 0;
  for (const auto& group : groups) {
    for (int32_t index : group) {
      first_logits_row_[static_cast<size_t>(index)] = static_cast<int32_t>(logits_rows_);
      logits_rows_ += std::ssize(steps[static_cast<size_t>(index)].wanted.logits);
    }
  }
  has_logits_ = use == LogitsUse::kAny || logits_rows_ <= kMostLogits || model_.head() == nullptr ||
                groups.size() > 1 || steps.front().phase != Phase::kDecode;
  make_room(steps, groups);
  run_passes(steps, groups, {*queue_, arena_});
  for (const SequenceStep& step : steps) {
    if (step.write == CacheWrite::kNone) cache_.discard(step.sequence);
  }
  statistics_.peak_bytes = std::max(statistics_.peak_bytes, backend_->peak_bytes());
}

void Session::make_room(std::span<const SequenceStep> steps, const Groups& groups) {
  int64_t rows = 0;
  for (const SequenceStep& step : steps) rows += std::ssize(step.rows);
  if (rows <= most_rows_ && logits_rows_ <= most_logits_) return arena_.reset();
  most_rows_ = std::max(most_rows_, rows);
  most_logits_ = std::max(most_logits_, logits_rows_);
  arena_.reset_for([&](Queue& queue, Arena& arena) {
    run_passes(steps, groups, {queue, arena});
    arena.tensor({3, logits_rows_});  // of `sample`
    if (has_logits_) return;
    arena.tensor({kMostLogits, model_.traits().vocab_size});
    arena.tensor({kMostLogits, model_.traits().dim});
  });
}

void Session::run_passes(std::span<const SequenceStep> steps, const Groups& groups,
                         const ExecutionContext& execution) {
  passes_.clear();
  sequence_outputs_.assign(steps.size(), {});
  const ModelTraits& traits = model_.traits();
  logits_ = {};
  head_rows_ = {};
  if (has_logits_) {
    logits_ = execution.arena.tensor({logits_rows_, traits.vocab_size});  // [n, vocab]
  } else {
    head_rows_ = execution.arena.tensor({logits_rows_, traits.dim});  // [n, dim]
  }
  for (const auto& group : groups) {
    passes_.emplace_back();
    run_pass(steps, group, passes_.back(), execution);
  }
}

void Session::run_pass(std::span<const SequenceStep> steps, std::span<const int32_t> indices, Pass& pass,
                       const ExecutionContext& execution) {
  const ModelTraits& traits = model_.traits();
  const SequenceStep& first = steps[static_cast<size_t>(indices.front())];
  const bool is_prompt = first.phase == Phase::kPrompt;
  const StopWatch watch(is_prompt ? statistics_.prompt_seconds : statistics_.decode_seconds);

  int64_t real_rows = 0;
  for (int32_t index : indices)
    real_rows += static_cast<int64_t>(steps[static_cast<size_t>(index)].rows.size());
  const int64_t bucket = options_.row_bucket;
  HostTables host = build_tables(traits, steps, indices, (bucket - real_rows % bucket) % bucket);
  if (!is_plan(execution)) {
    (is_prompt ? statistics_.prompt_forwards : statistics_.forwards) += 1;
    (is_prompt ? statistics_.prompt_rows : statistics_.rows) += real_rows;
  }

  const DeviceTables device = upload_tables(host, passes_.size() - 1, execution);
  ConstTensor embeddings;
  if (!host.embeddings.empty()) {
    const Tensor given = execution.arena.tensor({host.rows, traits.dim});  // [R, dim]
    execution.queue.upload(host.embeddings.data(), given.data, given.size() * 4);
    embeddings = given;
  }
  std::vector<int32_t> layers = first.layers;
  if (layers.empty()) {
    layers.resize(static_cast<size_t>(traits.layers));
    std::iota(layers.begin(), layers.end(), 0);
  }

  pass.packed_rows = std::move(host.packed_rows);
  std::vector<int32_t> hidden_layers;
  std::vector<AttentionTap> attention, cross_attention;
  for (size_t s = 0; s < indices.size(); ++s) {
    const auto index = static_cast<size_t>(indices[s]);
    const SequenceStep& step = steps[index];
    sequence_outputs_[index] = {
        .packed_rows = std::span(pass.packed_rows).subspan(host.first_packed[s], step.rows.size()),
        .pass = passes_.size() - 1};
    append_unique(hidden_layers, step.wanted.hidden_layers);
    append_unique(attention, step.wanted.attention);
    append_unique(cross_attention, step.wanted.cross_attention);
    pass.columns =
        std::max(pass.columns, cache_.length(step.sequence) + static_cast<int64_t>(step.rows.size()));
    if (step.memory != SequenceId::kNone)
      pass.memory_columns = std::max(pass.memory_columns, memory_->length(step.memory));
  }
  for (int32_t layer : hidden_layers)
    pass.hidden.push_back({layer, execution.arena.tensor({host.rows, traits.dim})});
  for (AttentionTap tap : attention)
    pass.attention.push_back({tap, execution.arena.tensor({host.rows, pass.columns})});
  for (AttentionTap tap : cross_attention) {
    pass.cross_attention.push_back({tap, execution.arena.tensor({host.rows, pass.memory_columns})});
  }

  const StepInputs in{.queue = execution.queue,
                      .arena = execution.arena,
                      .cache = cache_,
                      .memory = memory_.get(),
                      .phase = first.phase,
                      .rows = host.rows,
                      .query_rows = host.query_rows,
                      .tokens = device.tokens,
                      .embeddings = embeddings,
                      .positions = device.positions,
                      .tables = device.step,
                      .layers = layers};
  const int64_t first_row = first_logits_row_[static_cast<size_t>(indices.front())];
  const auto logits_rows = static_cast<int64_t>(host.logits_rows.size());
  const StepOutputs out{.logits_rows = device.logits_rows,
                        .logits = has_logits_ ? logits_.rows(first_row, logits_rows) : Tensor{},
                        .head_rows = has_logits_ ? Tensor{} : head_rows_.rows(first_row, logits_rows),
                        .hidden = pass.hidden,
                        .attention = pass.attention,
                        .cross_attention = pass.cross_attention};
  const Arena::Scope scope(execution.arena);
  if (is_plan(execution)) return model_.step(in, out);
  queue_->run_recorded(recording_key(in, out), [&] { model_.step(in, out); });
}

std::vector<int64_t> Session::recording_key(const StepInputs& in, const StepOutputs& out) const {
  std::vector<int64_t> key;
  const auto add = [&](int64_t value) { key.push_back(value); };
  const auto add_address = [&](const auto* data) {
    add(static_cast<int64_t>(reinterpret_cast<intptr_t>(data)));
  };
  const auto add_table = [&](const Indices& table) {
    add_address(table.data);
    add(table.size());
  };
  add(static_cast<int64_t>(in.phase));
  add(in.rows);
  add(in.query_rows);
  add(in.tables.sequence_slot.size());
  for (const Indices* table :
       {&in.tables.row_sequence, &in.tables.row_entry, &in.tables.row_context, &in.tables.row_prefix,
        &in.tables.row_tail_begin, &in.tables.row_tail_count, &in.tables.sequence_slot,
        &in.tables.sequence_memory, &in.tokens, &in.positions, &out.logits_rows}) {
    add_table(*table);
  }
  add_address(in.tables.tail.data);
  add_address(in.embeddings.data);
  add_address(out.logits.data);
  add_address(out.head_rows.data);
  add_address(arena_.next());
  add(std::ssize(in.layers));
  for (int32_t layer : in.layers) add(layer);
  add(std::ssize(out.hidden));
  for (const HiddenTap& tap : out.hidden) {
    add(tap.layer);
    add_address(tap.out.data);
  }
  for (const auto& taps : {out.attention, out.cross_attention}) {
    add(static_cast<int64_t>(taps.size()));
    for (const AttentionTapOutput& tap : taps) {
      add(tap.tap.layer);
      add(tap.tap.head);
      add(tap.out.shape[1]);
      add_address(tap.out.data);
    }
  }
  return key;
}

}  // namespace volley
