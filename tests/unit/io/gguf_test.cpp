#include "core/io/gguf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "core/io/byte_reader.h"
#include "core/io/convert.h"
#include "core/io/open_weights.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/gguf_builder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::unique_ptr<GgufFile> open(const std::string& path) {
  return GgufFile::open(path).value_or_throw(path);
}

// The package's own writer made this file: data/README.md.
TEST(Gguf, EveryMetadataTypeOfTheOfficialWriterIsRead) {
  const auto file = open(VOLLEY_IO_DATA "/gguf_blocks.gguf");
  const GgufMetadata& values = file->values();
  EXPECT_EQ(values.integer("test.u8"), 255);
  EXPECT_EQ(values.integer("test.i8"), -128);
  EXPECT_EQ(values.integer("test.u16"), 65535);
  EXPECT_EQ(values.integer("test.i16"), -32768);
  EXPECT_EQ(values.integer("test.u32"), 4294967295);
  EXPECT_EQ(values.integer("test.i32"), std::numeric_limits<int32_t>::min());
  EXPECT_EQ(values.integer("test.i64"), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(values.number("test.u64"), 18446744073709551616.0);
  EXPECT_EQ(values.number("test.f32"), static_cast<double>(0.1f));
  EXPECT_EQ(values.number("test.f64"), 0.1);
  EXPECT_EQ(values.number("test.i8"), -128.0);
  EXPECT_TRUE(values.boolean_or("test.bool", false));
  EXPECT_EQ(values.text("test.string"), "two\nlines, \u00fc");
  EXPECT_EQ(values.integers("test.integers"), (std::vector<int64_t>{1, -2, 3}));
  EXPECT_EQ(values.numbers("test.numbers"), (std::vector<double>{0.5, -1.5}));
  EXPECT_EQ(values.texts("test.strings"), (std::vector<std::string_view>{"a", "", "\u00fc"}));
  const auto booleans = values.find("test.booleans")->items();
  ASSERT_EQ(booleans->size(), 2u);
  EXPECT_EQ((*booleans)[0].boolean(), true);
  EXPECT_EQ((*booleans)[1].boolean(), false);
  const auto nested = values.find("test.nested")->items();
  ASSERT_EQ(nested->size(), 2u);
  EXPECT_EQ((*nested)[0].items()->at(1).integer(), 2);
  EXPECT_EQ((*nested)[1].items()->at(0).integer(), 3);

  EXPECT_EQ(file->metadata().at("test.string"), "two\nlines, \u00fc");
  EXPECT_EQ(file->metadata().at("test.i16"), "-32768");
  EXPECT_EQ(file->metadata().at("test.bool"), "true");
  EXPECT_FALSE(file->metadata().contains("test.strings"));
}

TEST(Gguf, GettersNameFileKeyAndFault) {
  const TempFolder folder;
  const std::string path =
      write_text(folder.file("a.gguf"),
                 GgufImage{.metadata = {{"n", gguf::u32(7)},
                                        {"big", gguf::u64(uint64_t{1} << 63)},
                                        {"x", gguf::f32(0.5f)},
                                        {"s", gguf::text("\x1b[2J")},
                                        {"l", gguf::array(4, {raw<uint32_t>(1), raw<uint32_t>(2)})},
                                        {"e", gguf::array(8, {})}}}
                     .bytes());
  const auto file = open(path);
  const GgufMetadata& values = file->values();
  const auto fails = [&](const auto& get) { return message_of(get).substr(path.size()); };
  EXPECT_EQ(fails([&] { values.integer("none"); }), ": metadata 'none' is missing");
  EXPECT_EQ(fails([&] {
              values.integer("n", {8, 9});
            }),
            ": metadata 'n': expected an integer in [8, 9], found 7");
  EXPECT_EQ(fails([&] { values.integer("x"); }), ": metadata 'x': expected an integer, found 0.5");
  EXPECT_EQ(fails([&] { values.integer("big"); }),
            ": metadata 'big': expected an integer, found 9.223372036854776e+18");
  EXPECT_EQ(fails([&] { values.number("s"); }), R"(: metadata 's': expected a number, found '\x1b[2J')");
  EXPECT_EQ(fails([&] { values.text("l"); }),
            ": metadata 'l': expected a string, found an array of 2 of type u32");
  EXPECT_EQ(fails([&] { values.texts("l"); }),
            ": metadata 'l': expected an array of strings, found an array of 2 of type u32");
  EXPECT_EQ(fails([&] { values.integers("n"); }), ": metadata 'n': expected an array of integers, found 7");
  EXPECT_EQ(fails([&] { values.text("e"); }), ": metadata 'e': expected a string, found an empty array");
  EXPECT_EQ(fails([&] { values.boolean_or("n", true); }), ": metadata 'n': expected true or false, found 7");
  EXPECT_TRUE(values.texts("e").empty());
  EXPECT_EQ(values.integer_or("none", 3), 3);
  EXPECT_EQ(values.number_or("none", 0.5), 0.5);
  EXPECT_EQ(values.text_or("none", "d"), "d");
}

TEST(Gguf, TensorsComeInTorchOrderSortedByName) {
  const TempFolder folder;
  for (const uint32_t version : {2u, 3u}) {
    const GgufImage image{.tensors = {{.name = "w", .shape = {2, 3}, .bytes = counting_floats(6)},
                                      {.name = "b", .shape = {4}, .bytes = counting_floats(4)},
                                      {.name = "scalar", .bytes = counting_floats(1)},
                                      {.name = "none", .shape = {0, 5}, .bytes = ""},
                                      {.name = "ids", .type = 26, .shape = {1}, .bytes = raw<int32_t>(-9)}},
                          .version = version};
    const auto file =
        open_weights(write_text(folder.file("a.bin"), image.bytes()));  // told by its first bytes
    ASSERT_EQ(file->tensors().size(), 5u);
    EXPECT_TRUE(std::ranges::is_sorted(file->tensors(), {}, &NamedTensor::name));
    EXPECT_EQ(file->find("w")->shape, (Shape{2, 3}));
    EXPECT_EQ(to_f32(*file->find("w")), (std::vector<float>{0, 1, 2, 3, 4, 5}));
    EXPECT_EQ(to_f32(*file->find("b")), (std::vector<float>{0, 1, 2, 3}));
    EXPECT_EQ(file->find("scalar")->shape, Shape{});
    EXPECT_EQ(file->find("none")->shape, (Shape{0, 5}));
    EXPECT_EQ(to_i64(*file->find("ids")), (std::vector<int64_t>{-9}));
  }
}

TEST(Gguf, AlignmentIsTheFilesOwn) {
  const TempFolder folder;
  for (const uint64_t alignment : {8u, 32u, 256u}) {
    GgufImage image{.metadata = {{"general.alignment", gguf::u32(static_cast<uint32_t>(alignment))}},
                    .tensors = {{.name = "a", .shape = {1}, .bytes = counting_floats(1)},
                                {.name = "b", .shape = {3}, .bytes = counting_floats(3)}},
                    .alignment = alignment};
    const auto file = open(write_text(folder.file("a.gguf"), image.bytes()));
    EXPECT_EQ(to_f32(*file->find("b")), (std::vector<float>{0, 1, 2}));
    EXPECT_EQ(file->find("b")->data - file->find("a")->data, static_cast<int64_t>(alignment));
  }
}

TEST(Gguf, AFileWithoutTensorsNeedsNoPadding) {
  const TempFolder folder;
  std::string bytes = GgufImage{.metadata = {{"general.architecture", gguf::text("x")}}}.bytes();
  while (bytes.back() == '\0') bytes.pop_back();
  EXPECT_TRUE(open(write_text(folder.file("a.gguf"), bytes))->tensors().empty());
}

// Every shorter file is refused: nothing is read beyond the end, nothing is guessed.
TEST(Gguf, NoCutFileIsAccepted) {
  const GgufImage image{
      .metadata = {{"general.architecture", gguf::text("x")},
                   {"list", gguf::texts({"a", "bc"})},
                   {"nested", gguf::array(9, {raw<uint32_t>(7) + raw<uint64_t>(2) + "\1" + '\0'})}},
      .tensors = {{.name = "w", .shape = {2, 3}, .bytes = counting_floats(6)}}};
  const std::string whole = image.bytes();
  ASSERT_TRUE(parse_gguf(as_bytes(whole)).ok());
  for (size_t size = 0; size < whole.size(); ++size) {
    const std::string cut = whole.substr(0, size);  // of its own, so that sanitizers see its end
    ASSERT_FALSE(parse_gguf(as_bytes(cut)).ok()) << size;
  }
}

// Parts of a split model as the usual splitter writes them.
std::string part_bytes(uint16_t number, uint16_t count, std::vector<GgufTensor> tensors) {
  std::vector<std::pair<std::string, std::string>> metadata{{"split.no", gguf::u16(number)},
                                                            {"split.count", gguf::u16(count)},
                                                            {"split.tensors.count", gguf::i32(3)}};
  if (number == 0) metadata.emplace_back("general.architecture", gguf::text("x"));
  return GgufImage{.metadata = metadata, .tensors = std::move(tensors)}.bytes();
}

class SplitGguf : public testing::Test {
 protected:
  SplitGguf() {
    write(1, part_bytes(0, 3, {}));
    write(2, part_bytes(1, 3,
                        {{.name = "c", .shape = {1}, .bytes = counting_floats(1)},
                         {.name = "a", .shape = {2}, .bytes = counting_floats(2)}}));
    write(3, part_bytes(2, 3, {{.name = "b", .shape = {3}, .bytes = counting_floats(3)}}));
  }
  std::string name(int number) const {
    return folder_.file("m-0000" + std::to_string(number) + "-of-00003.gguf");
  }
  void write(int number, const std::string& bytes) const { write_text(name(number), bytes); }
  std::string message() const {
    return message_of([&] { open_weights(name(1)); });
  }

  TempFolder folder_;
};

TEST_F(SplitGguf, OpensByItsFirstPart) {
  const auto weights = open_weights(name(1));
  ASSERT_EQ(weights->tensors().size(), 3u);
  EXPECT_TRUE(std::ranges::is_sorted(weights->tensors(), {}, &NamedTensor::name));
  EXPECT_EQ(to_f32(*weights->find("a")), (std::vector<float>{0, 1}));
  EXPECT_EQ(to_f32(*weights->find("b")), (std::vector<float>{0, 1, 2}));
  EXPECT_EQ(weights->metadata().at("general.architecture"), "x");
  EXPECT_EQ(weight_files(name(1)), (std::vector<std::string>{name(1), name(2), name(3)}));
  EXPECT_EQ(weight_files(name(2)), std::vector<std::string>{name(2)});
}

TEST_F(SplitGguf, FaultsNameThePart) {
  EXPECT_NE(
      message_of([&] { open_weights(name(2)); }).find("is part 2 of 3 of a split model: open the first"),
      std::string::npos);
  std::filesystem::copy_file(name(1), folder_.file("other.gguf"));
  EXPECT_NE(message_of([&] { open_weights(folder_.file("other.gguf")); }).find("-00001-of-00003.gguf"),
            std::string::npos);
  write(3, part_bytes(2, 3, {}));
  EXPECT_NE(message().find("'split.tensors.count': 3 tensors, the parts hold 2"), std::string::npos)
      << message();
  write(3, part_bytes(1, 3, {}));
  EXPECT_NE(message().find("part 'm-00003-of-00003.gguf': says that it is part 2 of 3"), std::string::npos);
  write(3, part_bytes(2, 3, {{.name = "a", .shape = {1}, .bytes = counting_floats(1)}}));
  EXPECT_NE(message().find("tensor 'a' lies in two parts"), std::string::npos);
  write(3, "GGUF");
  EXPECT_NE(message().find("part 'm-00003-of-00003.gguf': file of 4 bytes"), std::string::npos);
  std::filesystem::remove(name(3));
  EXPECT_NE(message().find("part 'm-00003-of-00003.gguf': cannot open"), std::string::npos);
}

TEST(SplitGgufNames, OnlyAFirstPartsNameMeansParts) {
  EXPECT_EQ(gguf_part_files("a/m-00001-of-00002.gguf"),
            (std::vector<std::string>{"a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf"}));
  for (const char* name : {"m.gguf", "m-00002-of-00002.gguf", "m-1-of-2.gguf", "m-00001-of-0000x.gguf", "",
                           ".gguf", "m-00001-of-00002.bin", "m-00001-of-00000.gguf"}) {
    EXPECT_EQ(gguf_part_files(name), std::vector<std::string>{name});
  }
}

}  // namespace
}  // namespace volley::test
