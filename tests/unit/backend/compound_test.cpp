// Operations that do several in one: the bits of the parts, for any number of rows.
#include <algorithm>
#include <array>
#include <memory>
#include <tuple>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

constexpr std::array<WeightType, 3> kTypes{WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0};
constexpr float kEps = 1e-5f;

LinearWeight random_weight(const Backend& backend, int64_t out, int64_t in, uint64_t seed, WeightType type) {
  return backend.pack_linear(host_view(normal_numbers(out * in, seed), {out, in}), type);
}

// What attention reads, of several steps' shapes.
struct AttentionInputs {
  WeightType type = WeightType::kF32;
  CacheType cache = CacheType::kF32;
  int64_t in = 256;
  int64_t heads = 4, groups = 2;
  int64_t width = 0;  // of a head
  int64_t components = 1;
  RopeLayout layout = RopeLayout::kAdjacent;
  bool has_queries = true, has_keys = true;
  int64_t rows = 1;
};

class AttentionInputsTest {
 public:
  AttentionInputsTest(const Backend& backend, const AttentionInputs& shape)
      : backend_(backend), shape_(shape) {
    for (int64_t i = 0; i < 3; ++i) {
      const int64_t out = (i == 0 ? shape.heads : shape.groups) * shape.width;
      weights_.push_back(random_weight(backend, out, shape.in, static_cast<uint64_t>(10 + i), shape.type));
    }
  }

  // Queries, keys of the cache, values of the cache.
  std::array<std::vector<float>, 3> run(bool at_once) const {
    const auto& [type, cache_type, in, heads, groups, width, components, layout, has_queries, has_keys,
                 rows] = shape_;
    const int64_t columns = width / 2 / components;
    const auto floats = [&](Shape shape, uint64_t seed) {
      return std::make_unique<Guarded<float>>(backend_, shape, normal_numbers(shape.size(), seed));
    };
    const auto ints = [&](int64_t count, auto&& value) {
      std::vector<int32_t> numbers;
      for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<int32_t>(value(i)));
      return std::make_unique<Guarded<int32_t>>(backend_, Shape{count}, numbers);
    };
    const auto cosines = floats({kPositions, columns}, 1), sines = floats({kPositions, columns}, 2);
    const auto positions = ints(rows * components, [](int64_t i) { return i * 5 % kPositions; });
    // Some rows write nothing, some replace an entry, the last is padding.
    const auto sequence = ints(rows, [&](int64_t r) { return rows > 1 && r == rows - 1 ? -1 : r % 2; });
    const auto entry = ints(rows, [](int64_t r) {
      return r % 5 == 2 ? int64_t{kNoEntry} : r == 3 ? int64_t{replaced_entry(1)} : r / 2;
    });
    const auto slots = ints(2, [](int64_t s) { return 1 - s; }),
               lengths = ints(2, [](int64_t s) { return 3 + s; });
    const int64_t pages = rows / 2 / kPageSize + 2;
    const auto table = ints(2 * pages, [&](int64_t i) { return 2 * pages - 1 - i; });
    const StepTables step{
        .row_sequence = sequence->read(), .row_entry = entry->read(), .sequence_slot = slots->read()};
    const CacheTables cache{.lengths = lengths->view(), .block_table = table->view().reshape({2, pages})};
    const Shape plane_shape{2 * pages, groups, kPageSize, width};
    const GuardedPlane planes(
        backend_, cache_type, plane_shape,
        {.keys = normal_numbers(plane_shape.size(), 6), .values = normal_numbers(plane_shape.size(), 7)});
    const CachePlane plane = planes.plane();

    const auto x = floats({rows, in}, 8), norm_weight = floats({in}, 9);
    const Guarded<float> normed(backend_, {rows, in});
    const auto q = floats({rows, heads, width}, 20), k = floats({rows, groups, width}, 21),
               v = floats({rows, groups, width}, 22);
    const auto q_bias = floats({heads * width}, 23), v_bias = floats({groups * width}, 24);
    std::vector<LinearTarget> targets;
    if (has_queries) targets.push_back({&weights_[0], q_bias->read(), q->view()});
    if (has_keys) {
      targets.push_back({&weights_[1], {}, k->view()});
      targets.push_back({&weights_[2], v_bias->read(), v->view()});
    }
    const auto rope = [&](Tensor vectors) {
      return RopeArgs{.cos = cosines->read(),
                      .sin = sines->read(),
                      .positions = positions->read().reshape({rows, components}),
                      .layout = layout,
                      .x = vectors};
    };
    const RmsNormArgs norm{.x = x->read(), .weight = norm_weight->read(), .eps = kEps, .out = normed.view()};
    const LinearsArgs linears{.x = normed.read(), .targets = targets};
    const WriteCacheArgs write{
        .keys = k->read(), .values = v->read(), .plane = plane, .cache = cache, .step = step};
    auto queue = backend_.make_queue();
    if (at_once) {
      queue->attention_inputs({.projections = {.norm = norm, .linears = linears},
                               .turned = {.queries = rope(has_queries ? q->view() : Tensor{}),
                                          .keys = rope(has_keys ? k->view() : Tensor{}),
                                          .write = write}});
    } else {
      run_parts(*queue, backend_, {.norm = norm, .linears = linears});
      if (has_queries) queue->rope(rope(q->view()));
      if (has_keys) {
        queue->rope(rope(k->view()));
        queue->write_cache(write);
      }
    }
    queue->finish();
    return {q->values(), planes.numbers().keys, planes.numbers().values};
  }

 private:
  static constexpr int64_t kPositions = 9;

  const Backend& backend_;
  AttentionInputs shape_;
  std::vector<LinearWeight> weights_;
};

TEST(CompoundTest, AttentionInputsEqualTheirParts) {
  constexpr std::array<std::pair<bool, bool>, 3> kParts{{{true, true}, {false, true}, {true, false}}};
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const WeightType type : kTypes) {
      for (const int64_t width : {16, 20, 64}) {
        for (const RopeLayout layout : {RopeLayout::kAdjacent, RopeLayout::kSplitHalf}) {
          for (const auto& [has_queries, has_keys] : kParts) {
            for (const int64_t rows :
                 std::initializer_list<int64_t>{1, 31, kSanitized ? 32 : 140, kSanitized ? 33 : 141}) {
              AttentionInputs shape{.type = type,
                                    .cache = backend->cache_type(type),
                                    .width = width,
                                    .components = rows % 2 + 1,
                                    .layout = layout,
                                    .has_queries = has_queries,
                                    .has_keys = has_keys,
                                    .rows = rows};
              const AttentionInputsTest test(*backend, shape);
              const auto parts = test.run(false), at_once = test.run(true);
              for (size_t i = 0; i < parts.size(); ++i) {
                EXPECT_EQ(first_difference(parts[i], at_once[i]), -1)
                    << "output " << i << " width " << width << " rows " << rows << " of type "
                    << static_cast<int>(type) << " on " << backend->info().name;
              }
            }
          }
        }
      }
    }
  }
}

// Heads and rows that devices cut into tiles in several ways; queries also have the bits of few rows.
TEST(CompoundTest, AttentionInputsOfManyRowsEqualTheirParts) {
  const auto backend = tested_backend();
  for (const CacheType cache : kCacheTypes) {
    for (const RopeLayout layout : {RopeLayout::kAdjacent, RopeLayout::kSplitHalf}) {
      for (const int64_t rows : {31, 140, 384, 512, 1024}) {
        if (rows > (kSanitized ? 31 : tests_cpu() ? 140 : 1024)) continue;
        AttentionInputs shape{.type = WeightType::kBF16,
                              .cache = cache,
                              .in = 512,
                              .heads = tests_cpu() ? 2 : 16,
                              .groups = tests_cpu() ? 1 : 16,
                              .width = 64,
                              .layout = layout,
                              .rows = rows};
        const AttentionInputsTest test(*backend, shape);
        const auto parts = test.run(false), at_once = test.run(true);
        for (size_t i = 0; i < parts.size(); ++i) {
          EXPECT_EQ(first_difference(parts[i], at_once[i]), -1)
              << "output " << i << " rows " << rows << " cache " << cache_type_name(cache);
        }
        shape.rows = 16;
        const auto few = AttentionInputsTest(*backend, shape).run(true)[0];
        EXPECT_EQ(first_difference(std::span<const float>(few),
                                   std::span<const float>(at_once[0]).first(few.size())),
                  -1)
            << rows << " rows";
      }
    }
  }
}

// Channels, output channels, height, width, kernel. The last is for devices: they take such areas otherwise.
constexpr std::array<std::array<int64_t, 5>, 6> kConvs{{{8, 12, 5, 7, 3},
                                                        {64, 40, 9, 22, 3},
                                                        {128, 64, 16, 16, 1},
                                                        {64, 3, 40, 18, 3},
                                                        {128, 24, 7, 9, 3},
                                                        {64, 2, 72, 72, 3}}};

bool is_for_devices(const std::array<int64_t, 5>& sizes) {
  return sizes[2] * sizes[3] > 64 * 64;
}

struct Conv {
  Conv(const Backend& backend, const std::array<int64_t, 5>& sizes, uint64_t seed, WeightType type)
      : weight(backend.pack_conv(host_view(normal_numbers(sizes[1] * sizes[0] * sizes[4] * sizes[4], seed),
                                           {sizes[1], sizes[0], sizes[4], sizes[4]}),
                                 host_view(normal_numbers(sizes[1], seed + 1), {sizes[1]}), type)) {}
  Conv2dArgs of(const Guarded<float>& x, const Guarded<float>& out, Accumulate accumulate) const {
    const int64_t pad = weight.kernel_h / 2;
    return {.x = x.read(),
            .weight = weight,
            .pad_top = pad,
            .pad_left = pad,
            .pad_bottom = pad,
            .pad_right = pad,
            .accumulate = accumulate,
            .out = out.view()};
  }

  ConvWeight weight;
};

// On the CPU the number of threads is among what decides whether an input is made while it is copied.
std::vector<std::shared_ptr<const Backend>> convolving_backends() {
  std::vector<std::shared_ptr<const Backend>> backends{make_reference_backend()};
  for (const int64_t threads : {1, 2, 8}) {
    if (threads == 2 || (tests_cpu() && !kSanitized)) backends.push_back(tested_backend(threads));
  }
  return backends;
}

TEST(CompoundTest, NormedConvolutionsEqualTheirParts) {
  for (const auto& backend : convolving_backends()) {
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16}) {
      for (const auto& sizes : kConvs) {
        if (is_for_devices(sizes) && backend->info().name.starts_with("cpu")) continue;
        const auto [channels, out, height, width, kernel] = sizes;
        const Conv first(*backend, sizes, 1, type), second(*backend, sizes, 3, type);
        const Guarded<float> weight(*backend, {channels}, normal_numbers(channels, 5)),
            bias(*backend, {channels}, normal_numbers(channels, 6));
        for (const auto& [pictures, groups, swish] : {std::tuple(1, channels / 2, Swish::kAfter),
                                                      {3, channels / 2, Swish::kNone},
                                                      {3, channels / 8, Swish::kAfter},
                                                      {2, std::max(channels / 16, int64_t{1}), Swish::kAfter},
                                                      {2, int64_t{1}, Swish::kNone}}) {
          const Shape in{pictures, channels, height, width}, made{pictures, out, height, width};
          const auto values = normal_numbers(in.size(), 7);
          std::vector<std::vector<float>> results;
          enum class Way : uint8_t { kParts, kAtOnce, kEachConvolution };
          for (const Way way : {Way::kParts, Way::kAtOnce, Way::kEachConvolution}) {
            const Guarded<float> x(*backend, in, values), normed(*backend, in);
            const Guarded<float> a(*backend, made), b(*backend, made, normal_numbers(made.size(), 8));
            const GroupNormArgs norm{.x = x.read(),
                                     .groups = groups,
                                     .weight = weight.read(),
                                     .bias = bias.read(),
                                     .swish = swish,
                                     .out = normed.view()};
            const std::array convs{first.of(normed, a, Accumulate::kAssign),
                                   second.of(normed, b, Accumulate::kAdd)};
            auto queue = backend->make_queue();
            if (way == Way::kParts) queue->group_norm(norm);
            if (way == Way::kAtOnce) queue->normed_convs({.norm = norm, .convs = convs});
            for (const Conv2dArgs& conv : convs) {
              if (way == Way::kParts) queue->conv2d(conv);
              if (way == Way::kEachConvolution) queue->normed_convs({.norm = norm, .convs = {&conv, 1}});
            }
            queue->finish();
            results.push_back(a.values());
            results.push_back(b.values());
          }
          for (size_t i = 2; i < results.size(); ++i) {
            ASSERT_EQ(first_difference(results[i % 2], results[i]), -1)
                << channels << " to " << out << ", result " << i;
          }
        }
      }
    }
  }
}

TEST(CompoundTest, UpsampledConvolutionsEqualTheirParts) {
  for (const auto& backend : convolving_backends()) {
    for (const WeightType type : {WeightType::kF32, WeightType::kBF16}) {
      for (const auto& sizes : kConvs) {
        if (is_for_devices(sizes) && backend->info().name.starts_with("cpu")) continue;
        const auto [channels, out, height, width, kernel] = sizes;
        const Conv conv(*backend, sizes, 1, type);
        constexpr int64_t kPictures = 2;
        std::vector<std::vector<float>> results;
        for (const bool at_once : {false, true}) {
          const Guarded<float> x(*backend, {kPictures, channels, height, width},
                                 normal_numbers(kPictures * channels * height * width, 7));
          const Guarded<float> doubled(*backend, {kPictures, channels, 2 * height, 2 * width});
          const Guarded<float> made(*backend, {kPictures, out, 2 * height, 2 * width});
          const Upsample2xArgs upsample{.x = x.read(), .out = doubled.view()};
          const Conv2dArgs behind = conv.of(doubled, made, Accumulate::kAssign);
          auto queue = backend->make_queue();
          if (at_once) {
            queue->upsampled_conv({.upsample = upsample, .conv = behind});
          } else {
            queue->upsample2x(upsample);
            queue->conv2d(behind);
          }
          queue->finish();
          results.push_back(made.values());
        }
        ASSERT_EQ(first_difference(results[0], results[1]), -1) << channels << " to " << out;
      }
    }
  }
}

// A step whose rows look at a cache of random numbers.
struct AttentionOutput {
  int64_t heads = 1, groups = 1, width = 0;
  int64_t sequences = 1;
  int64_t together = 1;  // rows of a sequence
};

// Rows that are no padding, of what is left of the residual.
std::vector<float> attention_output(const Backend& backend, const AttentionOutput& shape, WeightType type,
                                    bool at_once) {
  constexpr int64_t kOut = 40, kPages = 2;  // of a sequence
  const int64_t rows = shape.sequences * shape.together, in = shape.heads * shape.width;
  const auto ints = [&](int64_t count, auto&& value) {
    std::vector<int32_t> numbers;
    for (int64_t i = 0; i < count; ++i) numbers.push_back(static_cast<int32_t>(value(i)));
    return std::make_unique<Guarded<int32_t>>(backend, Shape{count}, numbers);
  };
  const auto is_padding = [](int64_t r) { return r % 7 == 3; };
  const auto sequence = ints(rows, [&](int64_t r) { return is_padding(r) ? -1 : r / shape.together; });
  const auto context = ints(rows, [](int64_t) { return kAllContext; }),
             none = ints(rows, [](int64_t) { return 0; });
  const auto prefix = ints(rows, [&](int64_t r) { return r % shape.together + 1; });
  const auto slots = ints(shape.sequences, [&](int64_t s) { return shape.sequences - 1 - s; });
  const auto lengths = ints(shape.sequences, [](int64_t s) { return s * 37 % 110; });
  const auto table = ints(shape.sequences * kPages, [](int64_t i) { return i ^ 1; });
  const StepTables step{.row_sequence = sequence->read(),
                        .row_context = context->read(),
                        .row_prefix = prefix->read(),
                        .row_tail_begin = none->read(),
                        .row_tail_count = none->read(),
                        .tail = none->read(),
                        .sequence_slot = slots->read()};
  const Shape plane_shape{shape.sequences * kPages, shape.groups, kPageSize, shape.width};
  const GuardedPlane plane(
      backend, backend.cache_type(type), plane_shape,
      {.keys = normal_numbers(plane_shape.size(), 6), .values = normal_numbers(plane_shape.size(), 7)});
  const CachePlane entries = plane.plane();
  const LinearWeight weight = random_weight(backend, kOut, in, 3, type);
  const Guarded<float> q(backend, {rows, shape.heads, shape.width}, normal_numbers(rows * in, 1)),
      mixed(backend, {rows, shape.heads, shape.width}, std::vector<float>(rows * in, 1.0f)),
      bias(backend, {kOut}, normal_numbers(kOut, 2)),
      residual(backend, {rows, kOut}, normal_numbers(rows * kOut, 4));
  const AttentionArgs attention{
      .q = q.read(),
      .plane = entries,
      .cache = {.lengths = lengths->view(), .block_table = table->view().reshape({shape.sequences, kPages})},
      .step = step,
      .scale = 0.2f,
      .out = mixed.view()};
  const LinearArgs output{.x = mixed.read(),
                          .weight = weight,
                          .bias = bias.read(),
                          .accumulate = Accumulate::kAdd,
                          .out = residual.view()};
  auto queue = backend.make_queue();
  if (at_once) {
    queue->attention_output({.attention = attention, .output = output});
  } else {
    queue->attention(attention);
    queue->linear(output);
  }
  queue->finish();
  std::vector<float> result;
  const std::vector<float> all = residual.values();
  for (int64_t r = 0; r < rows; ++r) {
    if (!is_padding(r)) result.insert(result.end(), all.begin() + r * kOut, all.begin() + (r + 1) * kOut);
  }
  return result;
}

// Few rows and many, one and several of a sequence; the last have so many heads that devices spread them
// otherwise.
TEST(CompoundTest, AttentionOutputEqualsItsParts) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const WeightType type : kTypes) {
      for (const AttentionOutput& shape :
           {AttentionOutput{4, 2, 20, 2, 1}, AttentionOutput{4, 4, 32, 3, 1},
            AttentionOutput{2, 1, 64, 20, 3}, AttentionOutput{2, 2, 64, 5, 12},
            AttentionOutput{2, 2, 96, 3, 2}, AttentionOutput{2, 1, 128, 17, 1},
            AttentionOutput{24, 24, 32, 61, 1}, AttentionOutput{24, 12, 64, 49, 2}}) {
        if (shape.heads > 4 && (kSanitized || type != WeightType::kBF16)) continue;
        EXPECT_EQ(first_difference(attention_output(*backend, shape, type, false),
                                   attention_output(*backend, shape, type, true)),
                  -1)
            << shape.heads << " heads of " << shape.width << ", " << shape.sequences << " sequences of "
            << shape.together << " rows, type " << static_cast<int>(type) << " on " << backend->info().name;
      }
    }
  }
}

}  // namespace
}  // namespace volley::testing
