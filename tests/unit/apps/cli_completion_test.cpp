// Completion scripts, run in the shells that are here, and manual pages.
#include <array>
#include <cstdio>

#include "tests/unit/apps/cli_fixture.h"

namespace volley::test {
namespace {

// What a shell command prints, both streams; "missing" if there is no such program.
std::string output_of(const std::string& command) {
  FILE* pipe = ::popen(("{ " + command + "; } 2>&1").c_str(), "r");
  std::string text;
  std::array<char, 4096> bytes;
  while (const size_t count = std::fread(bytes.data(), 1, bytes.size(), pipe))
    text.append(bytes.data(), count);
  ::pclose(pipe);
  return text;
}
bool is_here(const std::string& program) {
  return !output_of("command -v " + program).empty();
}

class CliCompletion : public Cli {
 protected:
  CliCompletion() {
    for (const char* shell : {"bash", "zsh", "fish"}) {
      const CommandResult result = volley({"completion", shell});
      EXPECT_EQ(result.exit_code, 0) << result.err;
      write_text(path(shell), result.out);
    }
  }
  std::string environment() const {
    return "export HOME=" + home("") + " XDG_DATA_HOME=" + data("") +
           " VOLLEY_MODEL_PATH=" + box_.path().string() +
           "; PATH=" + std::filesystem::path(VOLLEY_PROGRAM).parent_path().string() + ":$PATH; cd " +
           path("") + "; ";
  }
  // The candidates behind these words, the last of them begun.
  std::set<std::string> bash(const std::string& words) const {
    write_text(path("try.sh"),
               environment() + "source ./bash\nCOMP_WORDS=(" + words +
                   ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_volley\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n");
    return lines(output_of("bash " + path("try.sh")));
  }
  static std::set<std::string> lines(const std::string& text) {
    std::set<std::string> all;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) all.insert(line.substr(0, line.find('\t')));
    return all;
  }
};

TEST_F(CliCompletion, BashCompletesVerbsFlagsAndValues) {
  EXPECT_EQ(output_of("bash -n " + path("bash")), "");
  EXPECT_EQ(bash("volley ver"), std::set<std::string>{"verify"});
  EXPECT_EQ(bash("volley models pu"), std::set<std::string>{"pull"});
  EXPECT_EQ(bash("volley image --thr"), std::set<std::string>{"--threads"});
  EXPECT_EQ(bash("volley image --seed 3 --dtype b"), std::set<std::string>{"bf16"});
  EXPECT_EQ(bash("volley image --decoder ja"), std::set<std::string>{"jacobi"});
  EXPECT_TRUE(bash("volley image --decoder ''").contains("parallel"));
  EXPECT_TRUE(bash("volley image -d ''").contains("cpu-reference"));
  EXPECT_EQ(bash("volley image -m to"), std::set<std::string>{"toy"});
  EXPECT_EQ(bash("volley models info to"), std::set<std::string>{"toy"});
  EXPECT_EQ(bash("volley models pull arpg-xx"), std::set<std::string>{"arpg-xxl"});
  EXPECT_EQ(bash("volley image -m toy --class sky"), std::set<std::string>{"sky\\ \\&\\ weather"});
  write_text(path("a file.png"), "");
  EXPECT_TRUE(bash("volley verify 'a f'").contains("a file.png"));
  EXPECT_EQ(bash("volley completion z"), std::set<std::string>{"zsh"});
  EXPECT_EQ(bash("volley image --format p"), std::set<std::string>{"png"});
  EXPECT_EQ(bash("volley image --format png,j"), std::set<std::string>{"png,jpg"});
  EXPECT_EQ(bash("volley image --outpaint r"), std::set<std::string>{"right"});
  EXPECT_EQ(bash("volley image --outpaint up,l"), std::set<std::string>{"up,left"});
  EXPECT_EQ(bash("volley image --preview te"), std::set<std::string>{"term"});
  EXPECT_TRUE(bash("volley image --preview 'a f'").contains("a file.png"));
  EXPECT_EQ(bash("volley help im"), std::set<std::string>{"image"});
  EXPECT_EQ(bash("volley help models pu"), std::set<std::string>{"pull"});
}

TEST_F(CliCompletion, ZshAndFishScriptsAreValid) {
  if (is_here("zsh")) {
    EXPECT_EQ(output_of("zsh -n " + path("zsh")), "");
    write_text(path("try.zsh"),
               environment() +
                   "compdef() { : }\ncompset() { : }\ncompadd() { shift; print -l -- ${(P)1} }\n_files() { "
                   "print files }\n"
                   "source ./zsh\nwords=(volley models pull arpg-xx) CURRENT=4\n_volley\n"
                   "words=(volley image --dtype '') CURRENT=4\n_volley\nwords=(volley image -o '') "
                   "CURRENT=4\n_volley\nwords=(volley image --format '') CURRENT=4\n_volley\n"
                   "words=(volley image --preview '') CURRENT=4\n_volley\n"
                   "words=(volley help models '') CURRENT=4\n_volley\n");
    const auto offered = lines(output_of("zsh -f " + path("try.zsh")));
    EXPECT_TRUE(offered.contains("arpg-xxl"));
    EXPECT_TRUE(offered.contains("bf16"));
    for (const char* word : {"files", "webp", "term", "selftest"})
      EXPECT_TRUE(offered.contains(word)) << word;
  }
  if (is_here("fish")) {
    EXPECT_EQ(output_of("fish -n " + path("fish")), "");
    const auto complete = [&](const std::string& words) {
      write_text(path("try.fish"), "source " + path("fish") + "\ncomplete -C '" + words + "'\n");
      return lines(output_of(environment() + "fish " + path("try.fish")));
    };
    EXPECT_TRUE(complete("volley ver").contains("verify"));
    EXPECT_TRUE(complete("volley image --thr").contains("--threads"));
    EXPECT_TRUE(complete("volley image --dtype b").contains("bf16"));
    EXPECT_TRUE(complete("volley models pull arpg-xx").contains("arpg-xxl"));
    EXPECT_TRUE(complete("volley image -m to").contains("toy"));
    EXPECT_TRUE(complete("volley image --format p").contains("png"));
    EXPECT_TRUE(complete("volley image --format png,j").contains("png,jpg"));
    EXPECT_TRUE(complete("volley image --outpaint r").contains("right"));
    EXPECT_TRUE(complete("volley image --preview te").contains("term"));
    EXPECT_TRUE(complete("volley help im").contains("image"));
    EXPECT_TRUE(complete("volley help models pu").contains("pull"));
  }
  // Whatever shells are here: each verb and flag stands in each script.
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = read_text(path(shell));
    for (const char* word : {"verify", "models pull", "text-features", "no-progress"})
      EXPECT_NE(script.find(word), std::string::npos) << shell << ": " << word;
  }
}

TEST_F(CliCompletion, ListsAndFaults) {
  EXPECT_EQ(volley({"completion", "--list", "classes", "-m", "toy"}).out,
            "food-fruit\nfood-drink\nanimal-bird\nsky & weather\n");
  EXPECT_EQ(volley({"completion", "--list", "devices"}).out, "auto\ncpu\ncpu-reference\n");
  expect_failure(volley({"completion"}), 2, "name a shell, bash, zsh or fish");
  expect_failure(volley({"completion", "csh"}), 2, "shell csh: expected bash|zsh|fish");
  expect_failure(volley({"help", "imgae"}), 2, "'imgae': no such verb; nearest is image");
  EXPECT_EQ(volley({"help", "models", "pull"}).out, volley({"models", "pull", "--help"}).out);
  EXPECT_EQ(volley({"help"}).out, volley({"--help"}).out);
}

TEST_F(CliCompletion, ManualPagesHoldEveryFlag) {
  ASSERT_EQ(volley({"help", "--man-dir", "man"}).exit_code, 0);
  for (const std::string verb : {"", "image", "verify", "models-pull", "completion"}) {
    const std::string name = "man/volley" + (verb.empty() ? "" : "-" + verb) + ".1";
    const std::string page = read_text(path(name));
    EXPECT_TRUE(page.starts_with(".TH VOLLEY")) << name;
    for (const char* section : {".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS"})
      EXPECT_NE(page.find(section), std::string::npos) << name << section;
    std::string spaced = verb;
    std::replace(spaced.begin(), spaced.end(), '-', ' ');
    std::vector<std::string> arguments;
    std::istringstream words(spaced);
    for (std::string word; words >> word;) arguments.push_back(word);
    arguments.push_back("--help");
    std::istringstream help(volley(arguments).out);
    int flags = 0;
    for (std::string word; help >> word;) {
      const std::string flag = word.substr(word.rfind(',') + 1);
      if (!word.starts_with("-") || !flag.starts_with("--") || flag.size() < 4) continue;
      std::string roff;
      for (char c : flag) roff += c == '-' ? std::string("\\-") : std::string(1, c);
      EXPECT_NE(page.find("\\fB" + roff + "\\fR"), std::string::npos) << name << ": " << flag;
      ++flags;
    }
    EXPECT_GT(flags, 0) << name;
    if (is_here("man") && is_here("groff")) {
      const std::string shown =
          output_of("MANWIDTH=100 MAN_KEEP_FORMATTING= man -l " + path(name) + " | col -b");
      EXPECT_NE(shown.find("SYNOPSIS"), std::string::npos) << shown;
      EXPECT_NE(shown.find("--help"), std::string::npos) << shown;
    }
  }
  // What may be left out stands in brackets, what may come again has dots.
  const auto synopsis = [&](const std::string& verb) {
    const std::string page = read_text(path("man/volley-" + verb + ".1"));
    const size_t begin = page.find(".SH SYNOPSIS\n") + 13;
    return page.substr(begin, page.find('\n', begin) - begin);
  };
  EXPECT_TRUE(synopsis("image").ends_with(" [\\fIWORDS\\fR ...]")) << synopsis("image");
  EXPECT_TRUE(synopsis("verify").ends_with(" \\fIFILE\\fR")) << synopsis("verify");
  EXPECT_EQ(volley({"help", "--man", "models", "pull"}).out, read_text(path("man/volley-models-pull.1")));
}

}  // namespace
}  // namespace volley::test
