#pragma once

#include <string>
#include <vector>

#include "apps/bench_comparison.h"
#include "apps/bench_result.h"

namespace volley::apps {

// A number with four digits that count: "0.2134", "62.13", "12345".
std::string four_digits(double value);

// What was measured with what, a line each: for tables and charts.
std::vector<std::string> bench_caption(const BenchResult& result);
// How the intervals of these rows are meant, a line for each count of samples. Empty without rows.
std::vector<std::string> interval_notes(const std::vector<BenchRow>& rows);

// For people, 80 columns wide unless names are long.
std::string bench_table(const BenchResult& result);
std::string comparison_table(const BenchComparison& comparison, const std::string& old_path,
                             const std::string& new_path);

// A row's name as it stands under the row `head`: "  tokens a forward" for "lookup greedy: tokens a
// forward" under "lookup greedy". Other names stay as they are.
std::string name_under(const std::string& head, const std::string& name);

}  // namespace volley::apps
