#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "core/decode/acceptance_rates.h"
#include "core/decode/draft_reading.h"
#include "core/decode/row_costs.h"

namespace volley {

// What can be drafted for one generation of a step.
struct DraftOutlook {
  int64_t generation = 0;
  int64_t grade = 0;    // 0: nothing to draft
  int64_t longest = 0;  // tokens that may be drafted
  int64_t unread = 0;   // rows that the proposer runs before its first draft, see DraftReading
  int64_t tokens = 0;   // that the output may still grow by; counts where rows are unread
};

// What became of a step's drafts.
struct DraftRound {
  struct Lane {
    DraftOutlook outlook;  // as it was when the length was chosen
    int64_t asked = 0;     // tokens that were chosen to be drafted
    int64_t drafted =
        0;  // tokens one behind the other, at most so many: a proposer may know of fewer, or none
    int64_t accepted = 0;  // of them right
    int64_t emitted = 0;   // tokens that the output grew by
  };
  std::span<const Lane> lanes;
  int64_t rows = 0;  // of the forward
  double draft_seconds = 0.0;
  double forward_seconds = 0.0;
};

// Chooses how many tokens to draft, from none on, so that a step gives the most tokens a second: by how
// often drafts were right lately, by what forwards of so many rows and what drafts cost, all measured while
// it decodes. Lengths only ever change what a step tries, never which tokens are right.
//
// That drafts do not pay is learnt by drafts that do not pay. A purse holds the seconds that may be lost to
// them: what one forward takes at first, then a small part of the time that decoding takes, and what drafts
// save; everything they lose is taken from it. Nothing is drafted while it is empty. So a run takes at most
// `kLossShare` longer than one token a forward, and a forward or two, whatever the model and the machine do.
class DraftLength {
 public:
  static constexpr double kLossShare = 0.0125;

  // The target ran so many rows of prompts.
  void observe_prompt(int64_t rows, double seconds) { reading_.observe_prompt(rows, seconds); }
  // Whether lanes with unread rows should draft a token in vain before the choice, so that what one takes is
  // known; and what it took.
  bool wants_rehearsal(std::span<const DraftOutlook> lanes) const;
  void observe_rehearsal(double seconds);
  // How many tokens each of a step's generations drafts, at most its `longest`: none where rows are unread
  // and reading them would not pay.
  std::vector<int64_t> choose(std::span<const DraftOutlook> outlooks);
  // Learns from the step that the last choice led to.
  void observe(const DraftRound& round);

 private:
  struct Plan {
    std::vector<int64_t> lengths;
    double speed = 0.0;  // tokens a second
  };
  // Of a grade that does not pay, in steps that could have drafted by it and did not.
  struct Patience {
    int64_t waited = 0;
    int64_t wait = 1;  // before the next probe
  };

  // Of the lanes with unread rows.
  DraftReading::Outlook reading_outlook(std::span<const DraftOutlook> lanes) const;
  double chance(const DraftOutlook& lane, int64_t place) const;
  double value(const DraftOutlook& lane) const;
  Plan best_plan(std::span<const DraftOutlook> lanes) const;
  void add_probe(std::span<const DraftOutlook> lanes, std::vector<int64_t>& lengths);
  int64_t probe_length(const DraftOutlook& lane, int64_t count, std::span<const int64_t> lengths) const;
  // Seconds of a step with so many rows whose longest draft is of `length` tokens.
  double step_seconds(int64_t rows, int64_t length) const;

  AcceptanceRates rates_;
  RowCosts forwards_;
  RowCosts drafts_;  // of a token of the longest draft; a size of one "row"
  DraftReading reading_;
  bool has_drafted_ = false;
  int64_t plain_steps_ = 0;       // forwards without drafts
  int64_t since_plain_ = 0;       // steps since the last of them
  int64_t plain_wait_ = 0;        // before the next is made
  double purse_ = 0.0;            // seconds
  std::vector<int64_t> emitted_;  // tokens, by generation
  int64_t least_emitted_ = 0;     // of those that go on
  std::array<Patience, kDraftGrades> patience_{};
  int64_t probed_ = -1;  // generation that the last choice made try again; -1: none
};

}  // namespace volley
