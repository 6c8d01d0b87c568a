#include "core/io/npy.h"

#include <gtest/gtest.h>

#include "core/io/byte_reader.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

std::string npy(const std::string& header, const std::string& data, char major = 1) {
  std::string file = "\x93NUMPY";
  file += major;
  file += '\0';
  file += major == 1 ? raw(static_cast<uint16_t>(header.size())) : raw(static_cast<uint32_t>(header.size()));
  return file + header + data;
}

std::string fault(const std::string& file) {
  const auto parsed = parse_npy(as_bytes(file));
  return parsed.ok() ? "none" : parsed.fault().message;
}

constexpr const char* kHeader = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }          \n";

TEST(Npy, ReadsTheArrayInPlace) {
  for (char major : {1, 2, 3}) {
    const std::string file = npy(kHeader, counting_floats(6), major);
    const auto parsed = parse_npy(as_bytes(file));
    ASSERT_TRUE(parsed.ok()) << parsed.fault().message;
    EXPECT_EQ(parsed.value().shape, Shape({2, 3}));
    EXPECT_EQ(parsed.value().dtype, DType::kF32);
    EXPECT_EQ(as_text({parsed.value().data, 24}), counting_floats(6));
  }
  EXPECT_EQ(fault(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", "abc")), "none");
}

TEST(Npy, RefusesWhatItIsNot) {
  EXPECT_EQ(fault("words"), "is no .npy file");
  EXPECT_EQ(fault("\x93NUMPY\x01"), "ends within the .npy header");
  EXPECT_EQ(fault(npy(kHeader, counting_floats(5))), "holds 20 bytes of data, expected 24 for shape [2, 3]");
  EXPECT_EQ(fault(npy(kHeader, counting_floats(7))), "4 bytes follow the array");
  EXPECT_EQ(fault(npy(kHeader, "", 9)), "has .npy version 9");
  EXPECT_EQ(fault(npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", counting_floats(6))),
            "is in column-major order, expected row-major");
  EXPECT_EQ(fault(npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "x")),
            "has type ''|O'', expected floats or integers");
  EXPECT_EQ(fault(npy("{'descr': '<f4', 'shape': (2, 3)}", "")),
            ".npy header lacks descr, fortran_order or shape");
  for (const char* shape : {"(2, 3", "2", "(a,)", "(2 3)", "(-1, 2)", "(9223372036854775807, 9)"}) {
    EXPECT_NE(fault(npy(std::string("{'descr': '<f4', 'fortran_order': False, 'shape': ") + shape, "")),
              "none")
        << shape;
  }
}

}  // namespace
}  // namespace volley::test
