// Two passes that are recorded and replayed: some rows of a step become keys and values, others only ask, as
// in ARPG. The bits of their operations one by one.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

struct PassShape {
  int64_t dim = 0;
  int64_t heads = 1, width = 0;
  int64_t feed_forward = 0;
  int64_t sequences = 1;
  int64_t known = 0;  // rows of a sequence that the cache takes
  int64_t asked = 1;  // rows of a sequence that write nothing
};

constexpr int64_t kEach = 2;  // layers of a pass
constexpr int64_t kPages = 3, kComponents = 2, kPositions = 17, kOutputs = 104;
constexpr float kEps = 1e-5f;

enum class How { kParts, kRecorded };

class Passes {
 public:
  Passes(const Backend& backend, const PassShape& shape) : Passes(backend, shape, backend.make_queue()) {}
  Passes(const Backend& backend, const PassShape& shape, std::shared_ptr<Queue> queue)
      : backend_(backend),
        shape_(shape),
        known_(shape.sequences * shape.known),
        asked_(shape.sequences * shape.asked),
        inputs_(normal_numbers((known_ + asked_) * shape.dim, 3)),
        queue_(std::move(queue)),
        given_(backend, {known_ + asked_, shape.dim}, normal_numbers((known_ + asked_) * shape.dim, 7)),
        x_(backend, {known_ + asked_, shape.dim}),
        normed_(backend, {known_ + asked_, shape.dim}),
        queries_(backend, {known_ + asked_, shape.heads, shape.width}),
        keys_(backend, {known_ + 1, shape.heads, shape.width}),
        values_(backend, {known_ + 1, shape.heads, shape.width}),
        mixed_(backend, {known_ + asked_, shape.heads, shape.width}),
        gated_(backend, {known_ + asked_, shape.feed_forward}),
        raised_(backend, {known_ + asked_, shape.feed_forward}),
        picked_(backend, {asked_, shape.dim}),
        logits_(backend, {asked_, kOutputs}) {
    for (int64_t l = 0; l < 2 * kEach; ++l) {
      layers_.push_back({.q = square(),
                         .k = square(),
                         .v = square(),
                         .out = square(),
                         .gate = weight(shape.feed_forward, shape.dim),
                         .up = weight(shape.feed_forward, shape.dim),
                         .down = weight(shape.dim, shape.feed_forward)});
    }
    head_ = weight(kOutputs, shape.dim);
    for (int64_t n = 0; n < 4 * kEach + 2; ++n) norms_.push_back(floats({shape.dim}));
    const Shape pages{shape.sequences * kPages, shape.heads, kPageSize, shape.width};
    for (int64_t l = 0; l <= kEach; ++l) {
      planes_.push_back(std::make_unique<GuardedPlane>(
          backend, backend.cache_type(WeightType::kBF16), pages,
          GuardedPlane::Numbers{.keys = normal_numbers(pages.size(), ++seed_),
                                .values = normal_numbers(pages.size(), ++seed_)}));
    }
    cosines_ = floats({kPositions, shape.width / 2 / kComponents});
    sines_ = floats({kPositions, shape.width / 2 / kComponents});
    make_tables();
  }

  std::span<float> inputs() { return inputs_; }
  // The rows behind all layers, the logits, then what the caches hold.
  std::vector<float> run(How how) {
    how_ = how;
    const auto give_inputs = [&] {
      Transfer::to(backend_, inputs_.data(), given_.view().data, given_.view().size() * 4);
    };
    if (how == How::kRecorded) {
      const std::array<int64_t, 2> key{known_, asked_};
      for (int i = 0; i < 4; ++i) queue_->run_recorded(key, [&] { step(); });
      queue_->finish();
      give_inputs();
      queue_->run_recorded(key, [&] { step(); });
    } else {
      give_inputs();
      step();
    }
    queue_->finish();
    std::vector<float> results = x_.values();
    const auto add = [&](const std::vector<float>& more) {
      results.insert(results.end(), more.begin(), more.end());
    };
    add(logits_.values());
    for (const auto& plane : planes_) {
      add(plane->numbers().keys);
      add(plane->numbers().values);
    }
    return results;
  }

 private:
  using Floats = std::unique_ptr<Guarded<float>>;
  using Ints = std::unique_ptr<Guarded<int32_t>>;
  struct Layer {
    LinearWeight q, k, v, out, gate, up, down;
  };
  struct Rows {
    int64_t first;
    int64_t count;
  };

  LinearWeight weight(int64_t rows, int64_t in) {
    const auto numbers = normal_numbers(rows * in, ++seed_, 1.0f / std::sqrt(static_cast<float>(in)));
    return backend_.pack_linear(host_view(numbers, {rows, in}), WeightType::kBF16);
  }
  LinearWeight square() { return weight(shape_.dim, shape_.dim); }
  Floats floats(Shape of) {
    return std::make_unique<Guarded<float>>(backend_, of, normal_numbers(of.size(), ++seed_));
  }
  template <typename F>
  Ints ints(int64_t count, const F& value) {
    std::vector<int32_t> numbers;
    for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<int32_t>(value(i)));
    return std::make_unique<Guarded<int32_t>>(backend_, Shape{count}, numbers);
  }

  // Known rows of all sequences come first.
  void make_tables() {
    const int64_t rows = known_ + asked_, sequences = shape_.sequences;
    const auto is_known = [&](int64_t r) { return r < known_; };
    sequence_ =
        ints(rows, [&](int64_t r) { return is_known(r) ? r / shape_.known : (r - known_) / shape_.asked; });
    entry_ = ints(rows, [&](int64_t r) { return is_known(r) ? r % shape_.known : int64_t{kNoEntry}; });
    prefix_ = ints(rows, [&](int64_t) { return shape_.known; });
    context_ = ints(rows, [](int64_t) { return kAllContext; });
    none_ = ints(rows, [](int64_t) { return 0; });
    slots_ = ints(sequences, [&](int64_t s) { return sequences - 1 - s; });
    lengths_ = ints(sequences, [](int64_t s) { return 100 - s * 37 % 90; });
    table_ = ints(sequences * kPages, [&](int64_t i) { return sequences * kPages - 1 - i; });
    positions_ = ints(rows * kComponents, [](int64_t i) { return i * 5 % kPositions; });
    logits_rows_ = ints(asked_, [&](int64_t i) { return known_ + asked_ - 1 - i; });
  }
  StepTables step_tables() const {
    return {.row_sequence = sequence_->read(),
            .row_entry = entry_->read(),
            .row_context = context_->read(),
            .row_prefix = prefix_->read(),
            .row_tail_begin = none_->read(),
            .row_tail_count = none_->read(),
            .tail = none_->read(),
            .sequence_slot = slots_->read()};
  }

  void step() {
    queue_->copy({.x = given_.read(), .out = x_.view()});
    const Rows known{0, known_}, asked{known_, asked_};
    for (size_t l = 0; known_ > 0 && l < kEach; ++l) {
      take_inputs(layers_[l], *norms_[2 * l], known, *planes_[l], {.queries = true, .keys = true});
      attend(layers_[l], known, *planes_[l]);
      feed_forward(layers_[l], *norms_[2 * l + 1], known);
    }
    const GuardedPlane& shared = *planes_[kEach];
    if (known_ > 0) take_inputs(layers_[kEach], *norms_[4 * kEach], known, shared, {.keys = true});
    for (size_t l = kEach; l < 2 * kEach; ++l) {
      take_inputs(layers_[l], *norms_[2 * l], asked, shared, {.queries = true});
      attend(layers_[l], asked, shared);
      feed_forward(layers_[l], *norms_[2 * l + 1], asked);
    }
    const NormedRowsLinearArgs last{
        .rows = {.table = x_.read(), .ids = logits_rows_->read(), .out = picked_.view()},
        .norm = {.x = picked_.read(),
                 .weight = norms_[4 * kEach + 1]->read(),
                 .eps = kEps,
                 .out = picked_.view()},
        .linear = {.x = picked_.read(), .weight = head_, .bias = {}, .out = logits_.view()}};
    if (how_ == How::kRecorded) return queue_->normed_rows_linear(last);
    queue_->gather_rows(last.rows);
    const std::array targets{LinearTarget{.weight = &head_, .bias = {}, .out = logits_.view()}};
    run_parts(*queue_, backend_, {.norm = last.norm, .linears = {.x = picked_.read(), .targets = targets}});
  }

  struct Takes {
    bool queries = false;
    bool keys = false;
  };
  void take_inputs(const Layer& layer, const Guarded<float>& norm, Rows rows, const GuardedPlane& of,
                   Takes takes) {
    const CachePlane plane = of.plane();
    const CacheTables cache{.lengths = lengths_->view(),
                            .block_table = table_->view().reshape({shape_.sequences, kPages})};
    const StepTables tables = step_tables();
    const Tensor queries = takes.queries ? queries_.view().rows(rows.first, rows.count) : Tensor{};
    const Tensor keys = takes.keys ? keys_.view().rows(0, rows.count) : Tensor{};
    const Tensor values = takes.keys ? values_.view().rows(0, rows.count) : Tensor{};
    const auto rope = [&](Tensor vectors) {
      return RopeArgs{
          .cos = cosines_->read(),
          .sin = sines_->read(),
          .positions =
              positions_->read().reshape({known_ + asked_, kComponents}).rows(rows.first, rows.count),
          .layout = RopeLayout::kAdjacent,
          .x = vectors};
    };
    std::vector<LinearTarget> targets;
    if (takes.queries) targets.push_back({.weight = &layer.q, .bias = {}, .out = queries});
    if (takes.keys) targets.push_back({.weight = &layer.k, .bias = {}, .out = keys});
    if (takes.keys) targets.push_back({.weight = &layer.v, .bias = {}, .out = values});
    const Tensor normed = normed_.view().rows(rows.first, rows.count);
    const NormedLinearsArgs projections{.norm = {.x = x_.read().rows(rows.first, rows.count),
                                                 .weight = norm.read(),
                                                 .eps = kEps,
                                                 .out = normed},
                                        .linears = {.x = normed, .targets = targets}};
    const RotateAndWriteArgs turned{.queries = rope(queries),
                                    .keys = rope(keys),
                                    .write = {.keys = keys,
                                              .values = values,
                                              .plane = plane,
                                              .cache = cache,
                                              .step = tables,
                                              .first_row = rows.first}};
    if (how_ == How::kRecorded)
      return queue_->attention_inputs({.projections = projections, .turned = turned});
    run_parts(*queue_, backend_, projections);
    if (takes.queries) queue_->rope(turned.queries);
    if (takes.keys) queue_->rope(turned.keys);
    if (takes.keys) queue_->write_cache(turned.write);
  }

  void attend(const Layer& layer, Rows rows, const GuardedPlane& of) {
    const CachePlane plane = of.plane();
    const CacheTables cache{.lengths = lengths_->view(),
                            .block_table = table_->view().reshape({shape_.sequences, kPages})};
    const StepTables tables = step_tables();
    const Tensor mixed = mixed_.view().rows(rows.first, rows.count);
    const AttentionArgs attention{.q = queries_.read().rows(rows.first, rows.count),
                                  .plane = plane,
                                  .cache = cache,
                                  .step = tables,
                                  .first_row = rows.first,
                                  .scale = 0.2f,
                                  .out = mixed};
    const LinearArgs output{.x = mixed,
                            .weight = layer.out,
                            .bias = {},
                            .accumulate = Accumulate::kAdd,
                            .out = x_.view().rows(rows.first, rows.count)};
    if (how_ == How::kRecorded) return queue_->attention_output({.attention = attention, .output = output});
    queue_->attention(attention);
    queue_->linear(output);
  }

  void feed_forward(const Layer& layer, const Guarded<float>& norm, Rows rows) {
    const Tensor x = x_.view().rows(rows.first, rows.count),
                 normed = normed_.view().rows(rows.first, rows.count),
                 gated = gated_.view().rows(rows.first, rows.count),
                 raised = raised_.view().rows(rows.first, rows.count);
    const FeedForwardArgs args{
        .gates = {.norm = {.x = x, .weight = norm.read(), .eps = kEps, .out = normed},
                  .linears = {.x = normed,
                              .gate = {.weight = &layer.gate, .bias = {}, .out = gated},
                              .up = {.weight = &layer.up, .bias = {}, .out = raised},
                              .out = gated}},
        .down = {.x = gated, .weight = layer.down, .bias = {}, .accumulate = Accumulate::kAdd, .out = x}};
    if (how_ == How::kRecorded) return queue_->feed_forward(args);
    run_parts(*queue_, backend_, args.gates);
    queue_->linear(args.down);
  }

  const Backend& backend_;
  const PassShape shape_;
  const int64_t known_;  // rows
  const int64_t asked_;
  std::vector<float> inputs_;
  uint64_t seed_ = 100;
  How how_ = How::kParts;
  std::shared_ptr<Queue> queue_;
  std::vector<Layer> layers_;
  LinearWeight head_;
  std::vector<Floats> norms_;
  std::vector<std::unique_ptr<GuardedPlane>> planes_;  // of the first pass, then that of the second
  Floats cosines_, sines_;
  Ints sequence_, entry_, prefix_, context_, none_, slots_, lengths_, table_, positions_, logits_rows_;
  const Guarded<float> given_, x_, normed_, queries_, keys_, values_, mixed_, gated_, raised_, picked_,
      logits_;
};

// Without known rows, with fewer and more of them than others, and with more rows than a device may take
// together.
TEST(RecordedPassesTest, PassesHaveTheBitsOfTheirParts) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const PassShape& shape : {PassShape{64, 1, 64, 96, 1, 0, 3}, PassShape{128, 2, 64, 160, 2, 1, 2},
                                   PassShape{256, 4, 64, 288, 2, 3, 5}, PassShape{256, 4, 64, 288, 2, 6, 2},
                                   PassShape{128, 4, 32, 96, 2, 7, 8}, PassShape{128, 2, 64, 96, 2, 8, 8},
                                   PassShape{128, 2, 64, 96, 2, 3, 9}, PassShape{128, 2, 64, 96, 2, 10, 7},
                                   PassShape{1024, 16, 64, 2816, 2, 5, 6}}) {
      if (kSanitized && shape.dim > 128) continue;
      if (shape.dim > 512 && (tests_cpu() || backend->info().name != tested_backend()->info().name)) continue;
      EXPECT_EQ(first_difference(Passes(*backend, shape).run(How::kParts),
                                 Passes(*backend, shape).run(How::kRecorded)),
                -1)
          << "dim " << shape.dim << ", " << shape.sequences << " sequences of " << shape.known << " and "
          << shape.asked << " rows on " << backend->info().name;
    }
  }
}

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Which NaN a sum is depends on the order of its terms.
std::vector<float> with_one_nan(std::vector<float> numbers) {
  for (float& number : numbers) {
    if (std::isnan(number)) number = kNaN;
  }
  return numbers;
}

// Blocks of a device may tell by bits of their own that a row is not there yet: no row has them by what it is
// made of, and rows without numbers end as others do.
TEST(RecordedPassesTest, RowsThatAreNoNumbersHaveTheBitsOfTheirParts) {
  if (tests_cpu()) return;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::array special{
      std::bit_cast<float>(0xffffffffu),       kInfinity,  std::bit_cast<float>(0x7fffffffu),
      std::numeric_limits<float>::max(),       -kInfinity, std::bit_cast<float>(0xffff0000u),
      std::numeric_limits<float>::denorm_min()};
  for (const PassShape& shape : {PassShape{128, 2, 64, 96, 2, 3, 4}, PassShape{128, 2, 64, 96, 2, 8, 7}}) {
    for (const int64_t stride : {int64_t{1}, int64_t{3}}) {  // from such a row to the next
      const auto run = [&](How how) {
        Passes passes(*tested_backend(), shape);
        const auto inputs = passes.inputs();
        for (int64_t row = 0, i = 0; row * shape.dim < std::ssize(inputs); row += stride, ++i) {
          const auto of_row =
              inputs.subspan(static_cast<size_t>(row * shape.dim), static_cast<size_t>(shape.dim));
          const float number = special[static_cast<size_t>(i) % special.size()];
          of_row[static_cast<size_t>(i * 31 % shape.dim)] = number;
          if (i % 8 == 7) std::ranges::fill(of_row, number);
        }
        return with_one_nan(passes.run(how));
      };
      EXPECT_EQ(first_difference(run(How::kParts), run(How::kRecorded)), -1)
          << "every " << stride << "-th row, " << shape.known << " and " << shape.asked << " rows";
    }
  }
}

// Recordings of a queue may share memory: each leaves it as the next needs it.
TEST(RecordedPassesTest, RecordingsOfAQueueTakeTurns) {
  const auto backend = tested_backend(2);
  const std::shared_ptr<Queue> queue = backend->make_queue();
  std::vector<std::unique_ptr<Passes>> passes;
  std::vector<std::vector<float>> expected;
  for (const PassShape& shape : {PassShape{128, 2, 64, 96, 2, 1, 3}, PassShape{64, 1, 64, 160, 1, 2, 5},
                                 PassShape{128, 2, 64, 96, 2, 5, 4}, PassShape{128, 2, 64, 96, 2, 0, 2}}) {
    passes.push_back(std::make_unique<Passes>(*backend, shape, queue));
    expected.push_back(Passes(*backend, shape).run(How::kParts));
  }
  for (int turn = 0; turn < 3; ++turn) {
    for (size_t i = 0; i < passes.size(); ++i)
      EXPECT_EQ(first_difference(expected[i], passes[i]->run(How::kRecorded)), -1)
          << "turn " << turn << ", recording " << i;
  }
}

}  // namespace
}  // namespace volley::testing
