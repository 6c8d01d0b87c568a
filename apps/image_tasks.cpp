// From the flags of volley image to its requests.
#include "apps/image_tasks.h"

#include <algorithm>
#include <charconv>
#include <random>

#include "apps/edit_files.h"
#include "apps/model_store.h"
#include "apps/prompt_file.h"
#include "core/base/error.h"
#include "core/io/untrusted_text.h"
#include "image/picture_limits.h"
#include "image/prompt_words.h"

namespace volley::apps {
namespace {

using image::ImageRequest;

constexpr size_t kMaxSeeds = 100000;

std::vector<uint64_t> parse_seeds(const std::string& list) {
  std::vector<uint64_t> seeds;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    uint64_t seed = 0;
    const auto [stop, error] = std::from_chars(list.data() + begin, list.data() + end, seed);
    if (error != std::errc() || stop != list.data() + end || begin == end) {
      throw Error("--seeds " + list + ": expected whole numbers joined by commas", ErrorKind::kUsage);
    }
    seeds.push_back(seed);
    begin = end + 1;
    if (seeds.size() > kMaxSeeds) throw Error("--seeds: more than 100000", ErrorKind::kUsage);
  }
  return seeds;
}

// Says what of a prompt a text encoder cannot read.
void check_words(const image::TextEncoderConfig& encoder, const ImageRequest& request, Console& console) {
  const auto words = static_cast<int64_t>(image::prompt_words(request.prompt).size());
  if (words == 0) {
    throw Error("prompt " + quote(request.prompt) + ": holds no words", ErrorKind::kUsage);
  }
  if (image::is_emoji_alone(request.prompt)) {
    throw Error("prompt " + quote(request.prompt) + ": an emoji; name it in words", ErrorKind::kUsage);
  }
  if (words > encoder.max_words) {
    console.note("the first " + std::to_string(encoder.max_words) + " words of the prompt are read, " +
                 std::to_string(words) + " are given");
  }
}

// The class that the request or its words name, unless the model reads its prompt as text. `class_subject` is
// who named the class, for messages.
void choose_class(const image::ImageCard& card, Console& console, const std::string& class_subject,
                  ImageRequest& request) {
  if (card.text_encoder && !request.prompt.empty())
    return check_words(card.text_encoder->config, request, console);
  const image::ClassChoice choice = request.prompt.empty()
                                        ? find_class(card, request.class_name, class_subject)
                                        : find_prompt(card, request.prompt);
  request.class_name = choice.name;
  request.class_id = choice.id;
  if (!choice.is_exact) {
    console.note("\"" + printable(request.prompt, 200) + "\" -> class " +
                 printable(image::class_label(card, choice.id), 100));
  }
}

// The text features of a request, of which its prompt only says what they were made of.
void choose_features(const ImageFlags& flags, const image::ImageCard& card, ImageRequest& request) {
  if (!flags.class_name.empty()) {
    throw Error("--class " + flags.class_name + ": model " + card.name + " draws captions, not classes",
                ErrorKind::kUsage);
  }
  if (flags.shared.text_features.empty()) {
    throw Error("image: model " + card.name +
                    " draws from what a text encoder makes of a prompt, and volley has no such encoder: give "
                    "--text-features FILE (docs/models.md says how to make one)",
                ErrorKind::kUsage);
  }
  request.features = read_features(flags.shared.text_features, card);
  request.features_hash = request.features->sha256;
}

image::EditRequest make_edit(const ImageFlags& flags, const image::ImageCard& card, Console& console) {
  const int64_t cell = card.image_size / card.grid;
  image::EditRequest edit{.feather = flags.feather.value_or(cell / 2)};
  if (!flags.outpaint.empty())
    edit.outpaint = image::parse_margins(flags.outpaint, std::max<int64_t>(card.grid / 2, 1));
  const bool has_area = !flags.mask.empty() || edit.outpaint.any();
  if (flags.strength && has_area) {
    throw Error("--strength: does not go with " + std::string(flags.mask.empty() ? "--outpaint" : "--mask") +
                    ", which says what to repaint",
                ErrorKind::kUsage);
  }
  if (!has_area) edit.strength = flags.strength.value_or(image::kDefaultStrength);
  if (!has_area && edit.strength <= 0.0) {
    throw Error("--strength 0: would repaint nothing", ErrorKind::kUsage);
  }
  read_edit_files(
      {.init = flags.init, .mask = flags.mask}, card, [&](const std::string& line) { console.note(line); },
      edit);
  return edit;
}

void refuse_edit_without_init(const ImageFlags& flags) {
  const char* flag = !flags.mask.empty()       ? "--mask"
                     : !flags.outpaint.empty() ? "--outpaint"
                     : flags.strength          ? "--strength"
                     : flags.feather           ? "--feather"
                                               : nullptr;
  if (flag != nullptr)
    throw Error(std::string(flag) + ": needs --init, a picture to change", ErrorKind::kUsage);
}

// What all requests of the flags have in common: everything but what to draw.
ImageRequest common_request(const ImageFlags& flags, const image::ImageCard& card, Console& console) {
  ImageRequest request{.model = card.name, .count = flags.count};
  request.check = flags.shared.check ? image::Check::kYes : image::Check::kNo;
  request.seed = static_cast<uint64_t>(flags.shared.seed);
  if (flags.shared.seed < 0) request.seed = std::random_device{}();
  if (!flags.seeds.empty()) {
    request.seeds = parse_seeds(flags.seeds);
    if (flags.count != 1 || flags.shared.seed != 0) {
      throw Error("--seeds: does not go with --count or --seed; it says how many and which",
                  ErrorKind::kUsage);
    }
    request.count = std::ssize(request.seeds);
    request.seed = request.seeds.front();
  }
  if (flags.preview_every > 0 && flags.previews.empty())
    throw Error("--preview-every: needs --preview, a place to show them", ErrorKind::kUsage);
  if (flags.init.empty()) {
    refuse_edit_without_init(flags);
  } else {
    request.edit = make_edit(flags, card, console);
  }
  image::MethodChoices method = flags.shared.method;
  method.shows_steps = !flags.animate.empty() || !flags.step_map.empty();
  choose_method(card, method, request);
  const image::Canvas canvas = canvas_of(card, request);
  const auto refuse_size = [](const std::string& flag, int64_t width, int64_t height) {
    if (std::max(width, height) <= image::kMaxSide && width * height <= image::kMaxPixels) return;
    throw Error(flag + " would make " + std::to_string(width) + "x" + std::to_string(height) +
                    " pixels, which is too large for one file",
                ErrorKind::kUsage);
  };
  if (canvas.cells() > image::kMaxCanvas) {
    throw Error("--outpaint " + flags.outpaint + ": " + std::to_string(canvas.columns) + "x" +
                    std::to_string(canvas.rows) + " cells, expected at most " +
                    std::to_string(image::kMaxCanvas),
                ErrorKind::kUsage);
  }
  refuse_size("--outpaint", canvas.width(), canvas.height());
  if (flags.grid) {
    const image::GridLayout layout = image::grid_layout(request.count);
    refuse_size("--grid: " + plural(request.count, "picture"), layout.columns * canvas.width(),
                layout.rows * canvas.height());
  }
  return request;
}

ImageTask task_of_words(const ImageFlags& flags, const image::ImageCard& card, ImageRequest request,
                        Console& console) {
  for (const std::string& word : flags.prompt) request.prompt += (request.prompt.empty() ? "" : " ") + word;
  if (!is_valid_utf8(request.prompt)) throw Error("prompt: is not UTF-8", ErrorKind::kUsage);
  if (card.is_caption_model()) {
    choose_features(flags, card, request);
    return {.request = std::move(request)};
  }
  if (!request.prompt.empty() && !flags.class_name.empty()) {
    throw Error("--class " + flags.class_name + ": does not go with a prompt; give one of the two",
                ErrorKind::kUsage);
  }
  if (!flags.shared.text_features.empty()) {
    throw Error("--text-features: model " + card.name + " draws classes, not captions", ErrorKind::kUsage);
  }
  if (request.prompt.empty() && flags.class_name.empty()) {
    throw Error(
        "image: name what to draw: a prompt such as 'red apple', --class or --prompt-file; volley "
        "models info " +
            flags.shared.model + " lists the " + std::to_string(card.classes.size()) + " classes",
        ErrorKind::kUsage);
  }
  request.class_name = flags.class_name;
  choose_class(card, console, "--class", request);
  return {.request = std::move(request)};
}

// Item i of the whole file uses seed + i, unless its line says otherwise.
void add_line(const PromptLine& line, const image::ImageCard& card, const ImageRequest& common,
              uint64_t offset, Console& console, ImageTask& task) {
  if (!line.fault.empty()) throw Error(line.fault);
  ImageRequest& request = task.request;
  request.prompt = line.prompt;
  request.class_name = line.class_name;
  choose_class(card, console, "key 'class':", request);
  if (line.seed || line.count) request.seeds.clear();
  if (line.count) request.count = *line.count;
  if (line.seed && !line.count && !common.seeds.empty()) request.count = 1;
  if (request.seeds.empty()) request.seed = line.seed.value_or(common.seed + offset);
  task.line = line.line;
  task.name = line.name;
}

}  // namespace

int64_t ImageTasks::pictures() const {
  int64_t count = 0;
  for (const ImageTask& task : tasks) count += task.request.count;
  return count;
}

std::vector<OutputFields> ImageTasks::fields() const {
  std::vector<OutputFields> fields;
  for (const ImageTask& task : tasks) {
    const ImageRequest& request = task.request;
    for (int64_t item = 0; item < request.count; ++item) {
      fields.push_back({.prompt = request.prompt.empty() ? request.class_name : request.prompt,
                        .name = task.name,
                        .line = task.line,
                        .seed = request.seed_of(item)});
    }
  }
  return fields;
}

ImageTasks make_tasks(const ImageFlags& flags, const image::ImageCard& card, Console& console) {
  ImageTasks result;
  const ImageRequest common = common_request(flags, card, console);
  if (flags.prompt_file.empty()) {
    result.tasks.push_back(task_of_words(flags, card, common, console));
    return result;
  }
  if (!flags.prompt.empty() || !flags.class_name.empty()) {
    throw Error("--prompt-file " + flags.prompt_file + ": does not go with a prompt or --class",
                ErrorKind::kUsage);
  }
  if (card.is_caption_model() || !flags.shared.text_features.empty()) {
    throw Error("--prompt-file " + flags.prompt_file + ": does not go with text features", ErrorKind::kUsage);
  }
  if (flags.grid) {
    throw Error("--grid: does not go with --prompt-file, whose lines are pictures of their own",
                ErrorKind::kUsage);
  }
  uint64_t offset = 0;
  for (const PromptLine& line : read_prompt_file(flags.prompt_file)) {
    ImageTask task{.request = common,
                   .source = flags.prompt_file + ":" + std::to_string(line.line),
                   .first_file = static_cast<size_t>(result.pictures())};
    try {
      add_line(line, card, common, offset, console, task);
      offset += static_cast<uint64_t>(task.request.count);
      if (result.pictures() + task.request.count > image::kMaxCount) {
        throw Error("more than " + std::to_string(image::kMaxCount) + " pictures");
      }
      result.tasks.push_back(std::move(task));
    } catch (const Error& error) {
      offset += static_cast<uint64_t>(common.count);  // the others keep their seeds when the line is mended
      result.failures.push_back({.line = line.line, .message = task.source + ": " + error.what()});
    }
  }
  return result;
}

}  // namespace volley::apps
