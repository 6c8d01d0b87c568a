// From what a person typed to a class of the model.
#include <algorithm>
#include <array>
#include <compare>

#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"
#include "image/image_card.h"
#include "image/prompt_words.h"

namespace volley::image {
namespace {

constexpr int64_t kOffered = 5;

// The words of a text with one space between them.
std::string words_of(std::string_view text) {
  std::string words;
  for (const std::string& word : prompt_words(text)) words += (words.empty() ? "" : " ") + word;
  return words;
}

// Whether `words` holds `part` as whole words; a plural s is allowed for.
bool holds_words(const std::string& words, const std::string& part) {
  if (part.empty()) return false;
  const std::string padded = " " + words + " ";
  return padded.find(" " + part + " ") != std::string::npos ||
         padded.find(" " + part + "s ") != std::string::npos;
}

// Each word without the ending of a plural, roughly: only for offers.
std::string singular(const std::string& words) {
  std::string result;
  for (size_t begin = 0; begin < words.size();) {
    const size_t end = std::min(words.find(' ', begin), words.size());
    std::string word = words.substr(begin, end - begin);
    if (word.size() > 4 && word.ends_with("ies")) {
      word.replace(word.size() - 3, 3, "y");
    } else if (word.size() > 4 &&
               (word.ends_with("ches") || word.ends_with("shes") || word.ends_with("xes") ||
                word.ends_with("sses") || word.ends_with("oes"))) {
      word.resize(word.size() - 2);
    } else if (word.size() > 3 && word.ends_with('s') && !word.ends_with("ss")) {
      word.pop_back();
    }
    result += (result.empty() ? "" : " ") + word;
    begin = end + 1;
  }
  return result;
}

// Without articles, unless there is nothing else.
std::string without_articles(const std::string& words) {
  std::string result;
  for (const std::string& word : prompt_words(words)) {
    if (word != "a" && word != "an" && word != "the") result += (result.empty() ? "" : " ") + word;
  }
  return result.empty() ? words : result;
}

// How closely a name answers to the words, best first; names of one rank are told apart by edit distance.
enum class Match : uint8_t { kWholeWords, kStartOfWord, kSomeWords, kPart, kNone };
struct Rank {
  Match match = Match::kNone;
  int64_t missing = 0;  // words that the name does not have, if it has some
  auto operator<=>(const Rank&) const = default;
};
Rank rank_of(const std::string& words, const std::string& name) {
  if (words.empty()) return {};
  const std::string one = singular(words), padded = " " + name;
  if (holds_words(name, words) || holds_words(singular(name), one)) return {.match = Match::kWholeWords};
  if (padded.find(" " + one) != std::string::npos) return {.match = Match::kStartOfWord};
  const std::vector<std::string> each = prompt_words(one);
  const int64_t missing = std::ranges::count_if(
      each, [&, names = singular(name)](const std::string& word) { return !holds_words(names, word); });
  if (missing < std::ssize(each)) return {.match = Match::kSomeWords, .missing = missing};
  return {.match = name.find(one) != std::string::npos ? Match::kPart : Match::kNone};
}

[[noreturn]] void fail(std::string_view what, std::string_view text,
                       const std::vector<std::string>& candidates) {
  const bool is_emoji = is_emoji_alone(text);
  std::string offer;
  for (const std::string& name : nearest_choices(text, candidates, kOffered)) {
    offer += (offer.empty() ? "" : ", ") + name;
  }
  throw Error(std::string(what) + " " + quote(text) +
                  (is_emoji ? ": an emoji; name it in words, such as " : ": no such class; nearest are ") +
                  offer,
              ErrorKind::kUsage);
}

}  // namespace

std::vector<std::string> nearest_choices(std::string_view text, const std::vector<std::string>& candidates,
                                         int64_t count) {
  const std::string words = without_articles(words_of(text));
  std::vector<std::string> unique = candidates;
  std::ranges::sort(unique);
  unique.erase(std::unique(unique.begin(), unique.end()), unique.end());
  std::vector<std::string> nearest = nearest_names(text, unique, static_cast<int64_t>(unique.size()));
  std::ranges::stable_sort(nearest, {},
                           [&](const std::string& name) { return rank_of(words, words_of(name)); });
  nearest.resize(std::min(nearest.size(), static_cast<size_t>(count)));
  return nearest;
}

ClassChoice find_class(const ImageCard& card, std::string_view name, std::string_view subject) {
  const auto found = std::ranges::find(card.classes, name);
  if (found == card.classes.end()) fail(subject, name, card.classes);
  return {.id = found - card.classes.begin(), .name = *found};
}

std::string class_label(const ImageCard& card, int64_t id) {
  const std::string& name = card.classes[static_cast<size_t>(id)];
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto found = std::ranges::find(card.names, id, &EmojiName::class_id);
  if (!std::ranges::all_of(name, is_digit) || found == card.names.end()) return name;
  // One of two that are called alike ends in its number already.
  const std::string number = " " + name;
  std::string_view called = found->name;
  if (called.ends_with(number)) called.remove_suffix(number.size());
  return std::string(called) + " (" + name + ")";
}

ClassChoice find_prompt(const ImageCard& card, std::string_view prompt) {
  const std::string words = words_of(prompt);
  for (size_t id = 0; id < card.classes.size(); ++id) {
    if (card.classes[id] == prompt || (!words.empty() && words_of(card.classes[id]) == words)) {
      return {.id = static_cast<int64_t>(id), .name = card.classes[id]};
    }
  }
  const EmojiName* best = nullptr;
  for (const EmojiName& entry : card.names) {
    if (!holds_words(words, words_of(entry.name))) continue;
    if (best == nullptr || entry.name.size() > best->name.size()) best = &entry;
  }
  if (best == nullptr) {
    // Words are asked for in place of an emoji: numbers of classes are none.
    std::vector<std::string> candidates;
    if (card.names.empty() || !is_emoji_alone(prompt)) candidates = card.classes;
    for (const EmojiName& entry : card.names) candidates.push_back(entry.name);
    fail("prompt", prompt, candidates);
  }
  return {.id = best->class_id, .name = card.classes[static_cast<size_t>(best->class_id)], .is_exact = false};
}

}  // namespace volley::image
