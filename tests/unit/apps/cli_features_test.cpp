// What renders a run: formats, previews; runs of prompt files, and going on with them.
#include <csignal>
#include <memory>
#include <numeric>
#include <sstream>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/apps/cli_pictures.h"
#include "tests/unit/image/animation_frames.h"

namespace volley::test {
namespace {

using CliFeatures = CliPictures;

TEST_F(CliFeatures, FormatsBesideEachOther) {
  const CommandResult result = volley({"image", "-m", "toy", "bird", "-n", "2", "--format", "png,webp,jpg"});
  EXPECT_EQ(result.out, "out/000.png\nout/000.webp\nout/000.jpg\nout/001.png\nout/001.webp\nout/001.jpg\n");
  EXPECT_EQ(pixels("out/001.png"), pixels("out/001.webp")) << "WebP is lossless";
  EXPECT_NE(pixels("out/001.png"), pixels("out/001.jpg"));
  EXPECT_EQ(record("out/001.png"), record("out/001.jpg"));
  EXPECT_EQ(record("out/001.png"), record("out/001.webp"));
  volley({"image", "-m", "toy", "bird", "-o", "q.webp", "--quality", "30"});
  EXPECT_NE(pixels("q.webp"), pixels("out/000.png"));
  for (const char* file : {"out/000.png", "out/000.webp", "out/000.jpg", "q.webp"}) {
    const auto verdict = json_of({"verify", file}, "volley.verify.1.json");
    EXPECT_EQ(verdict["identical"], true) << file;
    EXPECT_EQ(verdict["compared"], file == std::string("out/000.jpg") || file == std::string("q.webp")
                                       ? "tokens"
                                       : "tokens and pixels");
    EXPECT_EQ(json_of({"info", file}, "volley.info.1.json")["width"], kToySide);
  }
  EXPECT_NE(volley({"verify", "out/000.jpg"}).out.find("pixels are lossy"), std::string::npos);
  // A lossy file of another picture is found, too.
  const auto parsed = record("out/000.jpg");
  image::Picture white{.width = kToySide, .height = kToySide};
  white.rgb.assign(3 * kToySide * kToySide, 255);
  write_text(path("w.jpg"), image::encode_picture(white, {.format = image::PictureFormat::kJpeg},
                                                  image::read_run_record(parsed, "record")));
  EXPECT_EQ(json_of({"verify", "w.jpg"}, "volley.verify.1.json", 1)["difference"]["what"], "pixels");
  expect_failure(volley({"image", "-m", "toy", "bird", "--quality", "30"}), 2, "PNG has none");
}

TEST_F(CliFeatures, PreviewsAreWholeFilesOfWhatIsThere) {
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--steps", "6", "-o", "p.png", "--preview", "v.png",
                    "--preview-every", "1"})
                .exit_code,
            0);
  EXPECT_EQ(pixels("v.png"), pixels("p.png")) << "at the end it is the picture";
  EXPECT_EQ(files(), (std::set<std::string>{"p.png", "v.png"})) << "no temporary file is left";
  // Asked for or not, the picture is the same; a preview that is never due decodes none.
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--steps", "6", "-o", "q.png"}).exit_code, 0);
  EXPECT_EQ(read_text(path("p.png")), read_text(path("q.png")));
  expect_failure(volley({"image", "-m", "toy", "bird", "--preview", "v.bmp"}), 2, "--preview v.bmp");
}

TEST_F(CliFeatures, TerminalPreviewIsThePictureInHalfBlocks) {
  const CommandResult result = volley({"image", "-m", "toy", "bird", "--steps", "6", "-o", "p.png",
                                       "--preview", "term", "--preview-every", "1", "--color", "always"});
  EXPECT_EQ(result.exit_code, 0);
  // The last picture drawn: 8 lines of 16 blocks, each with an upper and a lower pixel.
  const size_t last = result.err.rfind("\x1b[8A");
  ASSERT_NE(last, std::string::npos) << "each is drawn over the one before";
  std::istringstream lines(result.err.substr(last + 4));
  const image::Picture picture = pixels("p.png");
  const auto rgb = [&](int64_t x, int64_t y) {
    std::string text;
    for (size_t c = 0; c < 3; ++c)
      text += ";" + std::to_string(picture.rgb[static_cast<size_t>(3 * (y * kToySide + x)) + c]);
    return text + "m";
  };
  for (int64_t y = 0; y < kToySide / 2; ++y) {
    std::string line, expected;
    std::getline(lines, line);
    for (int64_t x = 0; x < kToySide; ++x)
      expected += "\x1b[38;2" + rgb(x, 2 * y) + "\x1b[48;2" + rgb(x, 2 * y + 1) + "▀";
    EXPECT_EQ(line, expected + "\x1b[0m") << y;
  }
  // Those before it, from the first: fewer and fewer cells are grey, in the picture itself none.
  const std::string grey = "\x1b[38;2;128;128;128m\x1b[48;2;128;128;128m▀";
  std::vector<int64_t> greys(1, 0);
  for (size_t at = 0; at < result.err.size(); ++at) {
    if (result.err.compare(at, 4, "\x1b[8A") == 0) greys.push_back(0);
    if (result.err.compare(at, grey.size(), grey) == 0) ++greys.back();
  }
  ASSERT_EQ(greys.size(), 6u) << "a picture for each step";
  EXPECT_GT(greys.front(), 0);
  for (size_t i = 1; i < greys.size(); ++i) EXPECT_LT(greys[i], greys[i - 1]) << i;
  EXPECT_EQ(greys.back(), 0);
  const CommandResult plain = volley({"image", "-m", "toy", "bird", "--preview", "term"});
  EXPECT_EQ(plain.err.find("▀"), std::string::npos) << "nothing is drawn into a pipe";
  EXPECT_NE(plain.err.find("--preview term: standard error shows no colours"), std::string::npos);
}

TEST_F(CliFeatures, ATerminalPreviewFitsTheTerminal) {
  Command run = command({"image", "-m", "toy", "bird", "--steps", "6", "-o", "p.png", "--preview", "term",
                         "--preview-every", "1"});
  run.error = StandardError::kTerminal;
  run.terminal_lines = 7;
  const CommandResult result = run_command(run);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("\x1b[5A"), std::string::npos) << "five lines, drawn over those before";
  EXPECT_EQ(result.err.find("\x1b[8A"), std::string::npos);
}

TEST_F(CliFeatures, PromptFilesNameTheirOutputs) {
  write_text(path("prompts.txt"),
             "# drawn on Monday\nred apple\n\n{\"prompt\": \"bird\", \"name\": \"tweety\", \"count\": 2, "
             "\"seed\": 40}\n"
             "{\"class\": \"food-drink\"}\n");
  EXPECT_EQ(
      volley({"image", "-m", "toy", "-f", "prompts.txt", "-s", "5", "-o", "{name}-{line}-{seed}.png"}).out,
      "red-apple-2-5.png\ntweety-4-40.png\ntweety-4-41.png\nfood-drink-5-8.png\n");
  EXPECT_EQ(record("red-apple-2-5.png")["prompt"], "red apple");
  EXPECT_EQ(record("food-drink-5-8.png")["class"], "food-drink");
  EXPECT_EQ(record("tweety-4-41.png")["pictures"][0]["seed"], 41);
  volley({"image", "-m", "toy", "bird", "-s", "41", "-o", "alone.png"});
  EXPECT_EQ(pixels("alone.png"), pixels("tweety-4-41.png"));
  EXPECT_EQ(volley({"image", "-m", "toy", "-f", "prompts.txt"}).out,
            "out/000.png\nout/001.png\nout/002.png\nout/003.png\n");
  expect_failure(volley({"image", "-m", "toy", "-f", "prompts.txt", "-o", "{name}.png"}), 2,
                 "pictures 1 and 2 would both be tweety.png");
  expect_failure(volley({"image", "-m", "toy", "-f", "prompts.txt", "bird"}), 2, "does not go with a prompt");
  expect_failure(volley({"image", "-m", "toy", "-f", "prompts.txt", "--grid"}), 2, "--grid");
  expect_failure(volley({"image", "-m", "toy", "-f", "none.txt"}), 1, "none.txt: cannot open");
}

TEST_F(CliFeatures, BadLinesAreNamedAndTheOthersMade) {
  write_text(path("p.jsonl"),
             "{\"prompt\": \"bird\"}\n{\"prompt\": \"bird\", \"sed\": 1}\nxylophone quartet\n{\"prompt\":\n"
             "{\"class\": \"food-drink\"}\n");
  const CommandResult result = volley({"image", "-m", "toy", "-f", "p.jsonl", "-o", "{line}.png"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_EQ(result.out, "1.png\n5.png\n");
  for (const char* part :
       {"volley: p.jsonl:2: no key 'sed'", "volley: p.jsonl:3: ", "volley: p.jsonl:4: JSON: parse error"})
    EXPECT_NE(result.err.find(part), std::string::npos) << part << " in " << result.err;
  EXPECT_EQ(record("5.png")["seed"], 4) << "lines that cannot be made keep their seeds";
  const auto json =
      json_of({"image", "-m", "toy", "-f", "p.jsonl", "--out-dir", "o"}, "volley.image.1.json", 3);
  EXPECT_EQ(json["runs"].size(), 2u);
  EXPECT_EQ(json["failures"].size(), 3u);
  EXPECT_EQ(json["failures"][1]["line"], 3);
  const auto plan = json_of({"image", "-m", "toy", "-f", "p.jsonl", "--dry-run"}, "volley.image.1.json", 3);
  EXPECT_EQ(plan["requests"].size(), 2u);
  write_text(path("bad.txt"), "xylophone quartet\n");
  expect_failure(volley({"image", "-m", "toy", "-f", "bad.txt"}), 1, "no line can be made");
}

TEST_F(CliFeatures, SeedsAreThoseAskedFor) {
  EXPECT_EQ(
      volley({"image", "-m", "toy", "bird", "--seeds", "9,1,18446744073709551615", "-o", "s-{seed}.png"}).out,
      "s-9.png\ns-1.png\ns-18446744073709551615.png\n");
  volley({"image", "-m", "toy", "bird", "-s", "1", "-o", "one.png"});
  EXPECT_EQ(pixels("one.png"), pixels("s-1.png"));
  EXPECT_NE(pixels("one.png"), pixels("s-9.png"));
  for (const char* file : {"s-9.png", "s-18446744073709551615.png"})
    EXPECT_EQ(volley({"verify", file}).exit_code, 0) << file;
  EXPECT_NE(volley({"image", "-m", "toy", "bird", "--seeds", "4,2"}).err.find("seeds 4, 2"),
            std::string::npos);
  EXPECT_NE(volley({"image", "-m", "toy", "bird", "-s", "4", "-n", "3"}).err.find("seeds 4 to 6"),
            std::string::npos);
  expect_failure(volley({"image", "-m", "toy", "bird", "--seeds", "1,x"}), 2, "--seeds 1,x");
  expect_failure(volley({"image", "-m", "toy", "bird", "--seeds", "1,2", "-n", "2"}), 2, "--count");
}

TEST_F(CliFeatures, SkipExistingMakesTheRestOnly) {
  const std::vector<std::string> words{"image", "-m", "toy",     "bird",           "-n",
                                       "4",     "-o", "p%d.png", "--skip-existing"};
  EXPECT_EQ(volley(words).out, "p0.png\np1.png\np2.png\np3.png\n");
  const std::string first = read_text(path("p0.png")), third = read_text(path("p2.png"));
  std::filesystem::remove(path("p1.png"));
  std::filesystem::remove(path("p3.png"));
  const auto time = std::filesystem::last_write_time(path("p0.png"));
  const CommandResult again = volley(words);
  EXPECT_EQ(again.out, "p1.png\np3.png\n");
  EXPECT_NE(again.err.find("2 pictures of 4 made before and kept"), std::string::npos) << again.err;
  EXPECT_EQ(read_text(path("p0.png")), first);
  EXPECT_EQ(std::filesystem::last_write_time(path("p0.png")), time) << "not even written";
  EXPECT_EQ(volley({"verify", "p3.png"}).exit_code, 0);
  const CommandResult done = volley(words);
  EXPECT_EQ(done.out, "");
  EXPECT_EQ(done.exit_code, 0);
  // Another picture under the name is never taken for ours.
  auto other = words;
  other[3] = "food-drink";
  expect_failure(volley(other), 1, "p0.png: exists, but is another picture (class: ");
  other = words;
  other.insert(other.end(), {"-s", "1"});
  expect_failure(volley(other), 1, "(seed: 0, now 1)");
  EXPECT_EQ(read_text(path("p2.png")), third);
  // A file without a record counts by its name, and that is said.
  write_text(path("p1.png"), image::encode_png(pixels("p0.png"), {}));
  const CommandResult named = volley(words);
  EXPECT_EQ(named.exit_code, 0);
  EXPECT_NE(named.err.find("p1.png: holds no run record"), std::string::npos) << named.err;
  // Of two formats one may be there.
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-o", "two.png"}).exit_code, 0);
  EXPECT_EQ(
      volley({"image", "-m", "toy", "bird", "-o", "two.png", "--format", "png,webp", "--skip-existing"}).out,
      "two.png\ntwo.webp\n");
  EXPECT_EQ(pixels("two.png"), pixels("two.webp"));
  expect_failure(volley({"image", "-m", "toy", "bird", "-s", "1", "-o", "two.png", "--format", "jpg,webp",
                         "--skip-existing"}),
                 1, "two.webp: exists, but is another picture");
  // Numbered files are gone on with from the first.
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-n", "2"}).out, "out/000.png\nout/001.png\n");
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-n", "3", "--skip-existing"}).out, "out/002.png\n");
  expect_failure(volley({"image", "-m", "toy", "bird", "--skip-existing", "--overwrite"}), 2,
                 "does not go with");
}

TEST_F(CliFeatures, AnInterruptedPromptFileIsGoneOnWith) {
  std::string prompts;
  for (int i = 0; i < 40; ++i) prompts += "{\"class\": \"animal-bird\", \"count\": 8}\n";
  write_text(path("p.txt"), prompts);
  Command run = command({"image", "-m", "toy", "-f", "p.txt", "-o", "b%03d.png", "--animate", "a%03d.webp",
                         "--decoder", "parallel", "--skip-existing"});
  run.awaited = "b017.png";
  run.on_output = [](pid_t process) { ::kill(process, SIGINT); };
  const CommandResult stopped = run_command(run);
  EXPECT_EQ(stopped.exit_code, 130);
  EXPECT_EQ(stopped.signal, 0);
  const auto there = files();
  const auto pictures = std::ranges::count_if(there, [](const std::string& name) { return name[0] == 'b'; });
  EXPECT_GE(pictures, 18);
  EXPECT_LT(pictures, 320);
  for (const std::string& name : there) {
    if (name[0] == 'a') {
      EXPECT_FALSE(read_webp_frames(read_text(path(name))).empty()) << name;
    } else if (name[0] == 'b') {
      EXPECT_EQ(pixels(name).width, kToySide) << name;
    }
  }
  run.on_output = nullptr;
  run.arguments.erase(run.arguments.end() - 5, run.arguments.end() - 3);  // without the animations
  const CommandResult rest = run_command(run);
  EXPECT_EQ(rest.exit_code, 0) << rest.err;
  EXPECT_EQ(std::ranges::count(rest.out, '\n'), 320 - pictures) << "the rest only";
  // What was made in two runs is what one makes.
  EXPECT_EQ(
      volley({"image", "-m", "toy", "bird", "--decoder", "parallel", "-s", "17", "-o", "x.png"}).exit_code,
      0);
  EXPECT_EQ(pixels("x.png"), pixels("b017.png"));
}

// Two runs that number their files at once: nothing is lost, nothing replaced.
TEST_F(CliFeatures, RunsAtOnceNumberOnWithoutOverwriting) {
  Command slow = command({"image", "-m", "toy", "bird", "-n", "3", "--decoder", "sequential", "-s", "100",
                          "--events", "/dev/stderr"});
  slow.awaited = "\"step\"";
  std::string other_out;
  slow.on_output = [&](pid_t) {
    other_out = volley({"image", "-m", "toy", "bird", "-n", "2", "--steps", "2"}).out;
  };
  const CommandResult result = run_command(slow);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  std::set<std::string> names;
  for (const std::string& out : {result.out, other_out}) {
    std::istringstream lines(out);
    for (std::string line; std::getline(lines, line);)
      EXPECT_TRUE(names.insert(line).second) << line << " twice";
  }
  EXPECT_EQ(names.size(), 5u);
  EXPECT_EQ(names, files()) << "what was said is what is there";
  std::set<uint64_t> seeds;
  for (const std::string& name : names) seeds.insert(record(name)["pictures"][0]["seed"].get<uint64_t>());
  EXPECT_EQ(seeds, (std::set<uint64_t>{0, 1, 100, 101, 102}));
}

TEST_F(CliFeatures, OrdersAndSchedulesAreFlagsToo) {
  const auto json =
      json_of({"image", "-m", "toy", "bird", "--order", "center", "--schedule", "cosine", "--steps", "7"},
              "volley.image.1.json");
  EXPECT_EQ(json["request"]["decoder"], "parallel:order=center,schedule=cosine,steps=7");
  EXPECT_EQ(volley({"verify", "out/000.png"}).exit_code, 0);
  expect_failure(volley({"image", "-m", "toy", "bird", "--order", "spiral"}), 2, "random|raster|center");
  expect_failure(volley({"image", "-m", "toy", "bird", "--order", "raster", "--decoder", "jacobi"}), 2,
                 "--order");
  expect_failure(
      volley({"image", "-m", "toy", "bird", "--order", "raster", "--decoder", "parallel:order=center"}), 2,
      "--decoder states order as well");
}

}  // namespace
}  // namespace volley::test
