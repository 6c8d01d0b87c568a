#pragma once

#include <cstdint>

namespace volley {

// Decides whether a draft model is to read the prompt at all: that alone may take longer than all of a short
// answer. What reading takes is not known before it is done, so it is reckoned from what the target's prompt
// took and what a token of either model takes. For the small model that is measured by a rehearsal, a
// token that is drafted from next to nothing and thrown away.
class DraftReading {
 public:
  // The target ran `rows` rows of prompts.
  void observe_prompt(int64_t rows, double seconds);
  void observe_rehearsal() { ++rehearsals_; }

  // What decoding is known to take, in seconds; of a batch together.
  struct Outlook {
    int64_t unread = 0;        // rows of prompts
    int64_t tokens = 0;        // that the longest output may still grow by
    int64_t longest = 0;       // draft
    double plain_step = 0.0;   // a step without drafts
    double draft_token = 0.0;  // of each lane's draft; 0: not known yet
  };
  // Another rehearsal would tell more: none was made yet, or the first, which meets memory that was never
  // touched, speaks against reading.
  bool wants_rehearsal(const Outlook& outlook) const;
  // Drafts that are right as often as good ones are, verified for nothing, would save more than reading
  // takes.
  bool pays(const Outlook& outlook) const;

 private:
  double prompt_row_ = 0.0;  // seconds of the target; 0: not known
  int64_t rehearsals_ = 0;
};

}  // namespace volley
