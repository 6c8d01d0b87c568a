#include "core/io/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/io/byte_reader.h"
#include "core/io/convert.h"
#include "core/io/open_weights.h"
#include "tests/unit/io/file_builders.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {
namespace {

constexpr DType kAllDTypes[] = {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kI64,
                                DType::kI32, DType::kI16, DType::kI8,  DType::kU8,   DType::kBool};

HostView view_of(const std::string& bytes, DType dtype, Shape shape) {
  return {as_bytes(bytes).data(), dtype, shape};
}

std::string bytes_of(const HostView& view) {
  return std::string(as_text({view.data, static_cast<size_t>(view.bytes())}));
}

TEST(Safetensors, EveryTypeComesBack) {
  const TempFolder folder;
  std::vector<std::string> data;
  for (const DType dtype : kAllDTypes) {
    data.push_back(
        std::string(static_cast<size_t>(6 * dtype_size(dtype)), static_cast<char>('a' + data.size())));
  }
  std::vector<NamedTensor> tensors;
  for (size_t i = 0; i < data.size(); ++i) {
    tensors.push_back(
        {"t." + std::string(dtype_name(kAllDTypes[i])), view_of(data[i], kAllDTypes[i], Shape{3, 2})});
  }
  tensors.push_back({"scalar \u00fc \"quoted\"", view_of(data[1], DType::kF32, Shape{})});
  tensors.push_back({"empty", view_of(data[1], DType::kF32, Shape{4, 0})});
  write_safetensors(folder.file("all.safetensors"), tensors, {{"format", "pt"}, {"note", "two\nlines"}});

  const auto file = SafetensorsFile::open(folder.file("all.safetensors")).value_or_throw("all");
  EXPECT_EQ(file->metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "two\nlines"}}));
  ASSERT_EQ(file->tensors().size(), tensors.size());
  EXPECT_TRUE(std::ranges::is_sorted(file->tensors(), {}, &NamedTensor::name));
  for (const NamedTensor& tensor : tensors) {
    SCOPED_TRACE(tensor.name);
    const HostView* found = file->find(tensor.name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->dtype, tensor.view.dtype);
    EXPECT_EQ(found->shape, tensor.view.shape);
    EXPECT_EQ(bytes_of(*found), bytes_of(tensor.view));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(found->data) % static_cast<uintptr_t>(dtype_size(found->dtype)),
              0u);
  }
  EXPECT_EQ(file->find("t.f3"), nullptr);
  EXPECT_EQ(file->find(""), nullptr);
  EXPECT_EQ(file->find("zzz"), nullptr);
}

TEST(Safetensors, NoTensorsAtAll) {
  const TempFolder folder;
  write_safetensors(folder.file("none.safetensors"), {});
  EXPECT_TRUE(open_weights(folder.file("none.safetensors"))->tensors().empty());
}

TEST(Safetensors, WriterRefusesWhatCannotBeRead) {
  const TempFolder folder;
  const std::string data(4, 'x');
  const HostView view = view_of(data, DType::kF32, Shape{1});
  const std::string path = folder.file("w.safetensors");
  const std::vector<NamedTensor> twins = {{"a", view}, {"a", view}};
  const std::vector<NamedTensor> reserved = {{"__metadata__", view}};
  const std::vector<NamedTensor> broken = {{"\xff", view}};
  EXPECT_THROW(write_safetensors(path, twins), Error);
  EXPECT_THROW(write_safetensors(path, reserved), Error);
  EXPECT_THROW(write_safetensors(path, broken), Error);
  EXPECT_THROW(write_safetensors(path, {}, {{"k", "\xff"}}), Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Safetensors, UnalignedDataIsRead) {
  // A header of odd length, as other writers make it.
  const std::string bytes =
      safetensors_bytes(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  )", counting_floats(2));
  const SafetensorsIndex index = parse_safetensors(as_bytes(bytes)).value_or_throw("w");
  EXPECT_EQ(to_f32(index.tensors[0].view), (std::vector<float>{0, 1}));
}

TEST(Safetensors, ShardsAreOneSource) {
  const TempFolder folder;
  const std::string data = counting_floats(6);
  const auto write = [&](const char* file, std::vector<NamedTensor> tensors) {
    write_safetensors(folder.file(file), tensors);
  };
  write("model-1.safetensors",
        {{"b", view_of(data, DType::kF32, Shape{2})}, {"d", view_of(data, DType::kF32, Shape{3})}});
  write("model-2.safetensors",
        {{"a", view_of(data, DType::kF32, Shape{6})}, {"left out", view_of(data, DType::kF32, Shape{1})}});
  write_text(
      folder.file("model.safetensors.index.json"),
      R"({"metadata":{"total_size":44},"weight_map":{"a":"model-2.safetensors","b":"model-1.safetensors","d":"model-1.safetensors"}})");
  for (const std::string& path : {folder.path().string(), folder.file("model.safetensors.index.json")}) {
    const auto source = open_weights(path);
    ASSERT_EQ(source->tensors().size(), 3u);
    EXPECT_EQ(source->find("a")->shape, (Shape{6}));
    EXPECT_EQ(to_f32(*source->find("d")), (std::vector<float>{0, 1, 2}));
    EXPECT_EQ(source->find("left out"), nullptr);
  }
  // A whole file in the same folder goes first.
  write("model.safetensors", {{"whole", view_of(data, DType::kF32, Shape{1})}});
  EXPECT_EQ(open_weights(folder.path().string())->tensors().size(), 1u);
}

TEST(OpenWeights, FirstBytesCountMoreThanTheName) {
  const TempFolder folder;
  const std::string data = counting_floats(1);
  const std::vector<NamedTensor> tensors = {{"w", view_of(data, DType::kF32, Shape{1})}};
  write_safetensors(folder.file("weights.pt"), tensors);
  EXPECT_EQ(open_weights(folder.file("weights.pt"))->path(), folder.file("weights.pt"));
  write_text(folder.file("weights.safetensors"), torch_bytes({}));
  EXPECT_EQ(open_weights(folder.file("weights.safetensors"))->find("w")->shape, (Shape{2, 2}));
}

TEST(OpenWeights, LinksAreFollowed) {
  // The hub's cache keeps links in the model's folder.
  const TempFolder folder;
  write_safetensors(folder.file("blob"), {});
  std::filesystem::create_directory(folder.file("model"));
  std::filesystem::create_symlink("../blob", folder.file("model/model.safetensors"));
  EXPECT_TRUE(open_weights(folder.file("model"))->tensors().empty());
}

TEST(Safetensors, BlockTypesAreNotWritten) {
  const TempFolder folder;
  const std::string block(34, '\1');
  const std::vector<NamedTensor> tensors{{"w", view_of(block, DType::kQ8_0, Shape{1, 32})}};
  try {
    write_safetensors(folder.file("a.safetensors"), tensors);
    ADD_FAILURE() << "was written";
  } catch (const Error& error) {
    EXPECT_EQ(error.what(), folder.file("a.safetensors") + ": tensor 'w': safetensors files hold no q8_0");
  }
}

}  // namespace
}  // namespace volley::test
