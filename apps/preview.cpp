#include "apps/preview.h"

#include <algorithm>

#include "apps/picture_writer.h"
#include "apps/terminal_picture.h"
#include "image/picture_file.h"

namespace volley::apps {
namespace {

constexpr std::chrono::milliseconds kBetweenPreviews{500};
constexpr int64_t kMostColumns = 64;

}  // namespace

bool Preview::is_due(const Item& item) const {
  if (options_.every > 0) return item.steps % options_.every == 0;
  return std::chrono::steady_clock::now() - shown_ >= kBetweenPreviews;
}

void Preview::on_step(const StepEvent& event) {
  Item& item = items_[event.generation];
  if (item.codes.empty()) item.codes.assign(static_cast<size_t>(event.total), -1);
  for (size_t i = 0; i < event.positions.size(); ++i)
    item.codes[static_cast<size_t>(event.positions[i])] = event.tokens[i];
  ++item.steps;
  // A whole picture is shown as such when it is written; until then the next one is the first unfinished.
  if (event.done == event.total) {
    items_.erase(event.generation);
    return;
  }
  if (event.generation != items_.begin()->first || !is_due(item)) return;
  show(maker_.partial(event.generation, item.codes));
}

void Preview::on_picture(const image::ImagePicture& picture) {
  if (items_.empty() || picture.index < items_.begin()->first) show(picture.picture);
}

void Preview::show(const image::Picture& picture) {
  shown_ = std::chrono::steady_clock::now();
  for (const std::string& file : options_.files) {
    const auto format = image::format_of_path(file).value_or(image::PictureFormat::kPng);
    write_file(file, image::encode_picture(picture, {.format = format}), Existing::kReplace);
  }
  if (!options_.on_terminal) return;
  // A line stays free for the progress, and one for the cursor.
  const TerminalSize room = terminal_size();
  console_.picture(terminal_picture(picture, std::min(room.columns - 1, kMostColumns), room.lines - 2));
}

}  // namespace volley::apps
