// Two sessions on one model, one draft model and one backend, used at the same time from two threads, return
// the tokens of a session alone. Run under the thread sanitizer too.
#include <gtest/gtest.h>

#include <thread>

#include "core/decode/decoder.h"
#include "tests/support/devices.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

class Concurrency : public testing::TestWithParam<std::string> {};

TEST_P(Concurrency, SessionsDoNotDisturbEachOther) {
  const std::shared_ptr<const Backend> backend = make_backend(GetParam(), 3);
  const auto model = make_toy_llama(*backend, 31, {.dim = 32, .heads = 4, .kv_heads = 2});
  const auto small = make_toy_llama(*backend, 32, {.dim = 32, .heads = 4, .kv_heads = 2});
  const auto run = [&](uint64_t seed, const char* decoder) {
    std::vector<Generation> generations;
    for (uint32_t stream = 0; stream < 3; ++stream) {
      generations.push_back({.prompt = token_prompt(*model, std::vector<int32_t>{1, 2, 3, 4}),
                             .seed = seed,
                             .stream = stream,
                             .max_tokens = 40});
    }
    Session session(*model, backend, {.sequences = 3, .entries = 128});
    std::vector<std::vector<int32_t>> tokens;
    const auto method = make_decoder(parse_decoder_spec(decoder), {.model = small.get(), .backend = backend});
    for (auto& output : method->decode(session, generations, {})) {
      tokens.push_back(output.tokens);
    }
    return tokens;
  };
  const std::pair<const char*, const char*> pairs[] = {
      {"jacobi", "lookup:ngram=1"}, {"draft", "draft:length=fixed"}, {"lookahead", "draft"}};
  for (const auto& [one, other] : pairs) {
    for (uint64_t round = 0; round < 5; ++round) {
      const auto alone_a = run(round, one), alone_b = run(round + 50, other);
      std::vector<std::vector<int32_t>> a, b;
      std::thread first([&, one = one] { a = run(round, one); });
      std::thread second([&, other = other] { b = run(round + 50, other); });
      first.join();
      second.join();
      EXPECT_EQ(a, alone_a);
      EXPECT_EQ(b, alone_b);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, Concurrency, testing::ValuesIn(devices_for_methods()),
                         [](const auto& test) { return test::device_name(test.param); });

}  // namespace
}  // namespace volley::test
