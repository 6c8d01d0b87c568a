// What a conversion that does not end leaves.
#include "image/convert_model.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <stop_token>

#include "core/base/error.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::image {
namespace {

TEST(ConvertModel, OneThatIsStoppedLeavesNothing) {
  test::TempFolder folder;
  test::write_toy_model_folder(folder.file("toy"));
  const ImageCard card = read_image_card(folder.file("toy"));
  const auto backend = make_backend("cpu", 1);
  std::stop_source source;
  const ConvertArgs args{
      .card = card, .backend = *backend, .folder = folder.file("packed"), .stop = source.get_token()};
  source.request_stop();
  EXPECT_THROW(convert_image_model(args), Error);
  for (const auto& entry : std::filesystem::directory_iterator(folder.file("")))
    EXPECT_EQ(entry.path().filename(), "toy");
}

}  // namespace
}  // namespace volley::image
