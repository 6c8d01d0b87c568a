#pragma once

#include <string>

#include "apps/bench_comparison.h"
#include "apps/bench_result.h"

namespace volley::apps {

// Pictures without scripts or anything from elsewhere: a bar a row as long as its median, with the interval
// as whiskers. Rows of one unit share a scale. Of a comparison two bars a row, the old one above.
std::string bench_svg(const BenchResult& result);
std::string comparison_svg(const BenchComparison& comparison, const std::string& old_path,
                           const std::string& new_path);

}  // namespace volley::apps
