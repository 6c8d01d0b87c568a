// Dense attention whose operands may be rounded to bf16.
#include <algorithm>
#include <cmath>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

struct DenseScene {
  int64_t items, rows, heads, width;

  Shape shape() const { return {items, rows, heads, width}; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(width)); }
};
struct DenseInputs {
  std::vector<float> q, k, v;
};
std::vector<float> attend_rounded(const Backend& backend, const DenseScene& scene,
                                  const DenseInputs& inputs) {
  const Guarded<float> q(backend, scene.shape(), inputs.q), k(backend, scene.shape(), inputs.k),
      v(backend, scene.shape(), inputs.v), out(backend, scene.shape());
  auto queue = backend.make_queue();
  queue->dense_attention({.q = q.read(),
                          .k = k.read(),
                          .v = v.read(),
                          .scale = scene.scale(),
                          .operands = Operands::kBF16,
                          .out = out.view()});
  queue->finish();
  return out.values();
}

// Checks one row of one head against exact arithmetic. With operands up to u = 2^-9 away from what they were,
// a score errs by at most d = (2 u + u^2) * sum |q k|, a weight by a factor of at most exp(2 d), and a
// product of a weight and a value by (1 + u)^2 more; f32 sums err as many units as they have terms.
void expect_near_dense_row(const DenseScene& scene, const DenseInputs& inputs, int64_t row,
                           std::span<const float> result) {
  constexpr double kRounding = 0x1p-9;
  const auto [items, rows, heads, width] = scene;
  const int64_t head = row % heads, item = row / (heads * rows);
  const auto key_of = [&](int64_t i) { return ((item * rows + i) * heads + head) * width; };
  std::vector<double> weights(static_cast<size_t>(rows));
  double most = -INFINITY, magnitude = 0.0, sum = 0.0;
  for (int64_t i = 0; i < rows; ++i) {
    double dot = 0.0, size = 0.0;
    for (int64_t d = 0; d < width; ++d) {
      const double term = double{inputs.q[row * width + d]} * inputs.k[key_of(i) + d] * scene.scale();
      dot += term;
      size += std::abs(term);
    }
    weights[static_cast<size_t>(i)] = dot;
    most = std::max(most, dot);
    magnitude = std::max(magnitude, size);
  }
  for (double& weight : weights) sum += weight = std::exp(weight - most);
  const double f32 = 4.0 * static_cast<double>(rows + width + 64) * kUnit;
  const double score_error = ((2.0 + kRounding) * kRounding + f32) * magnitude;
  const double factor =
      std::exp(2.0 * score_error) * (1.0 + kRounding) * (1.0 + kRounding) * (1.0 + f32) - 1.0;
  for (int64_t d = 0; d < width; ++d) {
    double exact = 0.0, size = 0.0;
    for (int64_t i = 0; i < rows; ++i) {
      const double term = weights[static_cast<size_t>(i)] / sum * inputs.v[key_of(i) + d];
      exact += term;
      size += std::abs(term);
    }
    ASSERT_NEAR(result[row * width + d], exact, factor * size) << "row " << row << " column " << d;
  }
}

TEST(DenseAttentionTest, MayRoundItsOperands) {
  const auto backend = tested_backend(), reference = make_reference_backend();
  for (const DenseScene& scene :
       {DenseScene{2, 7, 3, 7}, DenseScene{3, 64, 2, 32}, DenseScene{2, 65, 3, 64}, DenseScene{1, 257, 2, 80},
        DenseScene{2, 130, 1, 128}, DenseScene{1, 63, 2, 200}, DenseScene{2, 100, 1, 512},
        DenseScene{3, 1, 2, 512}}) {
    const int64_t size = scene.shape().size(), item = size / scene.items;
    const DenseInputs inputs{normal_numbers(size, 1), normal_numbers(size, 2), normal_numbers(size, 3)};
    const auto result = attend_rounded(*backend, scene, inputs);
    const int64_t rows = size / scene.width;
    for (int64_t row = 0; row < rows; row += kSanitized ? 37 : 1)
      expect_near_dense_row(scene, inputs, row, result);
    expect_near_dense_row(scene, inputs, rows - 1, attend_rounded(*reference, scene, inputs));
    // An item alone has the bits that it has in company.
    for (int64_t b = 0; b < scene.items; ++b) {
      const auto part = [&](const std::vector<float>& all) {
        return std::vector<float>(all.begin() + b * item, all.begin() + (b + 1) * item);
      };
      const DenseScene alone{1, scene.rows, scene.heads, scene.width};
      const auto single = attend_rounded(*backend, alone, {part(inputs.q), part(inputs.k), part(inputs.v)});
      ASSERT_EQ(first_difference(single, part(result)), -1) << "item " << b << " width " << scene.width;
    }
  }
}

}  // namespace
}  // namespace volley::testing
