// Products of many rows. A device may cut them into tiles in several ways, as rows, inputs and outputs go:
// these sizes reach each of them. All give the bits that rows have among few.
#include <array>
#include <initializer_list>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

constexpr int64_t kFew = 16;
// The cpu has one way, whatever the count.
int64_t most_rows() {
  return kSanitized ? 40 : tests_cpu() ? 200 : 1024;
}

LinearWeight random_weight(const Backend& backend, int64_t out, int64_t in, uint64_t seed) {
  return backend.pack_linear(host_view(normal_numbers(out * in, seed), {out, in}), WeightType::kBF16);
}

// What `run` gives for all rows of `in` numbers, and for kFew of them at a time.
template <typename Run>
void expect_bits_of_few(std::span<const float> x, int64_t in, const Run& run) {
  const int64_t rows = std::ssize(x) / in;
  const std::vector<float> together = run(x, 0);
  const int64_t width = std::ssize(together) / rows;
  for (int64_t first = 0; first < rows; first += kFew) {
    const int64_t count = std::min(kFew, rows - first);
    const std::vector<float> few = run(x.subspan(first * in, count * in), first);
    ASSERT_EQ(first_difference(std::span<const float>(few),
                               std::span<const float>(together).subspan(first * width, count * width)),
              -1)
        << "rows from " << first << " of " << rows;
  }
}

struct Sizes {
  int64_t in, out;
  std::initializer_list<int64_t> rows;
};

TEST(ManyRowsTest, ProductsHaveTheBitsOfFew) {
  const auto backend = tested_backend();
  for (const auto& [in, out, counts] : {Sizes{2048, 512, {17, 64, 192}},
                                        {2048, 510, {33}},
                                        {2048, 509, {33, 150}},
                                        {512, 4096, {129, 300, 512, 1000}},
                                        {544, 4096, {33, 129, 512}},
                                        {288, 512, {70}}}) {
    if (kSanitized && in * out > 2048 * 512) continue;
    const LinearWeight weight = random_weight(*backend, out, in, 1);
    const Guarded<float> bias(*backend, {out}, normal_numbers(out, 2));
    for (const int64_t rows : counts) {
      if (rows > most_rows()) continue;
      SCOPED_TRACE(std::to_string(rows) + " rows, in " + std::to_string(in) + " out " + std::to_string(out));
      const auto x = normal_numbers(rows * in, 3), before = normal_numbers(rows * out, 4);
      for (const bool adds : {false, true}) {
        expect_bits_of_few(x, in, [&](std::span<const float> part, int64_t first) {
          const int64_t count = std::ssize(part) / in;
          const Guarded<float> source(*backend, {count, in}, part);
          const Guarded<float> sums(*backend, {count, out},
                                    std::span(before).subspan(first * out, count * out));
          auto queue = backend->make_queue();
          queue->linear({.x = source.read(),
                         .weight = weight,
                         .bias = adds ? bias.read() : ConstTensor{},
                         .accumulate = adds ? Accumulate::kAdd : Accumulate::kAssign,
                         .out = sums.view()});
          queue->finish();
          return sums.values();
        });
      }
    }
  }
}

// Rows with a feed-forward layer added; `out` wide between.
class FeedForward {
 public:
  FeedForward(const Backend& backend, int64_t in, int64_t out)
      : backend_(backend),
        in_(in),
        out_(out),
        gate_(random_weight(backend, out, in, 1)),
        up_(random_weight(backend, out, in, 2)),
        down_(random_weight(backend, in, out, 3)),
        bias_(backend, {out}, normal_numbers(out, 4)),
        norm_(backend, {in}, normal_numbers(in, 5)) {}

  std::vector<float> run(std::span<const float> x, bool at_once) const {
    const int64_t rows = std::ssize(x) / in_;
    const Guarded<float> sum(backend_, {rows, in_}, x), normed(backend_, {rows, in_});
    const Guarded<float> gated(backend_, {rows, out_}), raised(backend_, {rows, out_}),
        joined(backend_, {rows, out_});
    const std::array targets{LinearTarget{.weight = &gate_, .bias = bias_.read(), .out = gated.view()},
                             LinearTarget{.weight = &up_, .bias = {}, .out = raised.view()}};
    const RmsNormArgs norm{.x = sum.read(), .weight = norm_.read(), .out = normed.view()};
    const LinearArgs down{
        .x = joined.read(), .weight = down_, .bias = {}, .accumulate = Accumulate::kAdd, .out = sum.view()};
    auto queue = backend_.make_queue();
    const NormedGatedLinearsArgs gates{
        .norm = norm,
        .linears = {.x = normed.read(), .gate = targets[0], .up = targets[1], .out = joined.view()}};
    if (at_once) {
      queue->feed_forward({.gates = gates, .down = down});
    } else {
      run_parts(*queue, backend_, gates);
      queue->linear(down);
    }
    queue->finish();
    return sum.values();
  }

 private:
  const Backend& backend_;
  int64_t in_, out_;
  LinearWeight gate_, up_, down_;
  Guarded<float> bias_, norm_;
};

TEST(ManyRowsTest, FeedForwardLayersHaveTheBitsOfFewAndOfTheirParts) {
  const auto backend = tested_backend();
  for (const auto& [in, out, counts] :
       {Sizes{256, kSanitized ? 96 : 2816, {17, 129, 200, 300, 512, 1024}}, {288, 2816, {17, 129, 200}}}) {
    if (kSanitized && in != 256) continue;
    const FeedForward layer(*backend, in, out);
    for (const int64_t rows : counts) {
      if (rows > most_rows()) continue;
      SCOPED_TRACE(std::to_string(rows) + " rows, in " + std::to_string(in));
      const auto x = normal_numbers(rows * in, 6);
      expect_bits_of_few(x, in, [&](std::span<const float> part, int64_t) { return layer.run(part, true); });
      EXPECT_EQ(first_difference(layer.run(x, true), layer.run(x, false)), -1);
    }
  }
}

}  // namespace
}  // namespace volley::testing
