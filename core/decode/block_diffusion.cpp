// Block diffusion: a block of hidden places behind committed blocks that it sees whole and that do not see
// it. Its sub-blocks are filled from left to right, in each step the surest place and all others above the
// threshold. Rows predict the next place; one more forward of a filled block commits its entries and gives
// the first token of the next.
// Ref: Wu et al., "Fast-dLLM v2: Efficient Block-Diffusion LLM"; `generate` of
// Efficient-Large-Model/Fast_dLLM_v2_7B (modeling.py). Blocks are aligned to the sequence, prompt included:
// the prompt's whole blocks are committed first, the rest of it is the head of the first block. With
// cache=dual a step runs the whole block only while the first place of its sub-block is hidden; the others
// run the sub-block's rows, which replace theirs, and read entries of the other sub-blocks as old as that
// step. Differs in that a prompt of exactly one block is seen (there it is dropped), that a guess of the mask
// itself is not tried for ever, that with a temperature a block's first token is drawn, too, and that
// certainty is of the model's own distribution. Under a constraint the guesses of a step are chosen together
// (constrained_guess.h).
#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/error.h"
#include "core/decode/canvas_loop.h"
#include "core/decode/constrained_guess.h"
#include "core/decode/hidden_guesses.h"
#include "core/decode/lane.h"
#include "core/decode/methods.h"

namespace volley {
namespace {

// Rows of a prompt's forward at most, unless a block has more.
constexpr int64_t kPromptChunk = 256;

struct Settings {
  int64_t sub_block = 0;
  UnmaskRule rule;
  bool keeps_block = false;  // cache=dual
};

// One output in the making: the sequence with its prompt, and the block that is being filled. Places count
// from the prompt's first row.
class BlockCanvas {
 public:
  // `constrained` is null without a constraint.
  BlockCanvas(Session& session, const Generation& generation, const Settings& settings,
              std::shared_ptr<ConstrainedBlock> constrained)
      : session_(&session),
        settings_(&settings),
        lane_(session, generation),
        output_(generation, std::move(constrained)) {
    for (const StepRow& row : generation.prompt.rows) tokens_.push_back(row.token);
    begin_block();
  }

  bool is_finished() const { return output_.is_finished(); }
  GenerationOutput take_output() { return output_.take(); }

  void add_to(std::vector<SequenceStep>& steps) {
    const int64_t sub_block = first_hidden_sub_block();
    part_ = sub_block == block_end_                 ? Part::kFilled
            : has_entries_ && !is_hidden(sub_block) ? Part::kSubBlock
                                                    : Part::kBlock;
    SequenceStep step{.visibility = {.kind = MaskKind::kBlockCausal, .block = block()}};
    first_row_ = part_ == Part::kSubBlock ? sub_block : block_begin_;
    const int64_t sub_end = std::min(block_end_, sub_block + settings_->sub_block);
    row_end_ = part_ == Part::kSubBlock ? sub_end : part_ == Part::kBlock ? block_end_ : filled_end();
    for (int64_t place = first_row_; place < row_end_; ++place) step.rows.push_back(row_of(place));
    questions_.clear();
    wanted_.clear();
    asked_end_ = part_ == Part::kFilled ? row_end_ + 1 : sub_end;
    if (part_ == Part::kFilled) {
      step.phase = row_end_ <= prompt() ? Phase::kPrompt : Phase::kDecode;
      if (row_end_ == std::ssize(tokens_)) ask(row_end_, step);
    } else {
      // Of all places of the sub-block, so that its steps have one shape. The first of the rows is never
      // hidden: no row stands before it to predict it.
      for (int64_t place = sub_block; place < sub_end; ++place) {
        if (is_hidden(place)) {
          ask(place, step);
        } else {
          want_row(std::max(place - 1, first_row_), step);
        }
      }
    }
    write_entries(step);
    if (step.phase == Phase::kDecode) output_.count_forward(std::ssize(step.rows));
    lane_.add_to(steps, std::move(step));
  }

  void keep_entries() {
    if (part_ == Part::kSubBlock || (part_ == Part::kBlock && !settings_->keeps_block)) return;
    std::vector<int32_t> rows(static_cast<size_t>(row_end_ - first_row_));
    std::iota(rows.begin(), rows.end(), 0);
    lane_.commit(rows);
    has_entries_ = part_ == Part::kBlock;
  }

  void add_sample_rows(std::vector<SampleRow>& rows) {
    guesses_.ask(
        lane_, {.places = questions_, .wanted = wanted_, .done = std::ssize(output_.tokens()), .step = step_},
        rows);
  }

  void take(const Samples& samples, int64_t index, const DecodeControl& control) {
    if (part_ == Part::kFilled) block_begin_ = row_end_;
    if (questions_.empty()) return begin_block();  // the prompt goes on
    const auto [guesses, certainty] =
        output_.guess(guesses_, samples, asked_places(), settings_->rule.certainty);
    std::vector<int32_t> filled, tokens;
    const auto fill = [&](size_t i, int32_t token) {
      filled.push_back(questions_[i]);
      tokens.push_back(token);
    };
    const int32_t mask = lane_.generation().mask_token;
    for (const int32_t chosen : settings_->rule.choose(certainty, 1)) {
      const auto i = static_cast<size_t>(chosen);
      if (guesses[i] != mask) fill(i, guesses[i]);  // else it is looked at again
    }
    if (filled.empty()) {  // the same step would come again for ever
      const auto i = static_cast<size_t>(settings_->rule.surest(certainty));
      fill(i, guesses_.likeliest_other(*session_, i));
    }
    for (size_t i = 0; i < filled.size(); ++i) {
      const auto place = static_cast<size_t>(prompt() + filled[i]);
      if (place == tokens_.size()) tokens_.push_back(mask);
      tokens_[place] = tokens[i];
    }
    session_->statistics().tokens += advance();
    ++session_->statistics().accepted[std::ssize(filled)];
    // What a last block has beyond the output is nobody's business.
    const auto length = static_cast<int32_t>(lane_.generation().max_tokens);
    const auto told = std::ranges::lower_bound(filled, length) - filled.begin();
    filled.resize(static_cast<size_t>(told));
    tokens.resize(static_cast<size_t>(told));
    done_ += told;
    if (control.observer != nullptr) {
      control.observer->on_step({.generation = index,
                                 .step = step_,
                                 .positions = filled,
                                 .tokens = tokens,
                                 .proposed = std::ssize(questions_),
                                 .accepted = told,
                                 .source = part_ == Part::kFilled ? "next row" : "masked rows",
                                 .done = done_,
                                 .total = lane_.generation().max_tokens});
    }
    ++step_;
    if (part_ == Part::kFilled && !output_.is_finished()) begin_block();
  }

 private:
  // What a forward runs.
  enum class Part : uint8_t {
    kFilled,    // blocks with nothing hidden, to be committed
    kBlock,     // the block
    kSubBlock,  // of it only the rows that are being filled
  };

  int64_t prompt() const { return std::ssize(lane_.generation().prompt.rows); }
  int64_t block() const { return lane_.generation().mask_block; }
  bool is_hidden(int64_t place) const {
    return tokens_[static_cast<size_t>(place)] == lane_.generation().mask_token;
  }

  StepRow row_of(int64_t place) const {
    if (place < prompt()) return lane_.generation().prompt.rows[static_cast<size_t>(place)];
    return {.token = tokens_[static_cast<size_t>(place)], .position = session_->model().position(place)};
  }

  void begin_block() {
    block_end_ = std::min(block_begin_ + block(), session_->model().traits().max_position);
    if (std::ssize(tokens_) < block_end_)
      tokens_.resize(static_cast<size_t>(block_end_), lane_.generation().mask_token);
    has_entries_ = false;
  }

  // What stands at the output's places from the first hidden one on, as far as the forward asks.
  std::vector<int32_t> asked_places() const {
    const Generation& generation = lane_.generation();
    std::vector<int32_t> places;
    const int64_t end = std::min(asked_end_, prompt() + generation.max_tokens);
    for (int64_t place = prompt() + std::ssize(output_.tokens()); place < end; ++place) {
      const bool exists = place < std::ssize(tokens_);
      places.push_back(exists ? tokens_[static_cast<size_t>(place)] : generation.mask_token);
    }
    return places;
  }

  // Where the first sub-block with hidden places begins, or the block's end.
  int64_t first_hidden_sub_block() const {
    int64_t begin = block_begin_;
    while (begin < block_end_) {
      const int64_t end = std::min(block_end_, begin + settings_->sub_block);
      for (int64_t place = begin; place < end; ++place) {
        if (is_hidden(place)) return begin;
      }
      begin = end;
    }
    return block_end_;
  }

  // The end of what a forward commits: of the prompt's whole blocks several at once.
  int64_t filled_end() const {
    const int64_t chunk = std::max<int64_t>(1, kPromptChunk / block()) * block();
    const int64_t whole = prompt() / block() * block();
    return std::max(block_end_, std::min(whole, block_begin_ + chunk));
  }

  // Asks the row before `place` for it.
  void ask(int64_t place, SequenceStep& step) {
    questions_.push_back(static_cast<int32_t>(place - prompt()));
    wanted_.push_back(static_cast<int32_t>(step.wanted.logits.size()));
    want_row(place - 1, step);
  }

  void want_row(int64_t place, SequenceStep& step) const {
    step.wanted.logits.push_back(static_cast<int32_t>(place - first_row_));
  }

  void write_entries(SequenceStep& step) {
    if (part_ == Part::kSubBlock) {
      step.write = CacheWrite::kReplace;
      step.replaced.resize(step.rows.size());
      std::iota(step.replaced.begin(), step.replaced.end(), static_cast<int32_t>(first_row_));
      return;
    }
    lane_.crop(block_begin_);
    const bool is_kept = part_ == Part::kFilled || settings_->keeps_block;
    step.write = is_kept ? CacheWrite::kScratch : CacheWrite::kNone;
  }

  // Hands out what is whole from the left. Returns how many tokens.
  int64_t advance() {
    const auto before = std::ssize(output_.tokens());
    while (!output_.is_finished()) {
      const int64_t place = prompt() + std::ssize(output_.tokens());
      if (place == std::ssize(tokens_) || is_hidden(place)) break;
      output_.add(tokens_[static_cast<size_t>(place)]);
    }
    return std::ssize(output_.tokens()) - before;
  }

  Session* session_;
  const Settings* settings_;
  Lane lane_;
  FilledOutput output_;
  std::vector<int32_t> tokens_;  // of the prompt, then of all places up to the end of the block
  int64_t block_begin_ = 0;
  int64_t block_end_ = 0;
  bool has_entries_ = false;  // the cache holds some of all rows of the block
  int64_t done_ = 0;          // places of the output that are filled
  int64_t step_ = 0;
  // Of the forward in flight.
  Part part_ = Part::kFilled;
  int64_t first_row_ = 0, row_end_ = 0;
  int64_t asked_end_ = 0;           // behind the last place that may be asked for
  std::vector<int32_t> questions_;  // places of the output
  std::vector<int32_t> wanted_;     // of each: which wanted row predicts it
  HiddenGuesses guesses_;
};

class BlockDiffusion : public Decoder {
 public:
  explicit BlockDiffusion(const OptionReader& options)
      : settings_{.sub_block = options.integer("sub_block", 1, 1 << 24),
                  .rule = {.threshold = options.number_or_off("threshold", 0.0, 1.0),
                           .threshold_end = ThresholdEnd::kExcluded},
                  .keeps_block = options.choice("cache", {"off", "dual"}) == "dual"} {}

  std::vector<GenerationOutput> decode(Session& session, std::span<const Generation> generations,
                                       const DecodeControl& control) const override {
    constexpr GrowingMethod kMethod{
        .decoder = "block-diffusion", .unit = "blocks", .mask = MaskKind::kBlockCausal};
    kMethod.check(session.model().traits(), generations);
    std::vector<BlockCanvas> all;
    const auto constrained =
        constrained_blocks(generations, session.model().traits().vocab_size, kMethod.decoder);
    for (size_t i = 0; i < generations.size(); ++i)
      all.emplace_back(session, generations[i], settings_, constrained[i]);
    return run_canvases(session, all, HiddenGuesses::wants(generations, settings_.rule.certainty), control);
  }

  // The last block is filled whole, though no more is handed out than was asked for.
  int64_t entries(const Generation& generation) const override {
    const int64_t block = std::max<int64_t>(1, generation.mask_block);
    return (prompt_entries(generation) + generation.max_tokens + block - 1) / block * block;
  }

 private:
  Settings settings_;
};

}  // namespace

std::unique_ptr<Decoder> make_block_diffusion(const OptionReader& options) {
  return std::make_unique<BlockDiffusion>(options);
}

}  // namespace volley
