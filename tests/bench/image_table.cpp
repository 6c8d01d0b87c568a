#include "tests/bench/image_table.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

namespace volley {
namespace {

using nlohmann::json;

constexpr double kMiB = 1024.0 * 1024.0;

std::string number(double value, int digits) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return text.data();
}

std::string row(const std::vector<std::string>& cells) {
  std::string line = "|";
  for (const std::string& cell : cells) line += " " + cell + " |";
  return line + "\n";
}

std::string rule(size_t columns) {
  std::string line = "|";
  for (size_t i = 0; i < columns; ++i) line += "---|";
  return line + "\n";
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

std::string mib(const json& bytes) {
  return number(bytes.get<double>() / kMiB, 0);
}

std::string case_row(const json& report, double bandwidth) {
  const auto seconds = report.at("seconds").get<std::vector<double>>();
  const double middle = median(seconds);
  const double passes = report.at("forwards").get<double>(), tokens = report.at("tokens").get<double>();
  const double all_passes = passes + report.at("prompt_forwards").get<double>();
  const double weights = report.at("weight_bytes_read").get<double>(),
               keys_and_values = report.at("cache_bytes_read").get<double>(),
               floor = (weights + keys_and_values) / bandwidth;
  const bool has_forwards = passes > 0;
  const double peak =
      std::max(report.at("load_peak_bytes").get<double>(), report.at("run_peak_bytes").get<double>());
  const double held = report.at("weight_bytes").get<double>() + report.at("cache_bytes").get<double>();
  return row({report.at("case"), report.at("dtype"), number(middle, 3), number(std::ranges::min(seconds), 3),
              number(report.at("process_to_first_token_seconds"), 2), number(all_passes, 0),
              has_forwards ? number(report.at("rows").get<double>() / passes, 1) : "-",
              has_forwards ? number(tokens / all_passes, 1) : "-",
              has_forwards ? number(weights / all_passes / kMiB, 1) : "-",
              has_forwards ? number(keys_and_values / all_passes / kMiB, 1) : "-",
              has_forwards ? number(floor, 3) : "-", has_forwards ? number(middle / floor, 2) : "-",
              has_forwards ? number(middle * bandwidth / weights, 2) : "-", mib(report.at("weight_bytes")),
              mib(report.at("cache_bytes")), mib(report.at("load_peak_bytes")),
              mib(report.at("run_peak_bytes")), number((peak - held) / kMiB, 0)});
}

// What the machine cannot do faster: reading memory, multiplying in registers.
struct Ceilings {
  double bytes = 0.0;       // a second
  double operations = 0.0;  // a second, of floats; 0: not measured
  double quantized_operations = 0.0;

  // The least seconds of an operation, and which of the two it waits for.
  struct Bound {
    double seconds = 0.0;
    const char* name = "";
  };
  Bound of(const json& cost) const {
    const double read =
        (cost.at("weight_bytes").get<double>() + cost.at("cache_bytes").get<double>()) / bytes;
    const double rate = cost.at("is_quantized").get<bool>() ? quantized_operations : operations;
    const double multiplied = rate > 0 ? cost.at("operations").get<double>() / rate : 0.0;
    return read >= multiplied ? Bound{read, "reading"} : Bound{multiplied, "multiplying"};
  }
};

// Most expensive first.
std::string profile_table(const json& report, const Ceilings& ceilings) {
  std::vector<std::pair<std::string, json>> kinds;
  double inside = 0.0;
  for (const auto& [kind, cost] : report.at("profile").items()) {
    kinds.emplace_back(kind, cost);
    inside += cost.at("seconds").get<double>();
  }
  std::ranges::sort(kinds, std::ranges::greater{},
                    [](const auto& kind) { return kind.second.at("seconds").template get<double>(); });
  const double total = report.at("profiled_seconds");
  const std::vector<std::string> columns{"operation",   "calls", "ms",      "share %", "us a call",
                                         "rows a call", "GB/s",  "Gflop/s", "ceiling", "of it %"};
  std::string text = "\n" + report.at("case").get<std::string>() + " " +
                     report.at("dtype").get<std::string>() + ": " + number(total, 3) +
                     " s with every operation timed\n\n" + row(columns) + rule(columns.size());
  double least = 0.0, near = 0.0;  // seconds that the ceilings ask for; seconds at 80 % of one or more
  for (const auto& [kind, cost] : kinds) {
    const double seconds = cost.at("seconds"), calls = cost.at("calls"), rows = cost.at("rows");
    const double bytes = cost.at("weight_bytes").get<double>() + cost.at("cache_bytes").get<double>();
    const double operations = cost.at("operations");
    const Ceilings::Bound bound = ceilings.of(cost);
    const double reached = bound.seconds / seconds;
    least += bound.seconds;
    if (reached >= 0.8) near += seconds;
    text += row({kind, number(calls, 0), number(seconds * 1e3, 1), number(seconds / total * 100, 1),
                 number(seconds / calls * 1e6, 1), rows > 0 ? number(rows / calls, 1) : "",
                 bytes > 0 ? number(bytes / seconds / 1e9, 1) : "",
                 operations > 0 ? number(operations / seconds / 1e9, 1) : "",
                 bound.seconds > 0 ? bound.name : "", bound.seconds > 0 ? number(reached * 100, 0) : ""});
  }
  text += row({"between operations", "", number((total - inside) * 1e3, 1),
               number((total - inside) / total * 100, 1), "", "", "", "", "", ""});
  return text + "\nThe ceilings allow " + number(least, 3) + " s at best, " + number(least / total * 100, 0) +
         " % of the time; operations at 80 % of their ceiling or more take " + number(near / total * 100, 0) +
         " % of it.\n";
}

}  // namespace

std::string image_table(const json& result) {
  const double bandwidth = result.at("read_bytes_per_second");
  const json& cases = result.at("cases");
  const std::vector<std::string> columns{
      "case (R)",      "weights",      "median s",         "fastest s",          "first token s",
      "forwards",      "rows/forward", "tokens/forward",   "weight MiB/forward", "cache MiB/forward",
      "floor s",       "x floor",      "x weights' floor", "weights MiB",        "cache MiB",
      "peak load MiB", "peak run MiB", "above MiB"};
  std::string text = "Random weights (R); " + cases.front().at("device").get<std::string>() +
                     "; vector instructions capped at: " + result.at("max_isa").get<std::string>() +
                     "; memory is read at " + number(bandwidth / 1e9, 1) + " GB/s by " +
                     std::to_string(result.at("threads").get<int64_t>()) + " threads; load average " +
                     result.at("load_average").at(0).get<std::string>() + " before, " +
                     result.at("load_average").at(1).get<std::string>() + " after.\n\n" + row(columns) +
                     rule(columns.size());
  for (const json& report : cases) text += case_row(report, bandwidth);
  const Ceilings ceilings{.bytes = bandwidth,
                          .operations = result.at("operations_per_second"),
                          .quantized_operations = result.at("quantized_operations_per_second")};
  if (ceilings.operations > 0) {
    text += "\nRegisters multiply and add " + number(ceilings.operations / 1e9, 0) +
            " G floats a second (a multiply and an add are two), and " +
            number(ceilings.quantized_operations / 1e9, 0) + " G pairs of 16-bit integers.\n";
  }
  for (const json& report : cases) {
    if (report.contains("profile")) text += profile_table(report, ceilings);
  }
  return text;
}

}  // namespace volley
