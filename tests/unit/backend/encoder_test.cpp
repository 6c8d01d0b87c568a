// What encoders run: products of their phase, and operations that do several in one.
#include <array>
#include <cmath>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

constexpr std::array<WeightType, 3> kTypes{WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0};
constexpr std::array<Phase, 2> kPhases{Phase::kEncoder, Phase::kDecode};

LinearWeight random_weight(const Backend& backend, int64_t out, int64_t in, uint64_t seed, WeightType type) {
  return backend.pack_linear(host_view(normal_numbers(out * in, seed), {out, in}), type);
}

// The last rows are for devices, which cut so many into other tiles.
TEST(EncoderTest, RowsKeepTheirBits) {
  const auto backend = tested_backend();
  for (const auto& [in, out] :
       std::initializer_list<std::pair<int64_t, int64_t>>{{100, 129}, {832, 768}, {288, 264}}) {
    const LinearWeight weight = random_weight(*backend, out, in, 1, WeightType::kBF16);
    const Guarded<float> bias(*backend, {out}, normal_numbers(out, 2));
    const auto run = [&](const std::vector<float>& x) {
      const int64_t rows = static_cast<int64_t>(x.size()) / in;
      const Guarded<float> from(*backend, {rows, in}, x), result(*backend, {rows, out});
      auto queue = backend->make_queue();
      queue->linear({.x = from.read(),
                     .weight = weight,
                     .bias = bias.read(),
                     .phase = Phase::kEncoder,
                     .out = result.view()});
      queue->finish();
      return result.values();
    };
    const int64_t most = kSanitized ? 40 : tests_cpu() ? 300 : 12000;
    const auto x = normal_numbers(most * in, 3);
    const auto all = run(x);
    for (const int64_t rows : {1, 8, 17, 130, 1500, 4000}) {
      if (rows >= most) break;
      const int64_t first = (most - rows) / 3;
      const auto some = run({x.begin() + first * in, x.begin() + (first + rows) * in});
      ASSERT_EQ(
          first_difference(std::span<const float>(some), std::span<const float>(all).subspan(
                                                             static_cast<size_t>(first * out), some.size())),
          -1)
          << rows << " rows of " << in << " to " << out;
    }
    // Sums of products of bf16 err by a unit for each addition.
    const auto exact = make_reference_backend();
    const LinearWeight same = random_weight(*exact, out, in, 1, WeightType::kBF16);
    const int64_t checked = std::min<int64_t>(most, 20);
    const Guarded<float> from(*exact, {checked, in}, std::vector<float>(x.begin(), x.begin() + checked * in));
    const Guarded<float> exact_bias(*exact, {out}, normal_numbers(out, 2)), expected(*exact, {checked, out});
    exact->make_queue()->linear(
        {.x = from.read(), .weight = same, .bias = exact_bias.read(), .out = expected.view()});
    const auto values = expected.values();
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(all[i], values[i], static_cast<double>(in) * static_cast<double>(in) * 4.0 * kUnit) << i;
    }
  }
}

TEST(EncoderTest, ActivatedFeedForwardEqualsItsParts) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const WeightType type : kTypes) {
      for (const Phase phase : kPhases) {
        for (const auto& [in, hidden] : std::initializer_list<std::pair<int64_t, int64_t>>{
                 {96, 160}, {64, 100}, {36, 64}, {256, 1024}}) {
          const LinearWeight up = random_weight(*backend, hidden, in, 1, type),
                             down = random_weight(*backend, in, hidden, 2, type);
          const Guarded<float> up_bias(*backend, {hidden}, normal_numbers(hidden, 3)),
              down_bias(*backend, {in}, normal_numbers(in, 4)), weight(*backend, {in}, normal_numbers(in, 5)),
              bias(*backend, {in}, normal_numbers(in, 6));
          for (const int64_t rows : {1, 17, 33, 200, 3000}) {
            if (rows > (kSanitized ? 33 : backend->info().name.starts_with("cpu") ? 40 : 3000)) continue;
            std::vector<std::vector<float>> results;
            for (const bool at_once : {false, true}) {
              const Guarded<float> x(*backend, {rows, in}, normal_numbers(rows * in, 7)),
                  normed(*backend, {rows, in}), between(*backend, {rows, hidden});
              const ActivatedFeedForwardArgs args{
                  .norm = {.x = x.read(), .weight = weight.read(), .bias = bias.read(), .out = normed.view()},
                  .up = {.x = normed.read(),
                         .weight = up,
                         .bias = up_bias.read(),
                         .phase = phase,
                         .out = between.view()},
                  .activation = Activation::kGeluErf,
                  .down = {.x = between.read(),
                           .weight = down,
                           .bias = down_bias.read(),
                           .phase = phase,
                           .accumulate = Accumulate::kAdd,
                           .out = x.view()}};
              auto queue = backend->make_queue();
              if (at_once) {
                queue->activated_feed_forward(args);
              } else {
                queue->layer_norm(args.norm);
                queue->linear(args.up);
                queue->activate({.activation = args.activation, .x = between.view()});
                queue->linear(args.down);
              }
              queue->finish();
              results.push_back(x.values());
            }
            ASSERT_EQ(first_difference(results[0], results[1]), -1)
                << rows << " rows of " << in << " by " << hidden << " of type " << static_cast<int>(type)
                << " on " << backend->info().name;
          }
        }
      }
    }
  }
}

struct Encoder {
  int64_t items, rows, heads, width;
};

TEST(EncoderTest, DenseSelfAttentionEqualsItsParts) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const WeightType type : kTypes) {
      for (const Phase phase : kPhases) {
        for (const auto& [items, count, heads, width] :
             {Encoder{2, 7, 1, 64}, Encoder{3, 65, 2, 64}, Encoder{2, 33, 3, 32}, Encoder{5, 300, 8, 64},
              Encoder{1, 1500, 4, 64}, Encoder{1, 21, 2, 50}}) {
          const int64_t rows = items * count, in = heads * width;
          if (rows > (kSanitized ? 20 : backend->info().name.starts_with("cpu") ? 200 : 3000)) continue;
          const std::array weights{random_weight(*backend, in, in, 1, type),
                                   random_weight(*backend, in, in, 2, type),
                                   random_weight(*backend, in, in, 3, type)};
          const LinearWeight out = random_weight(*backend, in, in, 4, type);
          const Guarded<float> weight(*backend, {in}, normal_numbers(in, 5)),
              bias(*backend, {in}, normal_numbers(in, 6)), out_bias(*backend, {in}, normal_numbers(in, 7));
          std::vector<std::vector<float>> results;
          for (const bool at_once : {false, true}) {
            const Shape shape{items, count, heads, width};
            const Guarded<float> x(*backend, {rows, in}, normal_numbers(rows * in, 8)),
                normed(*backend, {rows, in}), q(*backend, shape), k(*backend, shape), v(*backend, shape),
                mixed(*backend, shape);
            const auto rows_of = [&](const Guarded<float>& heads_of) {
              return heads_of.view().reshape({rows, in});
            };
            const std::array targets{LinearTarget{&weights[0], bias.read(), rows_of(q)},
                                     LinearTarget{&weights[1], {}, rows_of(k)},
                                     LinearTarget{&weights[2], out_bias.read(), rows_of(v)}};
            const DenseSelfAttentionArgs args{
                .norm = {.x = x.read(), .weight = weight.read(), .bias = bias.read(), .out = normed.view()},
                .projections = {.x = normed.read(), .targets = targets, .phase = phase},
                .attention = {.q = q.read(),
                              .k = k.read(),
                              .v = v.read(),
                              .scale = 1.0f / std::sqrt(static_cast<float>(in)),
                              .operands = operands_of(type),
                              .out = mixed.view()},
                .output = {.x = rows_of(mixed),
                           .weight = out,
                           .bias = out_bias.read(),
                           .phase = phase,
                           .accumulate = Accumulate::kAdd,
                           .out = x.view()}};
            auto queue = backend->make_queue();
            if (at_once) {
              queue->dense_self_attention(args);
            } else {
              queue->layer_norm(args.norm);
              queue->linears(args.projections);
              queue->dense_attention(args.attention);
              queue->linear(args.output);
            }
            queue->finish();
            results.push_back(x.values());
          }
          ASSERT_EQ(first_difference(results[0], results[1]), -1)
              << items << " items of " << count << " rows, " << heads << " heads of " << width << ", type "
              << static_cast<int>(type) << " on " << backend->info().name;
        }
      }
    }
  }
}

}  // namespace
}  // namespace volley::testing
