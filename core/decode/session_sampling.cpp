// How a session chooses tokens from the logits of its last step.
#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "core/base/error.h"
#include "core/decode/session.h"
#include "core/nn/layers.h"

namespace volley {

Session::SamplePart Session::part_of(std::span<const SampleRow> rows, size_t begin) {
  SamplePart part{.end = begin};
  for (; part.end < rows.size(); ++part.end) {
    const SampleRow& row = rows[part.end];
    int64_t low = row.logits_row, high = row.logits_row;
    if (row.guidance_row >= 0) {
      low = std::min<int64_t>(low, row.guidance_row);
      high = std::max<int64_t>(high, row.guidance_row);
    }
    if (part.end > begin) {
      low = std::min(low, part.first_logits);
      high = std::max(high, part.first_logits + part.logits - 1);
      if (high - low >= kMostLogits) break;
    }
    part.first_logits = low;
    part.logits = high - low + 1;
  }
  return part;
}

void Session::sample_by(ConstTensor logits, std::span<const SampleRow> rows, Indices path,
                        const SampleTargets& targets) {
  static_assert(sizeof(SampleRow) % sizeof(int32_t) == 0);
  const auto numbers = static_cast<int64_t>(rows.size() * sizeof(SampleRow) / sizeof(int32_t));
  const Indices table =
      upload(sample_buffers_, 0,
             {reinterpret_cast<const int32_t*>(rows.data()), static_cast<size_t>(numbers)}, {numbers});
  queue_->sample({.logits = logits,
                  .rows = {reinterpret_cast<const SampleRow*>(table.data), {std::ssize(rows)}},
                  .path = path,
                  .tokens = targets.tokens,
                  .probability = targets.probability,
                  .entropy = targets.entropy,
                  .distribution = targets.distribution,
                  .top_tokens = targets.top_tokens,
                  .top_probability = targets.top_probability});
}

void Session::sample_in_parts(std::span<const SampleRow> rows, Indices path, const SampleTargets& all) {
  const auto rows_of = [](const auto& view, int64_t begin, int64_t count) {
    using View = std::decay_t<decltype(view)>;
    return view.data == nullptr ? View{} : view.rows(begin, count);
  };
  for (size_t begin = 0; begin < rows.size();) {
    const SamplePart part = part_of(rows, begin);
    const auto first = static_cast<int64_t>(begin), count = static_cast<int64_t>(part.end - begin);
    std::vector<SampleRow> own(rows.begin() + first, rows.begin() + first + count);
    for (SampleRow& row : own) {
      row.logits_row -= static_cast<int32_t>(part.first_logits);
      if (row.guidance_row >= 0) row.guidance_row -= static_cast<int32_t>(part.first_logits);
    }
    const Arena::Scope scope(arena_);
    const Tensor logits = arena_.tensor({part.logits, model_.traits().vocab_size});  // [n', vocab]
    model_.head()->apply(*queue_, arena_, Phase::kDecode, head_rows_.rows(part.first_logits, part.logits),
                         logits);
    sample_by(logits, own, path,
              {.tokens = all.tokens.rows(first, count),
               .probability = rows_of(all.probability, first, count),
               .entropy = rows_of(all.entropy, first, count),
               .distribution = rows_of(all.distribution, first, count),
               .top_tokens = rows_of(all.top_tokens, first, count),
               .top_probability = rows_of(all.top_probability, first, count)});
    begin = part.end;
  }
}

Samples Session::sample(std::span<const SampleRow> rows, std::span<const int32_t> path,
                        const SampleWants& wants) {
  const StopWatch watch(statistics_.sample_seconds);
  const auto count = static_cast<int64_t>(rows.size());
  const int64_t vocab = model_.traits().vocab_size;
  // Side by side, so that they come back in one copy.
  const Tensor chosen = arena_.tensor({wants.certainty ? 3 : 1, count});  // tokens, probability, entropy
  SampleTargets all{.tokens = {reinterpret_cast<int32_t*>(chosen.data), {count}}};
  if (wants.certainty) {
    all.probability = {chosen.data + count, {count}};
    all.entropy = {chosen.data + 2 * count, {count}};
  }
  if (wants.distribution) all.distribution = arena_.tensor({count, vocab});  // [m, vocab]
  if (wants.top > 0) {
    VOLLEY_ASSERT(wants.top <= vocab);
    all.top_tokens = arena_.indices({count, wants.top});      // [m, top]
    all.top_probability = arena_.tensor({count, wants.top});  // [m, top]
  }
  const Indices device_path = upload(sample_buffers_, 1, path, {static_cast<int64_t>(path.size())});
  if (has_logits_) {
    sample_by(logits_, rows, device_path, all);
  } else {
    sample_in_parts(rows, device_path, all);
  }
  Samples samples{.tokens = std::vector<int32_t>(rows.size())};
  std::vector<float> host(static_cast<size_t>(chosen.size()));
  queue_->download(chosen.data, host.data(), chosen.size() * 4);
  std::memcpy(samples.tokens.data(), host.data(), rows.size() * 4);
  if (wants.certainty) {
    samples.probability.assign(host.begin() + count, host.begin() + 2 * count);
    samples.entropy.assign(host.begin() + 2 * count, host.end());
  }
  if (std::ranges::any_of(samples.tokens, [](int32_t token) { return token < 0; })) {
    throw Error("model " + model_.traits().family +
                ": its logits hold no finite number; the weights are broken");
  }
  if (wants.distribution) {
    samples.distribution.resize(rows.size() * static_cast<size_t>(vocab));
    queue_->download(all.distribution.data, samples.distribution.data(), count * vocab * 4);
  }
  if (wants.top > 0) {
    samples.top_tokens.resize(rows.size() * static_cast<size_t>(wants.top));
    samples.top_probability.resize(samples.top_tokens.size());
    queue_->download(all.top_tokens.data, samples.top_tokens.data(), count * wants.top * 4);
    queue_->download(all.top_probability.data, samples.top_probability.data(), count * wants.top * 4);
  }
  return samples;
}

void Session::add_to_logits(std::span<const int32_t> rows, std::span<const float> bias) {
  const StopWatch watch(statistics_.sample_seconds);
  VOLLEY_ASSERT(has_logits_);
  const int64_t vocab = logits_.shape[1];
  const auto count = static_cast<int64_t>(rows.size());
  VOLLEY_ASSERT(static_cast<int64_t>(bias.size()) == count * vocab);
  if (count == 0) return;
  const Arena::Scope scope(arena_);
  const Tensor device = arena_.tensor({count, vocab});  // [count, vocab]
  queue_->upload(bias.data(), device.data, device.size() * 4);
  // Rows that follow each other go in one operation.
  for (int64_t begin = 0; begin < count;) {
    int64_t end = begin + 1;
    while (end < count && rows[static_cast<size_t>(end)] == rows[static_cast<size_t>(end - 1)] + 1) ++end;
    const Tensor target = logits_.rows(rows[static_cast<size_t>(begin)], end - begin);
    queue_->add({.a = target, .b = device.rows(begin, end - begin), .out = target});
    begin = end;
  }
}

}  // namespace volley
