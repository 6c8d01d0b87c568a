#include "core/decode/decoder.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/decode/draft_tree.h"
#include "core/decode/ngram.h"
#include "core/decode/options.h"
#include "tests/support/toy_heads.h"
#include "tests/support/toy_image_models.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

std::string error_of(auto&& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(DecoderSpec, ReadsNameAndOptions) {
  const DecoderSpec spec = parse_decoder_spec("lookup:draft=4,accept=rejection");
  EXPECT_EQ(spec.name, "lookup");
  EXPECT_EQ(spec.options, (std::map<std::string, std::string>{{"draft", "4"}, {"accept", "rejection"}}));
  EXPECT_EQ(decoder_class(spec), DecoderClass::kSameDistribution);
  EXPECT_EQ(decoder_class({.name = "lookup"}), DecoderClass::kSameTokens);
  EXPECT_EQ(decoder_class(parse_decoder_spec("heads:width=2")), DecoderClass::kSameTokens);
  EXPECT_EQ(decoder_class(parse_decoder_spec("heads:accept=typical")), DecoderClass::kLossy);
  EXPECT_EQ(decoder_class_name(DecoderClass::kLossy), "lossy");
}

TEST(DecoderSpec, LongestDraftsAreTheMethodsOwnOptions) {
  const auto limited = [](const char* text, int64_t tokens) {
    DecoderSpec spec = parse_decoder_spec(text);
    limit_drafts(spec, tokens);
    return decoder_text(spec);
  };
  EXPECT_EQ(limited("lookup", 5), "lookup:draft=5");
  EXPECT_EQ(limited("lookup:ngram=2", 1), "lookup:draft=1,ngram=2");
  EXPECT_EQ(limited("jacobi", 5), "jacobi:window=5");
  EXPECT_EQ(limited("draft", 255), "draft:draft=255");
  EXPECT_EQ(limited("draft-rejection", 2), "draft-rejection:draft=2");
  EXPECT_EQ(limited("lookahead", 1), "lookahead:N=2");
  EXPECT_EQ(limited("heads:width=2", 3), "heads:heads=3,width=2");
  EXPECT_EQ(limited("tree", 1), "tree:widths=3");
  EXPECT_EQ(limited("tree", 2), "tree:widths=3x2");
  EXPECT_EQ(limited("tree", 4), "tree:widths=3x2x1x1");
  EXPECT_EQ(limited("tree", 6), "tree:widths=3x2x1x1x1x1");
  const auto fault = [&](const char* text, int64_t tokens) {
    return error_of([&] { limited(text, tokens); });
  };
  EXPECT_EQ(fault("sequential", 2), "--draft-max 2: decoder sequential drafts nothing");
  EXPECT_EQ(fault("parallel", 2), "--draft-max 2: decoder parallel drafts nothing");
  EXPECT_EQ(fault("lookup:draft=4", 2),
            "--draft-max 2: --decoder lookup:draft=4 says how long a draft may be, too");
  EXPECT_EQ(fault("lookahead", 40),
            "--draft-max 40: --decoder lookahead: N=41: expected a whole number from 2 to 32");
  EXPECT_EQ(fault("tree", 100), "--draft-max 100: --decoder tree: widths: 597 nodes, at most 256");
}

TEST(DecoderSpec, NamesWhatIsWrong) {
  const auto make = [](const char* text) {
    return error_of([&] { make_decoder(parse_decoder_spec(text)); });
  };
  EXPECT_EQ(make("jacobo"), "--decoder jacobo: no such method; nearest is jacobi");
  EXPECT_EQ(make("jacobi:windo=3"), "--decoder jacobi: no option 'windo'; known are window, length, init");
  EXPECT_EQ(make("sequential:x=1"), "--decoder sequential: no option 'x'; it has none");
  EXPECT_EQ(make("jacobi:window=0"), "--decoder jacobi: window=0: expected a whole number from 1 to 255");
  EXPECT_EQ(make("jacobi:window=3x"), "--decoder jacobi: window=3x: expected a whole number from 1 to 255");
  EXPECT_EQ(make("jacobi:window"), "--decoder jacobi:window: 'window' is not key=value");
  EXPECT_EQ(make("lookup:accept=maybe"), "--decoder lookup: accept=maybe: expected coupled or rejection");
  EXPECT_EQ(make("tree:widths=4xx2"), "--decoder tree: widths=4xx2: expected numbers joined by 'x'");
  EXPECT_EQ(make("tree:widths=2.7x1"), "--decoder tree: widths=2.7x1: expected whole numbers joined by 'x'");
  EXPECT_EQ(make("lookahead:N=1"), "--decoder lookahead: N=1: expected a whole number from 2 to 32");
  EXPECT_EQ(make("lookahead:W=200,N=9"), "--decoder lookahead: (W + G)(N - 1) = 1656 rows, at most 1024");
  EXPECT_EQ(make("draft:length=long"),
            "--decoder draft: length=long: expected schedule or fixed or adaptive");
  EXPECT_EQ(make("heads:confidence=1.5"), "--decoder heads: confidence=1.5: expected a number from 0 to 1");
  EXPECT_EQ(make("heads:alpha=off"), "--decoder heads: alpha=off: expected a number from 0 to 1");
  EXPECT_EQ(make("heads:accept=rejection"), "--decoder heads: accept=rejection: expected coupled or typical");
  EXPECT_EQ(
      make("heads:width=2,length=adaptive"),
      "--decoder heads: length=adaptive: goes with width=1 only, as it counts guesses one behind the other");
  EXPECT_EQ(make("tree:widths=16x16x16"), "--decoder tree: widths: 4368 nodes, at most 256");
}

TEST(DecoderRegistry, EveryMethodCanBeMadeWithItsDefaults) {
  for (const DecoderInfo& info : decoder_registry()) {
    DecoderSpec spec{.name = info.name};
    EXPECT_NE(make_decoder(spec), nullptr);
    for (const DecoderOption& option : info.options) spec.options[option.name] = option.fallback;
    EXPECT_NE(make_decoder(spec), nullptr) << info.name;
  }
}

TEST(Decoder, ModelsThatCannotRunAMethodSaySo) {
  const auto backend = make_backend("cpu-reference", 1);
  const auto model = make_toy_llama(*backend, 1);
  Session session(*model, backend, {.sequences = 2, .entries = 64});
  const Generation one{.prompt = token_prompt(*model, std::vector<int32_t>{1}), .max_tokens = 4};
  EXPECT_EQ(error_of([&] {
              make_decoder({.name = "parallel"})->decode(session, {&one, 1}, {});
            }),
            "--decoder parallel: model llama takes no query rows");
  EXPECT_EQ(error_of([&] {
              make_decoder({.name = "masked"})->decode(session, {&one, 1}, {});
            }),
            "--decoder masked: model llama predicts the next place, not its own");
}

TEST(Decoder, DraftModelsThatDoNotFitAreRefused) {
  const auto backend = make_backend("cpu-reference", 1);
  const auto model = make_toy_llama(*backend, 1);
  const auto other = make_toy_llama(*backend, 1, {.vocab = 24});
  const auto masked = make_toy_masked(*backend, 1, 0);
  Session session(*model, backend, {.sequences = 2, .entries = 64});
  Generation one{.prompt = token_prompt(*model, std::vector<int32_t>{1}), .max_tokens = 4};
  for (const std::string name : {"draft", "draft-rejection"}) {
    const auto refused = [&](const StepModel* draft) {
      return error_of([&] {
        make_decoder({.name = name}, {.model = draft, .backend = backend})->decode(session, {&one, 1}, {});
      });
    };
    EXPECT_EQ(refused(nullptr), "--decoder " + name + ": needs a draft model, and there is none");
    EXPECT_EQ(refused(other.get()), "--decoder " + name +
                                        ": the draft model's vocabulary has 24 tokens, the model's 16; they "
                                        "must be one");
    EXPECT_EQ(refused(masked.get()),
              "--decoder " + name + ": draft model smdm does not predict the next token");
  }
  one.prompt.rows[0] = {.kind = RowKind::kEmbedding};
  one.prompt.embeddings.resize(16);
  EXPECT_EQ(error_of([&] {
              make_decoder({.name = "draft"}, {.model = model.get(), .backend = backend})
                  ->decode(session, {&one, 1}, {});
            }),
            "--decoder draft: a draft model reads prompts of tokens only");
  EXPECT_EQ(decoder_class({.name = "draft-rejection"}), DecoderClass::kSameDistribution);
}

TEST(Decoder, HeadsThatDoNotFitAreRefused) {
  const auto backend = make_backend("cpu-reference", 1);
  const auto model = make_toy_llama(*backend, 1);
  Session session(*model, backend, {.sequences = 2, .entries = 64});
  const Generation one{.prompt = token_prompt(*model, std::vector<int32_t>{1}), .max_tokens = 4};
  const auto refused = [&](const DraftHeads* heads) {
    return error_of([&] {
      make_decoder({.name = "heads"}, {.heads = heads, .backend = backend})->decode(session, {&one, 1}, {});
    });
  };
  EXPECT_EQ(refused(nullptr), "--decoder heads: needs draft heads, and there are none");
  EXPECT_EQ(refused(make_toy_heads(*backend, 1, *model, {.vocab = 24}).get()),
            "--decoder heads: the heads' vocabulary has 24 tokens, the model's 16");
  EXPECT_EQ(refused(make_toy_heads(*backend, 1, *model, {.dim = 32}).get()),
            "--decoder heads: the heads read rows of width 32, the model's have 16");
  EXPECT_TRUE(needs_heads({.name = "heads"}));
  EXPECT_FALSE(needs_heads({.name = "draft"}));
}

TEST(Decoder, LengthsByTheClockGoWithCoupledAcceptanceOnly) {
  for (const char* spec : {"lookup:length=adaptive,accept=rejection", "draft-rejection:length=adaptive",
                           "heads:length=adaptive,accept=typical"}) {
    const std::string name(spec, std::string(spec).find(':'));
    EXPECT_EQ(error_of([&] { make_decoder(parse_decoder_spec(spec)); }),
              "--decoder " + name +
                  ": length=adaptive goes with accept=coupled only: tokens of other rules would depend on "
                  "the clock");
  }
  EXPECT_NO_THROW(make_decoder(parse_decoder_spec("draft:length=adaptive")));
  EXPECT_NO_THROW(make_decoder(parse_decoder_spec("lookup:length=fixed,accept=rejection")));
}

TEST(Decoder, PoolsGoWithCoupledAcceptanceOnly) {
  for (const std::string name : {"lookup", "tree"}) {
    EXPECT_EQ(error_of([&] { make_decoder(parse_decoder_spec(name + ":accept=rejection,pool=100")); }),
              "--decoder " + name +
                  ": pool goes with accept=coupled only: what another answer drew by the same seed would be "
                  "drafted");
    EXPECT_NO_THROW(make_decoder(parse_decoder_spec(name + ":accept=rejection,pool=0")));
  }
}

// Records events and may ask for a stop.
class Recorder : public Observer {
 public:
  void on_step(const StepEvent& event) override {
    tokens.insert(tokens.end(), event.tokens.begin(), event.tokens.end());
    positions.insert(positions.end(), event.positions.begin(), event.positions.end());
    proposed += event.proposed;
    accepted += event.accepted;
    ++events;
    if (event.done >= stop_at) stop.request_stop();
  }
  std::stop_source stop;
  int64_t stop_at = INT64_MAX;
  std::vector<int32_t> tokens, positions;
  int64_t proposed = 0, accepted = 0, events = 0;
};

TEST(Decoder, ObserverSeesEveryTokenAndAStopKeepsWhatIsThere) {
  const auto backend = make_backend("cpu-reference", 1);
  const auto model = make_toy_llama(*backend, 1);
  const Generation one{
      .prompt = token_prompt(*model, std::vector<int32_t>{1, 2, 1, 2}), .seed = 5, .max_tokens = 30};
  const auto small = make_toy_llama(*backend, 2);
  const auto heads = make_toy_heads(*backend, 3, *model);
  const Drafters draft{.model = small.get(), .heads = heads.get(), .backend = backend};
  for (const char* decoder :
       {"sequential", "lookup:ngram=1", "tree:ngram=1", "jacobi", "lookahead", "draft", "heads"}) {
    Session session(*model, backend, {.sequences = 1, .entries = 128});
    Recorder recorder;
    const auto whole =
        make_decoder(parse_decoder_spec(decoder), draft)
            ->decode(session, {&one, 1}, {.observer = &recorder, .stop = recorder.stop.get_token()})[0];
    EXPECT_TRUE(whole.finished);
    EXPECT_EQ(recorder.tokens, whole.tokens);
    for (size_t i = 0; i < recorder.positions.size(); ++i)
      EXPECT_EQ(recorder.positions[i], static_cast<int32_t>(i));
    EXPECT_EQ(recorder.events, whole.forwards + 1) << decoder;
    EXPECT_EQ(session.statistics().tokens, 30);
    EXPECT_EQ(session.statistics().forwards, whole.forwards);
    EXPECT_EQ(session.statistics().rows, whole.rows);

    Recorder stopper;
    stopper.stop_at = 10;
    const auto part =
        make_decoder(parse_decoder_spec(decoder), draft)
            ->decode(session, {&one, 1}, {.observer = &stopper, .stop = stopper.stop.get_token()})[0];
    EXPECT_FALSE(part.finished);
    EXPECT_GE(part.tokens.size(), 10u);
    EXPECT_LT(part.tokens.size(), 30u);
    EXPECT_TRUE(std::equal(part.tokens.begin(), part.tokens.end(), whole.tokens.begin()));
  }
}

TEST(Decoder, AFailedRunGivesItsSequencesBack) {
  const auto backend = make_backend("cpu-reference", 1);
  const auto model = make_toy_llama(*backend, 1);
  Session session(*model, backend, {.sequences = 1, .entries = 16});
  Generation one{.prompt = token_prompt(*model, std::vector<int32_t>{1, 2}), .max_tokens = 40};
  for (const char* decoder : {"sequential", "jacobi", "lookahead"}) {
    EXPECT_NE(error_of([&] {
                make_decoder({.name = decoder})->decode(session, {&one, 1}, {});
              }).find("its limit is 16"),
              std::string::npos);
  }
  one.max_tokens = 8;
  EXPECT_TRUE(make_decoder({.name = "sequential"})->decode(session, {&one, 1}, {})[0].finished);
}

TEST(Decoder, ImpossibleGenerationsAreNamed) {
  const auto backend = make_backend("cpu-reference", 1);
  const auto model = make_toy_llama(*backend, 1);
  Session session(*model, backend, {.sequences = 2, .entries = 64});
  const Generation good{.prompt = token_prompt(*model, std::vector<int32_t>{1}), .max_tokens = 4};
  for (const char* decoder : {"sequential", "lookup", "tree", "jacobi", "lookahead"}) {
    const auto refused = [&](auto&& change) {
      Generation one = good;
      change(one);
      return error_of([&] { make_decoder({.name = decoder})->decode(session, {&one, 1}, {}); });
    };
    EXPECT_EQ(refused([](Generation& g) { g.max_tokens = 0; }),
              "generation 0: max_tokens: 0, expected at least 1");
    EXPECT_EQ(refused([](Generation& g) { g.prompt.rows.clear(); }),
              "generation 0: prompt: there are no rows");
    EXPECT_EQ(refused([](Generation& g) { g.unconditional.emplace(); }),
              "generation 0: unconditional: there are no rows");
    EXPECT_EQ(refused([](Generation& g) { g.stream = 1u << 24; }),
              "generation 0: stream: 16777216 is not below 2^24");
  }
  // A longer unconditional prompt counts.
  Generation longer = good;
  longer.unconditional = token_prompt(*model, std::vector<int32_t>(9, 1));
  EXPECT_EQ(make_decoder({.name = "sequential"})->entries(longer), 12);  // the last token is not fed
}

TEST(NGramSource, PrefersLongThenLateMatches) {
  NGramSource source({.longest = 2, .shortest = 1});
  const std::vector<int32_t> path{1, 2, 7, 5, 2, 8, 9, 2, 6, 1, 2};
  // "1 2" was followed by 7; "2" by 6 (latest), 8, 7.
  EXPECT_EQ(source.candidates(path, 4), (std::vector<int32_t>{7, 6, 8}));
  EXPECT_EQ(source.candidates(path, 2), (std::vector<int32_t>{7, 6}));
  EXPECT_TRUE(source.candidates(std::vector<int32_t>{1, 2, 3}, 4).empty());
  EXPECT_TRUE(source.candidates(std::vector<int32_t>{3}, 4).empty());
}

TEST(DraftTree, KnowsDepthsAndChildren) {
  DraftTree tree;
  tree.add(-1, 4);
  tree.add(-1, 5);
  tree.add(0, 6);
  tree.add(2, 7);
  EXPECT_EQ(tree.depth(3), 3);
  EXPECT_EQ(tree.children(-1), (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(tree.children(0), (std::vector<int32_t>{2}));
  tree.limit_depth(2);
  EXPECT_EQ(tree.tokens, (std::vector<int32_t>{4, 5, 6}));
}

TEST(NearestNames, OrdersByEditDistance) {
  EXPECT_EQ(nearest_names("jacbi", {"sequential", "jacobi", "lookup"}, 1),
            (std::vector<std::string>{"jacobi"}));
  EXPECT_EQ(nearest_names("x", {"a"}, 5).size(), 1u);
}

}  // namespace
}  // namespace volley::test
