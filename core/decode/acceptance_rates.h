#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace volley {

// How good a draft will be, as far as its proposer knows before it is made: 0, there is nothing to draft;
// else a grade, of which only this is asked that drafts of one grade are right about equally often.
inline constexpr int64_t kDraftGrades = 7;

// How often the i-th token of a draft was right after those before it were, lately. Counted by grade and by
// place in the draft, not as one number: of what is copied from earlier text the first token is often wrong
// and the tenth, after nine that were right, hardly ever. A place of which little is known is like the one
// before it, a generation of which little is known like all of them. Old counts fade, as text changes its
// nature.
class AcceptanceRates {
 public:
  // Chance of the token at `place` (from 0) of a generation's draft, given that those before it are right.
  double rate(int64_t generation, int64_t grade, int64_t place) const;
  // A draft's first `accepted` of `drafted` tokens were right.
  void add(int64_t generation, int64_t grade, int64_t drafted, int64_t accepted);

 private:
  struct Count {
    double right = 0.0;
    double tried = 0.0;
  };
  using Grades = std::array<std::vector<Count>, kDraftGrades>;  // by grade, by place
  static void add(std::vector<Count>& counts, int64_t drafted, int64_t accepted);

  Grades all_;
  std::vector<Grades> own_;  // by generation
};

}  // namespace volley
