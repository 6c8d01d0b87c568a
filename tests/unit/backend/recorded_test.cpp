// Layers of a transformer that are recorded and replayed: the bits of their operations one by one. A device
// may run what is recorded in another way than what is not.
#include <array>
#include <cmath>
#include <memory>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

struct LayerShape {
  int64_t dim = 0;
  int64_t heads = 1, groups = 1, width = 0;
  int64_t feed_forward = 0;
  int64_t sequences = 1;
  int64_t together = 1;   // rows of a sequence
  bool replaces = false;  // entries that the cache keeps, instead of adding some
};

constexpr int64_t kLayers = 3, kPages = 3;
constexpr float kEps = 1e-5f;

struct Layer {
  Layer(const Backend& backend, const LayerShape& shape, uint64_t seed) {
    const auto weight = [&](int64_t rows, int64_t in) {
      const auto numbers = normal_numbers(rows * in, ++seed, 1.0f / std::sqrt(static_cast<float>(in)));
      return backend.pack_linear(host_view(numbers, {rows, in}), WeightType::kBF16);
    };
    q = weight(shape.heads * shape.width, shape.dim);
    k = weight(shape.groups * shape.width, shape.dim);
    v = weight(shape.groups * shape.width, shape.dim);
    out = weight(shape.dim, shape.heads * shape.width);
    gate = weight(shape.feed_forward, shape.dim);
    up = weight(shape.feed_forward, shape.dim);
    down = weight(shape.dim, shape.feed_forward);
    for (auto* norm : {&attention_norm, &feed_forward_norm})
      *norm = std::make_unique<Guarded<float>>(backend, Shape{shape.dim}, normal_numbers(shape.dim, ++seed));
    bias = std::make_unique<Guarded<float>>(backend, Shape{shape.groups * shape.width},
                                            normal_numbers(shape.groups * shape.width, ++seed));
    const Shape pages{shape.sequences * kPages, shape.groups, kPageSize, shape.width};
    cache =
        std::make_unique<GuardedPlane>(backend, backend.cache_type(WeightType::kBF16), pages,
                                       GuardedPlane::Numbers{.keys = normal_numbers(pages.size(), ++seed),
                                                             .values = normal_numbers(pages.size(), ++seed)});
  }

  LinearWeight q, k, v, out, gate, up, down;
  std::unique_ptr<Guarded<float>> attention_norm, feed_forward_norm, bias;
  std::unique_ptr<GuardedPlane> cache;
};

enum class How { kParts, kRecorded };

// The rows behind all layers, then what the caches hold.
std::vector<float> run_layers(const Backend& backend, const LayerShape& shape, How how) {
  const int64_t rows = shape.sequences * shape.together;
  const auto floats = [&](Shape of, uint64_t seed) {
    return std::make_unique<Guarded<float>>(backend, of, normal_numbers(of.size(), seed));
  };
  const auto ints = [&](int64_t count, auto&& value) {
    std::vector<int32_t> numbers;
    for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<int32_t>(value(i)));
    return std::make_unique<Guarded<int32_t>>(backend, Shape{count}, numbers);
  };
  std::vector<Layer> layers;
  for (int64_t l = 0; l < kLayers; ++l) layers.emplace_back(backend, shape, 100 * static_cast<uint64_t>(l));
  const auto own = [&](int64_t r) { return r % shape.together; };
  const auto sequence = ints(rows, [&](int64_t r) { return r / shape.together; }),
             entry = ints(rows,
                          [&](int64_t r) {
                            return shape.replaces ? replaced_entry(static_cast<int32_t>(own(r))) : own(r);
                          }),
             prefix = ints(rows, [&](int64_t r) { return shape.replaces ? 0 : own(r) + 1; }),
             context = ints(rows, [](int64_t) { return kAllContext; }),
             none = ints(rows, [](int64_t) { return 0; }), positions = ints(rows, own),
             slots = ints(shape.sequences, [&](int64_t s) { return shape.sequences - 1 - s; }),
             lengths = ints(shape.sequences, [](int64_t s) { return 100 - s * 37 % 90; }),
             table =
                 ints(shape.sequences * kPages, [&](int64_t i) { return shape.sequences * kPages - 1 - i; });
  const StepTables step{.row_sequence = sequence->read(),
                        .row_entry = entry->read(),
                        .row_context = context->read(),
                        .row_prefix = prefix->read(),
                        .row_tail_begin = none->read(),
                        .row_tail_count = none->read(),
                        .tail = none->read(),
                        .sequence_slot = slots->read()};
  const CacheTables cache{.lengths = lengths->view(),
                          .block_table = table->view().reshape({shape.sequences, kPages})};
  const auto inputs = normal_numbers(rows * shape.dim, 3);
  const auto cosines = floats({shape.together, shape.width / 2}, 1),
             sines = floats({shape.together, shape.width / 2}, 2), given = floats({rows, shape.dim}, 4);
  const Guarded<float> x(backend, {rows, shape.dim}), normed(backend, {rows, shape.dim});
  const Guarded<float> q(backend, {rows, shape.heads, shape.width}),
      k(backend, {rows, shape.groups, shape.width}), v(backend, {rows, shape.groups, shape.width}),
      mixed(backend, {rows, shape.heads, shape.width});
  const Guarded<float> gated(backend, {rows, shape.feed_forward}),
      raised(backend, {rows, shape.feed_forward});
  auto queue = backend.make_queue();

  const auto run_layer = [&](const Layer& layer) {
    const CachePlane plane = layer.cache->plane();
    const auto norm = [&](const Guarded<float>& weight) {
      return RmsNormArgs{.x = x.read(), .weight = weight.read(), .eps = kEps, .out = normed.view()};
    };
    const auto rope = [&](const Guarded<float>& vectors) {
      return RopeArgs{.cos = cosines->read(),
                      .sin = sines->read(),
                      .positions = positions->read().reshape({rows, 1}),
                      .layout = RopeLayout::kSplitHalf,
                      .x = vectors.view()};
    };
    const std::array targets{LinearTarget{.weight = &layer.q, .bias = {}, .out = q.view()},
                             LinearTarget{.weight = &layer.k, .bias = layer.bias->read(), .out = k.view()},
                             LinearTarget{.weight = &layer.v, .bias = {}, .out = v.view()}};
    const NormedLinearsArgs projections{.norm = norm(*layer.attention_norm),
                                        .linears = {.x = normed.read(), .targets = targets}};
    const RotateAndWriteArgs turned{
        .queries = rope(q),
        .keys = rope(k),
        .write = {.keys = k.read(), .values = v.read(), .plane = plane, .cache = cache, .step = step}};
    const AttentionArgs attention{
        .q = q.read(), .plane = plane, .cache = cache, .step = step, .scale = 0.2f, .out = mixed.view()};
    const LinearArgs output{
        .x = mixed.read(), .weight = layer.out, .bias = {}, .accumulate = Accumulate::kAdd, .out = x.view()};
    const GatedLinearsArgs gates{.x = normed.read(),
                                 .gate = {.weight = &layer.gate, .bias = {}, .out = gated.view()},
                                 .up = {.weight = &layer.up, .bias = {}, .out = raised.view()},
                                 .out = gated.view()};
    const LinearArgs down{
        .x = gated.read(), .weight = layer.down, .bias = {}, .accumulate = Accumulate::kAdd, .out = x.view()};
    if (how == How::kRecorded) {
      queue->attention_inputs({.projections = projections, .turned = turned});
      queue->attention_output({.attention = attention, .output = output});
      queue->feed_forward(
          {.gates = {.norm = norm(*layer.feed_forward_norm), .linears = gates}, .down = down});
      return;
    }
    run_parts(*queue, backend, projections);
    queue->rope(turned.queries);
    queue->rope(turned.keys);
    queue->write_cache(turned.write);
    queue->attention(attention);
    queue->linear(output);
    run_parts(*queue, backend, {.norm = norm(*layer.feed_forward_norm), .linears = gates});
    queue->linear(down);
  };
  const auto run = [&] {
    queue->copy({.x = given->read(), .out = x.view()});
    for (const Layer& layer : layers) run_layer(layer);
  };
  const auto give_inputs = [&] {
    Transfer::to(backend, inputs.data(), given->view().data, rows * shape.dim * 4);
  };
  if (how == How::kRecorded) {
    // At first with other inputs, so that a replay that reads what an earlier one has left is found out.
    const std::array<int64_t, 1> key{rows};
    for (int i = 0; i < 4; ++i) queue->run_recorded(key, run);
    queue->finish();
    give_inputs();
    queue->run_recorded(key, run);
  } else {
    give_inputs();
    run();
  }
  queue->finish();
  std::vector<float> results = x.values();
  for (const Layer& layer : layers) {
    const auto numbers = layer.cache->numbers();
    results.insert(results.end(), numbers.keys.begin(), numbers.keys.end());
    results.insert(results.end(), numbers.values.begin(), numbers.values.end());
  }
  return results;
}

// Heads of one to four steps of a kernel, up to 16 rows and more, inputs that a device holds at once and some
// that it does not, widths that are no whole steps, entries that are replaced.
TEST(RecordedTest, LayersHaveTheBitsOfTheirParts) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const LayerShape& shape :
         {LayerShape{64, 2, 1, 32, 96, 1, 1}, LayerShape{128, 3, 3, 64, 160, 1, 5},
          LayerShape{256, 4, 2, 64, 288, 2, 4}, LayerShape{256, 4, 2, 64, 288, 2, 4, true},
          LayerShape{288, 3, 3, 96, 512, 3, 3}, LayerShape{128, 2, 1, 128, 64, 16, 1},
          LayerShape{64, 2, 2, 64, 64, 1, 17}, LayerShape{100, 2, 2, 32, 96, 1, 3},
          LayerShape{1024, 16, 16, 64, 2816, 2, 1}, LayerShape{1536, 24, 24, 64, 4096, 2, 8}}) {
      if (kSanitized && shape.dim > 128) continue;
      if (shape.dim > 512 && (tests_cpu() || backend->info().name != tested_backend()->info().name)) continue;
      EXPECT_EQ(first_difference(run_layers(*backend, shape, How::kParts),
                                 run_layers(*backend, shape, How::kRecorded)),
                -1)
          << "dim " << shape.dim << ", heads of " << shape.width << ", " << shape.sequences
          << " sequences of " << shape.together << " rows on " << backend->info().name;
    }
  }
}

}  // namespace
}  // namespace volley::testing
