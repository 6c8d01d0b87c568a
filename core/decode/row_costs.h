#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace volley {

// Seconds of a forward by its number of rows, learnt from forwards as they happen. Costs of this kind are no
// line: products work in tiles, so that four rows may cost what one does, and the fifth as much again. So
// each count that was seen keeps an average of its own; a line is drawn only beyond them. More rows never
// cost less: where averages say so, it was noise, and they are joined (isotonic regression).
class RowCosts {
 public:
  // Times that no forward can have (none, negative, not finite) are passed over.
  void add(int64_t rows, double seconds);

  // Nothing was measured yet; no cost is known.
  bool empty() const { return levels_.empty(); }
  // The largest count that was measured; 0: none.
  int64_t most_rows() const { return levels_.empty() ? 0 : levels_.rbegin()->first; }
  // What a forward of so many rows will take. Not while empty.
  double seconds(int64_t rows) const;

 private:
  struct Level {
    double mean = 0.0;
    int64_t samples = 0;
  };
  void fit();

  std::map<int64_t, Level> levels_;  // by rows
  // Fitted to the levels, in their order.
  std::vector<int64_t> rows_;
  std::vector<double> seconds_;  // never falls
  double slope_ = 0.0;           // seconds of a further row
};

}  // namespace volley
