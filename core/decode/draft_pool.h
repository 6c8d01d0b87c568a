#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace volley {

// Token texts that outlive the generation they come from, to be drafted from by later ones: what followed
// the last tokens there. The newest `limit` tokens are kept, the oldest make room. Texts may grow in turns,
// and what several begin with is kept once, as a conversation's turns and a common system message.
//
// Adding a token and looking one up take a bounded number of steps, whatever the pool holds. What is found
// is a function of what was added, and of the order.
class DraftPool {
 public:
  // Of memory, at most, for each token of the limit.
  static constexpr int64_t kBytesPerToken = 32;
  // Tokens of context that a match needs.
  static constexpr int64_t kShortestMatch = 2;
  // Texts that went on behind the same two tokens, of which a search looks at so many, the latest first.
  static constexpr int64_t kMostLooks = 16;

  // The last token of a text in the pool, where it goes on.
  using Place = int64_t;
  static constexpr Place kBeginning = -1;

  // Keeps nothing until it gets a limit.
  explicit DraftPool(int64_t limit = 0) { set_limit(limit); }

  int64_t limit() const { return limit_; }
  // Forgets everything if it is another than before.
  void set_limit(int64_t tokens);

  // Adds tokens behind `place`, and says where the text goes on.
  Place add(Place place, std::span<const int32_t> tokens);

  // What followed an end of a path.
  struct Match {
    int64_t length = 0;  // tokens of the path that agree, where the most do
    int64_t times = 0;   // that it followed so many
    int32_t next = -1;
  };
  // What followed the path's last tokens, by at most `longest` of which matches are told apart (at least
  // kShortestMatch), each token once: longest matches first, of one length the most frequent, then the
  // latest.
  std::vector<Match> matches(std::span<const int32_t> path, int64_t longest) const;

  int64_t size() const { return added_ < limit_ ? added_ : limit_; }  // tokens
  int64_t bytes() const;

 private:
  // A token and what it stands behind.
  struct Record {
    int32_t token = -1;
    Place before = kBeginning;
    Place same_key = kBeginning;  // the record before this one whose two tokens before it hash alike
  };

  bool is_kept(Place place) const { return place >= 0 && place >= added_ - limit_; }
  const Record& at(Place place) const { return records_[static_cast<size_t>(place % limit_)]; }
  int32_t token_at(Place place) const { return is_kept(place) ? at(place).token : -1; }
  // Where the records behind such two tokens begin.
  size_t head_of(int32_t last_but_one, int32_t last) const;
  Place add(Place place, int32_t token);

  int64_t limit_ = 0;
  int64_t added_ = 0;            // tokens, ever
  std::vector<Record> records_;  // [at most limit], a ring
  std::vector<Place> heads_;     // the latest record by the hash of the two tokens before it
};

}  // namespace volley
