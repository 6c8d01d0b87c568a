// What a preview's file holds in the middle of a run.
#include "apps/preview.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "apps/terminal_picture.h"
#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::apps {
namespace {

constexpr uint8_t kGrey = 128;

// Shows each step as `volley image --preview` does, and looks at the file after it.
class Watcher : public image::ImageObserver {
 public:
  Watcher(const image::ImageModel& model, const image::ImageRequest& request, std::string file, int64_t every)
      : maker_(model, request),
        file_(std::move(file)),
        every_(every),
        preview_(console_, {.files = {file_}, .every = every}, maker_),
        codes_(static_cast<size_t>(request.count),
               std::vector<int32_t>(static_cast<size_t>(maker_.canvas().cells()), -1)),
        steps_(static_cast<size_t>(request.count)) {}

  void on_step(const StepEvent& event) override {
    const auto generation = static_cast<size_t>(event.generation);
    for (size_t i = 0; i < event.positions.size(); ++i)
      codes_[generation][static_cast<size_t>(event.positions[i])] = event.tokens[i];
    ++steps_[generation];
    preview_.on_step(event);
    if (event.done == event.total) {
      ++first_;  // of those that are not finished: here they finish in their order
    } else if (event.generation == first_ && steps_[generation] % every_ == 0) {
      expect_shown(event.generation);
      ++shown;
    }
  }
  void on_picture(const image::ImagePicture& picture) override {
    preview_.on_picture(picture);
    if (first_ < std::ssize(codes_)) return;
    EXPECT_EQ(shown_picture(), picture.picture);
    ++whole;
  }

  int64_t shown = 0;
  int64_t whole = 0;

 private:
  image::Picture shown_picture() const {
    return image::decode_png(as_bytes(test::read_text(file_))).value_or_throw(file_);
  }
  // Chosen cells have their pixels, the others are grey.
  void expect_shown(int64_t generation) {
    const std::vector<int32_t>& codes = codes_[static_cast<size_t>(generation)];
    const image::Picture picture = shown_picture();
    EXPECT_EQ(picture, maker_.partial(generation, codes));
    const int64_t cell = maker_.canvas().cell, columns = maker_.canvas().columns;
    for (size_t i = 0; i < codes.size(); ++i) {
      bool is_grey = true;
      for (int64_t y = 0; y < cell; ++y) {
        const int64_t row = static_cast<int64_t>(i) / columns * cell + y,
                      column = static_cast<int64_t>(i) % columns * cell;
        for (int64_t byte = 0; byte < 3 * cell; ++byte) {
          is_grey =
              is_grey && picture.rgb[static_cast<size_t>(3 * (row * picture.width + column) + byte)] == kGrey;
        }
      }
      EXPECT_EQ(is_grey, codes[i] < 0) << "cell " << i;
    }
  }

  Console console_;
  image::PictureMaker maker_;
  std::string file_;
  int64_t every_;
  Preview preview_;
  std::vector<std::vector<int32_t>> codes_;
  std::vector<int64_t> steps_;
  int64_t first_ = 0;
};

TEST(Preview, AFileShowsWhatIsChosenSoFar) {
  test::TempFolder folder;
  const std::string toy = folder.file("toy");
  test::write_toy_model_folder(toy);
  const image::ImageCard card = image::read_image_card(toy);
  image::ImageRequest request{
      .model = card.name, .class_name = "animal-bird", .class_id = 2, .count = 2, .seed = 11};
  image::choose_method(card, {.decoder = "parallel:steps=6"}, request);
  const image::ImageModel model(
      card, {.backend = make_backend("cpu", 1), .transformer = image::transformer_for(request.decoder)});
  // Two pictures one after the other, six steps each; the last step makes a whole picture, which is shown as
  // such.
  for (const auto& [every, shown] : {std::pair<int64_t, int64_t>{1, 10}, {2, 4}, {7, 0}}) {
    SCOPED_TRACE(every);
    const std::string file = folder.file("preview" + std::to_string(every) + ".png");
    Watcher watcher(model, request, file, every);
    image::run_image(model, request, {.observer = &watcher}, 1);
    EXPECT_EQ(watcher.shown, shown);
    EXPECT_EQ(watcher.whole, 1);
    EXPECT_TRUE(std::filesystem::exists(file));
  }
}

// Nothing of it scrolls away, so that the next one can be drawn over it.
TEST(TerminalPicture, FitsColumnsAndLines) {
  const auto size_of = [](int64_t width, int64_t height, int64_t columns, int64_t lines) {
    const image::Picture picture{.width = width,
                                 .height = height,
                                 .rgb = std::vector<uint8_t>(static_cast<size_t>(3 * width * height))};
    const std::string text = terminal_picture(picture, columns, lines);
    int64_t blocks = 0, ends = 0;
    for (size_t at = text.find("▀"); at != std::string::npos; at = text.find("▀", at + 1)) ++blocks;
    ends = std::ranges::count(text, '\n');
    return std::pair(blocks / ends, ends);
  };
  EXPECT_EQ(size_of(256, 256, 64, 48), std::pair(int64_t{64}, int64_t{32}));
  EXPECT_EQ(size_of(256, 256, 64, 22), std::pair(int64_t{44}, int64_t{22})) << "80 x 24";
  EXPECT_EQ(size_of(512, 256, 64, 22), std::pair(int64_t{64}, int64_t{16}));
  EXPECT_EQ(size_of(16, 4096, 64, 22), std::pair(int64_t{1}, int64_t{22}));
  EXPECT_EQ(size_of(256, 256, 64, 0), std::pair(int64_t{1}, int64_t{1})) << "a terminal of two lines";
  EXPECT_EQ(size_of(16, 16, 64, 22), std::pair(int64_t{16}, int64_t{8})) << "never enlarged";
}

}  // namespace
}  // namespace volley::apps
