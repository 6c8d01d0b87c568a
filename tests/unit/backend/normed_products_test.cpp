// Products of rows that are normed: bits of a row alone, whatever its company, and those of the parts where
// they are the rule (NormedLinearsArgs).
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <initializer_list>
#include <utility>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

constexpr std::array<WeightType, 3> kTypes{WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0};
// Widths that are whole steps of a kernel and some that are not; few rows and many.
constexpr std::array<std::pair<int64_t, int64_t>, 4> kWidths{{{100, 129}, {20, 16}, {768, 264}, {96, 160}}};
constexpr std::array<int64_t, 8> kCounts{1, 8, 9, 17, 32, 33, 129, 200};
constexpr float kEps = 1e-5f;

// Two products of the same rows, and a feed-forward layer.
class Layer {
 public:
  Layer(const Backend& backend, int64_t in, int64_t out, WeightType type)
      : backend_(backend),
        in_(in),
        out_(out),
        first_(weight(out, in, 1, type)),
        second_(weight(out, in, 2, type)),
        down_(weight(in, out, 6, type)),
        bias_(backend, {out}, normal_numbers(out, 3)),
        norm_weight_(backend, {in}, normal_numbers(in, 5)) {}

  enum class How { kParts, kAtOnce };
  // Both products, what gates make of them, and the rows with the layer added.
  std::array<std::vector<float>, 4> run(std::span<const float> numbers, How how) const {
    const int64_t rows = std::ssize(numbers) / in_;
    const Guarded<float> x(backend_, {rows, in_}, numbers), normed(backend_, {rows, in_});
    const Guarded<float> a(backend_, {rows, out_}), b(backend_, {rows, out_});
    const Guarded<float> gated(backend_, {rows, out_}), raised(backend_, {rows, out_}),
        joined(backend_, {rows, out_}), between(backend_, {rows, out_});
    const auto target = [&](const LinearWeight& weight, const Guarded<float>& result) {
      return LinearTarget{
          .weight = &weight, .bias = &weight == &first_ ? bias_.read() : ConstTensor{}, .out = result.view()};
    };
    const RmsNormArgs norm{.x = x.read(), .weight = norm_weight_.read(), .eps = kEps, .out = normed.view()};
    const std::array targets{target(first_, a), target(second_, b)};
    const NormedLinearsArgs products{.norm = norm, .linears = {.x = normed.read(), .targets = targets}};
    const auto gates = [&](const Guarded<float>& out) {
      return NormedGatedLinearsArgs{.norm = norm,
                                    .linears = {.x = normed.read(),
                                                .gate = target(first_, gated),
                                                .up = target(second_, raised),
                                                .out = out.view()}};
    };
    // Added to the rows themselves, as layers do.
    const auto down = [&](const Guarded<float>& of) {
      return LinearArgs{
          .x = of.read(), .weight = down_, .bias = {}, .accumulate = Accumulate::kAdd, .out = x.view()};
    };
    auto queue = backend_.make_queue();
    if (how == How::kAtOnce) {
      queue->normed_linears(products);
      queue->normed_gated_linears(gates(joined));
      queue->feed_forward({.gates = gates(between), .down = down(between)});
    } else {
      run_parts(*queue, backend_, products);
      run_parts(*queue, backend_, gates(joined));
      queue->linear(down(joined));
    }
    queue->finish();
    return {a.values(), b.values(), joined.values(), x.values()};
  }

 private:
  LinearWeight weight(int64_t out, int64_t in, uint64_t seed, WeightType type) const {
    return backend_.pack_linear(host_view(normal_numbers(out * in, seed), {out, in}), type);
  }

  const Backend& backend_;
  int64_t in_, out_;
  LinearWeight first_, second_, down_;
  Guarded<float> bias_, norm_weight_;
};

TEST(NormedProductsTest, EqualTheirParts) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const WeightType type : kTypes) {
      for (const auto& [in, out] : kWidths) {
        if (kSanitized && in > 100) continue;
        const Layer layer(*backend, in, out, type);
        for (const int64_t rows : kCounts) {
          if (kSanitized && rows > 9 && rows != 33) continue;
          const auto x = normal_numbers(rows * in, 4);
          const auto parts = layer.run(x, Layer::How::kParts), at_once = layer.run(x, Layer::How::kAtOnce);
          for (size_t i = 0; i < parts.size(); ++i) {
            EXPECT_EQ(first_difference(parts[i], at_once[i]), -1)
                << "output " << i << " in " << in << " out " << out << " rows " << rows << " of type "
                << weight_type_name(type) << " on " << backend->info().name;
          }
        }
      }
    }
  }
}

TEST(NormedProductsTest, RowsHaveTheBitsOfARowAlone) {
  const auto backend = tested_backend(2);
  for (const WeightType type : kTypes) {
    for (const auto& [in, out] : kWidths) {
      if (kSanitized && in > 100) continue;
      const Layer layer(*backend, in, out, type);
      const auto x = normal_numbers(kCounts.back() * in, 4);
      std::array<std::vector<float>, 4> alone;  // all rows, one after the other
      for (int64_t row = 0; row < kCounts.back(); ++row) {
        const auto results = layer.run(std::span(x).subspan(row * in, in), Layer::How::kAtOnce);
        for (size_t i = 0; i < results.size(); ++i)
          alone[i].insert(alone[i].end(), results[i].begin(), results[i].end());
      }
      for (const int64_t rows : kCounts) {
        const auto together = layer.run(std::span(x).first(rows * in), Layer::How::kAtOnce);
        for (size_t i = 0; i < together.size(); ++i) {
          EXPECT_EQ(first_difference(std::span<const float>(together[i]),
                                     std::span<const float>(alone[i]).first(together[i].size())),
                    -1)
              << "output " << i << " in " << in << " out " << out << " rows " << rows << " of type "
              << weight_type_name(type);
        }
      }
    }
  }
}

// The reference rounds x * scale * weight to bf16, a device may round x * weight: each errs by 2^-8 of a
// term, and f32 sums, scales and products of a few factors by units as many as there are.
TEST(NormedProductsTest, AgreeWithTheReferenceInBf16) {
  const auto reference = make_reference_backend(), tested = tested_backend(2);
  for (const auto& [in, out] : kWidths) {
    const Layer layer(*tested, in, out, WeightType::kBF16), exact(*reference, in, out, WeightType::kBF16);
    constexpr int64_t kRows = 19;
    const auto x = normal_numbers(kRows * in, 4, 30.0f), weight = normal_numbers(in, 5);
    const auto made = layer.run(x, Layer::How::kAtOnce), expected = exact.run(x, Layer::How::kParts);
    for (const size_t product : {0, 1}) {
      const auto matrix = normal_numbers(out * in, product + 1);
      for (int64_t row = 0; row < kRows; ++row) {
        double squares = 0;
        for (int64_t k = 0; k < in; ++k) squares += std::pow(static_cast<double>(x[row * in + k]), 2);
        const double scale = 1 / std::sqrt(squares / static_cast<double>(in) + kEps);
        for (int64_t n = 0; n < out; ++n) {
          double terms = 0;
          for (int64_t k = 0; k < in; ++k)
            terms += std::abs(static_cast<double>(x[row * in + k]) * scale * weight[k] * matrix[n * in + k]);
          const double bound =
              terms * (1 + 0x1p-7) * (2 * 0x1p-8 + 2 * static_cast<double>(in + 16) * kUnit) + 16 * kUnit;
          const auto at = static_cast<size_t>(row * out + n);
          EXPECT_NEAR(made[product][at], expected[product][at], bound) << "row " << row << " output " << n;
        }
      }
    }
  }
}

// A matrix of ones on its diagonal and weights that are powers of two leave x / sqrt(mean of squares + eps),
// of rows so small that eps is most of it. Rounding the scaled row to bf16 errs by 2^-8, scaling sums by
// f32's roundings.
TEST(NormedProductsTest, SmallRowsHaveTheirScale) {
  constexpr int64_t kWidth = 96;
  std::vector<float> diagonal(kWidth * kWidth), weights(kWidth);
  for (int64_t k = 0; k < kWidth; ++k) {
    diagonal[static_cast<size_t>(k * kWidth + k)] = 1.0f;
    weights[static_cast<size_t>(k)] = std::ldexp(1.0f, static_cast<int>(k % 3) - 1);
  }
  const auto backend = tested_backend(2);
  for (const WeightType type : {WeightType::kF32, WeightType::kBF16}) {
    const LinearWeight matrix = backend->pack_linear(host_view(diagonal, {kWidth, kWidth}), type);
    for (const int64_t rows : {3, 40}) {
      std::vector<float> x = normal_numbers(rows * kWidth, 7, 1e-3f);
      for (float& number : x) number = std::bit_cast<float>(std::bit_cast<uint32_t>(number) & 0xffff0000u);
      const Guarded<float> source(*backend, {rows, kWidth}, x), normed(*backend, {rows, kWidth}),
          weight(*backend, {kWidth}, weights), out(*backend, {rows, kWidth});
      const std::array targets{LinearTarget{.weight = &matrix, .bias = {}, .out = out.view()}};
      const LinearsArgs linears{.x = normed.read(), .targets = targets};
      auto queue = backend->make_queue();
      queue->normed_linears(
          {.norm = {.x = source.read(), .weight = weight.read(), .eps = kEps, .out = normed.view()},
           .linears = linears});
      queue->finish();
      const bool rounds = type == WeightType::kBF16 && !scales_sums(*backend, linears);
      const auto made = out.values();
      for (int64_t row = 0; row < rows; ++row) {
        double squares = 0;
        for (int64_t k = 0; k < kWidth; ++k)
          squares += std::pow(static_cast<double>(x[static_cast<size_t>(row * kWidth + k)]), 2);
        const double scale = 1 / std::sqrt(squares / static_cast<double>(kWidth) + kEps);
        for (int64_t k = 0; k < kWidth; ++k) {
          const auto at = static_cast<size_t>(row * kWidth + k);
          const double exact = x[at] * scale * weights[static_cast<size_t>(k)];
          // The sum of squares is of kWidth terms, and the root halves its error.
          const double bound = std::abs(exact) * ((rounds ? 0x1p-8 : 0.0) + (kWidth / 2.0 + 16) * kUnit);
          ASSERT_NEAR(made[at], exact, bound) << "row " << row << " of " << rows << " column " << k;
        }
      }
    }
  }
}

}  // namespace
}  // namespace volley::testing
