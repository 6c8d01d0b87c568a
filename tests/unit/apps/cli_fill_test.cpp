// How pictures filled in: animations and step maps, what they show and the records in them.
#include <algorithm>
#include <set>
#include <sstream>

#include "core/io/byte_reader.h"
#include "image/fill.h"
#include "image/png.h"
#include "tests/unit/apps/cli_pictures.h"
#include "tests/unit/image/animation_frames.h"

namespace volley::test {
namespace {

class CliFill : public CliPictures {
 protected:
  std::vector<image::Picture> webp_frames(const std::string& name) const {
    std::vector<image::Picture> frames;
    for (const auto& frame : read_webp_frames(read_text(path(name)))) frames.push_back(frame.picture);
    return frames;
  }

  // Step events of a picture, in order.
  std::vector<nlohmann::json> steps(const std::string& events, int picture = 0) const {
    std::vector<nlohmann::json> found;
    std::istringstream lines(read_text(path(events)));
    for (std::string line; std::getline(lines, line);) {
      auto event = nlohmann::json::parse(line);
      if (event["event"] == "step" && event["picture"] == picture) found.push_back(std::move(event));
    }
    return found;
  }

  static bool is_grey(const image::Picture& picture, int64_t cell) {
    const int64_t left = cell % 8 * 2, top = cell / 8 * 2;
    for (int64_t i = 0; i < 4; ++i) {
      const auto at = static_cast<size_t>(3 * ((top + i / 2) * picture.width + left + i % 2));
      if (picture.rgb[at] != 128 || picture.rgb[at + 1] != 128 || picture.rgb[at + 2] != 128) return false;
    }
    return true;
  }
};

TEST_F(CliFill, AnimationShowsTheCellsInTheirOrder) {
  for (const char* decoder : {"parallel:steps=12", "parallel:steps=9,order=raster", "jacobi"}) {
    EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--decoder", decoder, "-o", "p.png", "--animate",
                      "a.webp", "--events", "e.jsonl", "--overwrite"})
                  .exit_code,
              0);
    const auto frames = webp_frames("a.webp");
    const auto events = steps("e.jsonl");
    ASSERT_EQ(frames.size(), std::min<size_t>(events.size() + 1, 40)) << decoder;
    EXPECT_EQ(frames.back(), pixels("p.png"));
    std::set<int64_t> decided;
    size_t next = 0;
    for (size_t f = 0; f + 1 < frames.size(); ++f) {
      for (; next < events.size() * f / (frames.size() - 1); ++next) {
        for (const auto& cell : events[next]["positions"]) decided.insert(cell.get<int64_t>());
      }
      for (int64_t cell = 0; cell < kToyTokens; ++cell)
        ASSERT_EQ(is_grey(frames[f], cell), !decided.contains(cell))
            << decoder << " frame " << f << " cell " << cell;
    }
  }
}

TEST_F(CliFill, AnimationsOfManyAndOfAGrid) {
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-n", "3", "--steps", "5", "--animate", "a%d.png", "-o",
                    "p%d.png"})
                .exit_code,
            0);
  EXPECT_EQ(pixels("a1.png").width, kToySide) << "a still of its first frame, for other readers";
  EXPECT_TRUE(is_grey(pixels("a1.png"), 0));
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-n", "3", "--steps", "5", "--grid", "-o", "g.png",
                    "--animate", "g.webp", "--step-map", "m.png"})
                .exit_code,
            0);
  const auto frames = webp_frames("g.webp");
  ASSERT_FALSE(frames.empty());
  EXPECT_EQ(frames.back(), pixels("g.png"));
  EXPECT_TRUE(is_grey(frames.front(), 0));
  EXPECT_EQ(pixels("m.png").width % 2, 0);
  expect_failure(volley({"image", "-m", "toy", "bird", "-n", "2", "--animate", "b.gif"}), 2,
                 "pattern such as %03d");
  expect_failure(volley({"image", "-m", "toy", "bird", "--animate", "b.mp4"}), 2, ".webp, .png or .gif");
  expect_failure(volley({"image", "-m", "toy", "bird", "--animate", "a0.png"}), 1, "a0.png: exists already");
}

TEST_F(CliFill, StepMapIsColouredByTheEvents) {
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--decoder", "parallel:steps=9", "-o", "p.png",
                    "--step-map", "m.png", "--events", "e.jsonl"})
                .exit_code,
            0);
  const image::Picture map = pixels("m.png");
  const auto events = steps("e.jsonl");
  ASSERT_EQ(events.size(), 9u);
  const int64_t square = map.width / 8;
  for (size_t step = 0; step < events.size(); ++step) {
    const auto color = image::step_color(static_cast<int64_t>(step), 9);
    for (const auto& position : events[step]["positions"]) {
      const int64_t cell = position.get<int64_t>();
      for (const int64_t corner : {int64_t{0}, square - 1}) {
        const int64_t x = cell % 8 * square + corner, y = cell / 8 * square + corner;
        for (size_t c = 0; c < 3; ++c)
          ASSERT_EQ(map.rgb[static_cast<size_t>(3 * (y * map.width + x)) + c], color[c]) << cell;
      }
    }
  }
  // The legend below goes from the first step's colour to the last one's.
  const int64_t y = 8 * square + 6;
  ASSERT_LT(y, map.height);
  std::vector<std::array<uint8_t, 3>> colors;
  for (int64_t x = 0; x < map.width; ++x) {
    std::array<uint8_t, 3> color{};
    for (size_t c = 0; c < 3; ++c) color[c] = map.rgb[static_cast<size_t>(3 * (y * map.width + x)) + c];
    const bool is_mark =
        color == std::array<uint8_t, 3>{0, 0, 0} || color == std::array<uint8_t, 3>{255, 255, 255};
    if (!is_mark && (colors.empty() || colors.back() != color)) colors.push_back(color);
  }
  ASSERT_EQ(colors.size(), 9u);
  for (size_t step = 0; step < 9; ++step)
    EXPECT_EQ(colors[step], image::step_color(static_cast<int64_t>(step), 9));
}

// The model in the box, whose background is white: what GIF shows beside what lossless WebP does.
TEST_F(CliFill, GifShowsTheColoursOfWebp) {
  for (const char* file : {"a.gif", "a.webp"}) {
    ASSERT_EQ(volley({"image", "--class", "food-fruit", "--decoder", "parallel:steps=3", "-o", "p.png",
                      "--animate", file, "--overwrite"})
                  .exit_code,
              0);
  }
  const auto shown = read_gif_frames(read_text(path("a.gif")));
  const auto meant = read_webp_frames(read_text(path("a.webp")));
  ASSERT_EQ(shown.size(), 4u);
  ASSERT_EQ(meant.size(), 4u);
  EXPECT_EQ(meant.back().picture, pixels("p.png"));
  std::set<size_t> half;  // frames of which a tenth is grey, and a tenth white
  for (size_t f = 0; f < meant.size(); ++f) {
    const auto &is = shown[f].picture.rgb, &was = meant[f].picture.rgb;
    ASSERT_EQ(is.size(), was.size());
    std::map<std::array<uint8_t, 3>, int64_t> counts;
    for (size_t i = 0; i < was.size(); i += 3) ++counts[{was[i], was[i + 1], was[i + 2]}];
    int64_t sum = 0;
    for (size_t i = 0; i < was.size(); i += 3) {
      const std::array<uint8_t, 3> before{was[i], was[i + 1], was[i + 2]}, after{is[i], is[i + 1], is[i + 2]};
      if (before == std::array<uint8_t, 3>{128, 128, 128} || counts[before] * 256 >= std::ssize(was) / 3) {
        ASSERT_EQ(after, before) << "frame " << f << " pixel " << i / 3;
      }
      for (size_t c = 0; c < 3; ++c) {
        sum += std::abs(after[c] - before[c]);
        ASSERT_LE(std::abs(after[c] - before[c]), 40) << "frame " << f << " pixel " << i / 3;
      }
    }
    EXPECT_LT(static_cast<double>(sum) / static_cast<double>(was.size()), 1.0) << "of 255, frame " << f;
    int64_t grey = 0, white = 0;
    for (const auto& [color, count] : counts) {
      if (color == std::array<uint8_t, 3>{128, 128, 128}) grey += count;
      if (std::ranges::min(color) >= 250) white += count;  // as decoders make it
    }
    if (30 * grey > std::ssize(was) && 30 * white > std::ssize(was)) half.insert(f);
  }
  EXPECT_FALSE(half.empty()) << "nothing was half filled";
}

TEST_F(CliFill, AnimationsAndStepMapsCarryTheRecordOfTheirPicture) {
  for (const char* file : {"a.png", "a.webp", "a.gif"}) {
    ASSERT_EQ(volley({"image", "-m", "toy", "red apple", "--steps", "5", "-o", "p.png", "--animate", file,
                      "--step-map", "m.png", "--overwrite", "-s", "3"})
                  .exit_code,
              0);
    EXPECT_EQ(record(file), record("p.png"));
    const auto info = json_of({"info", file}, "volley.info.1.json");
    EXPECT_EQ(info["record"], record("p.png"));
    EXPECT_EQ(info["shows"], "animation");
    EXPECT_EQ(info["frames"], 6);
    EXPECT_EQ(info["width"], kToySide);
    const std::string text = volley({"info", file}).out;
    EXPECT_NE(
        text.find(
            "shows        animation of 6 frames, 16x16 pixels\npicture      16x16 pixels, 1x1 grid of 1 "
            "picture\n"),
        std::string::npos)
        << text;
    EXPECT_NE(text.find("\nprompt       red apple\n"), std::string::npos) << text;
  }
  EXPECT_EQ(record("m.png"), record("p.png"));
  const auto info = json_of({"info", "m.png"}, "volley.info.1.json");
  EXPECT_EQ(info["shows"], "step map");
  EXPECT_EQ(info["height"], pixels("m.png").height);
  EXPECT_EQ(info["record"]["height"], kToySide);
  EXPECT_EQ(json_of({"info", "p.png"}, "volley.info.1.json")["shows"], "picture");
  // Of a grid, that of all its pictures; of many files, each its own.
  ASSERT_EQ(volley({"image", "-m", "toy", "bird", "-n", "3", "--grid", "-o", "g.png", "--animate", "g.gif",
                    "--step-map", "gm.png"})
                .exit_code,
            0);
  EXPECT_EQ(record("g.gif"), record("g.png"));
  EXPECT_EQ(record("gm.png"), record("g.png"));
  ASSERT_EQ(volley({"image", "-m", "toy", "bird", "-n", "2", "-o", "p%d.png", "--animate", "a%d.webp",
                    "--step-map", "m%d.png"})
                .exit_code,
            0);
  EXPECT_EQ(record("a1.webp"), record("p1.png"));
  EXPECT_EQ(record("m1.png"), record("p1.png"));
  EXPECT_NE(record("m1.png"), record("m0.png"));
}

TEST_F(CliFill, AnimationsAndStepMapsVerify) {
  volley({"image", "-m", "toy", "bird", "--decoder", "parallel:steps=3", "-o", "p.png", "--animate", "a.gif",
          "--step-map", "m.png"});
  volley({"image", "-m", "toy", "bird", "--decoder", "jacobi", "-n", "2", "-o", "j%d.png", "--animate",
          "j%d.webp"});
  volley({"image", "-m", "toy", "bird", "--decoder", "parallel:steps=9", "-n", "3", "--grid", "-o", "g.png",
          "--animate", "ga.png", "--step-map", "gm.png"});
  volley({"image", "-m", "toy", "bird", "--decoder", "jacobi", "--grid", "-o", "one.png", "--animate",
          "one.webp"});
  for (const char* file : {"a.gif", "j0.webp", "j1.webp", "ga.png", "one.webp"}) {
    const auto json = json_of({"verify", file}, "volley.verify.1.json");
    EXPECT_EQ(json["identical"], true) << json;
    EXPECT_EQ(json["compared"], "tokens and bytes");
  }
  EXPECT_EQ(volley({"verify", "a.gif"}).out,
            "a.gif: identical: 1 picture made again, tokens equal, and the animation byte for byte\n");
  for (const char* file : {"m.png", "gm.png"}) {
    const auto json = json_of({"verify", file}, "volley.verify.1.json");
    EXPECT_EQ(json["identical"], true) << json;
    EXPECT_EQ(json["compared"], "tokens and pixels");
  }
  EXPECT_EQ(volley({"verify", "m.png"}).out,
            "m.png: identical: 1 picture made again, tokens and pixels of the step map equal\n");
}

TEST_F(CliFill, OtherFramesAndPixelsAreFound) {
  volley({"image", "-m", "toy", "bird", "--steps", "6", "-o", "p.png", "--animate", "a.gif", "--step-map",
          "m.png"});
  const std::string gif = read_text(path("a.gif"));
  const auto difference = [&](const std::string& name) {
    const auto json = json_of({"verify", name}, "volley.verify.1.json", 1);
    EXPECT_EQ(json["identical"], false);
    return json["difference"]["what"].get<std::string>() + ": " +
           json["difference"]["message"].get<std::string>();
  };
  // One delay of a frame, which changes no pixel; then the picture's own record with another seed.
  std::string other = gif;
  const size_t control = other.find("\x21\xF9\x04");
  ASSERT_NE(control, std::string::npos);
  other[control + 4] = static_cast<char>(other[control + 4] ^ 1);
  write_text(path("f.gif"), other);
  EXPECT_EQ(difference("f.gif"),
            "bytes: the animation made again is not the same byte for byte; all tokens are equal");
  EXPECT_EQ(volley({"verify", "f.gif"}).exit_code, 1);
  other = gif;
  const size_t hash = other.find("token_hash") + 13;
  other[hash] = other[hash] == '0' ? '1' : '0';
  write_text(path("f.gif"), other);
  EXPECT_TRUE(difference("f.gif").starts_with("tokens: picture 0: hash")) << difference("f.gif");
  image::Picture map = pixels("m.png");
  map.rgb[7] ^= 1;
  const auto made = image::read_run_record(record("m.png"), "m.png");
  write_text(path("f.png"), image::encode_step_map(map, made));
  EXPECT_TRUE(difference("f.png").starts_with("pixels: pixel at column 2, row 0: recorded rgb "));
  write_text(path("f.png"), image::encode_step_map(pixels("p.png"), made));
  EXPECT_TRUE(difference("f.png").starts_with("pixels: size of the step map: recorded 16x16, found 128x"));
  // Neither is a picture that a run could go on from.
  std::filesystem::copy(path("m.png"), path("p.png"), std::filesystem::copy_options::overwrite_existing);
  expect_failure(volley({"image", "-m", "toy", "bird", "--steps", "6", "-o", "p.png", "--skip-existing"}), 1,
                 "p.png: exists, but shows a step map");
}

// What adapts to time takes other steps each time: nothing is said of what was not compared.
TEST_F(CliFill, StepsThatDependOnTimeAreNotCompared) {
  volley({"image", "-m", "toy", "bird", "--decoder", "jacobi:length=adaptive", "-o", "p.png", "--animate",
          "a.gif", "--step-map", "m.png"});
  for (const char* file : {"a.gif", "m.png"}) {
    EXPECT_EQ(json_of({"info", file}, "volley.info.1.json")["record"], record("p.png"));
    const CommandResult result = volley({"verify", file});
    expect_failure(result, 1, std::string(file) + ": shows the steps of jacobi:");
    expect_failure(result, 1, "length=adaptive");
    expect_failure(result, 1, "cannot be compared");
    EXPECT_EQ(result.error_lines().size(), 1u) << result.err;
    EXPECT_EQ(result.out, "");
  }
  EXPECT_EQ(volley({"verify", "p.png"}).exit_code, 0);
  // Steps that are shown depend on it only where that is asked for.
  volley({"image", "-m", "toy", "bird", "-o", "q.png", "--animate", "b.gif"});
  EXPECT_EQ(volley({"verify", "b.gif"}).exit_code, 0);
}

TEST_F(CliFill, DamagedFilesAreOneLine) {
  volley({"image", "-m", "toy", "bird", "--steps", "4", "-o", "p.png", "--animate", "a.gif"});
  const std::string gif = read_text(path("a.gif"));
  write_text(path("cut.gif"), gif.substr(0, gif.size() - 20));
  std::string bare = gif;
  bare.replace(bare.find("XMP DataXMP"), 3, "ABC");
  write_text(path("bare.gif"), bare);
  volley({"image", "-m", "toy", "bird", "--steps", "4", "-o", "p.png", "--animate", "a.webp", "--overwrite"});
  write_text(path("cut.webp"), read_text(path("a.webp")).substr(0, 200));
  for (const char* verb : {"info", "verify"}) {
    for (const auto& [file, part] : {std::pair("cut.gif", "cut.gif: GIF is cut off at byte "),
                                     std::pair("bare.gif", "bare.gif: holds no run record (there is no XMP)"),
                                     std::pair("cut.webp", "cut.webp: ")}) {
      const CommandResult result = volley({verb, file});
      expect_failure(result, 1, part);
      EXPECT_EQ(result.error_lines().size(), 1u) << result.err;
    }
  }
}

}  // namespace
}  // namespace volley::test
