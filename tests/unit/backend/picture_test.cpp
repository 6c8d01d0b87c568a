#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/unit/backend/backend_testing.h"

namespace volley::testing {
namespace {

struct Convolution {
  int64_t channels = 1, out_channels = 1;
  int64_t height = 1, width = 1;
  int64_t kernel_h = 3, kernel_w = 3;
  int64_t stride_h = 1, stride_w = 1;
  int64_t top = 1, left = 1, bottom = 1, right = 1;

  int64_t out_h() const { return (height + top + bottom - kernel_h) / stride_h + 1; }
  int64_t out_w() const { return (width + left + right - kernel_w) / stride_w + 1; }
};

const Convolution kConvolutions[] = {
    {.channels = 1, .out_channels = 1, .height = 5, .width = 7},
    {.channels = 3, .out_channels = 32, .height = 20, .width = 33},
    // Shares of 10 and 11, 16 and 17 groups of output channels.
    {.channels = 8, .out_channels = 528, .height = 12, .width = 24},
    {.channels = 3, .out_channels = 1040, .height = 16, .width = 16},
    {.channels = 33, .out_channels = 3, .height = 17, .width = 16},
    {.channels = 40,
     .out_channels = 24,
     .height = 8,
     .width = 8,
     .kernel_h = 1,
     .kernel_w = 1,
     .top = 0,
     .left = 0,
     .bottom = 0,
     .right = 0},
    {.channels = 5, .out_channels = 9, .height = 19, .width = 23, .stride_h = 2, .stride_w = 2},
    // Stride 2 with padding on one side, as VQ encoders have it.
    {.channels = 6,
     .out_channels = 10,
     .height = 16,
     .width = 16,
     .stride_h = 2,
     .stride_w = 2,
     .top = 0,
     .left = 0},
    {.channels = 4,
     .out_channels = 6,
     .height = 11,
     .width = 13,
     .kernel_h = 4,
     .kernel_w = 5,
     .stride_h = 3,
     .stride_w = 2,
     .top = 2,
     .left = 0,
     .bottom = 1,
     .right = 3},
    // Stride beyond the kernel.
    {.channels = 3,
     .out_channels = 5,
     .height = 9,
     .width = 14,
     .kernel_h = 1,
     .kernel_w = 2,
     .stride_h = 2,
     .stride_w = 3,
     .top = 0,
     .left = 0,
     .bottom = 0,
     .right = 1},
    // Signals.
    {.channels = 80, .out_channels = 48, .height = 1, .width = 301, .kernel_h = 1, .top = 0, .bottom = 0},
    {.channels = 48,
     .out_channels = 48,
     .height = 1,
     .width = 301,
     .kernel_h = 1,
     .stride_w = 2,
     .top = 0,
     .bottom = 0},
    // Wide enough for several bands.
    {.channels = 96, .out_channels = 5, .height = 40, .width = 128},
    // Many channels, with tiles that end beyond the picture.
    {.channels = 64, .out_channels = 40, .height = 9, .width = 22},
    {.channels = 192, .out_channels = 72, .height = 17, .width = 6},
    {.channels = 128,
     .out_channels = 144,
     .height = 11,
     .width = 10,
     .kernel_h = 1,
     .kernel_w = 1,
     .top = 0,
     .left = 0,
     .bottom = 0,
     .right = 0},
    {.channels = 128,
     .out_channels = 72,
     .height = 1,
     .width = 303,
     .kernel_h = 1,
     .stride_w = 2,
     .top = 0,
     .bottom = 0},
    {.channels = 128, .out_channels = 40, .height = 1, .width = 50, .kernel_h = 1, .top = 0, .bottom = 0},
    // An area that is rounded several points at a time.
    {.channels = 64, .out_channels = 2, .height = 66, .width = 64},
};

// Convolutions that devices cut into other tiles when pictures are many.
struct ManyPictures {
  Convolution convolution;
  int64_t pictures;
};
constexpr Convolution kLarge{.channels = 64, .out_channels = 128, .height = 64, .width = 48};
const ManyPictures kManyPictures[] = {
    {kLarge, 3},
    {kLarge, 12},
    {{.channels = 64, .out_channels = 128, .height = 64, .width = 64}, 4},
    {{.channels = 64, .out_channels = 64, .height = 64, .width = 64}, 8},
    {{.channels = 128,
      .out_channels = 128,
      .height = 64,
      .width = 64,
      .kernel_h = 1,
      .kernel_w = 1,
      .top = 0,
      .left = 0,
      .bottom = 0,
      .right = 0},
     4},
    {{.channels = 128, .out_channels = 128, .height = 1, .width = 1500, .kernel_h = 1, .top = 0, .bottom = 0},
     8},
};

constexpr std::array<WeightType, 2> kStorages{WeightType::kF32, WeightType::kBF16};

struct ConvolveArgs {
  Convolution convolution;
  WeightType type = WeightType::kF32;
  int64_t pictures = 0;
  std::span<const float> x;
  std::span<const float> before;
  Accumulate accumulate = Accumulate::kAssign;
};
std::vector<float> convolve(const Backend& backend, const ConvolveArgs& args) {
  const auto& [c, type, pictures, x, before, accumulate] = args;
  const auto w = normal_numbers(c.out_channels * c.channels * c.kernel_h * c.kernel_w, 11);
  const auto b = normal_numbers(c.out_channels, 12);
  const ConvWeight weight =
      backend.pack_conv(host_view(w, {c.out_channels, c.channels, c.kernel_h, c.kernel_w}),
                        host_view(b, {c.out_channels}), type);
  const Guarded<float> source(backend, {pictures, c.channels, c.height, c.width}, x);
  const Guarded<float> out(backend, {pictures, c.out_channels, c.out_h(), c.out_w()}, before);
  auto queue = backend.make_queue();
  queue->conv2d({.x = source.read(),
                 .weight = weight,
                 .stride_h = c.stride_h,
                 .stride_w = c.stride_w,
                 .pad_top = c.top,
                 .pad_left = c.left,
                 .pad_bottom = c.bottom,
                 .pad_right = c.right,
                 .accumulate = accumulate,
                 .out = out.view()});
  queue->finish();
  return out.values();
}

// Both sides sum `taps` rounded products in different orders: each errs by at most taps * unit * sum |x w|.
TEST(ConvolutionTest, AgreesWithTheReference) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend();
  for (const Convolution& c : kConvolutions) {
    const int64_t pictures = kSanitized ? 2 : 3;
    const auto x = normal_numbers(pictures * c.channels * c.height * c.width, 1);
    const auto before = normal_numbers(pictures * c.out_channels * c.out_h() * c.out_w(), 2);
    const auto w = normal_numbers(c.out_channels * c.channels * c.kernel_h * c.kernel_w, 11);
    const int64_t taps = c.channels * c.kernel_h * c.kernel_w;
    for (const auto& [type, accumulate] : {std::pair(WeightType::kF32, Accumulate::kAssign),
                                           {WeightType::kF32, Accumulate::kAdd},
                                           {WeightType::kBF16, Accumulate::kAssign},
                                           {WeightType::kBF16, Accumulate::kAdd}}) {
      const ConvolveArgs args{c, type, pictures, x, before, accumulate};
      const auto expected = convolve(*reference, args);
      const auto result = convolve(*tested, args);
      for (size_t i = 0; i < result.size(); ++i) {
        const int64_t o = static_cast<int64_t>(i) / (c.out_h() * c.out_w()) % c.out_channels;
        // Cauchy: sum |x w| <= |w of the channel| * |x of the window|, and a window of `taps` normal numbers
        // is never longer than three times its expected length.
        double norm = 0.0;
        for (int64_t k = 0; k < taps; ++k) norm += double{w[o * taps + k]} * w[o * taps + k];
        const double window = 3.0 * std::sqrt(static_cast<double>(taps)) + 6.0;
        // bf16 factors are up to 2^-8 larger than what they were rounded from.
        const double bound =
            1.01 * static_cast<double>(2 * taps + 6) * kUnit * (std::sqrt(norm) * window + 10.0);
        ASSERT_NEAR(result[i], expected[i], bound) << "element " << i << " type " << static_cast<int>(type)
                                                   << " of " << c.channels << " to " << c.out_channels;
      }
    }
  }
}

TEST(ConvolutionTest, APictureKeepsItsBitsInEveryBatch) {
  for (const Convolution& c : kConvolutions) {
    const int64_t pictures = kSanitized ? 3 : 7, size = c.channels * c.height * c.width,
                  out_size = c.out_channels * c.out_h() * c.out_w();
    const auto x = normal_numbers(pictures * size, 1);
    const auto before = normal_numbers(pictures * out_size, 2);
    for (const int64_t threads : {1, 2, 3, 8}) {
      if (kSanitized && threads > 2) continue;
      const auto backend = tested_backend(threads), lone = tested_backend(9 - threads);
      for (const WeightType type : kStorages) {
        const auto batch = convolve(*backend, {c, type, pictures, x, before, Accumulate::kAdd});
        for (int64_t n = 0; n < pictures; ++n) {
          const auto single =
              convolve(*lone, {c, type, 1, std::span(x).subspan(n * size, size),
                               std::span(before).subspan(n * out_size, out_size), Accumulate::kAdd});
          ASSERT_EQ(first_difference(std::span<const float>(single),
                                     std::span(batch).subspan(n * out_size, out_size).first(out_size)),
                    -1)
              << "picture " << n << " threads " << threads << " type " << static_cast<int>(type);
        }
      }
    }
  }
}

TEST(ConvolutionTest, APictureKeepsItsBitsAmongMany) {
  const auto backend = tested_backend();
  for (auto [c, pictures] : kManyPictures) {
    if (tests_cpu()) pictures = 2;  // there they are convolved one by one
    if (kSanitized) c.height = std::min<int64_t>(c.height, 6);
    const int64_t size = c.channels * c.height * c.width, out_size = c.out_channels * c.out_h() * c.out_w();
    const auto x = normal_numbers(pictures * size, 1), before = normal_numbers(pictures * out_size, 2);
    const auto all = convolve(*backend, {c, WeightType::kBF16, pictures, x, before, Accumulate::kAdd});
    for (const int64_t n : {int64_t{0}, pictures - 1}) {
      const auto one =
          convolve(*backend, {c, WeightType::kBF16, 1, std::span(x).subspan(n * size, size),
                              std::span(before).subspan(n * out_size, out_size), Accumulate::kAdd});
      ASSERT_EQ(first_difference(std::span<const float>(one),
                                 std::span<const float>(all).subspan(n * out_size, out_size)),
                -1)
          << "picture " << n << " of " << pictures << ", " << c.channels << " to " << c.out_channels;
    }
  }
}

TEST(GroupNormTest, AgreesWithTheReferenceAndIgnoresTheBatch) {
  const auto reference = make_reference_backend();
  for (const auto& [channels, groups, height, width] : {std::array<int64_t, 4>{32, 32, 5, 7},
                                                        {64, 32, 16, 16},
                                                        {6, 2, 1, 1},
                                                        {96, 8, 33, 31},
                                                        {8, 1, 128, 128}}) {
    const int64_t pictures = 4, size = channels * height * width;
    auto x = normal_numbers(pictures * size, 1);
    for (float& value : x) value = value * 3.0f + 1.0f;
    const auto weight = normal_numbers(channels, 2), bias = normal_numbers(channels, 3);
    for (const Swish swish : {Swish::kNone, Swish::kAfter}) {
      const auto run = [&](const Backend& backend, int64_t count, std::span<const float> values) {
        const Guarded<float> out(backend, {count, channels, height, width}, values);
        const Guarded<float> w(backend, {channels}, weight), b(backend, {channels}, bias);
        backend.make_queue()->group_norm({.x = out.read(),
                                          .groups = groups,
                                          .eps = 1e-6f,
                                          .weight = w.read(),
                                          .bias = b.read(),
                                          .swish = swish,
                                          .out = out.view()});
        return out.values();
      };
      const auto expected = run(*reference, pictures, x), result = run(*tested_backend(3), pictures, x);
      const double area = static_cast<double>(height * width);
      for (size_t i = 0; i < result.size(); ++i) {
        const int64_t c = static_cast<int64_t>(i) / (height * width) % channels;
        // The reference sums in f64; ours errs by the roundings of a plane's sums, relative to a mean of
        // magnitude about 3 and a deviation of about 3 (1 for a group of one pixel times a huge scale: those
        // have two channels and more here). Swish has a slope of at most 1.1 and adds its own few roundings.
        const double spread =
            std::abs(expected[i]) + 8.0 * std::abs(weight[c]) + 2.0 * std::abs(bias[c]) + 1.0;
        ASSERT_NEAR(result[i], expected[i], (2.0 * area + 40.0) * kUnit * spread * 1.1) << i;
      }
      for (int64_t n = 0; n < pictures; ++n) {
        const auto single = run(*tested_backend(1), 1, std::span<const float>(x).subspan(n * size, size));
        ASSERT_EQ(first_difference(std::span<const float>(single),
                                   std::span<const float>(result).subspan(n * size, size)),
                  -1);
      }
    }
  }
}

TEST(PictureTest, UpsamplingAndTransposingAreExact) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend(3);
  for (const auto& [pictures, channels, height, width] : {std::array<int64_t, 4>{1, 1, 1, 1},
                                                          {2, 3, 5, 7},
                                                          {3, 16, 33, 65},
                                                          {1, 64, 64, 64},
                                                          {66000, 1, 1, 3}}) {
    const auto x = normal_numbers(pictures * channels * height * width, 1);
    std::vector<std::vector<float>> up, turned;
    for (const Backend* backend : {reference.get(), tested.get()}) {
      const Guarded<float> in(*backend, {pictures, channels, height, width}, x);
      const Guarded<float> doubled(*backend, {pictures, channels, 2 * height, 2 * width});
      const Guarded<float> across(*backend, {pictures, height * width, channels});
      auto queue = backend->make_queue();
      queue->upsample2x({.x = in.read(), .out = doubled.view()});
      queue->transpose({.x = in.read().reshape({pictures, channels, height * width}), .out = across.view()});
      queue->finish();
      up.push_back(doubled.values());
      turned.push_back(across.values());
    }
    EXPECT_EQ(first_difference(up[0], up[1]), -1);
    EXPECT_EQ(first_difference(turned[0], turned[1]), -1);
  }
}

TEST(PictureTest, ChannelBytesFollowTheEightBitRule) {
  const auto bytes_of = [](const Backend& backend, Shape shape, std::span<const float> planes) {
    const Guarded<float> x(backend, shape, planes);
    const Guarded<uint8_t> out(backend, {shape[0], shape[2], shape[3], shape[1]});
    auto queue = backend.make_queue();
    queue->channel_bytes({.x = x.read(), .out = out.view()});
    queue->finish();
    return out.values();
  };
  const std::vector<float> known{-1.0f,  0.0f,   1.0f,  5.0f,     -5.0f,
                                 0.999f, 0.003f, -0.5f, -0.0001f, std::numeric_limits<float>::quiet_NaN(),
                                 0.5f,   -1.004f};
  const std::vector<uint8_t> expected{0, 0, 127, 128, 255, 0, 255, 128, 191, 255, 64, 0};
  const auto tested = tested_backend(3), reference = make_reference_backend();
  EXPECT_EQ(bytes_of(*tested, {1, 3, 2, 2}, known), expected);
  EXPECT_EQ(bytes_of(*reference, {1, 3, 2, 2}, known), expected);
  const auto many = normal_numbers(2 * 3 * 33 * 70, 1);
  EXPECT_EQ(bytes_of(*tested, {2, 3, 33, 70}, many), bytes_of(*reference, {2, 3, 33, 70}, many));
}

TEST(PictureTest, NearestRowsEqualTheReferenceTiesIncluded) {
  const auto reference = make_reference_backend();
  const auto tested = tested_backend(3);
  for (const int64_t width : {1, 4, 8, 33}) {
    const int64_t rows = 300, entries = 500;
    auto table = normal_numbers(entries * width, 1);
    std::copy(table.begin(), table.begin() + 100 * width, table.begin() + 200 * width);  // repeated entries
    auto x = normal_numbers(rows * width, 2);
    std::copy(table.begin() + 50 * width, table.begin() + 120 * width, x.begin());
    std::vector<std::vector<int32_t>> found;
    for (const Backend* backend : {reference.get(), tested.get()}) {
      const Guarded<float> gx(*backend, {rows, width}, x), gt(*backend, {entries, width}, table);
      const Guarded<int32_t> ids(*backend, {rows});
      backend->make_queue()->nearest_rows({.x = gx.read(), .table = gt.read(), .ids = ids.view()});
      found.push_back(ids.values());
    }
    EXPECT_EQ(found[0], found[1]);
    EXPECT_EQ(found[1][3], 53);
  }
}

}  // namespace
}  // namespace volley::testing
