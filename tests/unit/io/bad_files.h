#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace volley::test {

// One way in which a file can be broken, and what the message about it must say.
struct BadFile {
  enum class Read {
    kWeights,  // with open_weights
    kConfig,   // with read_json_file
  };

  std::string name;  // unique, fit for a test's name
  Read read = Read::kWeights;
  // Makes the file in an empty folder and returns the path to open.
  std::function<std::string(const std::filesystem::path& folder)> make;
  std::string expected;  // part of the message that names the fault
};

// All of them; also fed to the command line, whose exit code and one line of message are checked.
std::vector<BadFile> bad_files();

}  // namespace volley::test
