// Parallel decoding in a random order: each step feeds the tokens of the last one and asks for several
// further positions at once through query rows; everything that is asked for is accepted. Ref: Li et al.,
// "Autoregressive image generation with randomized parallel decoding" (ARPG), github.com/hp-l33/ARPG. There
// one order is shared by the whole batch; here every output has its own, so that it can be made alone. Given
// tokens are fed first, one after the other as in training, and count as decided.
#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

#include "core/decode/lane.h"
#include "core/decode/methods.h"
#include "core/decode/schedule.h"

namespace volley {
namespace {

struct Progress {
  Lane lane;
  GenerationOutput output;
  std::vector<int32_t> order;
  int64_t first_index = 0;
  int64_t done = 0;                    // positions order[0 .. done) are final; the given ones come first
  std::vector<int32_t> fed_positions;  // final, but not in the cache yet
};

enum class Order : uint8_t { kRandom, kRaster, kCenter };

Order order_of(const std::string& name) {
  return name == "random" ? Order::kRandom : name == "raster" ? Order::kRaster : Order::kCenter;
}

class Parallel : public Decoder {
 public:
  explicit Parallel(const OptionReader& options)
      : steps_(options.integer("steps", 1, 65536)),
        schedule_(options.choice("schedule", {"arccos", "cosine"}) == "arccos" ? StepSchedule::kArccos
                                                                               : StepSchedule::kCosine),
        order_(order_of(options.choice("order", {"random", "raster", "center"}))) {}

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    refuse_constraints(generations, "parallel");
    const auto& kinds = session.model().traits().row_kinds;
    if (std::ranges::count(kinds, RowKind::kQuery) == 0) {
      throw Error("--decoder parallel: model " + session.model().traits().family + " takes no query rows",
                  ErrorKind::kUsage);
    }
    check_generations(generations);
    std::vector<Progress> all;
    for (const Generation& generation : generations) all.push_back(start(session, generation));
    std::vector<Prompt> prompts;
    for (Progress& progress : all) progress.lane.add_prompts(prompts);
    session.prefill(prompts, WantLogits::kNo, {}, control.stop);
    if (!control.stop.stop_requested()) feed_given(session, all);

    std::vector<std::vector<int64_t>> sizes;
    for (const Progress& progress : all) {
      const int64_t open = progress.lane.generation().max_tokens - progress.done;
      sizes.push_back(schedule_steps(schedule_, open, steps_));
    }
    for (size_t step = 0; !control.stop.stop_requested(); ++step) {
      std::vector<SequenceStep> steps;
      std::vector<SampleRow> rows;
      std::vector<size_t> active;
      for (size_t i = 0; i < all.size(); ++i) {
        if (step >= sizes[i].size()) continue;
        active.push_back(i);
        all[i].lane.add_to(steps, make_step(session.model(), all[i], sizes[i][step]));
      }
      if (active.empty()) break;
      session.step(steps, LogitsUse::kSampled);
      for (size_t i : active) add_sample_rows(all[i], sizes[i][step], rows);
      const Samples samples = session.sample(rows);
      size_t next = 0;
      for (size_t i : active) {
        const auto size = static_cast<size_t>(sizes[i][step]);
        take(session, all[i], static_cast<int64_t>(i), static_cast<int64_t>(step),
             std::span(samples.tokens).subspan(next, size), control);
        next += size;
      }
    }
    std::vector<GenerationOutput> outputs;
    for (Progress& progress : all) outputs.push_back(std::move(progress.output));
    return outputs;
  }

  int64_t entries(const Generation& generation) const override { return fed_entries(generation); }

 private:
  Progress start(Session& session, const Generation& generation) const {
    Progress progress{.lane = Lane(session, generation)};
    progress.output.tokens.assign(static_cast<size_t>(generation.max_tokens), -1);
    progress.first_index = generation.first_index >= 0 ? generation.first_index
                                                       : static_cast<int64_t>(generation.prompt.rows.size());
    progress.order = generation.order.empty() ? own_order(session.model(), generation, progress.first_index)
                                              : generation.order;
    std::vector<int32_t> sorted = progress.order;
    std::ranges::sort(sorted);
    for (size_t i = 0; i < sorted.size(); ++i) VOLLEY_ASSERT(sorted[i] == static_cast<int32_t>(i));
    VOLLEY_ASSERT(static_cast<int64_t>(sorted.size()) == generation.max_tokens);
    for (const GivenToken& given : generation.given) {
      int32_t& token = progress.output.tokens[static_cast<size_t>(given.position)];
      VOLLEY_ASSERT(given.token >= 0 && token < 0);
      token = given.token;
    }
    std::stable_partition(progress.order.begin(), progress.order.end(), [&](int32_t position) {
      return progress.output.tokens[static_cast<size_t>(position)] >= 0;
    });
    progress.done = std::ssize(generation.given);
    progress.output.finished = progress.done == generation.max_tokens;
    return progress;
  }

  std::vector<int32_t> own_order(const StepModel& model, const Generation& generation,
                                 int64_t first_index) const {
    const int64_t count = generation.max_tokens;
    if (order_ == Order::kRandom) return random_order(generation.seed, generation.stream, count);
    if (order_ == Order::kCenter) {
      std::vector<std::array<int32_t, 3>> positions;
      for (int64_t i = 0; i < count; ++i) positions.push_back(model.position(first_index + i));
      return center_order(generation.seed, generation.stream, positions);
    }
    std::vector<int32_t> raster(static_cast<size_t>(count));
    std::iota(raster.begin(), raster.end(), 0);
    return raster;
  }

  static StepRow content_row(const StepModel& model, const Progress& progress, int32_t position) {
    return {.token = progress.output.tokens[static_cast<size_t>(position)],
            .position = model.position(progress.first_index + position)};
  }

  static void feed_given(Session& session, std::vector<Progress>& all) {
    std::vector<SequenceStep> steps;
    std::vector<std::pair<Progress*, std::vector<int32_t>>> fed;  // whose rows, and which
    for (Progress& progress : all) {
      if (progress.done == 0 || progress.output.finished) continue;
      SequenceStep step{.phase = Phase::kDecode, .visibility = {.kind = MaskKind::kBlockCausal, .block = 1}};
      for (int64_t i = 0; i < progress.done; ++i) {
        step.rows.push_back(content_row(session.model(), progress, progress.order[static_cast<size_t>(i)]));
      }
      ++progress.output.forwards;
      progress.output.rows += progress.done;
      fed.emplace_back(&progress, std::vector<int32_t>(step.rows.size()));
      std::iota(fed.back().second.begin(), fed.back().second.end(), 0);
      progress.lane.add_to(steps, std::move(step));
    }
    if (steps.empty()) return;
    session.step(steps);
    for (auto& [progress, rows] : fed) progress->lane.commit(rows);
  }

  static SequenceStep make_step(const StepModel& model, Progress& progress, int64_t size) {
    SequenceStep step{.phase = Phase::kDecode, .visibility = {.kind = MaskKind::kFull}};
    for (int32_t position : progress.fed_positions) {
      step.rows.push_back(content_row(model, progress, position));
    }
    for (int64_t i = 0; i < size; ++i) {
      const int32_t position = progress.order[static_cast<size_t>(progress.done + i)];
      step.wanted.logits.push_back(static_cast<int32_t>(step.rows.size()));
      step.rows.push_back(
          {.kind = RowKind::kQuery, .position = model.position(progress.first_index + position)});
    }
    ++progress.output.forwards;
    progress.output.rows += static_cast<int64_t>(step.rows.size());
    return step;
  }

  static void add_sample_rows(const Progress& progress, int64_t size, std::vector<SampleRow>& rows) {
    for (int64_t i = 0; i < size; ++i) {
      const int32_t position = progress.order[static_cast<size_t>(progress.done + i)];
      // The guidance schedule counts the positions of this step as decided.
      rows.push_back(make_sample_row(progress.lane.generation().chain,
                                     progress.lane.place(position, progress.done + size),
                                     progress.lane.logits_rows(i)));
    }
  }

  static void take(Session& session, Progress& progress, int64_t index, int64_t step,
                   std::span<const int32_t> tokens, const DecodeControl& control) {
    std::vector<int32_t> kept(progress.fed_positions.size());
    for (size_t i = 0; i < kept.size(); ++i) kept[i] = static_cast<int32_t>(i);
    progress.lane.commit(kept);
    progress.fed_positions.clear();
    for (int32_t token : tokens) {
      const int32_t position = progress.order[static_cast<size_t>(progress.done++)];
      progress.output.tokens[static_cast<size_t>(position)] = token;
      progress.fed_positions.push_back(position);
    }
    progress.output.finished = progress.done == static_cast<int64_t>(progress.output.tokens.size());
    const auto count = static_cast<int64_t>(tokens.size());
    session.statistics().tokens += count;
    ++session.statistics().accepted[count];
    if (control.observer == nullptr) return;
    control.observer->on_step({.generation = index,
                               .step = step,
                               .positions = progress.fed_positions,
                               .tokens = tokens,
                               .proposed = count,
                               .accepted = count,
                               .source = "query rows",
                               .done = progress.done,
                               .total = progress.lane.generation().max_tokens});
  }

  int64_t steps_;
  StepSchedule schedule_;
  Order order_;
};

}  // namespace

std::unique_ptr<Decoder> make_parallel(const OptionReader& options) {
  return std::make_unique<Parallel>(options);
}

}  // namespace volley
