#include "text/memory_plan.h"

#include <gtest/gtest.h>

#include "tests/support/devices.h"
#include "tests/support/sanitized.h"
#include "tests/unit/io/temp_folder.h"
#include "tests/unit/text/toy_text_model.h"

namespace volley::text {
namespace {

// How far the plan may be beyond what is then allocated, and how far below: see the test of pictures.
constexpr int64_t kThreads = 2;
constexpr int64_t kBeyond = kThreads * (int64_t{64} << 10);
constexpr int64_t kBelow = 4 << 10;

class TextMemoryPlan : public testing::TestWithParam<std::string> {
 protected:
  TextMemoryPlan() {
    test::write_toy_text_folder(path("toy"));
    test::write_toy_text_folder(path("small"), {.seed = 2});
    test::write_toy_llada_folder(path("masker"));
    test::write_toy_heads(path("heads.safetensors"), HeadsFamily::kMedusa);
  }

  std::string path(const std::string& name) const { return folder_.file(name); }

  static TextRequest request_of(int64_t prompts) {
    TextRequest request{.model = "toy", .chat_format = ChatFormat::kChatMl, .max_tokens = 40};
    for (int64_t i = 0; i < prompts; ++i) {
      request.prompts.push_back(
          {.messages = {{.role = "user",
                         .content = "one two three" + std::string(static_cast<size_t>(9 * i), ' ') + "?"}},
           .seed = static_cast<uint64_t>(i)});
    }
    return request;
  }

  void expect_planned(const std::string& name, const TextRequest& request, WeightType type,
                      int64_t batch = kTextBatch) const {
    const auto backend = make_backend(GetParam(), kThreads);
    const TextCheckpoint checkpoint = open_text_checkpoint(path(name)),
                         small = open_text_checkpoint(path("small"));
    const HeadsCheckpoint heads = open_heads(path("heads.safetensors"), open_text_checkpoint(path("toy")));
    const MemoryPlan plan =
        plan_memory({.model = checkpoint,
                     .draft = request.draft_model.empty() ? nullptr : &small,
                     .heads = request.heads.empty() ? nullptr : &heads},
                    request, {.backend = backend, .storage = type, .draft_storage = type, .batch = batch});
    EXPECT_EQ(backend->peak_bytes(), 0) << "nothing is allocated";
    const TextModel model(open_text_checkpoint(path(name)), {.backend = backend, .storage = type});
    std::optional<TextModel> draft;
    if (!request.draft_model.empty())
      draft.emplace(open_text_checkpoint(path("small")),
                    TextModel::Options{.backend = backend, .storage = type});
    std::optional<TextHeads> drafting;
    if (!request.heads.empty())
      drafting.emplace(open_heads(path("heads.safetensors"), open_text_checkpoint(path("toy"))), model);
    const auto near = [](int64_t planned, int64_t found, int64_t beyond) {
      EXPECT_LE(planned, found + beyond);
      EXPECT_GE(planned, found - kBelow);
    };
    near(plan.weights, backend->allocated_bytes(), 4 << 10);
    run_text({.model = model, .draft = draft ? &*draft : nullptr, .heads = drafting ? &*drafting : nullptr},
             request, {}, batch);
    near(plan.total(), backend->peak_bytes(), kBeyond);
    EXPECT_GT(plan.caches, 0);
  }

 private:
  test::TempFolder folder_;
};

TEST_P(TextMemoryPlan, IsWhatARunAllocates) {
  for (const char* decoder : {"sequential", "jacobi", "lookup", "tree", "draft", "heads",
                              "heads:copy=0,confidence=0", "heads:copy=16"}) {
    for (const int64_t prompts : {1, 3}) {
      SCOPED_TRACE(std::string(decoder) + ", " + std::to_string(prompts));
      if (test::kSanitized && prompts > 1) continue;
      TextRequest request = request_of(prompts);
      if (std::string_view(decoder) == "draft") request.draft_model = "small";
      if (std::string_view(decoder).starts_with("heads")) request.heads = "heads";
      choose_decoder(decoder, request);
      expect_planned("toy", request, WeightType::kF32);
    }
  }
  TextRequest checked = request_of(3);
  checked.check = Check::kYes;
  checked.max_tokens = 100;  // longer than is planned step by step
  choose_decoder("jacobi", checked);
  expect_planned("toy", checked, WeightType::kBF16);
}

TEST_P(TextMemoryPlan, ModelsOfHiddenPlacesAreKnown) {
  TextRequest request = request_of(2);
  request.temperature = 0.0;
  choose_decoder("diffusion", request, std::nullopt, {.kind = ModelKind::kMasked, .options = {}});
  expect_planned("masker", request, WeightType::kF32);
  for (const auto& [model, kind] :
       {std::pair{"blocks", ModelKind::kBlockDiffusion}, {"windows", ModelKind::kSequentialDiffusion}}) {
    SCOPED_TRACE(model);
    test::write_toy_block_folder(path(model), kind);
    TextRequest other = request_of(2);
    other.temperature = 0.0;
    choose_decoder("auto", other, std::nullopt, {.kind = kind, .options = {{"threshold", "0.01"}}});
    expect_planned(model, other, WeightType::kF32);
  }
}

// What a constraint adds to logits, and prompts that are not of the first batch.
TEST_P(TextMemoryPlan, ConstraintsAndLaterPromptsCount) {
  const auto backend = make_backend(GetParam(), kThreads);
  const TextCheckpoint checkpoint = open_text_checkpoint(path("toy"));
  TextRequest request = request_of(1);
  choose_decoder("jacobi", request);
  const auto total = [&](const TextRequest& of, int64_t batch) {
    return plan_memory({.model = checkpoint}, of, {.backend = backend, .batch = batch}).total();
  };
  const int64_t free = total(request, 8);
  request.constraint = make_text_constraint(ConstraintKind::kRegex, "a*", "--regex");
  EXPECT_GT(total(request, 8), free);
  request.constraint.reset();
  TextRequest later = request;
  later.prompts.insert(later.prompts.begin(), later.prompts.front());
  later.prompts.back().messages.back().content = std::string(100, 'x') + " 1 2 3 4 5 6 7 8 9 10 11 12 13 14";
  EXPECT_GT(total(later, 1), free);
}

// More bytes are not more tokens, and the batch that needs the largest cache is not the first.
TEST_P(TextMemoryPlan, TheMostTokensOfAnyBatchCount) {
  TextRequest request = request_of(3);
  choose_decoder("sequential", request);
  std::string& few = request.prompts[1].messages.back().content;
  for (int i = 0; i < 20; ++i) few += " Servingman";  // a token of the small vocabulary
  std::string& longest = request.prompts[2].messages.back().content;
  for (int i = 0; i < 50; ++i) longest += "7 ";
  expect_planned("toy", request, WeightType::kF32, 1);
}

// Planning takes no clock: drafts are as long as they may get.
TEST_P(TextMemoryPlan, AdaptiveDraftsArePlannedAtTheirLongest) {
  const auto backend = make_backend(GetParam(), kThreads);
  const TextCheckpoint checkpoint = open_text_checkpoint(path("toy"));
  const auto total = [&](const char* decoder) {
    TextRequest request = request_of(3);
    choose_decoder("lookup", request);
    request.decoder = parse_decoder_spec(decoder);
    return plan_memory({.model = checkpoint}, request, {.backend = backend}).total();
  };
  const int64_t longest = total("lookup:length=fixed,draft=12,ngram=1");
  EXPECT_EQ(total("lookup:length=adaptive,draft=12,ngram=1"), longest);
  EXPECT_GT(longest, total("lookup:length=fixed,draft=1,ngram=1"));
}

// Without values all text repeats itself, and what repeats is copied; values may ask the heads at every
// level.
TEST_P(TextMemoryPlan, HeadsArePlannedAtAllLevelsBesideCopies) {
  test::write_toy_heads(path("hydra.safetensors"), HeadsFamily::kHydra);
  const auto backend = make_backend(GetParam(), kThreads);
  const TextCheckpoint checkpoint = open_text_checkpoint(path("toy"));
  const HeadsCheckpoint heads = open_heads(path("hydra.safetensors"), checkpoint);
  const auto total = [&](const char* decoder) {
    TextRequest request = request_of(8);
    request.heads = "hydra";
    choose_decoder(decoder, request);
    return plan_memory({.model = checkpoint, .heads = &heads}, request, {.backend = backend, .batch = 8})
        .total();
  };
  const int64_t guesses = total("heads:width=4,copy=0,confidence=0");
  EXPECT_GE(total("heads:width=4"), guesses);
  EXPECT_GT(total("heads:width=4,copy=64,nodes=64"), guesses);
}

INSTANTIATE_TEST_SUITE_P(Devices, TextMemoryPlan, testing::ValuesIn(test::devices_for_methods()),
                         [](const auto& param) { return test::device_name(param.param); });

}  // namespace
}  // namespace volley::text
