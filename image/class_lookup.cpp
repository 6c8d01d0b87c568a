// From what a person typed to a class of the model.
#include <algorithm>
#include <cctype>

#include "core/base/error.h"
#include "core/decode/options.h"
#include "core/io/untrusted_text.h"
#include "image/image_card.h"

namespace volley::image {
namespace {

constexpr int64_t kOffered = 5;

bool is_word_byte(unsigned char c) {
  return std::isalnum(c) != 0 || c >= 0x80;
}

// Lower case; every run of other bytes than letters and digits becomes one space.
std::string words_of(std::string_view text) {
  std::string words;
  for (unsigned char c : text) {
    if (is_word_byte(c)) {
      words += static_cast<char>(std::tolower(c));
    } else if (!words.empty() && words.back() != ' ') {
      words += ' ';
    }
  }
  while (words.ends_with(' ')) words.pop_back();
  return words;
}

// Whether `words` holds `part` as whole words; a plural s is allowed for.
bool holds_words(const std::string& words, const std::string& part) {
  if (part.empty()) return false;
  const std::string padded = " " + words + " ";
  return padded.find(" " + part + " ") != std::string::npos ||
         padded.find(" " + part + "s ") != std::string::npos;
}

[[noreturn]] void fail(std::string_view what, std::string_view text,
                       const std::vector<std::string>& candidates) {
  std::string offer;
  for (const std::string& name : nearest_choices(text, candidates, kOffered)) {
    offer += (offer.empty() ? "" : ", ") + name;
  }
  throw Error(std::string(what) + " " + quote(text) + ": no such class; nearest are " + offer,
              ErrorKind::kUsage);
}

}  // namespace

std::vector<std::string> nearest_choices(std::string_view text, const std::vector<std::string>& candidates,
                                         int64_t count) {
  const std::string words = words_of(text);
  std::vector<std::string> unique = candidates;
  std::ranges::sort(unique);
  unique.erase(std::ranges::unique(unique).begin(), unique.end());
  std::vector<std::string> nearest = nearest_names(text, unique, static_cast<int64_t>(unique.size()));
  const auto holds = [&](const std::string& name) {
    const std::string other = words_of(name);
    return !words.empty() && (other.find(words) != std::string::npos || holds_words(words, other));
  };
  std::stable_partition(nearest.begin(), nearest.end(), holds);
  nearest.resize(std::min(nearest.size(), static_cast<size_t>(count)));
  return nearest;
}

ClassChoice find_class(const ImageCard& card, std::string_view name) {
  const auto found = std::ranges::find(card.classes, name);
  if (found == card.classes.end()) fail("--class", name, card.classes);
  return {.id = found - card.classes.begin(), .name = *found};
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
    std::vector<std::string> candidates = card.classes;
    for (const EmojiName& entry : card.names) candidates.push_back(entry.name);
    fail("prompt", prompt, candidates);
  }
  return {.id = best->class_id, .name = card.classes[static_cast<size_t>(best->class_id)], .is_exact = false};
}

}  // namespace volley::image
