// The command as a whole: help, unknown words, listings, streams, limits.
#include <signal.h>

#include <fstream>

#include "core/io/byte_reader.h"
#include "image/png.h"
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

TEST_F(Cli, HelpIsAsRecorded) {
  for (const std::string verb :
       {"", "image", "text", "info", "verify", "decoders", "devices", "bench", "bench diff", "bench text",
        "models", "models info", "models list", "models convert", "models pull", "models remove",
        "models selftest", "completion", "help"}) {
    std::vector<std::string> arguments;
    std::istringstream words(verb);
    for (std::string word; words >> word;) arguments.push_back(word);
    arguments.push_back("--help");
    const CommandResult result = volley(arguments);
    EXPECT_EQ(result.exit_code, 0);
    std::string name = verb.empty() ? "volley" : verb;
    std::replace(name.begin(), name.end(), ' ', '-');
    const std::string file = std::string(VOLLEY_HELP) + "/" + name + ".txt";
    // To record anew: volley VERB --help > tests/unit/apps/help/VERB.txt
    EXPECT_EQ(result.out, read_text(file)) << file;
  }
}

TEST_F(Cli, UnknownWordsSuggestTheNearest) {
  expect_failure(volley({"imgae"}), 2, "'imgae': no such verb; nearest is image");
  expect_failure(volley({"models", "lst"}), 2, "nearest is list");
  expect_failure(volley({"decoders", "--jsn"}), 2, "'--jsn': no such flag of decoders; nearest is --json");
  expect_failure(volley({"devices", "now"}), 2, "one word too many");
  expect_failure(volley({"--verson"}), 2, "nearest is --version");
  expect_failure(volley({}), 2, "knows image, ");
  expect_failure(volley({"models"}), 2, "knows convert, info, list");
  expect_failure(volley({"\x1b[31m"}), 2, "'\\x1b[31m'");
  EXPECT_TRUE(volley({"--version"}).out.starts_with("volley "));
}

TEST_F(Cli, ListingsFollowTheirSchemas) {
  const auto decoders = json_of({"decoders"}, "volley.decoders.1.json");
  EXPECT_EQ(decoders["decoders"][0]["name"], "sequential");
  const std::string table = volley({"decoders", "--markdown"}).out;
  for (const auto& decoder : decoders["decoders"]) {
    EXPECT_NE(table.find("| `" + decoder["name"].get<std::string>() + "` |"), std::string::npos);
  }
  const auto devices = json_of({"devices"}, "volley.devices.1.json");
  EXPECT_EQ(devices["devices"][0]["name"], "cpu");
  EXPECT_EQ(devices["devices"][0]["auto"], true);
  const auto list = json_of({"models", "list"}, "volley.models.1.json");
  EXPECT_NE(list.dump().find("\"name\":\"toy\""), std::string::npos);
  const auto folder = json_of({"models", "info", "toy"}, "volley.models.1.json");
  EXPECT_EQ(folder["weights"]["arpg"]["family"], "arpg");
  EXPECT_EQ(folder["weights"]["vq"]["family"], "llamagen vq");
  EXPECT_EQ(folder["weights"]["llamagen"]["family"], "llamagen c2i");
  const auto file = json_of({"models", "info", box_.file("toy/vq.safetensors")}, "volley.models.1.json");
  EXPECT_EQ(file["weights"]["model"]["tensors"], folder["weights"]["vq"]["tensors"]);
  json_of({"models", "info", "nowhere"}, "volley.models.1.json", 4);
  json_of({"info", "nowhere"}, "volley.info.1.json", 1);
  json_of({"verify", "nowhere"}, "volley.verify.1.json", 1);
}

TEST_F(Cli, LostOutputIsAFailureAndNoSignal) {
  for (auto output : {StandardOutput::kClosed, StandardOutput::kFull, StandardOutput::kPipeWithoutReader}) {
    for (const std::vector<std::string>& arguments : {std::vector<std::string>{"decoders"},
                                                      {"--help"},
                                                      {"image", "-m", "toy", "bird"},
                                                      {"image", "-m", "toy", "bird", "--json"},
                                                      {"models", "info", "toy", "--json"},
                                                      {"image", "-m", "toy", "bird", "-o", "-"}}) {
      Command run = command(arguments);
      run.output = output;
      expect_failure(run_command(run), 1, "standard output: cannot write");
    }
  }
}

TEST_F(Cli, UnwritablePlacesAreNamedAndNothingIsLeft) {
  write_text(path("file"), "in the way");
  expect_failure(volley({"image", "-m", "toy", "bird", "-o", "file/x.png"}), 1, "file/x.png: ");
  expect_failure(volley({"image", "-m", "toy", "bird", "--out-dir", "file"}), 1,
                 "file: cannot make the folder");
  expect_failure(volley({"image", "-m", "toy", "bird", "--out-dir", "file/below"}), 1,
                 "file/below: cannot make the folder");
  expect_failure(volley({"image", "-m", "toy", "bird", "-o", "nowhere/x.png"}), 1, "nowhere/x.png: ");
  expect_failure(volley({"image", "-m", "toy", "bird", "-o", "/dev/full"}), 1, "/dev/full: cannot write");
  expect_failure(volley({"image", "-m", "toy", "bird", "--events", "nowhere/e.jsonl", "-o", "y.png"}), 1,
                 "nowhere/e.jsonl: ");
  expect_failure(volley({"image", "-m", "toy", "bird", "--events", "/dev/full", "-o", "y.png"}), 1,
                 "/dev/full: ");
  expect_failure(volley({"image", "-m", "toy", "bird", "-o", std::string(300, 'n') + ".png"}), 1,
                 "nnn.png: ");
  std::filesystem::create_directory(path("folder.png"));
  expect_failure(volley({"image", "-m", "toy", "bird", "-o", "folder.png"}), 1, "folder.png: is a directory");
  Command run = command({"image", "-m", "toy", "bird", "-o", "z.png"});
  run.file_limit = 64;  // as a disk that is full
  expect_failure(run_command(run), 1, "z.png: cannot write");
  EXPECT_EQ(files(), std::set<std::string>{"file"});
  EXPECT_EQ(read_text(path("file")), "in the way");
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_F(Cli, TooLittleMemoryIsOneLine) {
  // A card and a file that ask for a quarter of a gigabyte, several times over; the file has holes.
  const std::string folder = box_.file("large");
  write_toy_model_folder(folder);
  nlohmann::json config = read_json_file(folder + "/config.json");
  config["vq"]["codebook_size"] = 8 << 20;
  write_text(folder + "/config.json", config.dump());
  const std::string header =
      R"({"quantize.embedding.weight":{"dtype":"F32","shape":[8388608,8],"data_offsets":[0,268435456]}})";
  std::string start(8, '\0');
  start[0] = static_cast<char>(header.size());
  write_text(folder + "/vq.safetensors", start + header);
  std::filesystem::resize_file(folder + "/vq.safetensors", start.size() + header.size() + (8 << 20) * 32);
  Command run = command({"image", "-m", "large", "bird", "-t", "1"});
  run.memory_limit = 500 << 20;  // the file is mapped, and a plan needs as much again
  expect_failure(run_command(run), 1, "out of memory");
  run = command({"image", "-m", "toy", "bird", "-t", "1024"});
  run.memory_limit = 900 << 20;  // too little for the stacks of so many threads
  expect_failure(run_command(run), 1, "--threads 1024: cannot start 1024 threads");
  EXPECT_TRUE(files().empty());
  // Wherever memory runs out, in whichever thread: loading, packing, caches, kernels, sampling.
  int64_t failures = 0;
  for (int64_t mebibytes = 64; mebibytes <= 244; mebibytes += 12) {
    run = command({"image", "-m", "toy", "bird", "-n", "8", "-t", "2", "-q", "-o", "x%d.png", "--overwrite"});
    run.memory_limit = mebibytes << 20;
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.signal, 0) << mebibytes << " MiB: " << result.err;
    // Below what the loader of shared libraries needs the program does not even start.
    if (result.exit_code == 127) continue;
    EXPECT_TRUE(result.exit_code == 0 || result.exit_code == 1) << mebibytes << " MiB: " << result.exit_code;
    if (result.exit_code != 1) continue;
    ++failures;
    EXPECT_EQ(result.error_lines().size(), 1u) << result.err;
    EXPECT_NE(result.err.find("memory"), std::string::npos) << result.err;
  }
  EXPECT_GT(failures, 0);
}
#endif

}  // namespace
}  // namespace volley::test
