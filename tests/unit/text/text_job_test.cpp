// The job function of text over a toy model: streaming, batches, decoders, ends, JSON.
#include "text/text_job.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "core/backend/cpu/cpu_backend.h"
#include "core/base/error.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/message_of.h"
#include "tests/unit/text/toy_text_model.h"
#include "text/tokenizer/streaming_decoder.h"

namespace volley::test {
namespace {

using text::ChatFormat;
using text::Finish;
using text::message_of;
using text::TextAnswer;
using text::TextModel;
using text::TextPiece;
using text::TextPrompt;
using text::TextRequest;
using text::TextResult;

// Everything that a run tells.
class Recorder : public text::TextObserver {
 public:
  void on_step(const StepEvent& event) override { steps[event.generation] += std::ssize(event.tokens); }
  void on_piece(const TextPiece& piece) override { pieces[piece.index].push_back(piece); }
  void on_answer(const TextAnswer& answer) override { answers.push_back(answer); }

  std::string text_of(int64_t index) const {
    std::string text;
    for (const TextPiece& piece : pieces.at(index)) text += piece.text;
    return text;
  }

  std::map<int64_t, int64_t> steps;
  std::map<int64_t, std::vector<TextPiece>> pieces;
  std::vector<TextAnswer> answers;
};

class TextJob : public testing::Test {
 protected:
  TextJob() { write_toy_text_folder(folder_.file("toy")); }

  TextModel load(const std::string& path) const {
    return {text::open_text_checkpoint(path), {.backend = make_cpu_backend(1)}};
  }
  TextModel load() const { return load(folder_.file("toy")); }

  static TextRequest request_of(const std::vector<std::string>& prompts,
                                const std::string& decoder = "auto") {
    TextRequest request{.model = "toy", .chat_format = ChatFormat::kChatMl, .max_tokens = 40};
    for (const std::string& prompt : prompts) {
      request.prompts.push_back({.messages = {{.role = "user", .content = prompt}},
                                 .seed = static_cast<uint64_t>(request.prompts.size())});
    }
    choose_decoder(decoder, request);
    return request;
  }

  TempFolder folder_;
};

const std::vector<std::string> kPrompts{"What is the sea?", "Hello", "1 2 3 1 2 3 1 2 3",
                                        "Grüße, 世界 🙂"};

TEST_F(TextJob, TheStreamIsTheTextAndTheTextIsTheTokens) {
  const TextModel model = load();
  for (const double temperature : {0.0, 1.0}) {
    TextRequest request = request_of(kPrompts);
    request.temperature = temperature;
    Recorder recorder;
    int full = 0;
    const TextResult result = run_text({model}, request, {.observer = &recorder});
    ASSERT_EQ(result.answers.size(), kPrompts.size());
    for (const TextAnswer& answer : result.answers) {
      EXPECT_EQ(recorder.text_of(answer.index), answer.text);
      EXPECT_EQ(recorder.steps[answer.index], std::ssize(answer.tokens));
      text::StreamingDecoder decoder(model.checkpoint().tokenizer);
      std::string expected;
      for (const int32_t token : answer.tokens) expected += decoder.push(token);
      EXPECT_EQ(expected, answer.text);  // without bytes of a character that none completed
      const bool is_full = answer.tokens.size() == 40;
      EXPECT_EQ(answer.finish, is_full ? Finish::kLength : Finish::kEndToken);
      full += is_full;
    }
    EXPECT_EQ(recorder.answers, result.answers);
    EXPECT_GT(full, 1);
  }
}

TEST_F(TextJob, EveryDecoderGivesSequentialTokensGreedyAndSampled) {
  const TextModel model = load();
  for (const double temperature : {0.0, 0.7}) {
    std::map<std::string, TextResult> results;
    for (const char* decoder : {"sequential", "lookup", "tree", "jacobi", "lookahead"}) {
      TextRequest request = request_of(kPrompts, decoder);
      request.temperature = temperature;
      request.check = text::Check::kYes;
      results[decoder] = run_text({model}, request, {});
      const TextResult& result = results[decoder];
      ASSERT_EQ(result.checks.size(), kPrompts.size());
      EXPECT_TRUE(result.is_check_equal()) << decoder;
      for (size_t i = 0; i < kPrompts.size(); ++i)
        EXPECT_EQ(result.answers[i].tokens, results["sequential"].answers[i].tokens) << decoder;
    }
    EXPECT_EQ(results["sequential"].forwards(), results["sequential"].forward_tokens());
    if (temperature == 0.0) {
      EXPECT_LT(results["lookup"].forwards(), results["sequential"].forwards()) << "no draft was right";
      EXPECT_GT(results["lookup"].rows(), results["lookup"].forward_tokens()) << "no draft was wrong";
    }
  }
}

// Small models that know nothing of the model, and one that is the model.
TEST_F(TextJob, DraftModelsOfAnyQualityChangeNothing) {
  write_toy_text_folder(folder_.file("other"), {.seed = 9});
  const TextModel model = load(), other = load(folder_.file("other"));
  text::check_draft_vocabulary(model.checkpoint(), other.checkpoint());
  for (const double temperature : {0.0, 0.7}) {
    TextRequest request = request_of(kPrompts, "sequential");
    request.temperature = temperature;
    const TextResult sequential = run_text({model}, request, {});
    for (const TextModel* small : {&model, &other}) {
      request.draft_model = small->checkpoint().name;
      request.check = text::Check::kYes;
      choose_decoder("", request, 3);
      EXPECT_EQ(request.decoder.name, "draft");
      choose_decoder("draft", request, 3);  // whose lengths do not depend on the time
      Recorder recorder;
      const TextResult result = run_text({.model = model, .draft = small}, request, {.observer = &recorder});
      EXPECT_TRUE(result.is_check_equal());
      for (size_t i = 0; i < kPrompts.size(); ++i) {
        EXPECT_EQ(result.answers[i].tokens, sequential.answers[i].tokens);
        EXPECT_EQ(recorder.text_of(static_cast<int64_t>(i)), sequential.answers[i].text);
      }
      EXPECT_GT(result.statistics.draft_forwards, 0);
      EXPECT_GT(result.statistics.draft_prompt_rows, 0);
      EXPECT_EQ(result.statistics.tokens, sequential.statistics.tokens) << "the check is not counted";
      const int64_t longest = result.statistics.accepted.rbegin()->first;
      if (small == &model) {
        EXPECT_EQ(longest, 4) << "three drafted, all of them right, and one behind them";
        int64_t fours = 0;  // the prompt's forward gives the first token
        for (const TextAnswer& answer : result.answers) fours += (std::ssize(answer.tokens) + 2) / 4;
        EXPECT_EQ(result.forwards(), fours);
      } else {
        EXPECT_LE(longest, 4);
        EXPECT_GT(result.forwards(), result.forward_tokens() / 2);
      }
      const nlohmann::json json = text::to_json(result);
      EXPECT_EQ(json["request"]["draft_model"], small->checkpoint().name);
      EXPECT_EQ(json["statistics"]["draft"]["forwards"], result.statistics.draft_forwards);
      EXPECT_EQ(text::to_json(text::read_text_result(json, "again")), json);
      request.check = text::Check::kNo;
      choose_decoder("draft-rejection", request);
      const TextResult rejected = run_text({.model = model, .draft = small}, request, {});
      EXPECT_EQ(rejected.answers.size(), kPrompts.size());
      if (temperature == 0.0) {
        EXPECT_EQ(rejected.answers[0].tokens, sequential.answers[0].tokens);
      }
      request.draft_model.clear();
    }
  }
}

TEST_F(TextJob, ADraftModelNeedsTheVocabulary) {
  const TextModel model = load();
  const auto fault = [&] {
    return message_of([&] {
      text::check_draft_vocabulary(model.checkpoint(), text::open_text_checkpoint(folder_.file("other")));
    });
  };
  write_toy_text_folder(folder_.file("other"), {.spare_ids = 7});
  const int64_t size = model.checkpoint().llama.config.vocab_size;
  EXPECT_EQ(fault(), "--draft-model " + folder_.file("other") + ": has " + std::to_string(size + 3) +
                         " tokens, model toy " + std::to_string(size) +
                         "; a draft model needs the model's vocabulary");
  // As many tokens, two of them exchanged.
  write_toy_text_folder(folder_.file("other"));
  const std::string file = folder_.file("other") + "/tokenizer.json";
  nlohmann::json json = read_json_file(file);
  nlohmann::json& ids = json["model"]["vocab"];
  const int64_t a = ids.at("a"), b = ids.at("b");
  ids["a"] = b;
  ids["b"] = a;
  write_text(file, json.dump());
  const std::string at = std::to_string(std::min(a, b));
  EXPECT_NE(fault().find(": token " + at + " is '" + (a < b ? "b" : "a") + "', that of model toy '" +
                         (a < b ? "a" : "b") + "'"),
            std::string::npos)
      << fault();
}

TEST_F(TextJob, ABatchIsItsSingles) {
  const TextModel model = load();
  const TextRequest request =
      request_of(kPrompts, "lookup");  // steps are compared, too: their lengths are fixed
  const TextResult all = run_text({model}, request, {});
  for (const int64_t batch : {1, 3}) EXPECT_EQ(run_text({model}, request, {}, batch).answers, all.answers);
  for (size_t i = 0; i < kPrompts.size(); ++i) {
    TextRequest single = request;
    single.prompts = {request.prompts[i]};
    TextAnswer answer = run_text({model}, single, {}).answers.front();
    answer.index = static_cast<int64_t>(i);
    EXPECT_EQ(answer, all.answers[i]);
  }
  EXPECT_NE(all.answers[0].text, all.answers[1].text);
}

// A conversation's turns, and prompts that begin alike, run what they have in common once; answers stay.
TEST_F(TextJob, RunnersKeepPromptsAndAnswersStayTheSame) {
  write_toy_text_folder(folder_.file("long"), {.context = 2048});
  const TextModel model = load(folder_.file("long"));
  std::string much;
  for (int i = 0; much.size() < 900; ++i) much += "What is " + std::to_string(i * 7919 % 1000) + "? ";
  TextRequest request = request_of({much}, "lookup");
  text::TextRunner runner({model});
  int64_t kept = 0;
  for (int turn = 0; turn < 4; ++turn) {
    const TextResult result = runner.run(request, {}), alone = run_text({model}, request, {});
    EXPECT_EQ(result.answers, alone.answers) << "turn " << turn;
    EXPECT_EQ(result.statistics.prompt_rows + result.statistics.prompt_rows_kept, result.prompt_tokens());
    EXPECT_EQ(alone.statistics.prompt_rows_kept, 0);
    EXPECT_EQ(alone.statistics.tokens, result.statistics.tokens) << "counts are a run's own";
    kept += result.statistics.prompt_rows_kept;
    std::vector<text::ChatMessage>& messages = request.prompts[0].messages;
    messages.push_back({.role = "assistant", .content = result.answers[0].text});
    messages.push_back({.role = "user", .content = "And then?"});
  }
  EXPECT_GT(kept, 0);
  EXPECT_EQ(kept % 256, 0);
  // Two that begin alike.
  const TextRequest two = request_of({much + "A", much + "B"}, "lookup");
  EXPECT_EQ(run_text({model}, two, {}).statistics.prompt_rows_kept % 256, 0);
  EXPECT_GT(run_text({model}, two, {}).statistics.prompt_rows_kept, 0);
}

TEST_F(TextJob, StopTextsCutAcrossTokens) {
  const TextModel model = load();
  TextRequest request = request_of({kPrompts[0]});
  const TextAnswer whole = run_text({model}, request, {}).answers.front();
  // From the middle of one token's text to the middle of the next one's, wherever both are long enough.
  int cuts = 0;
  for (size_t at = 1; at + 3 < whole.text.size() && cuts < 20; at += 3) {
    const auto is_inside = [&](size_t i) {
      return (static_cast<unsigned char>(whole.text[i]) & 0xc0) == 0x80;
    };
    size_t end = at + 3;
    if (is_inside(at) || is_inside(end)) continue;
    const std::string stop = whole.text.substr(at, end - at);
    ++cuts;
    for (const char* decoder : {"sequential", "lookup", "jacobi"}) {
      choose_decoder(decoder, request);
      request.stops = {"never said", stop};
      request.check = text::Check::kYes;
      Recorder recorder;
      const TextResult result = run_text({model}, request, {.observer = &recorder});
      const TextAnswer& cut = result.answers.front();
      EXPECT_EQ(cut.text, whole.text.substr(0, whole.text.find(stop))) << decoder << " " << stop;
      EXPECT_EQ(recorder.text_of(0), cut.text);
      EXPECT_EQ(cut.finish, Finish::kStopText);
      EXPECT_LT(cut.tokens.size(), whole.tokens.size() + 1);
      EXPECT_TRUE(std::equal(cut.tokens.begin(), cut.tokens.end(), whole.tokens.begin()));
      EXPECT_TRUE(result.is_check_equal());
    }
  }
  EXPECT_GT(cuts, 3);
}

TEST_F(TextJob, AnEndTokenEndsTheAnswerAndIsNoText) {
  const TextModel model = load();
  // Sampled flatly, the end token comes sooner or later.
  int ended = 0;
  for (uint64_t seed = 0; seed < 60 && ended < 2; ++seed) {
    TextRequest request = request_of({"Hello"});
    request.prompts.front().seed = seed;
    request.temperature = 1000.0;
    request.top_k = 0;
    request.top_p = 1.0;
    request.max_tokens = 60;
    const TextAnswer answer = run_text({model}, request, {}).answers.front();
    const auto& ends = model.checkpoint().end_tokens;
    const auto first = std::ranges::find_first_of(answer.tokens, ends);
    if (first == answer.tokens.end()) {
      EXPECT_EQ(answer.finish, Finish::kLength);
      continue;
    }
    ++ended;
    EXPECT_EQ(first, answer.tokens.end() - 1);
    EXPECT_EQ(answer.finish, Finish::kEndToken);
    EXPECT_EQ(answer.text.find("<|"), std::string::npos) << answer.text;
  }
  EXPECT_EQ(ended, 2);
}

TEST_F(TextJob, TheContextEndsAnAnswerAndRefusesAPrompt) {
  const TextModel model = load();
  TextRequest request = request_of({"Hello"});
  request.max_tokens = 100000;
  for (const char* decoder : {"sequential", "lookup", "jacobi", "tree"}) {
    choose_decoder(decoder, request);
    const TextAnswer answer = run_text({model}, request, {}).answers.front();
    EXPECT_EQ(answer.finish, Finish::kContext);
    EXPECT_EQ(answer.prompt_tokens + std::ssize(answer.tokens), kToyContext);
  }
  std::string words;
  for (int i = 0; i < 400; ++i) words += "no ";
  const std::string message = message_of([&] { run_text({model}, request_of({words}), {}); });
  EXPECT_NE(message.find(" tokens; the context of model toy is 256"), std::string::npos) << message;
  EXPECT_NE(message_of([&] { run_text({model}, request_of({"\xff"}), {}); }).find("is not UTF-8"),
            std::string::npos);
  EXPECT_NE(message_of([&] { run_text({model}, request_of({""}), {}); }).find("is empty"), std::string::npos);
}

TEST_F(TextJob, AStoppedRunKeepsWhatItHas) {
  const TextModel model = load();
  std::stop_source stop;
  class Stopper : public Recorder {
   public:
    explicit Stopper(std::stop_source& stop) : stop_(stop) {}
    void on_piece(const TextPiece& piece) override {
      Recorder::on_piece(piece);
      if (piece.position == 5) stop_.request_stop();
    }

   private:
    std::stop_source& stop_;
  } stopper(stop);
  const TextRequest request = request_of({"Hello", "Sea"}, "sequential");
  const TextResult result = run_text({model}, request, {.observer = &stopper, .stop = stop.get_token()}, 1);
  EXPECT_TRUE(result.interrupted);
  ASSERT_EQ(result.answers.size(), 1u);
  EXPECT_EQ(result.answers.front().finish, Finish::kStopped);
  EXPECT_EQ(result.answers.front().tokens.size(), 6u);
  EXPECT_EQ(stopper.text_of(0), result.answers.front().text);
  const TextAnswer whole = run_text({model}, request, {}).answers.front();
  EXPECT_TRUE(whole.text.starts_with(result.answers.front().text));
}

TEST_F(TextJob, ResultsComeBackFromJson) {
  const TextModel model = load();
  TextRequest request = request_of(kPrompts);
  request.stops = {"xyz"};
  request.check = text::Check::kYes;
  TextResult result = run_text({model}, request, {});
  result.checks.front().position = 3;  // as if it were not equal
  const nlohmann::json json = text::to_json(result);
  const TextResult again = text::read_text_result(json, "again");
  EXPECT_EQ(text::to_json(again), json);
  EXPECT_EQ(again.answers, result.answers);
  for (const char* key : {"schema", "request", "answers", "statistics", "checks", "device"}) {
    nlohmann::json broken = json;
    broken.erase(key);
    EXPECT_TRUE(message_of([&] { text::read_text_result(broken, "file"); }).starts_with("file: ")) << key;
  }
  nlohmann::json masked = json;
  masked["request"]["decoder"] = "masked";
  EXPECT_NE(message_of([&] { text::read_text_result(masked, "file"); }).find("key 'decoder'"),
            std::string::npos);
}

TEST_F(TextJob, GgufFilesAndFoldersAreOneModel) {
  write_toy_text_gguf(folder_.file("toy.gguf"));
  const TextModel folder = load(), gguf = load(folder_.file("toy.gguf"));
  EXPECT_EQ(folder.checkpoint().name, "toy");
  EXPECT_EQ(gguf.checkpoint().name, "toy");
  EXPECT_EQ(folder.checkpoint().chat_format, ChatFormat::kChatMl);
  EXPECT_EQ(gguf.checkpoint().chat_format, ChatFormat::kChatMl);
  EXPECT_EQ(folder.checkpoint().end_tokens, gguf.checkpoint().end_tokens);
  EXPECT_EQ(folder.checkpoint().end_tokens.size(), 2u) << "<|im_end|> and <|endoftext|>";
  // Steps are compared, too: their lengths are fixed.
  const TextRequest request = request_of(kPrompts, "lookup");
  EXPECT_EQ(run_text({folder}, request, {}).answers, run_text({gguf}, request, {}).answers);
}

TEST_F(TextJob, CheckpointsSayWhatIsWrongWithThem) {
  const std::string folder = folder_.file("toy");
  const auto message = [&] { return message_of([&] { text::open_text_checkpoint(folder); }); };
  write_text(folder + "/generation_config.json", R"({"eos_token_id": [7, 5]})");
  const std::vector<int32_t> ends = text::open_text_checkpoint(folder).end_tokens;
  EXPECT_EQ(std::ranges::count(ends, 5) + std::ranges::count(ends, 7), 2);
  write_text(folder + "/generation_config.json", R"({"eos_token_id": 100000})");
  EXPECT_NE(message().find("generation_config.json: key 'eos_token_id'"), std::string::npos) << message();
  std::filesystem::remove(folder + "/generation_config.json");
  nlohmann::json config = read_json_file(folder + "/config.json");
  config["vocab_size"] = 100;
  write_text(folder + "/config.json", config.dump());
  EXPECT_NE(message().find("tokens, the model 100"), std::string::npos) << message();
  std::filesystem::remove(folder + "/tokenizer.json");
  EXPECT_NE(message().find("tokenizer"), std::string::npos) << message();
  write_toy_text_folder(folder, {.chat_template = "{{ messages }}"});
  const text::TextCheckpoint unknown = text::open_text_checkpoint(folder);
  EXPECT_FALSE(unknown.chat_format);
  EXPECT_NE(message_of([&] { choose_chat_format(unknown, ""); }).find("its chat template is none of"),
            std::string::npos);
  EXPECT_EQ(choose_chat_format(unknown, "chatml"), ChatFormat::kChatMl);
  write_toy_text_folder(folder, {.chat_template = ""});
  EXPECT_FALSE(choose_chat_format(text::open_text_checkpoint(folder), ""));
}

TEST_F(TextJob, OnlyMethodsOfCausalModelsMakeText) {
  TextRequest request;
  for (const char* decoder : {"masked", "parallel"}) {
    EXPECT_NE(
        message_of([&] { choose_decoder(decoder, request); }).find("text comes from sequential, lookup"),
        std::string::npos);
  }
  request.check = text::Check::kYes;
  EXPECT_NE(message_of([&] { choose_decoder("lookup:accept=rejection", request); }).find("--check"),
            std::string::npos);
  choose_decoder("auto", request);
  EXPECT_EQ(decoder_class(request.decoder), DecoderClass::kSameTokens);
  EXPECT_EQ(message_of([&] { choose_decoder("draft", request); }),
            "--decoder draft: needs a draft model; --draft-model names one");
  request.draft_model = "small";
  EXPECT_NE(message_of([&] { choose_decoder("draft-rejection", request); }).find("--check"),
            std::string::npos);
  request.check = text::Check::kNo;
  choose_decoder("", request);
  EXPECT_EQ(request.decoder.name, "draft") << "it was asked for";
  EXPECT_EQ(request.decoder.options.at("length"), "adaptive");
  choose_decoder("auto", request);
  EXPECT_EQ(request.decoder.name, "lookup") << "never slower than sequential decoding";
  EXPECT_EQ(request.draft_model, "") << "it is not used";
  // A record whose decoder and draft model do not fit each other.
  request.prompts.push_back({.text = "Hello"});
  for (const bool has_model : {true, false}) {
    nlohmann::json json = text::to_json(request);
    json["decoder"] = has_model ? "lookup" : "draft";
    if (has_model) json["draft_model"] = "small";
    EXPECT_NE(message_of([&] {
                text::read_text_request(JsonFields(json, "file"), "file");
              }).find(has_model ? "lookup: uses no draft model" : "draft: has no draft model"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace volley::test
