#include "core/io/convert.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/base/error.h"
#include "core/io/byte_reader.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

// A source over tensors that a test holds itself. They must be given in order of name.
class FakeSource : public WeightSource {
 public:
  explicit FakeSource(std::vector<NamedTensor> tensors) : tensors_(std::move(tensors)) {}
  const std::vector<NamedTensor>& tensors() const override { return tensors_; }
  const std::string& path() const override { return path_; }

 private:
  std::vector<NamedTensor> tensors_;
  std::string path_ = "fake.safetensors";
};

// The views point one byte into the text, so that nothing is aligned.
template <typename T>
std::string packed(const std::vector<T>& values) {
  std::string bytes = "#";
  for (const T value : values) bytes += raw(value);
  return bytes;
}

HostView view_of(const std::string& bytes, DType dtype, Shape shape) {
  return {as_bytes(bytes).data() + 1, dtype, shape};
}

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Convert, Floats) {
  const std::string f32 = packed<float>({1.5f, -0.0f, 3e38f});
  EXPECT_EQ(to_f32(view_of(f32, DType::kF32, Shape{3})), (std::vector<float>{1.5f, -0.0f, 3e38f}));
  const std::string f64 = packed<double>({1.5, 0.1, 1e300});
  EXPECT_EQ(to_f32(view_of(f64, DType::kF64, Shape{3})),
            (std::vector<float>{1.5f, 0.1f, std::numeric_limits<float>::infinity()}));
  const std::string f16 = packed<uint16_t>({0x3c00, 0xc000, 0x0001, 0x7bff, 0x7c00});  // 1 -2 2^-24 65504 inf
  EXPECT_EQ(to_f32(view_of(f16, DType::kF16, Shape{5})),
            (std::vector<float>{1, -2, 5.9604645e-8f, 65504, std::numeric_limits<float>::infinity()}));
  const std::string bf16 = packed<uint16_t>({0x3f80, 0xc000, 0x3dcd});
  EXPECT_EQ(to_f32(view_of(bf16, DType::kBF16, Shape{1, 3})), (std::vector<float>{1, -2, 0.10009765625f}));
  EXPECT_EQ(message_of([&] { to_f32(view_of(f32, DType::kI32, Shape{3})); }), "expected floats, found i32");
}

TEST(Convert, Integers) {
  const std::string i64 = packed<int64_t>({INT64_MIN, 7});
  EXPECT_EQ(to_i64(view_of(i64, DType::kI64, Shape{2})), (std::vector<int64_t>{INT64_MIN, 7}));
  const std::string i32 = packed<int32_t>({-5, 7});
  EXPECT_EQ(to_i64(view_of(i32, DType::kI32, Shape{2})), (std::vector<int64_t>{-5, 7}));
  const std::string i16 = packed<int16_t>({-5});
  EXPECT_EQ(to_i64(view_of(i16, DType::kI16, Shape{1})), (std::vector<int64_t>{-5}));
  const std::string bytes = packed<uint8_t>({255, 1});
  EXPECT_EQ(to_i64(view_of(bytes, DType::kI8, Shape{2})), (std::vector<int64_t>{-1, 1}));
  EXPECT_EQ(to_i64(view_of(bytes, DType::kU8, Shape{2})), (std::vector<int64_t>{255, 1}));
  EXPECT_EQ(to_i64(view_of(bytes, DType::kBool, Shape{2})), (std::vector<int64_t>{255, 1}));
  EXPECT_EQ(message_of([&] { to_i64(view_of(i64, DType::kF16, Shape{2})); }), "expected integers, found f16");
}

TEST(Convert, Q8Planes) {
  std::vector<int8_t> quants(128);  // [2, 64]
  for (size_t i = 0; i < 128; ++i) quants[i] = static_cast<int8_t>(static_cast<int>(i * 37 % 255) - 127);
  const float scales[] = {0.5f, 2.0f, -1.0f, 0.25f};  // [2, 2]
  const std::string quant_bytes = packed(quants);
  const std::string scale_bytes = packed<uint16_t>({0x3800, 0x4000, 0xbc00, 0x3400});
  const HostView quant_view = view_of(quant_bytes, DType::kI8, Shape{2, 64});
  const HostView scale_view = view_of(scale_bytes, DType::kF16, Shape{2, 2});
  const FakeSource source({{"w.quants", quant_view}, {"w.scales", scale_view}});
  const FloatTensor weight = read_f32(source, "w");
  ASSERT_EQ(weight.shape, (Shape{2, 64}));
  for (size_t n = 0; n < 2; ++n) {
    for (size_t k = 0; k < 64; ++k) {
      EXPECT_EQ(weight.values[n * 64 + k], static_cast<float>(quants[n * 64 + k]) * scales[n * 2 + k / 32]);
    }
  }
  HostView wrong = scale_view;
  wrong.shape = Shape{1, 2};
  EXPECT_EQ(message_of([&] { dequantize_q8_0(quant_view, wrong); }),
            "q8_0 scales [1, 2] do not fit quants [2, 64], expected one per 32 of the last dimension");
  wrong.shape = Shape{4};
  EXPECT_THROW(dequantize_q8_0(quant_view, wrong), Error);
  wrong = scale_view;
  wrong.dtype = DType::kBF16;
  EXPECT_EQ(message_of([&] { dequantize_q8_0(quant_view, wrong); }),
            "expected q8_0 scales of f16, found bf16");
  EXPECT_EQ(message_of([&] { dequantize_q8_0(scale_view, scale_view); }),
            "expected q8_0 quants of i8, found f16");
  HostView ragged = quant_view;
  ragged.shape = Shape{2, 60};
  EXPECT_THROW(dequantize_q8_0(ragged, scale_view), Error);
}

TEST(Convert, ReadByName) {
  const std::string f32 = packed<float>({1, 2});
  const FakeSource source({{"a", view_of(f32, DType::kF32, Shape{2})},
                           {"ids", view_of(f32, DType::kI32, Shape{2})},
                           {"q.quants", view_of(f32, DType::kI8, Shape{2})}});
  EXPECT_EQ(read_f32(source, "a").values, (std::vector<float>{1, 2}));
  EXPECT_EQ(message_of([&] { read_f32(source, "b"); }), "fake.safetensors: tensor 'b' is missing");
  EXPECT_EQ(message_of([&] { read_f32(source, "q"); }), "fake.safetensors: tensor 'q' is missing");
  EXPECT_EQ(message_of([&] { read_f32(source, "ids"); }),
            "fake.safetensors: tensor 'ids': expected floats, found i32");
}

}  // namespace
}  // namespace volley::test
