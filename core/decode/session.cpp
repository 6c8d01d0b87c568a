#include "core/decode/session.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/decode/session_pass.h"
#include "core/nn/step_tables.h"

namespace volley {

namespace {

KvCache::Config cache_config(const ModelTraits& traits, const Backend& backend,
                             const Session::Options& options) {
  return {
      .planes = traits.cached_layers,
      .kv_heads = traits.kv_heads,
      .head_width = traits.head_width,
      .sequences = options.sequences + options.kept_prompts,
      .entries = options.entries,
      .pages = options.pages > 0 ? options.pages : options.sequences * KvCache::pages_for(options.entries),
      .type = backend.cache_type(traits.weight_type)};
}

// A mask under which a prompt chunk sees itself.
MaskKind prompt_mask(const ModelTraits& traits) {
  return std::ranges::count(traits.masks, MaskKind::kCausal) > 0 ? MaskKind::kCausal : MaskKind::kFull;
}

}  // namespace

Session::Session(const StepModel& model, std::shared_ptr<const Backend> backend, const Options& options)
    : model_(model),
      backend_(std::move(backend)),
      queue_(backend_->make_queue()),
      options_(options),
      cache_(*backend_, *queue_, cache_config(model.traits(), *backend_, options)),
      kept_prompts_(cache_, options.kept_prompts),
      arena_(*backend_) {
  const ModelTraits& traits = model.traits();
  if (traits.memory_layers > 0) {
    memory_ = std::make_unique<KvCache>(*backend_, *queue_,
                                        KvCache::Config{.planes = traits.memory_layers,
                                                        .kv_heads = traits.kv_heads,
                                                        .head_width = traits.head_width,
                                                        .sequences = options.memory_sequences,
                                                        .entries = options.memory_entries,
                                                        .type = backend_->cache_type(traits.weight_type)});
  }
}

Session::~Session() = default;

Indices Session::upload(std::vector<Buffer>& buffers, size_t slot, std::span<const int32_t> values,
                        Shape shape) {
  VOLLEY_ASSERT(shape.size() == static_cast<int64_t>(values.size()));
  if (buffers.size() <= slot) buffers.resize(slot + 1);
  const auto bytes = static_cast<int64_t>(values.size_bytes());
  if (buffers[slot].bytes() < std::max<int64_t>(bytes, 1)) {
    buffers[slot] = backend_->allocate(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(bytes, 64))));
  }
  queue_->upload(values.data(), buffers[slot].data(), bytes);
  return {reinterpret_cast<const int32_t*>(buffers[slot].data()), shape};
}

void Session::reserve(const SequenceStep& step) {
  const int64_t rows = step.write == CacheWrite::kReplace ? 0 : content_rows(step);
  while (cache_.pages_to_reserve(step.sequence, rows, step.replaced) > cache_.free_pages() &&
         kept_prompts_.forget_oldest()) {
  }
  cache_.reserve(step.sequence, rows, step.replaced);
}

bool Session::prefill(std::span<const Prompt> prompts, WantLogits want,
                      std::span<const int32_t> hidden_layers, const std::stop_token& stop) {
  for (const Prompt& prompt : prompts) {
    VOLLEY_ASSERT(!prompt.rows.empty());
    if (cache_.length(prompt.sequence) % kPromptChunk != 0) {
      throw Error("prompt: a sequence of " + std::to_string(cache_.length(prompt.sequence)) +
                  " entries can be continued by a prompt only at a multiple of " +
                  std::to_string(kPromptChunk));
    }
  }
  std::vector<const Prompt*> whole;  // that begin their sequences
  for (const Prompt& prompt : prompts) {
    if (cache_.length(prompt.sequence) == 0) whole.push_back(&prompt);
  }
  const auto done = take_kept(prompts, stop);
  if (!done || !run_chunks(prompts, *done, want, hidden_layers, stop)) return false;
  for (const Prompt* prompt : whole) kept_prompts_.keep(*prompt);
  const StopWatch watch(statistics_.prompt_seconds);
  queue_->finish();  // what a device still does is the prompt's
  return true;
}

std::optional<std::vector<int64_t>> Session::take_kept(std::span<const Prompt> prompts,
                                                       const std::stop_token& stop) {
  std::vector<int64_t> done(prompts.size(), 0);
  if (options_.kept_prompts == 0) return done;
  // What all of several prompts begin with runs once, by the sequence of the first.
  const auto is_begun = [&](const Prompt& prompt) { return cache_.length(prompt.sequence) > 0; };
  if (const int64_t common = common_chunks(prompts);
      prompts.size() > 1 && !is_begun(prompts[0]) && kept_prompts_.longest(prompts[0]) < common) {
    Prompt beginning{.sequence = prompts[0].sequence,
                     .rows = {prompts[0].rows.begin(), prompts[0].rows.begin() + common}};
    done[0] = kept_prompts_.take(beginning);
    statistics_.prompt_rows_kept += done[0];
    if (!run_chunks({&beginning, 1}, {&done[0], 1}, WantLogits::kNo, {}, stop)) return std::nullopt;
    done[0] = common;
    kept_prompts_.keep(beginning);
  }
  for (size_t p = 0; p < prompts.size(); ++p) {
    if (is_begun(prompts[p])) continue;
    done[p] = kept_prompts_.take(prompts[p]);
    statistics_.prompt_rows_kept += done[p];
  }
  return done;
}

bool Session::run_chunks(std::span<const Prompt> prompts, std::span<const int64_t> done, WantLogits want,
                         std::span<const int32_t> hidden_layers, const std::stop_token& stop) {
  // Every prompt's chunks start at multiples of 256 of its own entries; shorter prompts begin later so that
  // all end in the last step, whose logits the caller reads.
  const auto chunks = [&](size_t p) {
    return (std::ssize(prompts[p].rows) - done[p] + kPromptChunk - 1) / kPromptChunk;
  };
  int64_t most = 0;
  for (size_t p = 0; p < prompts.size(); ++p) most = std::max(most, chunks(p));
  std::vector<size_t> next_embedding(prompts.size(), 0);
  for (int64_t turn = 0; turn < most; ++turn) {
    if (stop.stop_requested()) return false;
    std::vector<SequenceStep> steps;
    for (size_t p = 0; p < prompts.size(); ++p) {
      const Prompt& prompt = prompts[p];
      const int64_t chunk = turn - (most - chunks(p));
      if (chunk < 0) continue;
      const int64_t begin = done[p] + chunk * kPromptChunk;
      const int64_t end = std::min(begin + kPromptChunk, std::ssize(prompt.rows));
      SequenceStep step{.sequence = prompt.sequence,
                        .phase = Phase::kPrompt,
                        .rows = {prompt.rows.begin() + begin, prompt.rows.begin() + end},
                        .visibility = {.kind = prompt_mask(model_.traits())},
                        .memory = prompt.memory};
      const auto given =
          static_cast<size_t>(model_.traits().dim * std::ranges::count_if(step.rows, [](const StepRow& row) {
                                return row.kind == RowKind::kEmbedding;
                              }));
      const auto from = prompt.embeddings.begin() + static_cast<int64_t>(next_embedding[p]);
      step.embeddings.assign(from, from + static_cast<int64_t>(given));
      next_embedding[p] += given;
      if (turn == most - 1 && want == WantLogits::kYes)
        step.wanted.logits = {static_cast<int32_t>(end - begin - 1)};
      if (turn == most - 1) step.wanted.hidden_layers.assign(hidden_layers.begin(), hidden_layers.end());
      steps.push_back(std::move(step));
    }
    this->step(steps);
    for (const SequenceStep& step : steps) cache_.commit_prefix(step.sequence, content_rows(step));
  }
  return true;
}

void Session::crop_prompt(const Prompt& prompt, int64_t length) {
  VOLLEY_ASSERT(length > 0 && length <= static_cast<int64_t>(prompt.rows.size()) &&
                length <= cache_.length(prompt.sequence));
  // The row before the border must have run in a chunk that ended there, as in a prompt of this length.
  const int64_t border = (length - 1) / kPromptChunk * kPromptChunk;
  cache_.crop(prompt.sequence, border);
  Prompt rest{.sequence = prompt.sequence,
              .rows = {prompt.rows.begin() + border, prompt.rows.begin() + length},
              .memory = prompt.memory};
  const auto is_given = [](const StepRow& row) { return row.kind == RowKind::kEmbedding; };
  const int64_t dim = model_.traits().dim;
  const int64_t skipped = dim * std::count_if(prompt.rows.begin(), prompt.rows.begin() + border, is_given);
  const int64_t kept = dim * std::ranges::count_if(rest.rows, is_given);
  rest.embeddings.assign(prompt.embeddings.begin() + skipped, prompt.embeddings.begin() + skipped + kept);
  prefill({&rest, 1});
}

std::vector<float> Session::logits_on_host(int64_t row) const {
  VOLLEY_ASSERT(has_logits_);
  std::vector<float> values(static_cast<size_t>(logits_.shape[1]));
  queue_->download(logits_.data + row * logits_.shape[1], values.data(),
                   static_cast<int64_t>(values.size()) * 4);
  return values;
}

std::vector<float> Session::hidden(int64_t sequence, int32_t layer) const {
  const SequenceOutputs& outputs = sequence_outputs_[static_cast<size_t>(sequence)];
  const auto& taps = passes_[outputs.pass].hidden;
  const auto tap = std::ranges::find_if(taps, [&](const HiddenTap& t) { return t.layer == layer; });
  VOLLEY_ASSERT(tap != taps.end());
  const int64_t width = tap->out.shape[1];
  const std::span<const int32_t> rows = outputs.packed_rows;
  std::vector<float> values(rows.size() * static_cast<size_t>(width));
  // Rows that follow each other come in one copy.
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) ++end;
    queue_->download(tap->out.data + rows[begin] * width, values.data() + static_cast<int64_t>(begin) * width,
                     static_cast<int64_t>(end - begin) * width * 4);
    begin = end;
  }
  return values;
}

Session::AttentionRows Session::attention(int64_t sequence, AttentionTap tap) const {
  return download_attention(sequence,
                            passes_[sequence_outputs_[static_cast<size_t>(sequence)].pass].attention, tap);
}

Session::AttentionRows Session::cross_attention(int64_t sequence, AttentionTap tap) const {
  return download_attention(
      sequence, passes_[sequence_outputs_[static_cast<size_t>(sequence)].pass].cross_attention, tap);
}

Session::AttentionRows Session::download_attention(int64_t sequence, std::span<const AttentionTapOutput> taps,
                                                   AttentionTap wanted) const {
  const auto tap = std::ranges::find_if(taps, [&](const AttentionTapOutput& t) { return t.tap == wanted; });
  VOLLEY_ASSERT(tap != taps.end());
  const std::span<const int32_t> rows = sequence_outputs_[static_cast<size_t>(sequence)].packed_rows;
  const int64_t columns = tap->out.shape[1];
  AttentionRows result{.columns = columns,
                       .weights = std::vector<float>(rows.size() * static_cast<size_t>(columns))};
  for (size_t r = 0; r < rows.size(); ++r) {
    queue_->download(tap->out.data + rows[r] * columns,
                     result.weights.data() + static_cast<int64_t>(r) * columns, columns * 4);
  }
  return result;
}

SequenceId Session::add_memory(ConstTensor rows) {
  VOLLEY_ASSERT(memory_ != nullptr && rows.shape[1] == model_.traits().memory_width);
  const int64_t count = rows.shape[0];
  const SequenceId id = memory_->create();
  memory_->reserve(id, count);
  memory_->publish();
  HostTables host{.rows = count};
  host.row_sequence.assign(static_cast<size_t>(count), 0);
  host.row_entry.resize(static_cast<size_t>(count));
  std::iota(host.row_entry.begin(), host.row_entry.end(), 0);
  host.positions.assign(static_cast<size_t>(count * model_.traits().position_components), 0);
  host.sequence_slot = {static_cast<int32_t>(id)};
  model_.project_memory({.queue = *queue_,
                         .arena = arena_,
                         .cache = *memory_,
                         .rows = rows,
                         .tables = upload_tables(host, 0, {*queue_, arena_}).step});
  memory_->commit_prefix(id, count);
  return id;
}

SequenceId Session::add_memory(std::span<const float> rows) {
  const int64_t width = model_.traits().memory_width;
  VOLLEY_ASSERT(width > 0 && static_cast<int64_t>(rows.size()) % width == 0);
  arena_.reset();
  const Tensor device = arena_.tensor({static_cast<int64_t>(rows.size()) / width, width});  // [T, width]
  queue_->upload(rows.data(), device.data, device.size() * 4);
  return add_memory(device);
}

}  // namespace volley
