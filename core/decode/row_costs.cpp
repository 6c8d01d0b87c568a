#include "core/decode/row_costs.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace volley {
namespace {

// The first forwards of a size meet cold caches and memory that was never touched: of so many the shortest
// counts.
constexpr int64_t kFirstSamples = 3;
constexpr int64_t kMostSamples = 8;  // that an average remembers
constexpr double kRate = 1.0 / static_cast<double>(kMostSamples);
// A forward that something else on the machine held up says little of forwards.
constexpr double kOutlier = 2.0;

}  // namespace

void RowCosts::add(int64_t rows, double seconds) {
  VOLLEY_ASSERT(rows > 0);
  // Beyond a day no clock is to be believed.
  if (!(seconds > 0.0 && seconds < 86400.0)) return;
  if (!empty()) seconds = std::min(seconds, kOutlier * this->seconds(rows));
  Level& level = levels_[rows];
  ++level.samples;
  if (level.samples <= kFirstSamples) {
    level.mean = level.samples == 1 ? seconds : std::min(level.mean, seconds);
  } else {
    const double before = level.mean;
    level.mean += kRate * (seconds - before);
    // Sequences grow, and others come to use the machine: what slows one count slows the others, which may
    // not be measured for long. Half of it only, or the counts' proportions would never change.
    const double share = std::sqrt(level.mean / before);
    for (auto& [other, its] : levels_) {
      if (other != rows) its.mean *= share;
    }
  }
  fit();
}

void RowCosts::fit() {
  struct Block {
    double mean = 0.0;
    double weight = 0.0;
    int64_t levels = 0;
  };
  std::vector<Block> blocks;
  rows_.clear();
  for (const auto& [rows, level] : levels_) {
    rows_.push_back(rows);
    blocks.push_back({level.mean, static_cast<double>(std::min(level.samples, kMostSamples)), 1});
    while (blocks.size() > 1 && blocks[blocks.size() - 2].mean > blocks.back().mean) {
      const Block last = blocks.back();
      blocks.pop_back();
      Block& joined = blocks.back();
      joined.mean = (joined.mean * joined.weight + last.mean * last.weight) / (joined.weight + last.weight);
      joined.weight += last.weight;
      joined.levels += last.levels;
    }
  }
  seconds_.clear();
  for (const Block& block : blocks)
    seconds_.insert(seconds_.end(), static_cast<size_t>(block.levels), block.mean);

  // Least squares over the fitted values.
  double weight = 0.0, mean_rows = 0.0, mean_seconds = 0.0;
  size_t i = 0;
  for (const auto& [rows, level] : levels_) {
    const auto w = static_cast<double>(std::min(level.samples, kMostSamples));
    weight += w;
    mean_rows += w * static_cast<double>(rows);
    mean_seconds += w * seconds_[i++];
  }
  mean_rows /= weight;
  mean_seconds /= weight;
  double covariance = 0.0, variance = 0.0;
  i = 0;
  for (const auto& [rows, level] : levels_) {
    const auto w = static_cast<double>(std::min(level.samples, kMostSamples));
    const double away = static_cast<double>(rows) - mean_rows;
    covariance += w * away * (seconds_[i++] - mean_seconds);
    variance += w * away * away;
  }
  slope_ = variance > 0.0 ? std::max(covariance / variance, 0.0) : 0.0;
}

double RowCosts::seconds(int64_t rows) const {
  VOLLEY_ASSERT(!empty());
  const auto above = std::ranges::lower_bound(rows_, rows);
  if (above == rows_.end()) return seconds_.back() + slope_ * static_cast<double>(rows - rows_.back());
  const auto place = static_cast<size_t>(above - rows_.begin());
  if (*above == rows) return seconds_[place];
  const auto upper_rows = static_cast<double>(*above);
  if (place == 0) {
    // Fewer rows than ever were measured: by the line, but no cheaper than their share.
    const double share = seconds_[0] * static_cast<double>(rows) / upper_rows;
    return std::max(seconds_[0] - slope_ * (upper_rows - static_cast<double>(rows)), share);
  }
  const auto lower_rows = static_cast<double>(rows_[place - 1]);
  const double part = (static_cast<double>(rows) - lower_rows) / (upper_rows - lower_rows);
  return seconds_[place - 1] + part * (seconds_[place] - seconds_[place - 1]);
}

}  // namespace volley
