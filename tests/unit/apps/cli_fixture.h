#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "tests/unit/apps/command.h"
#include "tests/unit/apps/json_schema.h"
#include "tests/unit/image/toy_model_folder.h"
#include "tests/unit/io/temp_folder.h"

namespace volley::test {

// Runs the command in a fresh folder, with a toy model in the box.
class Cli : public testing::Test {
 protected:
  Cli() {
    write_toy_model_folder(box_.file("toy"));
    std::filesystem::create_directory(work_.file("w"));
  }

  Command command(std::vector<std::string> arguments) const {
    return {.arguments = std::move(arguments),
            .folder = work_.file("w"),
            .environment = {{"VOLLEY_MODEL_PATH", box_.path().string()},
                            {"HOME", home("")},
                            {"XDG_CONFIG_HOME", home("config")},
                            {"XDG_DATA_HOME", data("")},
                            {"HF_HUB_CACHE", ""},
                            {"HF_HOME", ""},
                            {"HF_TOKEN", ""}}};
  }
  CommandResult volley(std::vector<std::string> arguments) const {
    return run_command(command(std::move(arguments)));
  }

  // The same with --json: checks the exit code and the schema and returns the object.
  nlohmann::json json_of(std::vector<std::string> arguments, const std::string& schema,
                         int exit_code = 0) const {
    arguments.push_back("--json");
    const CommandResult result = volley(arguments);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << "one object on one line";
    const auto parsed = parse_json(result.out);
    if (!parsed.ok()) {
      ADD_FAILURE() << parsed.fault().message << ": " << result.out;
      return {};
    }
    EXPECT_EQ(schema_fault(parsed.value(), schema), "");
    return parsed.value();
  }

  // A failure: the exit code, one line that starts with the program's name and holds `part`, no signal.
  void expect_failure(const CommandResult& result, int exit_code, const std::string& part) const {
    EXPECT_EQ(result.signal, 0);
    EXPECT_EQ(result.exit_code, exit_code) << result.err;
    const auto lines = result.error_lines();
    ASSERT_FALSE(lines.empty());
    EXPECT_TRUE(lines.back().starts_with("volley: ")) << result.err;
    EXPECT_NE(lines.back().find(part), std::string::npos) << result.err;
  }

  // Everything below the folder the command runs in.
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(work_.file("w"))) {
      if (!entry.is_directory())
        names.insert(std::filesystem::relative(entry.path(), work_.file("w")).string());
    }
    return names;
  }
  std::string path(const std::string& name) const { return work_.file("w/" + name); }
  // Folders of the person who runs it.
  std::string home(const std::string& name) const { return work_.file("home/" + name); }
  std::string data(const std::string& name) const { return work_.file("home/data/" + name); }

  TempFolder box_;
  TempFolder work_;
};

}  // namespace volley::test
