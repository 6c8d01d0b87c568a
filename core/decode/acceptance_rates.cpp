#include "core/decode/acceptance_rates.h"

#include <algorithm>

namespace volley {
namespace {

constexpr double kFading = 0.9;  // counts stand for the last twenty drafts or so
constexpr double kFirstRate = 0.5;
// How many drafts an assumption stands for.
constexpr double kFirstWeight = 1.0;
constexpr double kPlaceWeight = 2.0;
constexpr double kOthersWeight = 2.0;

}  // namespace

double AcceptanceRates::rate(int64_t generation, int64_t grade, int64_t place) const {
  const auto at = static_cast<size_t>(place);
  const std::vector<Count>& all = all_[static_cast<size_t>(grade)];
  double rate = kFirstRate;
  double weight = kFirstWeight;
  for (size_t i = 0; i < std::min(all.size(), at + 1); ++i) {
    rate = (all[i].right + weight * rate) / (all[i].tried + weight);
    weight = kPlaceWeight;
  }
  if (generation >= std::ssize(own_)) return rate;
  const std::vector<Count>& own = own_[static_cast<size_t>(generation)][static_cast<size_t>(grade)];
  if (at >= own.size()) return rate;
  return (own[at].right + kOthersWeight * rate) / (own[at].tried + kOthersWeight);
}

void AcceptanceRates::add(int64_t generation, int64_t grade, int64_t drafted, int64_t accepted) {
  add(all_[static_cast<size_t>(grade)], drafted, accepted);
  if (generation >= std::ssize(own_)) own_.resize(static_cast<size_t>(generation) + 1);
  add(own_[static_cast<size_t>(generation)][static_cast<size_t>(grade)], drafted, accepted);
}

void AcceptanceRates::add(std::vector<Count>& counts, int64_t drafted, int64_t accepted) {
  const auto tried = static_cast<size_t>(std::min(accepted + 1, drafted));
  if (counts.size() < tried) counts.resize(tried);
  for (size_t i = 0; i < tried; ++i) {
    counts[i].right = counts[i].right * kFading + (static_cast<int64_t>(i) < accepted ? 1.0 : 0.0);
    counts[i].tried = counts[i].tried * kFading + 1.0;
  }
}

}  // namespace volley
