#include "image/text_features.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/safetensors.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

using testing::HasSubstr;

constexpr TextFeatureShape kShape{.max_rows = 4, .width = 2};

class TextFeaturesTest : public testing::Test {
 protected:
  std::string npy(const std::string& shape, const std::string& type, const std::string& data) {
    std::string header = "{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + ", }\n";
    return test::write_text(folder_.file("f.npy"), "\x93NUMPY\x01" + std::string(1, '\0') +
                                                       test::raw(static_cast<uint16_t>(header.size())) +
                                                       header + data);
  }
  std::string safetensors(const std::vector<float>& values, Shape shape, const std::vector<int64_t>& mask) {
    std::vector<NamedTensor> tensors{
        {"features", {reinterpret_cast<const std::byte*>(values.data()), DType::kF32, shape}}};
    if (!mask.empty()) {
      tensors.push_back({"mask",
                         {reinterpret_cast<const std::byte*>(mask.data()),
                          DType::kI64,
                          {1, static_cast<int64_t>(mask.size())}}});
    }
    write_safetensors(folder_.file("f.safetensors"), tensors);
    return folder_.file("f.safetensors");
  }
  static std::string fault(const std::string& path) {
    try {
      read_text_features(path, kShape);
    } catch (const Error& error) {
      return error.what();
    }
    return "nothing";
  }

  test::TempFolder folder_;
};

TEST_F(TextFeaturesTest, ReadsNumpyWithOrWithoutABatch) {
  for (const char* shape : {"(3, 2)", "(1, 3, 2)"}) {
    const TextFeatures read = read_text_features(npy(shape, "<f4", test::counting_floats(6)), kShape);
    EXPECT_EQ(read.rows, 3);
    EXPECT_EQ(read.values, (std::vector<float>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(read.sha256.size(), 64u);
  }
  const std::string half{'\x00', '\x3c', '\x00', '\xc0'};  // 1, -2
  EXPECT_EQ(read_text_features(npy("(1, 2)", "<f2", half), kShape).values, (std::vector<float>{1, -2}));
}

TEST_F(TextFeaturesTest, LeavesPaddingOutOnWhicheverSide) {
  const auto right = read_text_features(safetensors({1, 2, 3, 4, 0, 0}, {3, 2}, {1, 1, 0}), kShape);
  const auto left = read_text_features(safetensors({0, 0, 1, 2, 3, 4}, {1, 3, 2}, {0, 1, 1}), kShape);
  EXPECT_EQ(right.values, (std::vector<float>{1, 2, 3, 4}));
  EXPECT_EQ(left.values, right.values);
  EXPECT_EQ(left.rows, 2);
  EXPECT_EQ(read_text_features(safetensors({1, 2, 0, 0}, {2, 2}, {}), kShape).rows, 2);
}

TEST_F(TextFeaturesTest, SaysWhatDoesNotFit) {
  EXPECT_THAT(fault(npy("(3, 3)", "<f4", test::counting_floats(9))),
              HasSubstr("f.npy: text features: expected floats [T, 2] with T up to 4, found f32 [3, 3]"));
  EXPECT_THAT(fault(npy("(5, 2)", "<f4", test::counting_floats(10))),
              HasSubstr("T up to 4, found f32 [5, 2]"));
  EXPECT_THAT(fault(npy("(2, 2)", "<i4", test::counting_floats(4))), HasSubstr("found i32"));
  EXPECT_THAT(fault(npy("(2, 2)", "<f4", test::counting_floats(3))), HasSubstr("holds 12 bytes of data"));
  EXPECT_THAT(fault(npy("(1, 2)", "<f4", test::raw(NAN) + test::raw(1.0f))), HasSubstr("not finite"));
  EXPECT_THAT(fault(safetensors({1, 2, 3, 4}, {2, 2}, {0, 0})), HasSubstr("every row is padding"));
  EXPECT_THAT(fault(safetensors({1, 2, 3, 4}, {2, 2}, {1, 1, 1})),
              HasSubstr("tensor mask: expected 2 values"));
  EXPECT_THAT(fault(folder_.file("nowhere")), HasSubstr("nowhere: cannot open"));
  EXPECT_THAT(fault(test::write_text(folder_.file("x"), "words")), HasSubstr("x: "));
}

}  // namespace
}  // namespace volley::image
