// Rejection acceptance returns sequential decoding's distribution: chi-square against the exact probabilities
// of a 16-token model.
#include <gtest/gtest.h>

#include <cmath>

#include "core/decode/verify_loop.h"
#include "tests/property/methods.h"
#include "tests/support/toy_models.h"

namespace volley::test {
namespace {

constexpr int64_t kVocab = 16;
const std::vector<int32_t> kPrompt{3, 1, 4};

// 99.9 % point of the chi-square distribution (Wilson-Hilferty).
double chi_square_limit(double degrees) {
  const double z = 3.0902;
  return degrees * std::pow(1.0 - 2.0 / (9.0 * degrees) + z * std::sqrt(2.0 / (9.0 * degrees)), 3.0);
}

class SameDistribution : public testing::Test {
 protected:
  std::shared_ptr<const Backend> backend_ = make_backend("cpu-reference", 1);
  std::unique_ptr<StepModel> model_ = make_toy_llama(*backend_, 5, {.dim = 8, .layers = 1, .spread = 0.45f});

  // Softmax behind `path`.
  std::vector<double> next_distribution(const std::vector<int32_t>& path) const {
    Session session(*model_, backend_, {.sequences = 1, .entries = 64});
    const Prompt prompt{.sequence = session.cache().create(), .rows = token_prompt(*model_, path).rows};
    session.prefill({&prompt, 1});
    std::vector<double> p;
    double total = 0.0;
    for (float logit : session.logits_on_host(0))
      total += p.emplace_back(std::exp(static_cast<double>(logit)));
    for (double& value : p) value /= total;
    return p;
  }

  // Exact probability of every pair (token 1, token 2), whatever token 0 was.
  std::vector<double> pair_probabilities() const {
    std::vector<double> pairs(kVocab * kVocab, 0.0);
    const std::vector<double> p0 = next_distribution(kPrompt);
    for (int32_t a = 0; a < kVocab; ++a) {
      std::vector<int32_t> path = kPrompt;
      path.push_back(a);
      const std::vector<double> p1 = next_distribution(path);
      for (int32_t b = 0; b < kVocab; ++b) {
        path.push_back(b);
        const std::vector<double> p2 = next_distribution(path);
        for (int32_t c = 0; c < kVocab; ++c)
          pairs[static_cast<size_t>(b * kVocab + c)] += p0[a] * p1[b] * p2[c];
        path.pop_back();
      }
    }
    return pairs;
  }

  double statistic(Proposer& proposer, AcceptanceKind acceptance, int64_t count) const {
    return statistic(count, [&](Session& session, std::span<const Generation> generations) {
      return VerifyLoop{.proposer = proposer, .acceptance = acceptance}.run(session, generations, {});
    });
  }

  // Draws `count` outputs of four tokens and returns the chi-square statistic over its limit.
  double statistic(int64_t count, auto&& decode) const {
    const std::vector<double> expected = pair_probabilities();
    std::vector<double> observed(expected.size(), 0.0);
    constexpr int64_t kBatch = 250;
    for (int64_t done = 0; done < count; done += kBatch) {
      std::vector<Generation> generations;
      for (int64_t i = 0; i < kBatch; ++i) {
        generations.push_back({.prompt = token_prompt(*model_, kPrompt), .seed = 9000, .max_tokens = 4});
        generations.back().stream = static_cast<uint32_t>(done + i);
      }
      Session session(*model_, backend_, {.sequences = kBatch, .entries = 64});
      for (const GenerationOutput& output : decode(session, generations)) {
        observed[static_cast<size_t>(output.tokens[1] * kVocab + output.tokens[2])] += 1.0;
      }
    }
    // Cells with small expectation are pooled.
    double sum = 0.0, pooled_expected = 0.0, pooled_observed = 0.0, cells = 0.0;
    for (size_t i = 0; i < expected.size(); ++i) {
      const double want = expected[i] * static_cast<double>(count);
      if (want < 8.0) {
        pooled_expected += want;
        pooled_observed += observed[i];
        continue;
      }
      sum += (observed[i] - want) * (observed[i] - want) / want;
      cells += 1.0;
    }
    if (pooled_expected > 0.0) {
      sum += (pooled_observed - pooled_expected) * (pooled_observed - pooled_expected) / pooled_expected;
      cells += 1.0;
    }
    EXPECT_GT(cells, 40.0);
    return sum / chi_square_limit(cells - 1.0);
  }
};

// The same deterministic draft for everyone: likely tokens first.
class FixedProposer : public Proposer {
 public:
  explicit FixedProposer(DraftTree draft) : draft_(std::move(draft)) {}
  std::string_view source() const override { return "fixed"; }
  DraftTree propose(const ProposalContext&) override { return draft_; }
  void observe(const Verification& verification) override {
    accepted += static_cast<int64_t>(verification.accepted.size());
    proposed += verification.draft.size();
  }
  int64_t accepted = 0;
  int64_t proposed = 0;

 private:
  DraftTree draft_;
};

// Chains drawn from a fixed distribution that is not the target's.
class DrawingProposer : public Proposer {
 public:
  std::string_view source() const override { return "drawn"; }
  DraftTree propose(const ProposalContext&) override {
    DraftTree draft;
    for (int32_t d = 0; d < 2; ++d) {
      std::vector<float> q(kVocab);
      float total = 0.0f;
      for (int32_t i = 0; i < kVocab; ++i)
        total += q[static_cast<size_t>(i)] = static_cast<float>(1 + (i * 5) % 7);
      float u = random_.uniform() * total;
      int32_t token = 0;
      while (token < kVocab - 1 && u >= q[static_cast<size_t>(token)]) u -= q[static_cast<size_t>(token++)];
      draft.add(d - 1, token);
      for (float& value : q) draft.distribution.push_back(value / total);
    }
    return draft;
  }

 private:
  TestRandom random_{4};
};

// Trees whose siblings are drawn without replacement from a distribution that is not the target's.
class DrawingTreeProposer : public Proposer {
 public:
  std::string_view source() const override { return "drawn tree"; }
  DraftTree propose(const ProposalContext&) override {
    std::vector<float> q(kVocab);
    float total = 0.0f;
    for (int32_t i = 0; i < kVocab; ++i)
      total += q[static_cast<size_t>(i)] = static_cast<float>(1 + (i * 3) % 5);
    for (float& value : q) value /= total;
    DraftTree draft;
    const auto add_siblings = [&](int32_t parent) {
      std::vector<float> left = q;
      std::vector<int32_t> nodes;
      for (int i = 0; i < 3; ++i) {
        float mass = 0.0f;
        for (float value : left) mass += value;
        float u = random_.uniform() * mass;
        int32_t token = 0, last = 0;
        for (; token < kVocab; ++token) {
          if (left[static_cast<size_t>(token)] == 0.0f) continue;
          last = token;
          if (u < left[static_cast<size_t>(token)]) break;
          u -= left[static_cast<size_t>(token)];
        }
        nodes.push_back(draft.add(parent, last));
        draft.distribution.insert(draft.distribution.end(), q.begin(), q.end());
        left[static_cast<size_t>(last)] = 0.0f;
      }
      return nodes;
    };
    for (int32_t node : add_siblings(-1)) add_siblings(node);
    return draft;
  }

 private:
  TestRandom random_{6};
};

DraftTree small_tree() {
  DraftTree draft;
  for (int32_t token : {2, 9, 14}) {
    const int32_t child = draft.add(-1, token);
    for (int32_t next : {1, 2, 5}) draft.add(child, next);
  }
  return draft;
}

TEST_F(SameDistribution, DeterministicTree) {
  FixedProposer proposer(small_tree());
  EXPECT_LT(statistic(proposer, AcceptanceKind::kRejection, 12000), 1.0);
  EXPECT_GT(proposer.accepted, 500);
  EXPECT_LT(proposer.accepted, proposer.proposed);
}

TEST_F(SameDistribution, DeterministicChain) {
  FixedProposer proposer(DraftTree::chain(std::vector<int32_t>{9, 2}));
  EXPECT_LT(statistic(proposer, AcceptanceKind::kRejection, 12000), 1.0);
  EXPECT_GT(proposer.accepted, 100);
}

TEST_F(SameDistribution, DrawnChain) {
  DrawingProposer proposer;
  EXPECT_LT(statistic(proposer, AcceptanceKind::kRejection, 12000), 1.0);
}

TEST_F(SameDistribution, DrawnTree) {
  DrawingTreeProposer proposer;
  EXPECT_LT(statistic(proposer, AcceptanceKind::kRejection, 12000), 1.0);
}

TEST_F(SameDistribution, CoupledSampling) {
  FixedProposer proposer(small_tree());
  EXPECT_LT(statistic(proposer, AcceptanceKind::kCoupled, 12000), 1.0);
}

TEST_F(SameDistribution, SmallModel) {
  const auto small = make_toy_llama(*backend_, 6, {.dim = 8, .layers = 1, .spread = 0.45f});
  for (const char* method : {"draft-rejection", "draft-rejection:draft=2,length=fixed", "draft"}) {
    const auto decoder =
        make_decoder(parse_decoder_spec(method), {.model = small.get(), .backend = backend_});
    DraftCounter counter;
    EXPECT_LT(statistic(12000,
                        [&](Session& session, std::span<const Generation> generations) {
                          return decoder->decode(session, generations, {.observer = &counter});
                        }),
              1.0)
        << method;
    EXPECT_GT(counter.accepted, 1000) << method;
    EXPECT_GT(counter.proposed, counter.accepted + 1000) << method;
  }
}

// The test can fail: accepting a deterministic draft whenever any uniform is small distorts the distribution.
TEST_F(SameDistribution, WrongRuleIsCaught) {
  class EagerProposer : public FixedProposer {
   public:
    using FixedProposer::FixedProposer;
    DraftTree propose(const ProposalContext& context) override {
      DraftTree draft = FixedProposer::propose(context);
      draft.distribution.assign(static_cast<size_t>(draft.size() * kVocab), 0.5f / kVocab);  // lies about q
      return draft;
    }
  };
  EagerProposer proposer(DraftTree::chain(std::vector<int32_t>{9, 2}));
  EXPECT_GT(statistic(proposer, AcceptanceKind::kRejection, 12000), 1.5);
}

}  // namespace
}  // namespace volley::test
