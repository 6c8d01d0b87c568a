// Changing pictures: --init, --mask, --strength, --outpaint, and their verification.
#include <cmath>

#include "core/io/byte_reader.h"
#include "image/picture_file.h"
#include "image/png.h"
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

constexpr int64_t kCells = 8, kCell = 2;  // of the toy model's square

class CliEdit : public Cli {
 protected:
  CliEdit() {
    EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--decoder", "parallel", "-s", "4", "-o", "init.png"})
                  .exit_code,
              0);
    init_ = pixels("init.png");
  }

  image::Picture pixels(const std::string& name) const {
    return over(image::decode_picture(as_bytes(read_text(path(name)))).value_or_throw(name), 255);
  }

  // A grey picture, white where `is_white` says so.
  void write_mask(const std::string& name, int64_t side, auto is_white) const {
    image::Picture mask{.width = side, .height = side};
    for (int64_t i = 0; i < side * side; ++i)
      mask.rgb.insert(mask.rgb.end(), 3, is_white(i % side, i / side) ? 255 : 0);
    write_text(path(name), image::encode_png(mask, {}));
  }

  // Cells that an event of this source names, with their tokens.
  std::map<int, int> cells_of(const std::string& events, const std::string& source, int picture = 0) const {
    std::map<int, int> cells;
    std::istringstream lines(read_text(path(events)));
    for (std::string line; std::getline(lines, line);) {
      const auto event = nlohmann::json::parse(line);
      EXPECT_EQ(schema_fault(event, "volley.event.1.json"), "");
      if (event["event"] != "step" || event["source"] != source || event["picture"] != picture) continue;
      for (size_t i = 0; i < event["positions"].size(); ++i) {
        EXPECT_TRUE(cells.emplace(event["positions"][i], event["tokens"][i]).second) << "decided twice";
      }
    }
    return cells;
  }

  image::Picture init_;
};

TEST_F(CliEdit, PixelsOutsideTheMaskAreTheOldOnes) {
  write_mask("m.png", kToySide, [](int64_t x, int64_t) { return x < 6; });
  EXPECT_EQ(volley({"image", "-m", "toy", "--class", "food-drink", "--init", "init.png", "--mask", "m.png",
                    "--feather", "0", "-n", "3", "-o", "e%d.png", "--events", "e.jsonl"})
                .exit_code,
            0);
  std::set<std::string> made;
  for (int i = 0; i < 3; ++i) {
    const image::Picture edited = pixels("e" + std::to_string(i) + ".png");
    std::string left;
    for (int64_t p = 0; p < kToySide * kToySide; ++p) {
      for (size_t c = 0; c < 3; ++c) {
        const size_t at = static_cast<size_t>(3 * p) + c;
        if (p % kToySide < 6) {
          left += static_cast<char>(edited.rgb[at]);
        } else {
          ASSERT_EQ(edited.rgb[at], init_.rgb[at]) << "picture " << i << ", pixel " << p;
        }
      }
    }
    made.insert(left);
    // Three columns of cells are decided, the other five are given as they were encoded.
    const auto given = cells_of("e.jsonl", "init", i), decided = cells_of("e.jsonl", "query rows", i);
    EXPECT_EQ(given.size(), 40u);
    EXPECT_EQ(decided.size(), 24u);
    for (const auto& [cell, token] : decided) EXPECT_LT(cell % kCells, 3);
    EXPECT_EQ(given, cells_of("e.jsonl", "init", 0));
  }
  EXPECT_EQ(made.size(), 3u) << "each seed repaints in its own way";
}

TEST_F(CliEdit, FeatherBlendsAroundTheMask) {
  write_mask("m.png", kToySide, [](int64_t x, int64_t) { return x < 6; });
  for (const char* feather : {"0", "3"}) {
    volley({"image", "-m", "toy", "bird", "--init", "init.png", "--mask", "m.png", "--feather", feather, "-o",
            std::string("f") + feather + ".png"});
  }
  const image::Picture hard = pixels("f0.png"), soft = pixels("f3.png");
  int64_t blended = 0;
  for (int64_t p = 0; p < kToySide * kToySide; ++p) {
    const int64_t x = p % kToySide;
    for (size_t c = 0; c < 3; ++c) {
      const size_t at = static_cast<size_t>(3 * p) + c;
      if (x < 6) {
        EXPECT_EQ(hard.rgb[at], soft.rgb[at]) << "the mask's own pixels are wholly new";
      } else if (x >= 9) {
        EXPECT_EQ(soft.rgb[at], init_.rgb[at]);
      }
      blended += x >= 6 && x < 9 && soft.rgb[at] != init_.rgb[at];
    }
  }
  EXPECT_GT(blended, 0);
}

TEST_F(CliEdit, TheClassCounts) {
  write_mask("m.png", 4 * kToySide, [](int64_t, int64_t y) { return y >= 2 * kToySide; });
  const CommandResult result =
      volley({"image", "-m", "toy", "bird", "--init", "init.png", "--mask", "m.png", "-o", "a.png"});
  EXPECT_NE(result.err.find("m.png: 64x64 pixels, stretched to the picture's 16x16"), std::string::npos)
      << result.err;
  volley({"image", "-m", "toy", "--class", "food-drink", "--init", "init.png", "--mask", "m.png", "-o",
          "b.png"});
  EXPECT_NE(pixels("a.png"), pixels("b.png"));
  for (int64_t i = 0; i < 3 * kToySide * 6; ++i)
    EXPECT_EQ(pixels("a.png").rgb[static_cast<size_t>(i)], pixels("b.png").rgb[static_cast<size_t>(i)]);
}

TEST_F(CliEdit, StrengthIsTheShareOfCells) {
  for (const auto& [strength, count] : {std::pair{"0.25", 16u}, {"1", 64u}, {"0.01", 1u}}) {
    const std::string name = std::string("s") + strength;
    EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--init", "init.png", "--strength", strength, "-o",
                      name + ".png", "--events", name + ".jsonl", "--feather", "0"})
                  .exit_code,
              0);
    const auto decided = cells_of(name + ".jsonl", "query rows");
    EXPECT_EQ(decided.size(), count);
    EXPECT_EQ(cells_of(name + ".jsonl", "init").size(), 64u - count);
    const image::Picture picture = pixels(name + ".png");
    for (int64_t p = 0; p < kToySide * kToySide; ++p) {
      const auto cell = static_cast<int>(p / kToySide / kCell * kCells + p % kToySide / kCell);
      if (decided.contains(cell)) continue;
      EXPECT_EQ(picture.rgb[static_cast<size_t>(3 * p)], init_.rgb[static_cast<size_t>(3 * p)]) << p;
    }
  }
}

TEST_F(CliEdit, OutpaintingWidensThePicture) {
  const CommandResult result =
      volley({"image", "-m", "toy", "bird", "--init", "init.png", "--outpaint", "right=8,up=3", "-o", "w.png",
              "--feather", "0", "--events", "w.jsonl"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("from init.png, widened by cells: right=8,up=3"), std::string::npos)
      << result.err;
  const image::Picture wide = pixels("w.png");
  EXPECT_EQ(wide.width, 32);
  EXPECT_EQ(wide.height, 22);
  for (int64_t y = 0; y < kToySide; ++y) {
    for (int64_t x = 0; x < 3 * kToySide; ++x) {
      ASSERT_EQ(wide.rgb[static_cast<size_t>(3 * (y + 6) * wide.width + x)],
                init_.rgb[static_cast<size_t>(3 * y * kToySide + x)]);
    }
  }
  EXPECT_EQ(cells_of("w.jsonl", "init").size(), 64u);
  EXPECT_EQ(cells_of("w.jsonl", "query rows").size(), 16u * 11u - 64u) << "each new cell once";
  EXPECT_EQ(volley({"verify", "w.png"}).exit_code, 0);
}

TEST_F(CliEdit, EditsDoNotDependOnTheirCompany) {
  const std::vector<std::string> edit{"image",  "-m",       "toy",        "bird",
                                      "--init", "init.png", "--outpaint", "left=5"};
  auto batch = edit;
  batch.insert(batch.end(), {"-n", "3", "-s", "7", "-o", "b%d.png", "-t", "2"});
  EXPECT_EQ(volley(batch).exit_code, 0);
  for (int i = 0; i < 3; ++i) {
    auto single = edit;
    single.insert(single.end(), {"-s", std::to_string(7 + i), "-o", "s.png", "--overwrite", "-t", "1"});
    volley(single);
    EXPECT_EQ(pixels("s.png"), pixels("b" + std::to_string(i) + ".png"));
  }
}

TEST_F(CliEdit, PicturesOfAnyFormatAndSizeAreFitted) {
  image::Picture photo{.width = 50, .height = 30};
  for (int64_t i = 0; i < 50 * 30; ++i) {
    photo.rgb.push_back(static_cast<uint8_t>(5 * (i % 50)));
    photo.rgb.insert(photo.rgb.end(), {128, 40});
  }
  write_text(path("photo.jpg"), image::encode_picture(photo, {.format = image::PictureFormat::kJpeg}));
  write_text(path("photo.webp"), image::encode_picture(photo, {.format = image::PictureFormat::kWebp}));
  write_mask("m.png", 16, [](int64_t x, int64_t) { return x < 4; });
  for (const char* name : {"photo.jpg", "photo.webp"}) {
    const CommandResult result = volley(
        {"image", "-m", "toy", "bird", "--init", name, "--mask", "m.png", "-o", "p.png", "--overwrite"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.err.find("50x30 pixels, scaled and cropped to the middle 16x16"), std::string::npos)
        << result.err;
    const image::Picture picture = pixels("p.png");
    // Kept pixels are those of the photo's middle: column x there is column (x + 5.5) * 30 / 16 of the photo.
    for (int64_t x = 10; x < 16; ++x) {
      const double expected = 5.0 * ((static_cast<double>(x) + 0.5 + 5.5) * 30.0 / 16.0 - 0.5);
      EXPECT_NEAR(picture.rgb[static_cast<size_t>(3 * (8 * 16 + x))], expected, 8.0) << name << " " << x;
    }
  }
}

// As a phone that is held upright writes it: lying pixels, and EXIF data that says so.
TEST_F(CliEdit, ATurnedPictureIsUsedUpright) {
  image::Picture lying{.width = init_.height, .height = init_.width};
  for (int64_t y = 0; y < lying.height; ++y) {
    for (int64_t x = 0; x < lying.width; ++x) {
      const auto pixel = init_.rgb.begin() + 3 * (x * init_.width + init_.width - 1 - y);
      lying.rgb.insert(lying.rgb.end(), pixel, pixel + 3);
    }
  }
  const std::string turn_clockwise("MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0", 22);
  write_text(path("lying.png"),
             image::encode_png(lying, {}).insert(33, image::png_chunk("eXIf", turn_clockwise)));
  write_mask("m.png", kToySide, [](int64_t x, int64_t) { return x < 6; });
  const auto edited = [&](const std::string& init) {
    const CommandResult result =
        volley({"image", "-m", "toy", "bird", "--init", init, "--mask", "m.png", "-o", "of-" + init});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return pixels("of-" + init);
  };
  EXPECT_EQ(edited("lying.png"), edited("init.png"));
  EXPECT_EQ(volley({"verify", "of-lying.png"}).exit_code, 0);
}

TEST_F(CliEdit, VerifyCountsTheCellsOfAWidenedPicture) {
  volley({"image", "-m", "toy", "bird", "--init", "init.png", "--outpaint", "left=5", "-o", "w.png"});
  Command run = command({"verify", "w.png"});
  run.error = StandardError::kTerminal;
  run.environment["TERM"] = "xterm";
  const CommandResult result = run_command(run);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("/104 tokens"), std::string::npos) << "13 x 8 cells: " << result.err;
}

TEST_F(CliEdit, VerifyFindsItsFilesOrSaysWhichIsMissing) {
  write_mask("m.png", kToySide, [](int64_t x, int64_t) { return x < 6; });
  volley({"image", "-m", "toy", "bird", "--init", "init.png", "--mask", "m.png", "-o", "e.png"});
  EXPECT_EQ(volley({"verify", "e.png"}).exit_code, 0);
  const auto record = json_of({"info", "e.png"}, "volley.info.1.json")["record"];
  EXPECT_EQ(record["edit"]["init"]["file"], "init.png");
  EXPECT_EQ(record["edit"]["feather"], 1) << "half a cell";
  // Beside the picture, or in the working folder.
  std::filesystem::create_directory(path("other"));
  std::filesystem::copy(path("e.png"), path("other/e.png"));
  EXPECT_EQ(volley({"verify", "other/e.png"}).exit_code, 0);
  // Elsewhere, with the files named.
  std::filesystem::rename(path("m.png"), path("other/mask.png"));
  expect_failure(volley({"verify", "e.png"}), 1,
                 "'m.png', which is neither beside it nor in the working folder; --mask names the file");
  EXPECT_EQ(volley({"verify", "e.png", "--mask", "other/mask.png"}).exit_code, 0);
  // A file that has changed is named before anything is made.
  std::filesystem::rename(path("init.png"), path("other/init.png"));
  write_mask("init.png", kToySide, [](int64_t, int64_t) { return true; });
  const auto verdict = json_of({"verify", "e.png", "--mask", "other/mask.png"}, "volley.verify.1.json", 1);
  EXPECT_EQ(verdict["difference"]["what"], "init");
  EXPECT_EQ(json_of({"verify", "e.png", "--mask", "other/mask.png", "--init", "other/init.png"},
                    "volley.verify.1.json")["identical"],
            true);
  expect_failure(volley({"verify", "other/init.png", "--init", "e.png"}), 2,
                 "was not made from another picture");
}

TEST_F(CliEdit, WhatCannotBeMeantIsRefused) {
  write_mask("m.png", kToySide, [](int64_t, int64_t) { return false; });
  write_text(path("no.png"), "nothing");
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    arguments.insert(arguments.begin(), {"image", "-m", "toy", "bird"});
    expect_failure(volley(arguments), exit_code, part);
  };
  const auto before = files();
  refuses({"--mask", "m.png"}, "--mask: needs --init");
  refuses({"--outpaint", "left"}, "--outpaint: needs --init");
  refuses({"--strength", "0.5"}, "--strength: needs --init");
  refuses({"--feather", "3"}, "--feather: needs --init");
  refuses({"--init", "init.png", "--mask", "m.png"}, "--mask m.png: is black");
  refuses({"--init", "init.png", "--mask", "m.png", "--strength", "0.5"}, "does not go with --mask");
  refuses({"--init", "init.png", "--strength", "0"}, "would repaint nothing");
  refuses({"--init", "init.png", "--outpaint", "east"}, "expected left, right, up or down");
  refuses({"--init", "init.png", "--outpaint", "left=200,right=200,up=200"}, "cells, expected at most");
  refuses({"--init", "init.png", "--decoder", "jacobi"}, "only parallel can");
  refuses({"--init", "no.png"}, "no.png: is no PNG, JPEG or WebP file", 1);
  refuses({"--init", "none.png"}, "none.png: cannot open", 1);
  refuses({"--init", "init.png", "--mask", "."}, ".: is a directory", 1);
  EXPECT_EQ(files(), before) << "nothing was written";
}

}  // namespace
}  // namespace volley::test
