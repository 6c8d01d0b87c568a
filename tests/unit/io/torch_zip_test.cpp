#include "core/io/torch_zip.h"

#include <gtest/gtest.h>

#include "core/io/byte_reader.h"
#include "core/io/convert.h"
#include "core/io/zip.h"
#include "tests/unit/io/file_builders.h"

namespace volley::test {
namespace {

namespace pk = pickle;

// Tensors by name; keeps the bytes that they point into.
struct Loaded {
  std::string bytes;
  TorchCheckpoint checkpoint;

  const HostView& operator[](std::string_view name) const {
    for (const NamedTensor& tensor : checkpoint.tensors) {
      if (tensor.name == name) return tensor.view;
    }
    throw Error("no tensor " + std::string(name));
  }
};

Loaded load(std::string bytes) {
  Loaded loaded{std::move(bytes), {}};
  loaded.checkpoint = parse_torch_zip(as_bytes(loaded.bytes)).value_or_throw("test");
  return loaded;
}

Loaded load_state(const std::string& body, const std::vector<std::pair<std::string, std::string>>& storages) {
  return load(zip_bytes(torch_entries(pk::whole(body), storages)));
}

const std::vector<std::pair<std::string, std::string>> kTwelve = {{"0", counting_floats(12)}};

TEST(TorchZip, TensorsAreViewsOfTheFile) {
  const Loaded loaded = load(torch_bytes({}));
  EXPECT_EQ(loaded["w"].shape, (Shape{2, 2}));
  EXPECT_EQ(to_f32(loaded["w"]), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_TRUE(loaded.checkpoint.copies.empty());
  EXPECT_GE(loaded["w"].data, as_bytes(loaded.bytes).data());
  EXPECT_LT(loaded["w"].data, as_bytes(loaded.bytes).data() + loaded.bytes.size());
}

TEST(TorchZip, StateDictUnderAnyWrapper) {
  const std::string state = pk::dict({{"w", torch_tensor({})}});
  for (const char* wrapper : {"model", "module", "state_dict", "model_state_dict"}) {
    const Loaded loaded =
        load_state(pk::dict({{"epoch", "K\7"}, {wrapper, state}, {"v", torch_tensor({})}}), kTwelve);
    EXPECT_EQ(loaded.checkpoint.tensors.size(), 1u) << wrapper;
  }
  // A tensor of that name is a tensor.
  EXPECT_EQ(load_state(pk::dict({{"model", torch_tensor({})}}), kTwelve)["model"].shape, (Shape{2, 2}));
  // What is no tensor is left out.
  EXPECT_EQ(
      load_state(pk::dict({{"w", torch_tensor({})}, {"steps", "K\1"}}), kTwelve).checkpoint.tensors.size(),
      1u);
}

TEST(TorchZip, OrderedDictWithMetadata) {
  const std::string ordered = pk::global("collections", "OrderedDict") + ")R";
  const std::string body =
      ordered + "(" + pk::text("w") + torch_tensor({}) + "u" + pk::dict({{"_metadata", ordered}}) + "b";
  EXPECT_EQ(load_state(body, kTwelve)["w"].shape, (Shape{2, 2}));
}

TEST(TorchZip, ParametersAndSharedStorages) {
  const std::string parameter = pk::global("torch._utils", "_rebuild_parameter") +
                                pk::tuple({torch_tensor({.elements = 12}), "\x88", "N"}) + "R";
  const Loaded loaded = load_state(
      pk::dict({{"p", parameter},
                {"tail", torch_tensor({.elements = 12, .offset = 8})},
                {"scalar", torch_tensor({.elements = 12, .offset = 11, .shape = {}, .strides = {}})},
                {"empty", torch_tensor({.elements = 12, .shape = {0, 5}, .strides = {5, 1}})}}),
      kTwelve);
  EXPECT_EQ(to_f32(loaded["p"]), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(to_f32(loaded["tail"]), (std::vector<float>{8, 9, 10, 11}));
  EXPECT_EQ(to_f32(loaded["scalar"]), (std::vector<float>{11}));
  EXPECT_TRUE(to_f32(loaded["empty"]).empty());
}

TEST(TorchZip, StridedViewsAreCopied) {
  const Loaded loaded = load_state(
      pk::dict(
          {{"transposed", torch_tensor({.elements = 12, .shape = {4, 3}, .strides = {1, 4}})},
           {"every_third", torch_tensor({.elements = 12, .offset = 1, .shape = {2, 2}, .strides = {6, 3}})},
           {"expanded", torch_tensor({.elements = 12, .offset = 5, .shape = {2, 3}, .strides = {0, 1}})},
           {"one_row", torch_tensor({.elements = 12, .shape = {1, 3}, .strides = {99, 1}})}}),
      kTwelve);
  EXPECT_EQ(to_f32(loaded["transposed"]), (std::vector<float>{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11}));
  EXPECT_EQ(to_f32(loaded["every_third"]), (std::vector<float>{1, 4, 7, 10}));
  EXPECT_EQ(to_f32(loaded["expanded"]), (std::vector<float>{5, 6, 7, 5, 6, 7}));
  EXPECT_EQ(to_f32(loaded["one_row"]), (std::vector<float>{0, 1, 2}));
  EXPECT_EQ(loaded.checkpoint.copies.size(), 3u);
}

TEST(TorchZip, EveryStorageType) {
  const std::pair<const char*, DType> types[] = {
      {"FloatStorage", DType::kF32},  {"HalfStorage", DType::kF16}, {"BFloat16Storage", DType::kBF16},
      {"DoubleStorage", DType::kF64}, {"LongStorage", DType::kI64}, {"IntStorage", DType::kI32},
      {"ShortStorage", DType::kI16},  {"CharStorage", DType::kI8},  {"ByteStorage", DType::kU8},
      {"BoolStorage", DType::kBool}};
  for (const auto& [name, dtype] : types) {
    const Loaded loaded = load_state(pk::dict({{"w", torch_tensor({.type = name})}}), kTwelve);
    EXPECT_EQ(loaded["w"].dtype, dtype) << name;
    EXPECT_EQ(loaded["w"].bytes(), 4 * dtype_size(dtype)) << name;
  }
}

TEST(TorchZip, ArgumentsAndNumpyScalarsArePassedOver) {
  // As published image checkpoints hold them: argparse.Namespace(lr=1e-4), numpy.float64(2.0).
  const std::string arguments = pk::global("argparse", "Namespace") + ")\x81" +
                                pk::dict({{"lr", std::string("G\x3f\x1a\x36\xe2\xeb\x1c\x43\x2d", 9)}}) + "b";
  const std::string latin =
      pk::global("_codecs", "encode") + pk::tuple({pk::text("x"), pk::text("latin1")}) + "R";
  const std::string dtype = pk::global("numpy", "dtype") + pk::tuple({pk::text("f8"), "\x89", "\x88"}) + "R" +
                            pk::tuple({"K\3", pk::text("<"), "N", "N", "N", "J\xff\xff\xff\xff"}) + "b";
  const std::string scalar = pk::global("numpy.core.multiarray", "scalar") + pk::tuple({dtype, latin}) + "R";
  const Loaded loaded = load_state(
      pk::dict({{"model", pk::dict({{"w", torch_tensor({})}})}, {"args", arguments}, {"loss", scalar}}),
      kTwelve);
  EXPECT_EQ(loaded.checkpoint.tensors.size(), 1u);
}

TEST(TorchZip, OptimizerStorageThatIsBrokenDoesNotMatter) {
  const std::string body = pk::dict({{"model", pk::dict({{"w", torch_tensor({})}})},
                                     {"optimizer", pk::dict({{"m", torch_tensor({.storage = "lost"})}})}});
  EXPECT_EQ(load_state(body, kTwelve).checkpoint.tensors.size(), 1u);
}

TEST(TorchZip, Zip64AndComments) {
  const std::vector<ZipEntry> entries =
      torch_entries(pk::whole(pk::dict({{"w", torch_tensor({})}})), kTwelve);
  EXPECT_EQ(to_f32(load(zip64_bytes(entries))["w"]), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(load(zip_bytes(entries, {.comment = "made by hand"})).checkpoint.tensors.size(), 1u);
  EXPECT_EQ(
      load(zip_bytes(entries, {.comment = "PK\5\6 in the comment, but no record"})).checkpoint.tensors.size(),
      1u);
  std::vector<ZipEntry> wide = entries;
  wide[2].plain_size = wide[2].packed_size = wide[2].offset = 0xffffffffu;
  const std::string narrow = zip_bytes(entries);
  const auto at = as_bytes(narrow).data();
  const uint64_t header =
      static_cast<uint64_t>(
          parse_zip(as_bytes(narrow)).value_or_throw("zip").find("model/data/0")->bytes.data() - at) -
      30 - entries[2].name.size();
  wide[2].extra = raw<uint16_t>(0x5455) + raw<uint16_t>(2) + "xx" + zip64_extra({48, 48, header});
  EXPECT_EQ(to_f32(load(zip_bytes(wide))["w"]), (std::vector<float>{0, 1, 2, 3}));
}

TEST(TorchZip, NoByteorderMemberMeansLittle) {
  std::vector<ZipEntry> entries = torch_entries(pk::whole(pk::dict({{"w", torch_tensor({})}})), kTwelve);
  entries.erase(entries.begin() + 1);
  EXPECT_EQ(load(zip_bytes(entries)).checkpoint.tensors.size(), 1u);
}

TEST(TorchZip, CrcIsSkippedOnlyWhereAsked) {
  std::vector<ZipEntry> entries = torch_entries(pk::whole(pk::dict({{"w", torch_tensor({})}})), kTwelve);
  entries[2].crc = 1;
  const std::string bytes = zip_bytes(entries);
  EXPECT_TRUE(parse_torch_zip(as_bytes(bytes), CrcCheck::kSkip).ok());
  EXPECT_FALSE(parse_torch_zip(as_bytes(bytes)).ok());
}

}  // namespace
}  // namespace volley::test
