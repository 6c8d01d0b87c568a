#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/decode/acceptance.h"
#include "core/decode/decoder.h"

namespace volley {

// Reads a decoder's options one by one. Throws Error kUsage naming decoder, option and value.
class OptionReader {
 public:
  // The registry row of `spec` says which options exist and their defaults.
  explicit OptionReader(const DecoderSpec& spec);

  int64_t integer(const std::string& option, int64_t low, int64_t high) const;
  // One of `choices`.
  std::string choice(const std::string& option, const std::vector<std::string>& choices) const;
  double number(const std::string& option, double low, double high) const;
  // "off", or a number.
  std::optional<double> number_or_off(const std::string& option, double low, double high) const;
  // Whole numbers joined by 'x'.
  std::vector<int64_t> integers(const std::string& option, int64_t low, int64_t high) const;
  // Numbers joined by 'x'.
  std::vector<double> numbers(const std::string& option, double low, double high) const;

 private:
  std::string text(const std::string& option) const;
  std::optional<double> parsed_number(const std::string& option, double low, double high) const;
  [[noreturn]] void fail(const std::string& option, const std::string& expected) const;

  const DecoderSpec& spec_;
};

// Throws Error kUsage for lengths that a clock chooses under another rule than the coupled one: what such a
// rule draws depends on where drafts end, so that two runs of one seed would give other tokens.
void require_coupled(const std::string& decoder, bool is_adaptive, AcceptanceKind acceptance);

// The candidates nearest to `text` by edit distance, nearest first.
std::vector<std::string> nearest_names(std::string_view text, const std::vector<std::string>& candidates,
                                       int64_t count);
// The nearest, if `text` may be a slip of it: at most a third of its letters differ.
std::optional<std::string> likely_name(std::string_view text, const std::vector<std::string>& candidates);

}  // namespace volley
