#include "core/decode/options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <numeric>

#include "core/base/error.h"

namespace volley {
namespace {

const DecoderInfo& info_of(const DecoderSpec& spec) {
  const auto& registry = decoder_registry();
  const auto info = std::ranges::find_if(registry, [&](const DecoderInfo& i) { return i.name == spec.name; });
  VOLLEY_ASSERT(info != registry.end());
  return *info;
}

int64_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<int64_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int64_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

std::string shortest(double number) {
  std::array<char, 32> digits{};
  return {digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr};
}

}  // namespace

std::vector<std::string> nearest_names(std::string_view text, const std::vector<std::string>& candidates,
                                       int64_t count) {
  std::vector<std::string> sorted = candidates;
  std::ranges::stable_sort(sorted, {}, [&](const std::string& name) { return edit_distance(text, name); });
  sorted.resize(std::min(sorted.size(), static_cast<size_t>(count)));
  return sorted;
}

std::optional<std::string> likely_name(std::string_view text, const std::vector<std::string>& candidates) {
  const std::vector<std::string> nearest = nearest_names(text, candidates, 1);
  if (nearest.empty() || 3 * edit_distance(text, nearest.front()) > std::ssize(text)) return std::nullopt;
  return nearest.front();
}

void require_coupled(const std::string& decoder, bool is_adaptive, AcceptanceKind acceptance) {
  if (!is_adaptive || acceptance == AcceptanceKind::kCoupled) return;
  throw Error(
      "--decoder " + decoder +
          ": length=adaptive goes with accept=coupled only: tokens of other rules would depend on the clock",
      ErrorKind::kUsage);
}

OptionReader::OptionReader(const DecoderSpec& spec) : spec_(spec) {
  for (const auto& [key, value] : spec.options) {
    std::vector<std::string> names;
    for (const DecoderOption& option : info_of(spec).options) names.push_back(option.name);
    if (std::ranges::count(names, key) > 0) continue;
    std::string known;
    for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
    throw Error("--decoder " + spec.name + ": no option '" + key + "'" +
                    (known.empty() ? "; it has none" : "; known are " + known),
                ErrorKind::kUsage);
  }
}

std::string OptionReader::text(const std::string& option) const {
  const auto given = spec_.options.find(option);
  if (given != spec_.options.end()) return given->second;
  for (const DecoderOption& known : info_of(spec_).options) {
    if (known.name == option) return known.fallback;
  }
  VOLLEY_ASSERT(false);
  return {};
}

void OptionReader::fail(const std::string& option, const std::string& expected) const {
  throw Error("--decoder " + spec_.name + ": " + option + "=" + text(option) + ": expected " + expected,
              ErrorKind::kUsage);
}

int64_t OptionReader::integer(const std::string& option, int64_t low, int64_t high) const {
  const std::string value = text(option);
  int64_t parsed = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
  if (error != std::errc() || end != value.data() + value.size() || parsed < low || parsed > high) {
    fail(option, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return parsed;
}

std::string OptionReader::choice(const std::string& option, const std::vector<std::string>& choices) const {
  const std::string value = text(option);
  if (std::ranges::count(choices, value) == 0) {
    std::string known;
    for (const std::string& name : choices) known += (known.empty() ? "" : " or ") + name;
    fail(option, known);
  }
  return value;
}

std::optional<double> OptionReader::parsed_number(const std::string& option, double low, double high) const {
  const std::string value = text(option);
  double parsed = 0.0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), parsed);
  const bool is_whole = error == std::errc() && end == value.data() + value.size();
  return is_whole && parsed >= low && parsed <= high ? std::optional(parsed) : std::nullopt;
}

double OptionReader::number(const std::string& option, double low, double high) const {
  const std::optional<double> parsed = parsed_number(option, low, high);
  if (!parsed) fail(option, "a number from " + shortest(low) + " to " + shortest(high));
  return *parsed;
}

std::optional<double> OptionReader::number_or_off(const std::string& option, double low, double high) const {
  if (text(option) == "off") return std::nullopt;
  const std::optional<double> parsed = parsed_number(option, low, high);
  if (!parsed) fail(option, "off or a number from " + shortest(low) + " to " + shortest(high));
  return parsed;
}

std::vector<double> OptionReader::numbers(const std::string& option, double low, double high) const {
  const std::string value = text(option);
  std::vector<double> parsed;
  for (size_t begin = 0; begin <= value.size();) {
    const size_t end = std::min(value.find('x', begin), value.size());
    double number = 0.0;
    const auto [stop, error] = std::from_chars(value.data() + begin, value.data() + end, number);
    if (error != std::errc() || stop != value.data() + end || !(number >= low && number <= high)) {
      fail(option, "numbers joined by 'x'");
    }
    parsed.push_back(number);
    begin = end + 1;
  }
  return parsed;
}

std::vector<int64_t> OptionReader::integers(const std::string& option, int64_t low, int64_t high) const {
  std::vector<int64_t> whole;
  for (double number : numbers(option, static_cast<double>(low), static_cast<double>(high))) {
    whole.push_back(static_cast<int64_t>(number));
    if (static_cast<double>(whole.back()) != number) fail(option, "whole numbers joined by 'x'");
  }
  return whole;
}

}  // namespace volley
