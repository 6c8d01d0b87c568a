// Conversations with volley text.
#include <signal.h>
#include <unistd.h>

#include <filesystem>

#include "tests/unit/apps/cli_text_fixture.h"

namespace volley::test {
namespace {

class CliChat : public CliText {};

TEST_F(CliChat, ConversationsRemember) {
  const auto talk = [&](const std::string& input) {
    Command run = command(words({"--chat", "--json", "--temperature", "0"}));
    run.input = input;
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const auto parsed = parse_json(result.out);
    EXPECT_TRUE(parsed.ok()) << result.out;
    EXPECT_EQ(schema_fault(parsed.value(), "volley.text.1.json"), "");
    return parsed.value()["turns"];
  };
  const auto turns = talk("Hello\n\nSea\n/clear\nHello\n/quit\nnever\n");
  ASSERT_EQ(turns.size(), 3u);
  const auto& second = turns[1]["request"]["prompts"][0]["messages"];
  ASSERT_EQ(second.size(), 3u);
  EXPECT_EQ(second[1]["content"], turns[0]["answers"][0]["text"]);
  EXPECT_EQ(second[2]["content"], "Sea");
  EXPECT_EQ(turns[2]["answers"][0]["text"], turns[0]["answers"][0]["text"]) << "/clear forgets";
  EXPECT_EQ(turns[0]["answers"][0]["text"], json({"Hello", "--temperature", "0"})["answers"][0]["text"]);
  const CommandResult shown = text_of_input({"--chat", "--temperature", "0", "Hello"}, "Sea");
  std::string expected;
  for (int i = 0; i < 2; ++i) {
    expected += turns[static_cast<size_t>(i)]["answers"][0]["text"];
    if (!expected.ends_with('\n')) expected += '\n';
  }
  EXPECT_EQ(shown.out, expected) << "the command line's words are the first turn";
  EXPECT_EQ(talk("").size(), 0u);
  std::string much;
  for (int i = 0; i < 300; ++i) much += "no ";
  expect_failure(text_of_input({"--chat"}, "Hello\n" + much + "\n"), 2, "the context of model talker is 256");
}

TEST_F(CliChat, TypedConversationsHaveAPromptAndCommands) {
  Command run = command(words({"--chat", "--temperature", "0"}));
  run.input_kind = StandardInput::kTerminal;
  run.input = "Hello\n/help\n/clear\n/usr/ is\n\x04";
  const CommandResult result = run_command(run);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(
      result.err.find("\nCtrl-C ends an answer, /clear forgets what was said, /quit or Ctrl-D ends\n> "),
      std::string::npos);
  EXPECT_NE(result.err.find("volley: /help: no such command; Ctrl-C ends an answer, /clear forgets"),
            std::string::npos);
  EXPECT_TRUE(result.err.ends_with("\n> \n")) << result.err;
  EXPECT_EQ(result.out,
            text({"Hello", "--temperature", "0"}).out + text({"/usr/ is", "--temperature", "0"}).out)
      << "a path is said, and nothing is remembered";
}

// At a terminal that shows what is typed, keys edit the line and earlier lines come back, in this
// conversation and the next.
TEST_F(CliChat, TypedLinesAreEditedAndRemembered) {
  const auto talk = [&](const std::string& keys) {
    Command run = command(words({"--chat", "--temperature", "0"}));
    run.input_kind = StandardInput::kTerminal;
    run.error = StandardError::kTerminal;
    run.environment.insert({{"TERM", "xterm"}, {"XDG_STATE_HOME", path("state")}, {"LC_ALL", "C"}});
    run.input = keys + "/quit\n";
    const CommandResult result = run_command(run);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result;
  };
  const auto said = [&](const std::string& lines) {
    return text_of_input({"--chat", "--temperature", "0"}, lines).out;
  };
  constexpr const char *kUp = "\x1b[A", *kHome = "\x01", *kForward = "\x06", *kCut = "\x0b";
  EXPECT_EQ(talk("Hello\n").out, said("Hello\n"));
  const auto history = std::filesystem::status(path("state/volley/chat_history"));
  EXPECT_EQ(history.permissions(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  // The last line but one of the program before: /quit was the last.
  EXPECT_EQ(talk(std::string(kUp) + kUp + "\n").out, said("Hello\n"));
  EXPECT_EQ(talk(std::string("is the") + kHome + "What \n").out, said("What is the\n"));
  EXPECT_EQ(talk(std::string("1 2 3") + kHome + kForward + kForward + kForward + kCut + "\n").out,
            said("1 2\n"));
  // Characters of any length, typed in a locale that knows none; a moved cursor goes over whole ones.
  EXPECT_EQ(talk(std::string("世界 🙂!") + kHome + kForward + "ü\n").out, said("世ü界 🙂!\n"));
  EXPECT_EQ(talk("\xff!\xc3!\n").out, said("\xEF\xBF\xBD!\xEF\xBF\xBD!\n"))
      << "what is no character takes no other along";
  EXPECT_NE(talk("Hello\n").err.find("> "), std::string::npos);
  // What is no history of ours stays as it is.
  write_text(path("state/volley/chat_history"), "mine\n");
  talk("Hello\n");
  EXPECT_EQ(read_text(path("state/volley/chat_history")), "mine\n");
}

// A turn takes what the cache has of the last one, and answers as if it had not.
TEST_F(CliChat, TurnsKeepWhatTheyHaveInCommon) {
  write_toy_text_folder(box_.file("long"), {.context = 2048});
  std::string much;
  for (int i = 0; i < 90; ++i) much += std::to_string(i * 7919 % 1000) + " is ";
  Command run =
      command({"text", "-m", "long", "--max-tokens", "12", "-t", "1", "--chat", "--json", "--check"});
  run.input = much + "\nAnd then?\nAnd?\n";
  const CommandResult result = run_command(run);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const auto turns = parse_json(result.out).value()["turns"];
  ASSERT_EQ(turns.size(), 3u);
  int64_t last = 0;
  for (const auto& turn : turns) {
    const auto& statistics = turn["statistics"];
    const int64_t kept = statistics["prompt_rows_kept"], ran = statistics["prompt_rows"];
    EXPECT_EQ(kept % 256, 0);
    EXPECT_EQ(kept + ran, turn["answers"][0]["prompt_tokens"]);
    EXPECT_EQ(turn["checks"][0]["equal"], turn["checks"][0]["tokens"]);
    EXPECT_GE(kept, last);
    last = kept;
  }
  EXPECT_GE(last, 256);
  EXPECT_NE(result.err.find(" of them kept, in "), std::string::npos) << result.err;
}

// While it waits for words, with an editor and without.
TEST_F(CliChat, ConversationsEndAtOnceWhenInterrupted) {
  for (const StandardError shown : {StandardError::kTerminal, StandardError::kPipe}) {
    for (const int number : {SIGINT, SIGTERM}) {
      Command run = command(words({"--chat", "Hello", "--color", "never"}));
      run.input_kind = StandardInput::kTerminal;
      run.error = shown;
      run.environment.insert({{"TERM", "xterm"}, {"XDG_STATE_HOME", path("state")}});
      run.input = "";
      run.awaited = "> ";
      run.on_output = [number](pid_t process) { ::kill(process, number); };
      const CommandResult result = run_command(run);
      EXPECT_EQ(result.signal, 0) << result.err;
      EXPECT_EQ(result.exit_code, 130) << result.err;
      EXPECT_NE(result.err.find("interrupted: what was made is kept"), std::string::npos) << result.err;
    }
  }
}

// Where someone types, Ctrl-C ends the answer and the conversation goes on; from a pipe, and by SIGTERM, it
// ends.
TEST_F(CliChat, AnInterruptedAnswerLeavesTheConversation) {
  write_toy_text_folder(box_.file("endless"), {.context = 30000, .is_endless = true});
  const auto talk = [&](StandardInput kind, int number) {
    Command run =
        command({"text", "-m", "endless", "-t", "1", "--max-tokens", "29000", "--decoder", "sequential",
                 "--json", "--events", path("events"), "--overwrite", "--chat", "Hello"});
    run.input_kind = kind;
    run.input = "/clear\n/quit\n";
    run.awaited = "at most 29000 tokens";
    run.on_output = [&, number](pid_t process) {
      while (!std::filesystem::exists(path("events")) || read_text(path("events")).size() < 4000)
        ::usleep(1000);
      ::kill(process, number);
    };
    const CommandResult result = run_command(run);
    std::filesystem::remove(path("events"));
    return result;
  };
  const CommandResult typed = talk(StandardInput::kTerminal, SIGINT);
  EXPECT_EQ(typed.exit_code, 0) << typed.err;
  EXPECT_EQ(typed.err.find("interrupted"), std::string::npos) << typed.err;
  const auto turns = parse_json(typed.out).value()["turns"];
  ASSERT_EQ(turns.size(), 1u);
  EXPECT_TRUE(turns[0]["interrupted"]);
  EXPECT_GT(turns[0]["answers"][0]["tokens"].size(), 1u);
  for (const auto& [kind, number] :
       {std::pair{StandardInput::kTerminal, SIGTERM}, std::pair{StandardInput::kPipe, SIGINT}}) {
    const CommandResult ended = talk(kind, number);
    EXPECT_EQ(ended.exit_code, 130) << ended.err;
    EXPECT_NE(ended.err.find("interrupted: what was made is kept"), std::string::npos) << ended.err;
  }
}

}  // namespace
}  // namespace volley::test
