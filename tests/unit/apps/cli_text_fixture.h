#pragma once

#include <string>
#include <vector>

#include "tests/unit/apps/cli_fixture.h"
#include "tests/unit/text/toy_text_model.h"

namespace volley::test {

// volley text with a small model of random weights, "talker".
class CliText : public Cli {
 protected:
  CliText() { write_toy_text_folder(box_.file("talker")); }

  std::vector<std::string> words(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), {"text", "-m", "talker", "--max-tokens", "24", "-t", "1"});
    return arguments;
  }
  CommandResult text(std::vector<std::string> arguments) const { return volley(words(std::move(arguments))); }
  CommandResult text_of_input(std::vector<std::string> arguments, const std::string& input) const {
    Command run = command(words(std::move(arguments)));
    run.input = input;
    return run_command(run);
  }
  nlohmann::json json(std::vector<std::string> arguments, int exit_code = 0) const {
    return json_of(words(std::move(arguments)), "volley.text.1.json", exit_code);
  }
};

}  // namespace volley::test
