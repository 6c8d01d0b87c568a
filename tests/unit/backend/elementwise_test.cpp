#include <cmath>
#include <functional>
#include <numbers>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

constexpr int64_t kWidths[] = {1, 3, 7, 16, 33, 63, 64, 100, 257, 1024};

// Runs `operation` on both backends and returns the outputs.
using Operation = std::function<std::vector<float>(const Backend&, Queue&)>;
std::pair<std::vector<float>, std::vector<float>> both(const Operation& operation) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend();
  auto reference_queue = reference->make_queue();
  auto queue = tested->make_queue();
  return {operation(*reference, *reference_queue), operation(*tested, *queue)};
}

TEST(RowsTest, GatherAndAddEqualTheReference) {
  for (const int64_t width : kWidths) {
    const auto table = normal_numbers(11 * width, 1), before = normal_numbers(6 * width, 2);
    const std::vector<int32_t> ids{3, -1, 0, 10, -7, 3};
    for (const bool adds : {false, true}) {
      const auto [expected, result] = both([&](const Backend& backend, Queue& queue) {
        const Guarded<float> t(backend, {11, width}, table), out(backend, {6, width}, before);
        const Guarded<int32_t> i(backend, {6}, ids);
        if (adds) {
          queue.add_rows({.table = t.read(), .ids = i.read(), .out = out.view()});
        } else {
          queue.gather_rows({.table = t.read(), .ids = i.read(), .out = out.view()});
        }
        queue.finish();
        return out.values();
      });
      EXPECT_EQ(first_difference(expected, result), -1) << width;
      EXPECT_EQ(result[width], before[width]) << "a row with a negative id changed";
    }
  }
}

TEST(RowsTest, CopyAndAddAreExact) {
  for (const int64_t count : {1, 17, 1000, 200001}) {
    const auto a = normal_numbers(count, 1), b = normal_numbers(count, 2);
    const auto [expected, result] = both([&](const Backend& backend, Queue& queue) {
      const Guarded<float> x(backend, {count}, a), y(backend, {count}, b), copied(backend, {count});
      queue.add({.a = x.read(), .b = y.read(), .out = x.view()});
      queue.copy({.x = x.read(), .out = copied.view()});
      queue.finish();
      return copied.values();
    });
    EXPECT_EQ(first_difference(expected, result), -1);
  }
}

// The sum of squares errs by width roundings at most, so its root by half as many; then a few operations.
TEST(NormTest, RmsNormAgreesWithTheReference) {
  for (const int64_t width : kWidths) {
    for (const int64_t rows : {1, 5, 200}) {
      const auto x = normal_numbers(rows * width, 3), weight = normal_numbers(width, 4);
      const auto [expected, result] = both([&](const Backend& backend, Queue& queue) {
        const Guarded<float> out(backend, {rows, width}, x), w(backend, {width}, weight);
        queue.rms_norm({.x = out.read(), .weight = w.read(), .eps = 1e-5f, .out = out.view()});
        queue.finish();
        return out.values();
      });
      for (size_t i = 0; i < result.size(); ++i) {
        ASSERT_NEAR(result[i], expected[i], std::abs(expected[i]) * static_cast<double>(width + 12) * kUnit);
      }
    }
  }
}

// The mean errs by width roundings of the mean magnitude on both sides, which the scale multiplies.
TEST(NormTest, LayerNormAgreesWithTheReference) {
  for (const int64_t width : kWidths) {
    for (const int64_t rows : {1, 5, 200}) {
      auto x = normal_numbers(rows * width, 3);
      for (float& value : x) value += 2.0f;
      const auto weight = normal_numbers(width, 4), bias = normal_numbers(width, 5);
      const auto [expected, result] = both([&](const Backend& backend, Queue& queue) {
        const Guarded<float> in(backend, {rows, width}, x), out(backend, {rows, width});
        const Guarded<float> w(backend, {width}, weight), b(backend, {width}, bias);
        queue.layer_norm(
            {.x = in.read(), .weight = w.read(), .bias = b.read(), .eps = 1e-3f, .out = out.view()});
        queue.finish();
        return out.values();
      });
      for (int64_t r = 0; r < rows; ++r) {
        double mean = 0.0, magnitude = 0.0, variance = 0.0;
        for (int64_t i = 0; i < width; ++i) mean += x[r * width + i] / static_cast<double>(width);
        for (int64_t i = 0; i < width; ++i) {
          magnitude += std::abs(x[r * width + i]) / static_cast<double>(width);
          variance += (x[r * width + i] - mean) * (x[r * width + i] - mean) / static_cast<double>(width);
        }
        const double scale = 1.0 / std::sqrt(variance + 1e-3);
        for (int64_t i = 0; i < width; ++i) {
          const double shift = static_cast<double>(width + 2) * magnitude + std::abs(x[r * width + i] - mean);
          const double centred = std::abs(x[r * width + i] - mean) + 2.0 * shift * kUnit;
          const double relative =
              static_cast<double>(width + 12) + 2.0 * static_cast<double>(width + 2) * magnitude * scale;
          const double bound = (2.0 * shift * scale + centred * scale * relative) * std::abs(weight[i]) +
                               2.0 * std::abs(bias[i]) + std::abs(expected[r * width + i]);
          ASSERT_NEAR(result[r * width + i], expected[r * width + i], bound * kUnit) << "width " << width;
        }
      }
    }
  }
}

TEST(NormTest, L2NormalizeAgreesWithTheReference) {
  for (const int64_t width : kWidths) {
    auto x = normal_numbers(9 * width, 3);
    std::fill(x.begin() + 2 * width, x.begin() + 3 * width, 0.0f);  // a row of length zero
    const auto [expected, result] = both([&](const Backend& backend, Queue& queue) {
      const Guarded<float> out(backend, {9, width}, x);
      queue.l2_normalize({.x = out.read(), .eps = 1e-12f, .out = out.view()});
      queue.finish();
      return out.values();
    });
    for (size_t i = 0; i < result.size(); ++i) {
      ASSERT_NEAR(result[i], expected[i], std::abs(expected[i]) * static_cast<double>(width + 6) * kUnit);
    }
  }
}

double exact_activation(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGeluErf:
      return 0.5 * x * (1.0 + std::erf(x / std::numbers::sqrt2));
    case Activation::kGeluTanh:
      return x / (1.0 + std::exp(-2.0 * std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  }
  return 0.0;
}

// Against f64: the exponential is good to 2 ulp at an argument of magnitude |y| rounded in f32 (|y| more
// ulp), erf to 4 ulp of 1.
TEST(ActivationTest, IsCloseToExactEverywhere) {
  std::vector<float> x = normal_numbers(5000, 1, 3.0f);
  for (int i = -400; i <= 400; ++i) x.push_back(static_cast<float>(i) * 0.5f);
  for (const float odd : {0.0f, -0.0f, 1e-30f, -1e-30f, 1e30f, -1e30f}) x.push_back(odd);
  const int64_t count = static_cast<int64_t>(x.size());
  for (const Activation activation : {Activation::kSilu, Activation::kGeluErf, Activation::kGeluTanh}) {
    const auto backend = tested_backend();
    const Guarded<float> out(*backend, {count}, x);
    backend->make_queue()->activate({.activation = activation, .x = out.view()});
    const auto result = out.values();
    for (int64_t i = 0; i < count; ++i) {
      const double exact = exact_activation(activation, x[i]);
      const double argument =
          std::min(100.0, activation == Activation::kGeluTanh ? 4.0 * std::abs(x[i]) + 8 : std::abs(x[i]));
      const double bound = activation == Activation::kGeluErf
                               ? std::abs(x[i]) * 6.0 * kUnit
                               : std::abs(exact) * (8.0 + 4.0 * argument) * kUnit + 1e-35;
      ASSERT_NEAR(result[i], exact, bound) << "x = " << x[i];
    }
  }
}

// An element's bits do not depend on its place in the array.
TEST(ActivationTest, BitsDoNotDependOnThePlace) {
  const auto backend = tested_backend();
  auto queue = backend->make_queue();
  const auto x = normal_numbers(100, 1);
  for (const Activation activation : {Activation::kSilu, Activation::kGeluErf, Activation::kGeluTanh}) {
    const Guarded<float> whole(*backend, {100}, x);
    queue->activate({.activation = activation, .x = whole.view()});
    for (int64_t i = 0; i < 100; ++i) {
      const Guarded<float> one(*backend, {1}, std::vector<float>{x[i]});
      queue->activate({.activation = activation, .x = one.view()});
      queue->finish();  // values are read by another queue
      ASSERT_EQ(one.values()[0], whole.values()[i]) << i;
    }
  }
}

TEST(ActivationTest, SiluMulAgreesWithTheReference) {
  for (const int64_t count : {1, 31, 1000, 70001}) {
    const auto gate = normal_numbers(count, 1, 3.0f), up = normal_numbers(count, 2);
    const auto [expected, result] = both([&](const Backend& backend, Queue& queue) {
      const Guarded<float> g(backend, {count}, gate), u(backend, {count}, up);
      queue.silu_mul({.gate = g.read(), .up = u.read(), .out = g.view()});
      queue.finish();
      return g.values();
    });
    for (int64_t i = 0; i < count; ++i) {
      ASSERT_NEAR(result[i], expected[i], std::abs(expected[i]) * (12.0 + 4.0 * std::abs(gate[i])) * kUnit);
    }
  }
}

TEST(RopeTest, TurnsLikeTheReference) {
  for (const RopeLayout layout : {RopeLayout::kAdjacent, RopeLayout::kSplitHalf}) {
    for (const int64_t components : {1, 2, 3}) {
      for (const int64_t width : {12, 24, 96}) {
        const int64_t rows = 9, heads = 3, positions = 20, columns = width / 2 / components;
        const auto x = normal_numbers(rows * heads * width, 1);
        auto cosines = normal_numbers(positions * columns, 2), sines = normal_numbers(positions * columns, 3);
        std::fill(cosines.begin(), cosines.begin() + columns, 0.0f);  // position 0 makes zeros
        std::fill(sines.begin(), sines.begin() + columns, 0.0f);
        std::vector<int32_t> at;
        for (int64_t i = 0; i < rows * components; ++i) at.push_back(static_cast<int32_t>(i * 7 % positions));
        for (int64_t c = 0; c < components; ++c) at[components + c] = 0;
        const auto [expected, result] = both([&](const Backend& backend, Queue& queue) {
          const Guarded<float> out(backend, {rows, heads, width}, x);
          const Guarded<float> c(backend, {positions, columns}, cosines),
              s(backend, {positions, columns}, sines);
          const Guarded<int32_t> p(backend, {rows, components}, at);
          queue.rope(
              {.cos = c.read(), .sin = s.read(), .positions = p.read(), .layout = layout, .x = out.view()});
          queue.finish();
          return out.values();
        });
        // The same two products and one sum on both sides.
        for (size_t i = 0; i < result.size(); ++i) ASSERT_EQ(result[i], expected[i]) << i;
        for (int64_t i = 0; i < heads * width; ++i) ASSERT_EQ(result[heads * width + i], 0.0f);
      }
    }
  }
}

}  // namespace
}  // namespace volley::testing
