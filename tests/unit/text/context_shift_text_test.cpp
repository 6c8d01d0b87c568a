// Answers and prompts that outgrow the model's context, and texts kept to draft from, over a toy model.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/backend/cpu/cpu_backend.h"
#include "core/base/error.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/message_of.h"
#include "tests/unit/text/toy_text_model.h"
#include "text/text_job.h"

namespace volley::test {
namespace {

using text::ChatFormat;
using text::Finish;
using text::message_of;
using text::ShiftRule;
using text::TextAnswer;
using text::TextModel;
using text::TextPiece;
using text::TextRequest;
using text::TextResult;

constexpr int64_t kContext = 96;

class ContextShiftText : public testing::Test {
 protected:
  ContextShiftText() { write_toy_text_folder(folder_.file("toy"), {.context = kContext}); }

  TextModel load() const {
    return {text::open_text_checkpoint(folder_.file("toy")), {.backend = make_cpu_backend(1)}};
  }

  static TextRequest request_of(const std::vector<std::string>& prompts, const std::string& decoder) {
    TextRequest request{
        .model = "toy", .chat_format = ChatFormat::kChatMl, .max_tokens = 300, .context_shift = ShiftRule{}};
    for (const std::string& prompt : prompts) {
      request.prompts.push_back({.messages = {{.role = "user", .content = prompt}},
                                 .seed = static_cast<uint64_t>(request.prompts.size())});
    }
    choose_decoder(decoder, request);
    return request;
  }

  TempFolder folder_;
};

class Recorder : public text::TextObserver {
 public:
  void on_shift(const ShiftEvent& event) override { shifts.push_back(event); }
  void on_piece(const TextPiece& piece) override {
    texts[piece.index] += piece.text;
    last_step[piece.index] = piece.step;
  }
  std::vector<ShiftEvent> shifts;
  std::map<int64_t, std::string> texts;
  std::map<int64_t, int64_t> last_step;
};

const std::vector<std::string> kPrompts{"What is the sea?", "Hello", "1 2 3 1 2 3 1 2 3"};

TEST_F(ContextShiftText, AnswersGoOnBehindAFullContext) {
  const TextModel model = load();
  for (const double temperature : {0.0, 0.8}) {
    std::map<std::string, TextResult> results;
    for (const char* decoder : {"sequential", "auto", "lookup:pool=1000", "tree", "jacobi", "lookahead"}) {
      TextRequest request = request_of(kPrompts, decoder);
      request.temperature = temperature;
      request.check = text::Check::kYes;
      Recorder recorder;
      const TextResult result = run_text({model}, request, {.observer = &recorder});
      EXPECT_TRUE(result.is_check_equal()) << decoder;
      int64_t shifts = 0;
      for (const TextAnswer& answer : result.answers) {
        EXPECT_EQ(recorder.texts[answer.index], answer.text);
        EXPECT_EQ(recorder.last_step[answer.index], answer.forwards + answer.shifts) << "the prompt's is 0";
        if (answer.finish != Finish::kEndToken) {
          EXPECT_EQ(answer.finish, Finish::kLength);
          EXPECT_EQ(std::ssize(answer.tokens), 300);
          EXPECT_GE(answer.shifts, 3);
        }
        shifts += answer.shifts;
      }
      EXPECT_GT(shifts, 3);
      EXPECT_EQ(std::ssize(recorder.shifts), shifts);
      for (const ShiftEvent& event : recorder.shifts)
        EXPECT_EQ(event.dropped, (kContext - event.kept + 1) / 2);
      const nlohmann::json json = text::to_json(result);
      EXPECT_EQ(text::to_json(text::read_text_result(json, "again")), json);
      EXPECT_EQ(json["answers"][0]["shifts"], result.answers[0].shifts);
      results[decoder] = result;
      const TextResult& sequential = results["sequential"];
      for (size_t i = 0; i < kPrompts.size(); ++i) {
        EXPECT_EQ(result.answers[i].tokens, sequential.answers[i].tokens) << decoder;
        TextRequest single = request;
        single.check = text::Check::kNo;
        single.prompts = {request.prompts[i]};
        EXPECT_EQ(run_text({model}, single, {}).answers.front().tokens, sequential.answers[i].tokens);
      }
    }
    const TextResult& sequential = results["sequential"];
    EXPECT_EQ(sequential.forwards(), sequential.forward_tokens());
    // Until the context is full, an answer is the one that would end there.
    TextRequest ending = request_of(kPrompts, "sequential");
    ending.temperature = temperature;
    ending.context_shift.reset();
    for (const TextAnswer& answer : run_text({model}, ending, {}).answers) {
      const auto& longer = sequential.answers[static_cast<size_t>(answer.index)];
      EXPECT_TRUE(longer.text.starts_with(answer.text.substr(0, answer.text.size() / 2)));
      EXPECT_TRUE(std::equal(answer.tokens.begin(), answer.tokens.end(), longer.tokens.begin()));
    }
  }
}

// What is never dropped: the beginning with the system prompt, so many tokens, or the whole prompt.
TEST_F(ContextShiftText, WhatIsKeptIsTheRequests) {
  const TextModel model = load();
  const auto keep_of = [&](const TextRequest& request) {
    const auto tokens = encode_prompt(model.checkpoint(), request, request.prompts[0]);
    return shift_of(model.checkpoint(), request, request.prompts[0], tokens)->keep;
  };
  TextRequest request = request_of({"Hello"}, "lookup");
  const int64_t before_words = keep_of(request);
  const auto tokens = encode_prompt(model.checkpoint(), request, request.prompts[0]);
  std::string kept;
  for (int64_t i = 0; i < before_words; ++i)
    kept += model.checkpoint().tokenizer->piece(tokens[static_cast<size_t>(i)]);
  EXPECT_TRUE(kept.starts_with("<|im_start|>")) << kept;
  EXPECT_EQ(kept.find("Hello"), std::string::npos) << kept;
  request.prompts[0].messages.insert(request.prompts[0].messages.begin(),
                                     {.role = "system", .content = "Be brief."});
  EXPECT_GT(keep_of(request), before_words + 4);
  for (const char* words : {"a", "1", "apple", "100"}) {
    request.prompts[0].messages.back().content = words;
    const int64_t keep = keep_of(request);
    request.prompts[0].messages.back().content = "Hello";
    EXPECT_EQ(keep, keep_of(request)) << words;
  }
  request.context_shift->keep = 5;
  EXPECT_EQ(keep_of(request), 5);
  request.context_shift->keep = 0;
  EXPECT_EQ(keep_of(request), 0);
  request.context_shift->keep = ShiftRule::kWholePrompt;
  const auto whole = encode_prompt(model.checkpoint(), request, request.prompts[0]);
  EXPECT_EQ(keep_of(request), std::ssize(whole));
  request.context_shift->keep = 10000;
  EXPECT_EQ(keep_of(request), std::ssize(whole));
  request.chat_format.reset();
  request.prompts[0] = {.text = "Once upon a time"};
  request.context_shift->keep.reset();
  EXPECT_LE(keep_of(request), 1) << "the start of the text, where the vocabulary has one";
}

TEST_F(ContextShiftText, LongPromptsLoseTheirMiddle) {
  const TextModel model = load();
  std::string words;
  for (int i = 0; i < 200; ++i) words += std::to_string(i * 7919 % 1000) + " ";
  for (const char* decoder : {"sequential", "lookup", "jacobi"}) {
    TextRequest request = request_of({words, "Hello"}, decoder);
    request.max_tokens = 100;
    request.check = text::Check::kYes;
    const TextResult result = run_text({model}, request, {});
    EXPECT_TRUE(result.is_check_equal());
    const TextAnswer& answer = result.answers[0];
    EXPECT_GT(answer.prompt_tokens, 200);
    const int64_t left = answer.prompt_tokens - answer.prompt_dropped;
    EXPECT_LT(left, kContext);
    EXPECT_GE(left, kContext / 2);
    EXPECT_EQ(result.answers[1].prompt_dropped, 0);
    // It is answered as the tokens that are left of it.
    const auto tokens = encode_prompt(model.checkpoint(), request, request.prompts[0]);
    const auto shift = shift_of(model.checkpoint(), request, request.prompts[0], tokens);
    const auto kept = fitted(tokens, *shift);
    EXPECT_EQ(std::ssize(kept), left);
    EXPECT_TRUE(std::equal(kept.begin() + shift->keep, kept.end(), tokens.end() - (left - shift->keep)));
  }
  TextRequest request = request_of({words}, "lookup");
  request.context_shift->keep = ShiftRule::kWholePrompt;
  const std::string message = message_of([&] { run_text({model}, request, {}); });
  EXPECT_NE(message.find("tokens, of a context of 96 of model toy"), std::string::npos) << message;
  request.context_shift.reset();
  EXPECT_NE(message_of([&] { run_text({model}, request, {}); }).find("the context of model toy is 96"),
            std::string::npos);
}

TEST_F(ContextShiftText, FormsAndStopTextsGoOn) {
  const TextModel model = load();
  for (const char* decoder : {"sequential", "lookup:pool=500", "jacobi"}) {
    TextRequest request = request_of(kPrompts, decoder);
    request.constraint = make_text_constraint(text::ConstraintKind::kRegex, "(ab ){150}end", "--regex");
    request.max_tokens = 2000;
    request.check = text::Check::kYes;
    const TextResult result = run_text({model}, request, {});
    EXPECT_TRUE(result.is_check_equal());
    for (const TextAnswer& answer : result.answers) {
      EXPECT_EQ(answer.finish, Finish::kComplete);
      EXPECT_TRUE(answer.matches);
      EXPECT_EQ(answer.text.size(), 453u);
      EXPECT_GT(answer.shifts, 0);
    }
  }
  TextRequest request = request_of({kPrompts[0]}, "sequential");
  request.temperature = 0.8;
  TextAnswer whole;
  for (uint64_t seed = 0; seed < 20 && whole.shifts <= 2; ++seed) {
    request.prompts[0].seed = seed;
    whole = run_text({model}, request, {}).answers.front();
  }
  ASSERT_GT(whole.shifts, 2);
  // Behind the second shift or so.
  size_t at = whole.text.size() * 3 / 4;
  const auto is_inside = [&](size_t i) { return (static_cast<unsigned char>(whole.text[i]) & 0xc0) == 0x80; };
  while (is_inside(at)) ++at;
  size_t end = at + 8;
  while (is_inside(end)) ++end;
  const std::string stop = whole.text.substr(at, end - at);
  for (const char* decoder : {"sequential", "lookup", "jacobi"}) {
    choose_decoder(decoder, request);
    request.stops = {stop};
    request.check = text::Check::kYes;
    const TextResult cut = run_text({model}, request, {});
    EXPECT_EQ(cut.answers[0].text, whole.text.substr(0, whole.text.find(stop)));
    EXPECT_EQ(cut.answers[0].finish, Finish::kStopText);
    EXPECT_TRUE(cut.is_check_equal());
  }
}

// Asks to stop once an answer has so many tokens.
struct Stopper : text::TextObserver {
  explicit Stopper(int64_t at) : tokens(at) {}
  void on_step(const StepEvent& event) override {
    if (event.done >= tokens) source.request_stop();
  }
  void on_shift(const ShiftEvent&) override { ++shifts; }
  int64_t tokens = 0;
  int64_t shifts = 0;
  std::stop_source source;
};

// Wherever it is stopped, also where the context is just full: a shift counts once a token came behind it.
TEST_F(ContextShiftText, AStoppedAnswerCountsTheShiftsThatCameToSomething) {
  const TextModel model = load();
  TextRequest request = request_of({"Hello"}, "sequential");
  int64_t shifts = 0;
  for (int64_t tokens = 40; tokens < 140; ++tokens) {
    Stopper stopper(tokens);
    const TextResult result =
        run_text({model}, request, {.observer = &stopper, .stop = stopper.source.get_token()});
    const TextAnswer& answer = result.answers.at(0);
    EXPECT_EQ(text::forward_tokens(request, answer), answer.forwards) << tokens << " tokens";
    EXPECT_EQ(answer.shifts, stopper.shifts);
    shifts = std::max(shifts, answer.shifts);
  }
  EXPECT_GE(shifts, 1);
}

// A conversation that is longer than the context, with the cache and the texts of its turns kept.
TEST_F(ContextShiftText, ConversationsGoOn) {
  const TextModel model = load();
  TextRequest request = request_of({"Hello"}, "lookup:pool=1000");
  request.max_tokens = 40;
  text::TextRunner runner({model});
  int64_t dropped = 0;
  for (int turn = 0; turn < 6; ++turn) {
    const TextResult result = runner.run(request, {}), alone = run_text({model}, request, {});
    EXPECT_EQ(result.answers[0].tokens, alone.answers[0].tokens) << "turn " << turn;
    dropped = result.answers[0].prompt_dropped;
    std::vector<text::ChatMessage>& messages = request.prompts[0].messages;
    messages.push_back({.role = "assistant", .content = result.answers[0].text});
    messages.push_back({.role = "user", .content = "And then?"});
  }
  EXPECT_GT(dropped, 100);
}

// A long system prompt stays in the cache over shifts, with the bits of running it again.
TEST_F(ContextShiftText, WhatIsKeptStaysInTheCache) {
  write_toy_text_folder(folder_.file("long"), {.context = 1024});
  const TextModel model(text::open_text_checkpoint(folder_.file("long")), {.backend = make_cpu_backend(1)});
  TextRequest request = request_of({"Hello"}, "lookup");
  std::string system;
  for (int i = 0; system.size() < 700; ++i) system += "It is " + std::to_string(i * 7919 % 1000) + ". ";
  request.prompts[0].messages.insert(request.prompts[0].messages.begin(),
                                     {.role = "system", .content = system});
  request.max_tokens = 900;
  request.temperature = 0.0;
  request.check = text::Check::kYes;
  const TextResult result = run_text({model}, request, {});
  EXPECT_TRUE(result.is_check_equal());
  const auto tokens = encode_prompt(model.checkpoint(), request, request.prompts[0]);
  const int64_t keep = shift_of(model.checkpoint(), request, request.prompts[0], tokens)->keep;
  const int64_t chunks = keep / 256;
  EXPECT_GE(chunks, 1);
  EXPECT_GE(result.answers[0].shifts, 2);
  EXPECT_GE(result.statistics.prompt_rows_kept, result.answers[0].shifts * chunks * 256);
}

TEST_F(ContextShiftText, DiffusionModelsRefuseIt) {
  TextRequest request{.model = "masker", .context_shift = ShiftRule{}};
  EXPECT_EQ(message_of([&] { choose_decoder("auto", request, {}, {.kind = text::ModelKind::kMasked}); }),
            "--context-shift: model masker is a diffusion model, whose answers end where its context does");
}

// A runner's texts are drafted from by its later answers; the answers stay.
TEST_F(ContextShiftText, EarlierAnswersAreDraftedFrom) {
  const TextModel model = load();
  const auto request = [&](const char* decoder) {
    TextRequest made = request_of({"What is the sea?", "What is the sea?", "What is the sea?"}, decoder);
    made.context_shift.reset();
    made.max_tokens = 40;
    made.temperature = 0.0;
    return made;
  };
  const TextResult without = run_text({model}, request("lookup"), {}, 1);
  const TextResult with = run_text({model}, request("lookup:pool=1000"), {}, 1);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(with.answers[i].tokens, without.answers[i].tokens);
  EXPECT_EQ(without.answers[0].forwards, without.answers[2].forwards);
  EXPECT_EQ(with.answers[0].forwards, without.answers[0].forwards);
  // 39 tokens by drafts of 8.
  EXPECT_LE(with.answers[1].forwards, 6);
  EXPECT_LE(with.answers[2].forwards, 6);
  // Counts are those of what ran before, again and again.
  for (const int64_t batch : {1, 2, 3}) {
    EXPECT_EQ(run_text({model}, request("lookup:pool=1000"), {}, batch).answers,
              run_text({model}, request("lookup:pool=1000"), {}, batch).answers);
  }
  // Over the runs of a runner, and not over runners.
  text::TextRunner runner({model});
  const int64_t first = runner.run(request("lookup:pool=1000"), {}, 1).forwards();
  EXPECT_LT(runner.run(request("lookup:pool=1000"), {}, 1).forwards(), first);
  EXPECT_EQ(with.forwards(), first);
}

}  // namespace
}  // namespace volley::test
