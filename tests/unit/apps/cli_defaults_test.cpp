// Values of flags that the command line leaves out: environment, configuration file.
#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

class CliDefaults : public Cli {
 protected:
  // The request that a dry run would make.
  nlohmann::json planned(std::vector<std::string> flags,
                         const std::map<std::string, std::string>& environment) const {
    std::vector<std::string> arguments{"image", "bird", "--dry-run", "--json"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    Command run = command(arguments);
    for (const auto& [name, value] : environment) run.environment[name] = value;
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto parsed = parse_json(result.out);
    return parsed.ok() ? parsed.value()["request"] : nlohmann::json();
  }
  void write_default_config(const std::string& text) const {
    std::filesystem::create_directories(home("config/volley"));
    write_text(home("config/volley/config.toml"), text);
  }
};

TEST_F(CliDefaults, FlagBeforeEnvironmentBeforeFileBeforeDefault) {
  EXPECT_EQ(planned({"-m", "toy"}, {})["seed"], 0);
  write_default_config("seed = 3\nmodel = \"toy\"\n");
  EXPECT_EQ(planned({}, {})["seed"], 3);
  EXPECT_EQ(planned({}, {})["model"], "toy");
  EXPECT_EQ(planned({}, {{"VOLLEY_SEED", "4"}})["seed"], 4);
  EXPECT_EQ(planned({"--seed", "5"}, {{"VOLLEY_SEED", "4"}})["seed"], 5);
  EXPECT_EQ(planned({"-s", "6"}, {{"VOLLEY_SEED", ""}})["seed"], 6);
  EXPECT_EQ(planned({}, {{"VOLLEY_SEED", ""}})["seed"], 3) << "an empty variable says nothing";
}

TEST_F(CliDefaults, ASectionCountsMoreThanTheWholeFile) {
  write_text(path("c.toml"),
             "seed = 1\ntop-k = 7\n[image]\nseed = 2\nmodel = 'toy'\n[models.selftest]\nmodel = 'emoji'\n");
  const auto by_flag = planned({"--config", "c.toml"}, {});
  EXPECT_EQ(by_flag["seed"], 2);
  EXPECT_EQ(by_flag["top_k"], 7);
  EXPECT_EQ(by_flag["model"], "toy");
  EXPECT_EQ(planned({}, {{"VOLLEY_CONFIG", "c.toml"}})["seed"], 2);
  write_default_config("seed = 9\n");
  EXPECT_EQ(planned({"--config", "c.toml"}, {})["seed"], 2) << "one file, not two";
  EXPECT_EQ(planned({"--config", "/dev/null", "-m", "toy"}, {{"VOLLEY_SEED", "8"}})["seed"], 8);
}

TEST_F(CliDefaults, VerifyGoesByTheRecord) {
  ASSERT_EQ(volley({"image", "-m", "toy", "bird", "-o", "x.png"}).exit_code, 0);
  Command run = command({"verify", "x.png"});
  run.environment["VOLLEY_MODEL"] = "emoji-128";
  run.environment["VOLLEY_DEVICE"] = "cpu-reference";
  const CommandResult result = run_command(run);
  EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  write_text(path("c.toml"), "[verify]\nmodel = 'toy'\n");
  expect_failure(volley({"verify", "x.png", "--config", "c.toml"}), 2, "key 'model': no such flag of verify");
}

TEST_F(CliDefaults, SwitchesAreTrueOrFalse) {
  write_text(path("c.toml"), "json = true\nquiet = false\n");
  EXPECT_TRUE(volley({"decoders", "--config", "c.toml"}).out.starts_with("{"));
  write_text(path("d.toml"), "json = 1\n");
  expect_failure(volley({"decoders", "--config", "d.toml"}), 2,
                 "d.toml:1: key 'json': expected true or false, found '1'");
}

TEST_F(CliDefaults, FaultsNameWhereTheyStand) {
  write_text(path("c.toml"), "model = 'toy'\nthraeds = 2\n");
  expect_failure(volley({"image", "bird", "--config", "c.toml"}), 2,
                 "c.toml:2: key 'thraeds': no such flag; nearest is threads");
  write_text(path("c.toml"), "[imgae]\nseed = 2\n");
  expect_failure(volley({"decoders", "--config", "c.toml"}), 2,
                 "section 'imgae': no such verb; nearest is image");
  write_text(path("c.toml"), "[decoders]\nseed = 2\n");
  expect_failure(volley({"decoders", "--config", "c.toml"}), 2, "key 'seed': no such flag of decoders");
  write_text(path("c.toml"), "threads = 'many'\n");
  expect_failure(volley({"image", "bird", "--config", "c.toml"}), 2,
                 "c.toml:1: key 'threads': --threads many: expected a whole number");
  expect_failure(volley({"image", "bird", "--config", "nowhere.toml"}), 1, "nowhere.toml: cannot open");
  Command run = command({"image", "bird"});
  run.environment["VOLLEY_TOP_P"] = "2";
  expect_failure(run_command(run), 2, "VOLLEY_TOP_P: --top-p 2: expected a number");
  EXPECT_TRUE(files().size() == 1u);
}

}  // namespace
}  // namespace volley::test
