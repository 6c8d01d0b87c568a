// volley text with models and heads that draft.
#include <filesystem>

#include "tests/unit/apps/cli_text_fixture.h"

namespace volley::test {
namespace {

class CliDrafts : public CliText {};

TEST_F(CliDrafts, EveryDecoderRunsWithADraftModelAndALongestDraft) {
  write_toy_text_folder(box_.file("small"), {.seed = 5});
  write_toy_text_gguf(path("small.gguf"), {.seed = 5});
  for (const char* temperature : {"0", "0.8"}) {
    const std::string first = text({"Hello", "--temperature", temperature, "--decoder", "sequential"}).out;
    const auto run = [&](const std::string& decoder, std::vector<std::string> more) {
      more.insert(more.begin(), {"Hello", "--temperature", temperature, "--decoder", decoder, "--draft-model",
                                 "small", "--draft-max", "3", "--color", "never"});
      return text(more);
    };
    for (const std::string decoder : {"auto", "draft", "lookahead", "lookup", "jacobi", "tree"}) {
      const CommandResult result = run(decoder, {"--check"});
      EXPECT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(result.out, first) << decoder;
      EXPECT_NE(result.err.find("24 of 24 tokens equal"), std::string::npos) << result.err;
      const bool drafts = decoder == "draft";
      const std::string used = decoder == "auto" ? "lookup" : decoder;
      EXPECT_EQ(result.err.find("(same-tokens) by small, ") != std::string::npos, drafts) << result.err;
      EXPECT_EQ(
          result.err.find("--draft-model small: decoder " + used + " does not use it") != std::string::npos,
          !drafts)
          << result.err;
    }
    const CommandResult rejection = run("draft-rejection", {});
    EXPECT_EQ(rejection.exit_code, 0) << rejection.err;
    EXPECT_NE(rejection.err.find("draft-rejection:draft=3,length=schedule (same-distribution) by small"),
              std::string::npos)
        << rejection.err;
    expect_failure(run("draft-rejection", {"--check"}), 2, "--check: decoder draft-rejection");
  }
  const auto result = json({"Hello", "--draft-model", "./small.gguf", "--check"});
  EXPECT_EQ(result["request"]["decoder"], "draft:draft=16,length=adaptive");
  EXPECT_EQ(result["request"]["draft_model"], "small");
  EXPECT_GT(result["statistics"]["draft"]["forwards"], 0);
  const auto automatic = json({"Hello", "--draft-model", "./small.gguf", "--decoder", "auto"});
  EXPECT_EQ(automatic["request"]["decoder"], json({"Hello"})["request"]["decoder"]);
  EXPECT_EQ(json({"Hello"})["request"]["decoder"],
            "lookup:accept=coupled,draft=16,length=adaptive,ngram=3,pool=65536");
  EXPECT_EQ(json({"Hello", "--draft-max", "5"})["request"]["decoder"],
            "lookup:accept=coupled,draft=5,length=adaptive,ngram=3,pool=65536");
  EXPECT_EQ(json({"Hello", "--decoder", "lookup"})["request"]["decoder"],
            "lookup:accept=coupled,draft=8,length=fixed,ngram=3,pool=0");
  EXPECT_EQ(result["weights"]["draft"].get<std::string>().size(), 64u);
  EXPECT_NE(result["weights"]["draft"], result["weights"]["model"]);
  EXPECT_NE(text({"Hello", "--draft-model", "small", "-v"}).err.find("draft model: "), std::string::npos);
  Command talk = command(words({"--chat", "--draft-model", "small", "--temperature", "0"}));
  talk.input = "Hello\nSea\n";
  Command alone = command(words({"--chat", "--temperature", "0"}));
  alone.input = talk.input;
  EXPECT_EQ(run_command(talk).out, run_command(alone).out);
}

TEST_F(CliDrafts, DraftModelsThatDoNotFitAreOneLine) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    arguments.insert(arguments.begin(), "Hello");
    expect_failure(text(std::move(arguments)), exit_code, part);
  };
  refuses({"--decoder", "draft"}, "--decoder draft: needs a draft model; --draft-model names one");
  refuses({"--draft-model", ""}, "--draft-model: is empty");
  refuses({"--draft-model", "nowhere/x"}, "nowhere/x", 4);
  refuses({"--draft-model", "toy"}, "config.json", 1);  // a model of pictures
  write_toy_text_folder(box_.file("wide"), {.spare_ids = 9});
  refuses({"--draft-model", "wide"}, "wide: has ");
  refuses({"--draft-model", "wide", "--dry-run"}, "a draft model needs the model's vocabulary");
  refuses({"--draft-max", "0"}, "--draft-max 0: expected a whole number from 1 to 255");
  refuses({"--draft-max", "4", "--decoder", "sequential"}, "decoder sequential drafts nothing");
  refuses({"--draft-max", "4", "--decoder", "lookup:draft=2"}, "says how long a draft may be, too");
  refuses({"--draft-max", "99", "--decoder", "lookahead"}, "--draft-max 99: --decoder lookahead: N=100");
}

// Heads with random weights, of either kind, are a file or a folder.
TEST_F(CliDrafts, DraftHeadsAnswerAsSequentialDecoding) {
  const std::string crown = box_.file("crown");
  std::filesystem::create_directories(crown);
  write_toy_heads(path("medusa.safetensors"), text::HeadsFamily::kMedusa);
  write_toy_heads(crown + "/hydra_lm_head.safetensors", text::HeadsFamily::kHydra);
  for (const char* temperature : {"0", "0.8"}) {
    const std::string first = text({"Hello", "--temperature", temperature, "--decoder", "sequential"}).out;
    for (const std::string& heads : {std::string("./medusa.safetensors"), crown}) {
      for (const char* decoder : {"auto", "heads:confidence=0,width=2"}) {
        const CommandResult result = text({"Hello", "--temperature", temperature, "--decoder", decoder,
                                           "--heads", heads, "--check", "--color", "never"});
        EXPECT_EQ(result.exit_code, 0) << result.err;
        EXPECT_EQ(result.out, first) << decoder << " with " << heads;
        EXPECT_NE(result.err.find("24 of 24 tokens equal"), std::string::npos) << result.err;
      }
    }
  }
  const auto made = json({"Hello", "--heads", crown, "--decoder", "heads:confidence=0", "--draft-max", "2"});
  EXPECT_EQ(made["request"]["heads"], "crown");
  EXPECT_EQ(made["request"]["decoder_class"], "same-tokens");
  EXPECT_EQ(made["weights"]["heads"].get<std::string>().size(), 64u);
  EXPECT_EQ(made["statistics"]["draft"]["forwards"].get<int64_t>() > 0, true);
  EXPECT_LE(made["statistics"]["draft"]["forwards"].get<int64_t>(),
            2 * made["statistics"]["forwards"].get<int64_t>());
  EXPECT_EQ(json({"Hello", "--heads", crown})["request"]["decoder"],
            "heads:accept=coupled,alpha=0.09,confidence=0.25,copy=2,epsilon=0.3,further=3,heads=16,length="
            "adaptive,ngram=5,nodes=16,width=1");
  const auto typical = json({"Hello", "--heads", crown, "--decoder", "heads:accept=typical"});
  EXPECT_EQ(typical["request"]["decoder_class"], "lossy");
  const CommandResult detail = text({"Hello", "--heads", crown, "-v"});
  EXPECT_NE(detail.err.find("(same-tokens) by crown, "), std::string::npos) << detail.err;
  EXPECT_NE(detail.err.find("heads: "), std::string::npos) << detail.err;
  // Within a constraint, in a conversation, and beside a decoder that does not use them.
  EXPECT_EQ(text({"Hello", "--heads", crown, "--regex", "[a-z ]{5,9}"}).out,
            text({"Hello", "--decoder", "sequential", "--regex", "[a-z ]{5,9}"}).out);
  Command talk = command(words({"--chat", "--heads", crown, "--temperature", "0"}));
  talk.input = "Hello\nSea\n";
  Command alone = command(words({"--chat", "--temperature", "0"}));
  alone.input = talk.input;
  EXPECT_EQ(run_command(talk).out, run_command(alone).out);
  EXPECT_NE(text({"Hello", "--heads", crown, "--decoder", "lookup"})
                .err.find("--heads " + crown + ": decoder lookup does not use them; heads does"),
            std::string::npos);
}

TEST_F(CliDrafts, DraftHeadsThatDoNotFitAreOneLine) {
  const auto refuses = [&](std::vector<std::string> arguments, const std::string& part, int exit_code = 2) {
    arguments.insert(arguments.begin(), "Hello");
    expect_failure(text(std::move(arguments)), exit_code, part);
  };
  write_toy_heads(path("good.safetensors"), text::HeadsFamily::kMedusa);
  write_toy_heads(path("wide.safetensors"), text::HeadsFamily::kMedusa, {.dim = 64});
  refuses({"--decoder", "heads"}, "--decoder heads: needs draft heads; --heads names them");
  refuses({"--heads", ""}, "--heads: is empty");
  refuses({"--heads", "nowhere/x"}, "nowhere/x", 4);
  refuses({"--heads", "nobody"}, "--heads 'nobody' (a path holds a slash): no such model", 4);
  refuses({"--heads", "talker"}, "holds no draft heads", 1);
  refuses({"--heads", "./wide.safetensors"}, "wide.safetensors: tensor 0.1.weight: reads rows of width 64");
  refuses({"--heads", "./wide.safetensors", "--dry-run"}, "those of model talker have 32");
  refuses({"--heads", "./good.safetensors", "--check", "--decoder", "heads:accept=typical"},
          "--check: decoder heads is of class 'lossy' and promises no sequential tokens");
  refuses({"--heads", "./good.safetensors", "--decoder", "heads:width=2,length=adaptive"}, "width=1 only");
  expect_failure(volley({"image", "--decoder", "heads", "red apple"}), 2,
                 "--decoder heads: needs a model with draft heads; pictures come from ");
  // What a file of heads is, as far as volley models info goes.
  const CommandResult info = volley({"models", "info", "./good.safetensors"});
  EXPECT_EQ(info.exit_code, 0) << info.err;
  EXPECT_NE(info.out.find("tensors      9"), std::string::npos) << info.out;
}
}  // namespace
}  // namespace volley::test
