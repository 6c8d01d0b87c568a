#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <tuple>

#include "core/base/error.h"
#include "core/io/convert.h"
#include "hwy/targets.h"
#include "tests/support/random_blocks.h"
#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

struct Product {
  int64_t in = 0, out = 0;
  WeightType type = WeightType::kF32;
};

constexpr std::array kAllTypes{WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0, WeightType::kQ4_1};

// Those that the device multiplies.
std::span<const WeightType> types_of(const Backend& backend) {
  return std::span(kAllTypes).first(backend.info().has_blocks ? 4 : 3);
}

std::string name_of(const Product& p) {
  return std::string(weight_type_name(p.type)) + " in " + std::to_string(p.in) + " out " +
         std::to_string(p.out);
}

bool has_fused_multiply_add() {
  return (hwy::SupportedTargets() & (HWY_AVX2 | HWY_AVX3)) != 0;
}

class LinearTest : public ::testing::Test {
 protected:
  static std::vector<float> multiply(const Backend& backend, const LinearWeight& weight,
                                     std::span<const float> x) {
    const int64_t rows = static_cast<int64_t>(x.size()) / weight.in_features;
    const Guarded<float> source(backend, {rows, weight.in_features}, x);
    const Guarded<float> out(backend, {rows, weight.out_features});
    auto queue = backend.make_queue();
    queue->linear({.x = source.read(), .weight = weight, .bias = {}, .out = out.view()});
    queue->finish();
    return out.values();
  }

  std::map<std::string, std::vector<float>> alone_;  // by product: each row computed alone
};

// Both sides sum in_features rounded products, in different orders: each errs by at most in * unit * sum |x
// w|.
TEST_F(LinearTest, AgreesWithTheReference) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend();
  uint64_t seed = 1;
  for (const WeightType type : types_of(*tested)) {
    for (const int64_t in : {1, 3, 17, 33, 64, 100, 513}) {
      for (const int64_t out : {1, 5, 16, 65, 300}) {
        for (const int64_t rows : {1, 2, 19, 70}) {
          SCOPED_TRACE(name_of({in, out, type}) + " rows " + std::to_string(rows));
          const auto w = normal_numbers(out * in, ++seed), x = normal_numbers(rows * in, ++seed);
          const auto bias = normal_numbers(out, ++seed), before = normal_numbers(rows * out, ++seed);
          const bool with_bias = seed % 3 != 0;
          const Accumulate accumulate = seed % 2 == 0 ? Accumulate::kAdd : Accumulate::kAssign;
          std::vector<std::vector<float>> results;
          for (const Backend* backend : {reference.get(), tested.get()}) {
            const LinearWeight weight = backend->pack_linear(host_view(w, {out, in}), type);
            const Guarded<float> source(*backend, {rows, in}, x), b(*backend, {out}, bias);
            const Guarded<float> y(*backend, {rows, out}, before);
            auto queue = backend->make_queue();
            queue->linear({.x = source.read(),
                           .weight = weight,
                           .bias = with_bias ? b.read() : ConstTensor{},
                           .accumulate = accumulate,
                           .out = y.view()});
            queue->finish();
            results.push_back(y.values());
          }
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t n = 0; n < out; ++n) {
              double magnitude = std::abs(bias[n]) + std::abs(before[r * out + n]);
              for (int64_t k = 0; k < in; ++k) magnitude += std::abs(double{x[r * in + k]} * w[n * in + k]);
              // Quantised products are the same arithmetic on both sides, save that a processor without fused
              // multiply-add rounds each block's product, whose size is at most the sum of its greatest
              // terms.
              if (is_quantized(type) && has_fused_multiply_add()) {
                ASSERT_EQ(results[0][r * out + n], results[1][r * out + n]) << "row " << r << " output " << n;
                continue;
              }
              if (is_quantized(type)) magnitude = 25.0 * static_cast<double>(in);
              // bf16 factors are up to 2^-8 larger than what they were rounded from.
              const double bound = 1.01 * static_cast<double>(2 * in + 6) * kUnit * magnitude;
              ASSERT_NEAR(results[0][r * out + n], results[1][r * out + n], bound)
                  << "row " << r << " output " << n;
            }
          }
        }
      }
    }
  }
}

// All kernels of a quantised type give the same bits, so that a picture does not depend on the processor's.
TEST_F(LinearTest, QuantizedProductsAreTheSameOnEveryKernel) {
  if (!has_fused_multiply_add()) GTEST_SKIP() << "no fused multiply-add";
  for (const auto& [in, out] :
       std::initializer_list<std::pair<int64_t, int64_t>>{{1024, 80}, {2816, 33}, {96, 16}, {100, 5}}) {
    const auto w = normal_numbers(out * in, 5);
    for (const WeightType type : {WeightType::kQ8_0, WeightType::kQ4_1}) {
      for (const int64_t rows : {1, 2, 3, 5, 7, 11, 16, 17, 37, 64, 70}) {
        const auto x = normal_numbers(rows * in, 6);
        std::vector<std::vector<float>> results;
        for (const ProductKernels kernels :
             {ProductKernels::kBest, ProductKernels::kAvx512, ProductKernels::kVector}) {
          const auto backend = make_cpu_backend(2, kernels);
          results.push_back(multiply(*backend, backend->pack_linear(host_view(w, {out, in}), type), x));
        }
        const auto reference = make_reference_backend();
        results.push_back(multiply(*reference, reference->pack_linear(host_view(w, {out, in}), type), x));
        for (size_t k = 1; k < results.size(); ++k) {
          EXPECT_EQ(results[0], results[k])
              << name_of({in, out, type}) << ", " << rows << " rows, kernel " << k;
        }
      }
    }
  }
}

// A row's bits, whatever stands beside it, wherever it stands, on however many threads.
TEST_F(LinearTest, RowsKeepTheirBitsInEveryCompany) {
  constexpr int64_t kMost = kSanitized ? 140 : 1024;
  std::vector<Product> products;
  for (const WeightType type : types_of(*tested_backend())) {
    for (const auto& [in, out] : std::initializer_list<std::pair<int64_t, int64_t>>{{512, 512},
                                                                                    {1408, 512},
                                                                                    {768, 1408},
                                                                                    {256, 768},
                                                                                    {1, 5},
                                                                                    {3, 300},
                                                                                    {17, 33},
                                                                                    {33, 17},
                                                                                    {100, 65}}) {
      if (kSanitized && in * out > 512 * 512) continue;
      products.push_back({in, out, type});
    }
  }
  std::vector<int64_t> counts;
  for (int64_t rows = 1; rows <= 70; ++rows) counts.push_back(rows);
  for (const int64_t rows : {96, 127, 128, 129, 200, 255, 256, 511, 1000, 1024}) {
    if (rows <= kMost) counts.push_back(rows);
  }

  for (const int64_t threads : {2, 1, 3, 8}) {
    if (kSanitized && threads == 1) continue;
    const auto backend = tested_backend(threads);
    for (const Product& product : products) {
      SCOPED_TRACE(name_of(product) + " threads " + std::to_string(threads));
      const auto w = normal_numbers(product.out * product.in, 7);
      const auto x = normal_numbers(kMost * product.in, 8);
      const LinearWeight weight = backend->pack_linear(host_view(w, {product.out, product.in}), product.type);
      // Oracle: every row alone, computed once with the first thread count.
      auto& alone = alone_[name_of(product)];
      if (alone.empty()) {
        for (int64_t r = 0; r < kMost; ++r) {
          const auto row = multiply(*backend, weight, std::span(x).subspan(r * product.in, product.in));
          alone.insert(alone.end(), row.begin(), row.end());
        }
      }
      for (const int64_t rows : counts) {
        if ((threads != 2 || kSanitized) && rows > 4 && rows % 13 != 0 && rows < 127)
          continue;  // all counts with two threads
        const int64_t first = (rows * 37) % (kMost - rows + 1);
        const auto together =
            multiply(*backend, weight, std::span(x).subspan(first * product.in, rows * product.in));
        const auto expected = std::span<const float>(alone).subspan(first * product.out, rows * product.out);
        ASSERT_EQ(first_difference(std::span<const float>(together), expected), -1) << rows << " rows";
      }
    }
  }
}

// Rows and weights at the ends of what blocks can hold.
TEST_F(LinearTest, TinyAndHugeBlocksAreQuantisedAlikeOrRefused) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend();
  const int64_t in = 64, out = 3;
  const auto w = normal_numbers(out * in, 1);
  auto x = normal_numbers(2 * in, 2);
  for (int64_t k = 0; k < 32; ++k) x[k] *= 1e-40f;  // 127 / greatest is infinite
  for (const WeightType type : types_of(*tested).subspan(2)) {
    std::vector<std::vector<float>> results;
    for (const Backend* backend : {reference.get(), tested.get()}) {
      results.push_back(multiply(*backend, backend->pack_linear(host_view(w, {out, in}), type), x));
      auto huge = w;
      huge[70] = 1e7f;
      EXPECT_THROW(backend->pack_linear(host_view(huge, {out, in}), type), Error);
    }
    if (has_fused_multiply_add()) {
      EXPECT_EQ(results[0], results[1]);
    }
    for (const float value : results[1]) EXPECT_TRUE(std::isfinite(value));
  }
}

// Products that share their rows in one call have the bits of calls of their own.
TEST_F(LinearTest, SeveralProductsAtOnceEqualEachAlone) {
  for (const auto& backend : {tested_backend(2), tested_backend(3), make_reference_backend()}) {
    for (const WeightType type : types_of(*backend)) {
      for (const int64_t rows : {1, 7, 70}) {
        const int64_t in = 100;
        const auto x = normal_numbers(rows * in, 1), bias = normal_numbers(300, 2);
        const Guarded<float> source(*backend, {rows, in}, x), b(*backend, {300}, bias);
        std::vector<LinearWeight> weights;
        std::vector<std::unique_ptr<Guarded<float>>> together;
        std::vector<LinearTarget> targets;
        const std::vector<int64_t> sizes{300, 5, 129};
        for (const int64_t out : sizes) {
          weights.push_back(backend->pack_linear(
              host_view(normal_numbers(out * in, static_cast<uint64_t>(out)), {out, in}), type));
          together.push_back(std::make_unique<Guarded<float>>(*backend, Shape{rows, out}));
        }
        for (size_t i = 0; i < sizes.size(); ++i) {
          targets.push_back(
              {.weight = &weights[i], .bias = i == 0 ? b.read() : ConstTensor{}, .out = together[i]->view()});
        }
        auto queue = backend->make_queue();
        queue->linears({.x = source.read(), .targets = targets});
        queue->finish();
        for (size_t i = 0; i < sizes.size(); ++i) {
          const Guarded<float> alone(*backend, {rows, sizes[i]});
          queue->linear(
              {.x = source.read(), .weight = weights[i], .bias = targets[i].bias, .out = alone.view()});
          queue->finish();
          EXPECT_EQ(together[i]->values(), alone.values()) << sizes[i] << " rows " << rows;
        }
      }
    }
  }
}

// So have products with weights of several kinds.
TEST_F(LinearTest, KindsOfWeightsMixInOneCall) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    const int64_t in = 96, rows = 5;
    const Guarded<float> x(*backend, {rows, in}, normal_numbers(rows * in, 1));
    const std::span<const WeightType> types = types_of(*backend);
    std::vector<LinearWeight> weights;
    std::vector<std::unique_ptr<Guarded<float>>> outs;
    for (size_t i = 0; i < 2 * types.size(); ++i) {
      weights.push_back(backend->pack_linear(host_view(normal_numbers(40 * in, 2 + i), {40, in}),
                                             types[i * 2 / 3 % types.size()]));
      outs.push_back(std::make_unique<Guarded<float>>(*backend, Shape{rows, 40}));
    }
    std::vector<LinearTarget> targets;
    for (size_t i = 0; i < weights.size(); ++i)
      targets.push_back({.weight = &weights[i], .bias = {}, .out = outs[i]->view()});
    auto queue = backend->make_queue();
    queue->linears({.x = x.read(), .targets = targets});
    queue->finish();
    for (size_t i = 0; i < weights.size(); ++i) {
      const Guarded<float> alone(*backend, {rows, 40});
      queue->linear({.x = x.read(), .weight = weights[i], .bias = {}, .out = alone.view()});
      queue->finish();
      EXPECT_EQ(outs[i]->values(), alone.values()) << weight_type_name(weights[i].type);
    }
  }
}

// Rows of a packed weight are the file's values, wherever they lie; a negative id leaves its row alone.
TEST_F(LinearTest, PackedWeightsGiveTheirRowsBack) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    if (!backend->info().has_blocks) continue;
    const int64_t in = 160, out = 37;
    const std::vector<int32_t> ids{36, 0, -1, 15, 16, 0};
    const Guarded<int32_t> picked(*backend, {std::ssize(ids)}, ids);
    for (const DType dtype : {DType::kQ8_0, DType::kQ4_1, DType::kQ4_0}) {
      const std::string bytes = test::random_blocks(dtype, out * in);
      const HostView view{std::as_bytes(std::span(bytes)).data() + 1, dtype, {out, in}};
      const std::vector<float> values = to_f32(view);
      const auto weight = [&] {
        if (dtype != DType::kQ8_0) return backend->pack_linear(view, WeightType::kQ4_1);
        const auto planes = q8_0_planes(view);
        return backend->pack_quantized(
            {std::as_bytes(std::span(planes->quants)).data(), DType::kI8, {out, in}},
            {std::as_bytes(std::span(planes->scales)).data(), DType::kF16, {out, in / 32}});
      }();
      const auto before = normal_numbers(std::ssize(ids) * in, 4);
      const Guarded<float> rows(*backend, {std::ssize(ids), in}, before);
      auto queue = backend->make_queue();
      queue->gather_weight_rows({.weight = weight, .ids = picked.read(), .out = rows.view()});
      queue->finish();
      const auto found = rows.values();
      for (size_t r = 0; r < ids.size(); ++r) {
        for (int64_t k = 0; k < in; ++k) {
          const size_t at = r * in + k;
          ASSERT_EQ(found[at], ids[r] < 0 ? before[at] : values[ids[r] * in + k])
              << dtype_name(dtype) << " row " << r << " value " << k << " on " << backend->info().name;
        }
      }
    }
  }
}

// A weight that is four bits wide already keeps its numbers; any other is rounded to the nearest of 16.
TEST_F(LinearTest, FourBitsAreTheFilesOrTheNearest) {
  const auto backend = tested_backend();
  if (!backend->info().has_blocks) GTEST_SKIP() << "no blocks on " << backend->info().name;
  const int64_t in = 72, out = 20;  // the last block is not whole
  const auto w = normal_numbers(out * in, 1);
  const LinearWeight weight = backend->pack_linear(host_view(w, {out, in}), WeightType::kQ4_1);
  std::vector<int32_t> ids(out);
  std::iota(ids.begin(), ids.end(), 0);
  const Guarded<int32_t> picked(*backend, {out}, ids);
  const Guarded<float> rows(*backend, {out, in});
  auto queue = backend->make_queue();
  queue->gather_weight_rows({.weight = weight, .ids = picked.read(), .out = rows.view()});
  queue->finish();
  const auto found = rows.values();
  for (int64_t n = 0; n < out; ++n) {
    for (int64_t begin = 0; begin < in; begin += 32) {
      const auto block = std::span(w).subspan(n * in + begin, std::min<int64_t>(32, in - begin));
      const auto [least, greatest] = std::ranges::minmax(block);
      // Half a step, and what rounding scale and offset to halves moves.
      const float bound = (greatest - least) / 30.0f + 0.001f * (std::abs(least) + std::abs(greatest));
      for (size_t k = 0; k < block.size(); ++k)
        ASSERT_NEAR(found[n * in + begin + k], block[k], bound) << "row " << n << " value " << begin + k;
    }
  }
}

// The gated product has the bits of its parts, whatever rows stand together.
TEST_F(LinearTest, GatedProductsEqualTheirParts) {
  for (const auto& backend : {tested_backend(2), make_reference_backend()}) {
    for (const WeightType type : types_of(*backend)) {
      for (const auto& [in, out] :
           std::initializer_list<std::pair<int64_t, int64_t>>{{100, 129}, {512, 200}}) {
        const LinearWeight gate =
            backend->pack_linear(host_view(normal_numbers(out * in, 1), {out, in}), type);
        const LinearWeight up = backend->pack_linear(host_view(normal_numbers(out * in, 2), {out, in}), type);
        const Guarded<float> bias(*backend, {out}, normal_numbers(out, 3));
        for (const int64_t rows : {1, 2, 16, 17, 32, 33, 150}) {
          const Guarded<float> x(*backend, {rows, in}, normal_numbers(rows * in, 4));
          const Guarded<float> gated(*backend, {rows, out}), raised(*backend, {rows, out});
          const Guarded<float> expected(*backend, {rows, out}), result(*backend, {rows, out});
          auto queue = backend->make_queue();
          const std::array targets{LinearTarget{.weight = &gate, .bias = bias.read(), .out = gated.view()},
                                   LinearTarget{.weight = &up, .bias = {}, .out = raised.view()}};
          queue->linears({.x = x.read(), .targets = targets});
          queue->silu_mul({.gate = gated.read(), .up = raised.read(), .out = expected.view()});
          queue->gated_linears({.x = x.read(), .gate = targets[0], .up = targets[1], .out = result.view()});
          queue->finish();
          EXPECT_EQ(first_difference(result.values(), expected.values()), -1)
              << name_of({in, out, type}) << " rows " << rows << " on " << backend->info().name;
        }
      }
    }
  }
}

// Zero weights and rows, infinities and NaN go where they should and nowhere else.
TEST_F(LinearTest, OddValuesStayInTheirRow) {
  const auto backend = tested_backend();
  for (const auto& [type, in, rows] :
       std::initializer_list<std::tuple<WeightType, int64_t, int64_t>>{{WeightType::kF32, 65, 21},
                                                                       {WeightType::kBF16, 65, 21},
                                                                       {WeightType::kBF16, 65, 70},
                                                                       {WeightType::kBF16, 288, 70},
                                                                       {WeightType::kBF16, 2048, 70},
                                                                       {WeightType::kQ8_0, 65, 21},
                                                                       {WeightType::kQ4_1, 65, 21}}) {
    if (type == WeightType::kQ4_1 && !backend->info().has_blocks) continue;
    const int64_t out = 37;
    const auto w = normal_numbers(out * in, 3);
    auto x = normal_numbers(rows * in, 4);
    const LinearWeight weight = backend->pack_linear(host_view(w, {out, in}), type);
    const auto clean = multiply(*backend, weight, x);
    x[5 * in + 2] = std::nanf("");
    x[9 * in + 64] = std::numeric_limits<float>::infinity();
    const auto odd = multiply(*backend, weight, x);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t n = 0; n < out; ++n) {
        const float value = odd[r * out + n];
        if (r == 5) {
          ASSERT_TRUE(std::isnan(value));
        } else if (r == 9) {
          ASSERT_TRUE(std::isinf(value) || std::isnan(value));
        } else {
          ASSERT_EQ(value, clean[r * out + n]);
        }
      }
    }
  }
}

TEST_F(LinearTest, SteadyStateAllocatesNothing) {
  constexpr int kRuns = kSanitized ? 8 : 50;
  const auto backend = tested_backend();
  const auto w = normal_numbers(512 * 256, 3);
  for (const WeightType type : types_of(*backend)) {
    const LinearWeight weight = backend->pack_linear(host_view(w, {512, 256}), type);
    const auto values = normal_numbers(100 * 256, 4);
    const Guarded<float> x(*backend, {100, 256}, values), out(*backend, {100, 512});
    auto queue = backend->make_queue();
    const auto run = [&] { queue->linear({.x = x.read(), .weight = weight, .bias = {}, .out = out.view()}); };
    for (int i = 0; i < kRuns; ++i) run();
    const int64_t before = backend->allocated_bytes();
    for (int i = 0; i < kRuns; ++i) run();
    EXPECT_LE(backend->allocated_bytes() - before, 256 * 1024);  // at most a thread that came late
  }
}

}  // namespace
}  // namespace volley::testing
