// volley image, from its words to its files.
#include <sstream>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

class CliImage : public Cli {
 protected:
  image::Picture pixels(const std::string& name) const {
    return image::decode_png(as_bytes(read_text(path(name)))).value_or_throw(name);
  }
};

TEST_F(CliImage, NumbersItsFilesAndNeverOverwrites) {
  const CommandResult first = volley({"image", "-m", "toy", "red", "apple"});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(first.out, "out/000.png\n");
  EXPECT_EQ(first.error_lines().front(), "\"red apple\" -> class food-fruit");
  const std::string bytes = read_text(path("out/000.png"));
  EXPECT_EQ(volley({"image", "-m", "toy", "--class", "food-fruit", "-n", "2"}).out,
            "out/001.png\nout/002.png\n");
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--grid", "-n", "3"}).out, "out/grid-000.png\n");
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "--out-dir", "other"}).out, "other/000.png\n");
  EXPECT_EQ(read_text(path("out/000.png")), bytes);
  EXPECT_EQ(files(), (std::set<std::string>{"out/000.png", "out/001.png", "out/002.png", "out/grid-000.png",
                                            "other/000.png"}));
}

TEST_F(CliImage, GivenNamesAreRefusedWhenTheyExist) {
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-o", "b.png"}).out, "b.png\n");
  expect_failure(volley({"image", "-m", "toy", "bird", "-o", "b.png", "-s", "1"}), 1,
                 "b.png: exists already");
  const std::string before = read_text(path("b.png"));
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-o", "b.png", "-s", "1", "--overwrite"}).exit_code, 0);
  EXPECT_NE(read_text(path("b.png")), before);
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-o", "x-%02d.png", "-n", "2"}).out,
            "x-00.png\nx-01.png\n");
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-o", "100%%.png"}).out, "100%.png\n");
  const CommandResult standard = volley({"image", "-m", "toy", "bird", "-o", "-"});
  EXPECT_EQ(standard.out, before) << "the same bytes on standard output";
}

TEST_F(CliImage, ABatchIsItsSinglesByteForByte) {
  for (const char* decoder : {"sequential", "jacobi", "parallel"}) {
    const std::string name = decoder;
    EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-n", "3", "-s", "5", "--decoder", decoder, "-o",
                      name + "-%d.png", "-t", "2"})
                  .exit_code,
              0);
    for (int i = 0; i < 3; ++i) {
      const std::string single = name + "-single-" + std::to_string(i) + ".png";
      volley({"image", "-m", "toy", "bird", "-s", std::to_string(5 + i), "--decoder", decoder, "-o", single,
              "-t", "1"});
      EXPECT_EQ(pixels(single), pixels(name + "-" + std::to_string(i) + ".png")) << single;
    }
  }
  EXPECT_EQ(pixels("sequential-0.png"), pixels("jacobi-0.png"));
  EXPECT_NE(pixels("sequential-0.png"), pixels("parallel-0.png"));
}

TEST_F(CliImage, DevicesAgreeOnTheShapeOfThings) {
  volley({"image", "-m", "toy", "bird", "-d", "cpu-reference", "--dtype", "f32", "-o", "r.png"});
  EXPECT_EQ(pixels("r.png").width, kToySide);
  expect_failure(volley({"image", "-m", "toy", "bird", "-d", "gpu"}), 2, "unknown device");
}

TEST_F(CliImage, TheGridHoldsThePictures) {
  volley({"image", "-m", "toy", "bird", "-n", "3", "-o", "p%d.png"});
  volley({"image", "-m", "toy", "bird", "-n", "3", "--grid", "-o", "g.png"});
  const image::Picture a = pixels("p0.png"), b = pixels("p1.png"), c = pixels("p2.png");
  EXPECT_EQ(pixels("g.png"),
            image::make_grid(std::vector<const image::Picture*>{&a, &b, &c}, {.columns = 2, .rows = 2}));
}

TEST_F(CliImage, CheckReportsEachPicture) {
  const CommandResult result =
      volley({"image", "-m", "toy", "bird", "-n", "2", "--decoder", "jacobi", "--check", "--color", "never"});
  EXPECT_EQ(result.exit_code, 0);
  int equal = 0;
  for (const std::string& line : result.error_lines()) {
    if (line.find(": 64 of 64 tokens equal; jacobi ") != std::string::npos &&
        line.find(" forwards, sequential 63") != std::string::npos) {
      ++equal;
    }
  }
  EXPECT_EQ(equal, 2) << result.err;
  expect_failure(volley({"image", "-m", "toy", "bird", "--decoder", "parallel", "--check"}), 2, "--check");
}

TEST_F(CliImage, JsonFollowsItsSchema) {
  const auto json = json_of({"image", "-m", "toy", "red apple", "-n", "2", "--decoder", "jacobi", "--check"},
                            "volley.image.1.json");
  EXPECT_EQ(json["request"]["prompt"], "red apple");
  EXPECT_EQ(json["pictures"][1]["file"], "out/001.png");
  EXPECT_EQ(json["checks"][0]["equal"], kToyTokens);
  EXPECT_GT(json["statistics"]["tokens_per_forward"], 1.0);
  EXPECT_GT(json["statistics"]["peak_bytes"], 0);
  EXPECT_EQ(json["interrupted"], false);
  const auto plan = json_of({"image", "-m", "toy", "bird", "-n", "2", "--dry-run"}, "volley.image.1.json");
  EXPECT_EQ(plan["files"], (nlohmann::json{"out/002.png", "out/003.png"}));
  const auto error = json_of({"image", "-m", "toy", "--class", "none"}, "volley.image.1.json", 2);
  EXPECT_EQ(error["error"]["kind"], "usage");
  EXPECT_EQ(json_of({"image", "-m", "nowhere/x", "bird"}, "volley.image.1.json", 4)["error"]["exit_code"], 4);
  EXPECT_EQ(json_of({"imag"}, "volley.error.1.json", 2)["schema"], "volley.error/1");
  EXPECT_EQ(files().size(), 2u) << "plans and errors write nothing";
}

TEST_F(CliImage, EventsAreJsonLines) {
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-n", "2", "--decoder", "jacobi", "--check", "--events",
                    "e.jsonl"})
                .exit_code,
            0);
  std::istringstream lines(read_text(path("e.jsonl")));
  std::map<std::string, int> kinds;
  std::map<int, std::map<int, int>> tokens;
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    EXPECT_EQ(schema_fault(event, "volley.event.1.json"), "");
    ++kinds[event["event"]];
    if (event["event"] != "step") continue;
    for (size_t i = 0; i < event["positions"].size(); ++i) {
      tokens[event["picture"]][event["positions"][i]] = event["tokens"][i];
    }
  }
  EXPECT_EQ(kinds["start"], 1);
  EXPECT_EQ(kinds["picture"], 2);
  EXPECT_EQ(kinds["check"], 2);
  EXPECT_EQ(kinds["end"], 1);
  EXPECT_EQ(tokens[0].size(), static_cast<size_t>(kToyTokens)) << "every position was reported";
  EXPECT_EQ(tokens[1].size(), static_cast<size_t>(kToyTokens));
  expect_failure(volley({"image", "-m", "toy", "bird", "--events", "e.jsonl"}), 1, "e.jsonl: exists already");
}

TEST_F(CliImage, WhatCannotBeMeantIsRefused) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    arguments.insert(arguments.begin(), {"image", "-m", "toy"});
    expect_failure(volley(arguments), exit_code, part);
  };
  refuses({"--class", "food-friut"}, "nearest are food-fruit, ");
  refuses({"bird", "--class", "animal-bird"}, "does not go with a prompt");
  refuses({}, "name what to draw");
  refuses({"bird", "--sede", "3"}, "nearest is --seed");
  refuses({"bird", "--seed", "x"}, "--seed x: expected a whole number from -1 to 9223372036854775807");
  refuses({"bird", "--seed", "9223372036854775808"}, "--seed");
  refuses({"bird", "--count", "0"}, "--count 0: expected a whole number from 1 to 1000000");
  refuses({"bird", "--top-k", "-1"}, "--top-k -1: expected a whole number from 0 to 16777216");
  refuses({"bird", "--events", "x.png", "-o", "x.png"}, "--events x.png: is also where x.png goes");
  refuses({"bird", "--events", "./nowhere/../x-1.png", "-o", "x-%d.png", "-n", "2"},
          "also where x-1.png goes");
  refuses({"bird", "--events", "out/000.png", "--dry-run"}, "also where out/000.png goes");
  refuses({"bird", "--events", "/dev/stdout", "-o", "-"}, "also where the picture goes");
  refuses({"bird", "--cfg", "nan"}, "--cfg nan");
  refuses({"bird", "--temperature", "-1"}, "--temperature -1");
  refuses({"bird", "--top-p", "1.5"}, "--top-p 1.5");
  refuses({"bird", "--decoder", "jacoby"}, "nearest is jacobi");
  refuses({"bird", "--decoder", "sequential", "--steps", "3"}, "--steps");
  refuses({"bird", "--steps", "65"}, "steps=65: expected a whole number from 1 to 64");
  refuses({"bird", "--decoder", "parallel:steps=65"}, "steps=65: expected a whole number from 1 to 64");
  refuses({"bird", "--preview-every", "2"}, "--preview-every: needs --preview");
  refuses({"bird", "-n", "2", "-o", "x.png"}, "pattern such as %03d");
  refuses({"bird", "-o", "x.bmp"}, "ends in .png, .jpg or .webp");
  refuses({"bird", "-o", "x-%s.png"}, "as in %03d");
  refuses({"bird", "-o", "%d-%d.png", "-n", "2"}, "two numbers");
  refuses({"bird", "-o", "-", "-n", "2"}, "takes one file");
  refuses({"bird", "-o", "-", "--json"}, "taken by --json");
  refuses({"bird", "-q", "-v"}, "does not go with --verbose");
  refuses({"bird", "--dtype", "f16"}, "expected auto|f32|bf16");
  refuses({"bird", "--count"}, "--count");
  refuses({"bird", "--count", "1000000", "--grid"}, "--grid");
  EXPECT_TRUE(files().empty());
}

TEST_F(CliImage, EventsGoToStandardOutputWhereNothingElseDoes) {
  const CommandResult piped = volley({"image", "-m", "toy", "bird", "-n", "2", "--events", "-"});
  EXPECT_EQ(piped.exit_code, 0) << piped.err;
  std::set<std::string> pictures;  // in any order
  std::istringstream lines(piped.out);
  for (std::string line; std::getline(lines, line);) {
    const auto event = nlohmann::json::parse(line);
    EXPECT_EQ(schema_fault(event, "volley.event.1.json"), "") << line;
    if (event["event"] == "picture") pictures.insert(event["file"]);
  }
  EXPECT_EQ(pictures, (std::set<std::string>{"out/000.png", "out/001.png"}));
  EXPECT_EQ(files(), (std::set<std::string>{"out/000.png", "out/001.png"})) << "and to no file named -";
  expect_failure(volley({"image", "-m", "toy", "bird", "--events", "-", "--json"}), 2,
                 "--events -: standard output is taken by --json");
  expect_failure(volley({"image", "-m", "toy", "bird", "--events", "-", "-o", "-"}), 2,
                 "--events -: is also where the picture goes");
  Command run = command({"image", "-m", "toy", "bird", "--events", "-", "-o", "lost.png"});
  run.output = StandardOutput::kFull;
  expect_failure(run_command(run), 1, "--events -: cannot write");
}

TEST_F(CliImage, NamesThatAreTooLongAreFoundBeforeAnythingIsMade) {
  const std::string stem(252, 'n');
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part) {
    arguments.insert(arguments.begin(), {"image", "-m", "toy", "--class", "animal-bird"});
    const CommandResult result = volley(arguments);
    expect_failure(result, 1, part + ": cannot create: File name too long");
    EXPECT_EQ(result.error_lines().size(), 1u) << "nothing was run: " << result.err;
    EXPECT_TRUE(files().empty());
    EXPECT_FALSE(std::filesystem::exists(path("new")));
  };
  refuses({"-o", stem + ".png"}, stem + ".png");
  refuses({"-o", stem.substr(1) + ".png", "--format", "png,webp"}, stem.substr(1) + ".webp");
  refuses({"-o", stem + ".png", "--out-dir", "new"}, "new/" + stem + ".png");
  refuses({"--animate", stem + ".gif"}, stem + ".gif");
  refuses({"--events", stem + ".jsonl"}, stem + ".jsonl");
  refuses({"--preview", stem + ".png"}, stem + ".png");
  EXPECT_EQ(volley({"image", "-m", "toy", "bird", "-o", stem.substr(1) + ".png"}).exit_code, 0);
}

// Behind it everything is a word.
TEST_F(CliImage, TwoDashesEndTheFlags) {
  const CommandResult first = volley({"image", "-m", "toy", "-o", "a.png", "--", "--red", "apple"});
  EXPECT_EQ(first.exit_code, 0) << first.err;
  EXPECT_EQ(first.error_lines().front(), "\"--red apple\" -> class food-fruit");
  const CommandResult later = volley({"image", "-m", "toy", "-o", "b.png", "red", "--", "-apple", "--json"});
  EXPECT_EQ(later.error_lines().front(), "\"red -apple --json\" -> class food-fruit");
  EXPECT_EQ(later.out, "b.png\n");
  EXPECT_EQ(volley({"image", "-m", "toy", "-o", "c.png", "--", "bird", "--"}).exit_code, 0);
  std::filesystem::rename(path("a.png"), path("-a.png"));
  EXPECT_EQ(volley({"verify", "--", "-a.png"}).exit_code, 0);
  EXPECT_EQ(volley({"help", "--", "devices"}).out, volley({"devices", "--help"}).out);
  EXPECT_EQ(volley({"decoders", "--"}).exit_code, 0);
  expect_failure(volley({"decoders", "--", "-x"}), 2, "'-x': one word too many for decoders");
  expect_failure(volley({"image", "--weird", "--", "bird"}), 2, "'--weird': no such flag of image");
  expect_failure(volley({"image", "-m", "toy", "--"}), 2, "name what to draw");
}

TEST_F(CliImage, RandomSeedsDifferAndAreTold) {
  const auto a = json_of({"image", "-m", "toy", "bird", "-s", "-1"}, "volley.image.1.json");
  const auto b = json_of({"image", "-m", "toy", "bird", "-s", "-1"}, "volley.image.1.json");
  EXPECT_NE(a["request"]["seed"], b["request"]["seed"]);
}

TEST_F(CliImage, QuietSaysNothingAndVerboseMore) {
  EXPECT_EQ(volley({"image", "-m", "toy", "red apple", "-q"}).err, "");
  EXPECT_NE(volley({"image", "-m", "toy", "bird", "-v"}).err.find("peak memory"), std::string::npos);
  const CommandResult plain = volley({"image", "-m", "toy", "bird"});
  EXPECT_EQ(plain.err.find('\r'), std::string::npos) << "no progress without a terminal";
  EXPECT_EQ(plain.err.find('\x1b'), std::string::npos) << "no colours without a terminal";
  EXPECT_NE(volley({"image", "--color", "always", "-m", "toy", "bird"}).err.find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace volley::test
