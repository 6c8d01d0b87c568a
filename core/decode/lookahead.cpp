// Lookahead decoding with coupled noise: a window of guesses is refined by Jacobi iteration, the n-grams that
// its columns run through are collected in a pool, and those that begin with the current token are verified
// beside the window in the same forward.
// Ref: Fu et al. 2024, "Break the sequential dependency of LLM inference using lookahead decoding",
// github.com/hao-ai-lab/LookaheadDecoding.
// Three things differ from that repository. A window row sees the first row up to its column and its own
// column above it, which is a tree: so window and candidates are one draft tree, equal beginnings share
// rows, and a window token that turns out right is kept like a candidate's. The window moves on by as many
// positions as tokens were emitted, so a guess stays at the position whose noise made it. And its tokens are
// sampled by the target's own rule, not by argmax.
#include "core/decode/lookahead.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/noise.h"
#include "core/decode/methods.h"
#include "core/decode/verify_loop.h"

namespace volley {
namespace {

// Child of `parent` that holds `token`; added where there is none.
int32_t child_with(DraftTree& draft, int32_t parent, int32_t token) {
  for (int32_t child : draft.children(parent)) {
    if (draft.tokens[static_cast<size_t>(child)] == token) return child;
  }
  return draft.add(parent, token);
}

}  // namespace

// ---- Pool

void NGramPool::add(int32_t first, std::span<const int32_t> rest) {
  std::deque<std::vector<int32_t>>& known = pool_[first];
  const auto same = std::ranges::find_if(
      known, [&](const std::vector<int32_t>& other) { return std::ranges::equal(other, rest); });
  if (same != known.end()) known.erase(same);
  known.emplace_front(rest.begin(), rest.end());
  if (std::ssize(known) > sizes_.guesses) known.pop_back();
}

void NGramPool::add_path(std::span<const int32_t> path, int64_t begin) {
  for (int64_t end = std::max(begin, sizes_.ngram - 1); end < std::ssize(path); ++end) {
    const auto ngram = path.subspan(static_cast<size_t>(end + 1 - sizes_.ngram));
    add(ngram[0], ngram.subspan(1, static_cast<size_t>(sizes_.ngram - 1)));
  }
}

const std::deque<std::vector<int32_t>>& NGramPool::after(int32_t token) const {
  static const std::deque<std::vector<int32_t>> none;
  const auto known = pool_.find(token);
  return known == pool_.end() ? none : known->second;
}

// ---- Window

void LookaheadWindow::add_to(DraftTree& draft, const ProposalContext& context) {
  fill(context);
  nodes_.assign(rows_.size(), {});
  for (size_t r = 0; r < rows_.size(); ++r) {
    const int64_t within = context.max_depth + 1 - static_cast<int64_t>(r);  // columns that are not too deep
    for (int64_t c = 0; c < std::min(columns(), within); ++c) {
      const auto i = static_cast<size_t>(c);
      if (r == 0 && i == 0) {
        nodes_[0].push_back(-1);  // the current token is the draft's root
      } else {
        nodes_[r].push_back(child_with(draft, r > 0 ? nodes_[r - 1][i] : nodes_[0][i - 1], rows_[r][i]));
      }
    }
  }
}

void LookaheadWindow::advance(const Verification& verification, NGramPool& pool) {
  if (nodes_.empty()) return;  // nothing was proposed: the output ends with this step
  std::vector<int32_t> next;   // [columns that ran]
  for (int32_t node : nodes_.back()) next.push_back(verification.sampled[static_cast<size_t>(node) + 1]);
  nodes_.clear();
  auto passed = static_cast<int64_t>(verification.accepted.size()) + 1;  // positions
  if (is_full()) {
    for (size_t i = 0; i < next.size(); ++i) {
      std::vector<int32_t> rest;
      for (size_t r = 1; r < rows_.size(); ++r) rest.push_back(rows_[r][i]);
      rest.push_back(next[i]);
      pool.add(rows_[0][i], rest);
    }
    // Each row takes the place of the one above, whose columns stand one position earlier.
    rows_.erase(rows_.begin());
    --passed;
  }
  for (std::deque<int32_t>& row : rows_) row.resize(next.size());
  rows_.emplace_back(next.begin(), next.end());
  drop_columns(passed);
}

void LookaheadWindow::drop_columns(int64_t count) {
  for (std::deque<int32_t>& row : rows_)
    row.erase(row.begin(), row.begin() + std::min(count, std::ssize(row)));
}

// Columns that have no tokens yet get a stretch of the path from a random place.
void LookaheadWindow::fill(const ProposalContext& context) {
  const auto length = static_cast<uint64_t>(context.path.size());
  while (std::ssize(rows_[0]) < columns()) {
    const auto position = static_cast<uint32_t>(context.output_tokens + std::ssize(rows_[0]));
    const uint32_t bits = noise_bits(
        {.seed = seed_, .stream = stream_, .purpose = NoisePurpose::kInit, .position = position}, 0);
    const uint64_t begin = (uint64_t{bits} * length) >> 32;
    for (size_t r = 0; r < rows_.size(); ++r) rows_[r].push_back(context.path[(begin + r) % length]);
  }
  rows_[0][0] = context.path.back();
}

// ---- Proposer

void LookaheadProposer::begin(int64_t generation, const Generation& request) {
  VOLLEY_ASSERT(generation == std::ssize(progress_));
  progress_.push_back({.window = LookaheadWindow(sizes_, request.seed, request.stream)});
}

DraftTree LookaheadProposer::propose(const ProposalContext& context) {
  Progress& progress = progress_[static_cast<size_t>(context.generation)];
  pool_.add_path(context.path, progress.pooled);
  progress.pooled = std::ssize(context.path);
  DraftTree draft;
  for (const std::vector<int32_t>& rest : pool_.after(context.path.back())) {
    int32_t node = -1;
    for (int64_t d = 0; d < std::min(std::ssize(rest), context.max_depth); ++d) {
      node = child_with(draft, node, rest[static_cast<size_t>(d)]);
    }
  }
  progress.window.add_to(draft, context);
  return draft;
}

void LookaheadProposer::observe(const Verification& verification) {
  progress_[static_cast<size_t>(verification.generation)].window.advance(verification, pool_);
}

// ---- Method

namespace {

class Lookahead : public Decoder {
 public:
  explicit Lookahead(const OptionReader& options)
      : sizes_{.window = options.integer("W", 1, 255),
               .ngram = options.integer("N", 2, 32),
               .guesses = options.integer("G", 1, 255)} {
    if (rows() > kMaxRows) {
      throw Error("--decoder lookahead: (W + G)(N - 1) = " + std::to_string(rows()) + " rows, at most " +
                      std::to_string(kMaxRows),
                  ErrorKind::kUsage);
    }
  }

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    LookaheadProposer proposer(sizes_);
    return VerifyLoop{.proposer = proposer}.run(session, generations, control);
  }
  int64_t entries(const Generation& generation) const override {
    return prompt_entries(generation) + generation.max_tokens + rows();
  }

 private:
  static constexpr int64_t kMaxRows = 1024;

  int64_t rows() const { return (sizes_.window + sizes_.guesses) * (sizes_.ngram - 1); }

  LookaheadSizes sizes_;
};

}  // namespace

std::unique_ptr<Decoder> make_lookahead(const OptionReader& options) {
  return std::make_unique<Lookahead>(options);
}

}  // namespace volley
