// volley image: pictures of a class.
#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "apps/event_file.h"
#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/output_names.h"
#include "apps/progress.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/untrusted_text.h"
#include "image/image_job.h"
#include "image/png.h"
#include "image/prompt_words.h"

namespace volley::apps {
namespace {

using image::CheckOutcome;
using image::ImagePicture;
using image::ImageRequest;
using image::ImageResult;

struct ImageFlags {
  SharedFlags shared{.model = std::string(kDefaultModel)};
  std::vector<std::string> prompt;
  std::string class_name;
  int64_t count = 1;
  bool grid = false;
};

void write_png(Console& console, const std::string& path, const image::Picture& picture,
               const image::RunRecord& record) {
  const image::PngText text{.keyword = std::string(image::kRunSchema), .text = image::to_json(record).dump()};
  const std::string bytes = image::encode_png(picture, {&text, 1});
  if (path == "-") return console.print(bytes);
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

std::string guidance_text(const ImageRequest& request) {
  return request.cfg == 1.0
             ? "no guidance"
             : "cfg " + shortest(request.cfg) + " " + std::string(image::guidance_name(request.guidance));
}

// Renders a run: files as pictures are finished, progress, events.
class Renderer : public image::ImageObserver {
 public:
  Renderer(const ImageFlags& flags, Program& program, const image::ImageModel& model,
           const ImageRequest& request, const OutputNames& names)
      : flags_(flags),
        console_(program.console),
        model_(model),
        request_(request),
        names_(names),
        progress_(
            program.console,
            {.label = request.decoder.name, .outputs = request.count, .tokens_each = model.card().tokens()}),
        check_progress_(program.console,
                        {.label = "check", .outputs = request.count, .tokens_each = model.card().tokens()}) {
    if (flags.shared.events.empty()) return;
    events_.emplace(flags.shared.events,
                    flags.shared.overwrite ? EventFile::Existing::kReplace : EventFile::Existing::kRefuse);
    events_->start(request);
  }

  void on_step(const StepEvent& event) override {
    if (events_) events_->step(event);
    progress_.on_step(event);
  }

  void on_picture(const ImagePicture& picture) override {
    const std::string file =
        flags_.grid ? names_.paths.front() : names_.paths[static_cast<size_t>(picture.index)];
    if (flags_.grid) {
      kept_.push_back(picture);
    } else {
      write_png(console_, file, picture.picture, make_run_record(model_, request_, {&picture, 1}, {}));
      finished_.insert(picture.index);
      announce_in_order();
    }
    if (events_) events_->picture(picture, file);
  }

  void on_check_step(const StepEvent& event) override { check_progress_.on_step(event); }

  void on_check(const CheckOutcome& outcome) override {
    if (events_) events_->check(outcome);
    const std::string name = "picture " + std::to_string(outcome.index) + " (seed " +
                             std::to_string(request_.seed + static_cast<uint64_t>(outcome.index)) + "): ";
    const std::string counts =
        std::to_string(outcome.equal) + " of " + std::to_string(outcome.tokens) + " tokens equal";
    const std::string forwards = "; " + request_.decoder.name + " " + std::to_string(outcome.forwards) +
                                 " forwards, sequential " + std::to_string(outcome.sequential_forwards);
    if (outcome.is_equal()) return console_.note(name + console_.good(counts) + forwards);
    console_.note(name + console_.bad("first difference at position " + std::to_string(outcome.position)) +
                  ": " + request_.decoder.name + " chose " + std::to_string(outcome.token) + ", sequential " +
                  std::to_string(outcome.sequential_token) + "; " + counts + forwards);
  }

  // Writes what could not be written earlier and names the pictures' files.
  void finish(ImageResult& result) {
    progress_.clear();
    if (!kept_.empty()) write_grid();
    for (int64_t index : finished_) announce(names_.paths[static_cast<size_t>(index)]);
    for (image::PictureInfo& info : result.pictures) {
      info.file = flags_.grid ? names_.paths.front() : names_.paths[static_cast<size_t>(info.index)];
    }
    if (events_) events_->end(result);
  }

 private:
  void announce(const std::string& file) {
    if (file != "-" && !flags_.shared.json) console_.print_line(file);
  }

  // Pictures are finished in any order; their names are printed in the run's.
  void announce_in_order() {
    while (!finished_.empty() && *finished_.begin() == next_) {
      finished_.erase(finished_.begin());
      announce(names_.paths[static_cast<size_t>(next_++)]);
    }
  }

  // After an interruption the places of pictures that are missing stay white.
  void write_grid() {
    std::ranges::sort(kept_, {}, &ImagePicture::index);
    const int64_t first = kept_.front().index, count = kept_.back().index - first + 1;
    std::vector<const image::Picture*> cells(static_cast<size_t>(count), nullptr);
    for (const ImagePicture& picture : kept_)
      cells[static_cast<size_t>(picture.index - first)] = &picture.picture;
    const image::GridLayout layout = image::grid_layout(count);
    write_png(console_, names_.paths.front(), image::make_grid(cells, layout),
              make_run_record(model_, request_, kept_, layout));
    announce(names_.paths.front());
  }

  const ImageFlags& flags_;
  Console& console_;
  const image::ImageModel& model_;
  const ImageRequest& request_;
  const OutputNames& names_;
  Progress progress_;
  Progress check_progress_;
  std::optional<EventFile> events_;
  std::vector<ImagePicture> kept_;  // for the grid
  std::set<int64_t> finished_;      // whose names are not printed yet
  int64_t next_ = 0;                // item whose name comes next
};

// Says what of a prompt a text encoder cannot read.
void check_words(const image::TextEncoderConfig& encoder, const ImageRequest& request, Console& console) {
  const auto words = static_cast<int64_t>(image::prompt_words(request.prompt).size());
  if (words == 0) {
    throw Error("prompt " + quote(request.prompt) + ": holds no words", ErrorKind::kUsage);
  }
  if (words > encoder.max_words) {
    console.note("the first " + std::to_string(encoder.max_words) + " words of the prompt are read, " +
                 std::to_string(words) + " are given");
  }
}

// Fills the class of `request`, unless the model reads its prompt as text.
void choose_class(const ImageFlags& flags, const image::ImageCard& card, ImageRequest& request,
                  Console& console) {
  if (!request.prompt.empty() && !flags.class_name.empty()) {
    throw Error("--class " + flags.class_name + ": does not go with a prompt; give one of the two",
                ErrorKind::kUsage);
  }
  if (!flags.shared.text_features.empty()) {
    throw Error("--text-features: model " + card.name + " draws classes, not captions", ErrorKind::kUsage);
  }
  if (request.prompt.empty() && flags.class_name.empty()) {
    throw Error("image: name what to draw: a prompt such as 'red apple', or --class; volley models info " +
                    flags.shared.model + " lists the " + std::to_string(card.classes.size()) + " classes",
                ErrorKind::kUsage);
  }
  if (!is_valid_utf8(request.prompt)) throw Error("prompt: is not UTF-8", ErrorKind::kUsage);
  if (card.text_encoder && !request.prompt.empty())
    return check_words(card.text_encoder->config, request, console);
  const image::ClassChoice choice =
      request.prompt.empty() ? find_class(card, flags.class_name) : find_prompt(card, request.prompt);
  request.class_name = choice.name;
  request.class_id = choice.id;
  if (!choice.is_exact) {
    console.note("\"" + printable(request.prompt, 200) + "\" -> class " + printable(choice.name, 100));
  }
}

// Fills the text features of `request`; a prompt only names what they were made of.
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

ImageRequest make_request(const ImageFlags& flags, const image::ImageCard& card, Console& console) {
  ImageRequest request{.model = card.name, .count = flags.count};
  request.check = flags.shared.check ? image::Check::kYes : image::Check::kNo;
  for (const std::string& word : flags.prompt) request.prompt += (request.prompt.empty() ? "" : " ") + word;
  if (card.is_caption_model()) {
    choose_features(flags, card, request);
  } else {
    choose_class(flags, card, request, console);
  }
  request.seed = static_cast<uint64_t>(flags.shared.seed);
  if (flags.shared.seed < 0) request.seed = std::random_device{}();
  choose_method(card, flags.shared.method, request);
  const image::GridLayout layout = image::grid_layout(flags.count);
  const int64_t width = layout.columns * card.image_size, height = layout.rows * card.image_size;
  if (flags.grid && (width > image::kMaxPngSide || width * height > image::kMaxPngPixels)) {
    throw Error("--grid: " + plural(flags.count, "picture") + " would make " + std::to_string(width) + "x" +
                    std::to_string(height) + " pixels, which is too large for one file",
                ErrorKind::kUsage);
  }
  return request;
}

std::string method_line(const ImageRequest& request) {
  return image::decoder_text(request.decoder) + " (" +
         std::string(decoder_class_name(decoder_class(request.decoder))) + "), " + guidance_text(request) +
         ", temperature " + shortest(request.temperature) + ", top-k " + std::to_string(request.top_k) +
         ", top-p " + shortest(request.top_p) + ", seed " + std::to_string(request.seed);
}

int plan(const ImageFlags& flags, const ImageRequest& request, const OutputNames& names, Console& console) {
  if (flags.shared.json) {
    const nlohmann::json json{{"schema", image::kImageSchema},
                              {"dry_run", true},
                              {"request", image::to_json(request)},
                              {"files", names.paths}};
    console.print_line(json.dump());
    return kExitDone;
  }
  console.print_line("would make " + plural(request.count, "picture") + " of " +
                     printable(request.subject(), 100) + " with " + request.model + " by " +
                     method_line(request));
  for (const std::string& path : names.paths) console.print_line(path);
  return kExitDone;
}

std::string seconds_text(double seconds) {
  return fixed(seconds, seconds < 1.0 ? 3 : 2) + " s";
}

void summarize(const ImageResult& result, Console& console) {
  int64_t tokens = 0, forwards = 0, rows = 0;
  for (const image::PictureInfo& picture : result.pictures) {
    tokens += picture.tokens;
    forwards += picture.forwards;
    rows += picture.rows;
  }
  const auto made = static_cast<int64_t>(result.pictures.size());
  if (made > 0) {
    const auto average = [&](int64_t sum, int64_t of) {
      return fixed(static_cast<double>(sum) / static_cast<double>(std::max<int64_t>(of, 1)), 1);
    };
    console.note(plural(made, "picture") + " of " + printable(result.request.subject(), 100) + " in " +
                 seconds_text(result.total_seconds - result.check_seconds) + ": " + average(tokens, made) +
                 " tokens in " + average(forwards, made) + " forwards a picture, " +
                 average(tokens, forwards) + " tokens and " + average(rows, forwards) + " rows a forward");
  }
  const Statistics& statistics = result.statistics;
  console.detail("seconds: load " + fixed(result.load_seconds, 2) + ", prompt " +
                 fixed(statistics.prompt_seconds, 2) + ", decode " + fixed(statistics.decode_seconds, 2) +
                 ", sample " + fixed(statistics.sample_seconds, 2) + ", pixels " +
                 fixed(result.pixels_seconds, 2) + ", check " + fixed(result.check_seconds, 2));
  console.detail("batch: " + plural(statistics.forwards, "forward") + " of " +
                 plural(statistics.rows, "row") + ", prompt " + std::to_string(statistics.prompt_forwards) +
                 " of " + std::to_string(statistics.prompt_rows) + "; peak memory " +
                 byte_count(statistics.peak_bytes));
  std::string histogram;
  for (const auto& [length, times] : statistics.accepted) {
    histogram += " " + std::to_string(length) + ":" + std::to_string(times);
  }
  console.detail("tokens a step, and how often:" + histogram);
}

int run(const ImageFlags& flags, Program& program) {
  Console& console = program.console;
  const SharedFlags& shared = flags.shared;
  const image::ImageCard card = open_card(shared, find_model(shared.model));
  const ImageRequest request = make_request(flags, card, console);
  const OutputNames names = name_outputs(shared, flags.grid ? "grid-" : "", flags.grid ? 1 : request.count);
  refuse_events_among(names, shared.events);
  if (shared.dry_run) return plan(flags, request, names, console);

  double load_seconds = 0.0;
  std::unique_ptr<image::ImageModel> model;
  {
    const StopWatch watch(load_seconds);
    const auto backend = backend_for(shared);
    model = std::make_unique<image::ImageModel>(
        card, image::ImageModel::Options{.backend = backend,
                                         .weight_type = weight_type_for({shared.dtype, card, *backend}),
                                         .transformer = image::transformer_for(request.decoder)});
  }
  console.note(console.faint(card.name + " on " + model->backend()->info().name + " (" +
                             std::string(image::weight_type_name(model->weight_type())) + ", " +
                             plural(threads_for(shared), "thread") + "): " + method_line(request)));
  if (card.size_source == image::SizeSource::kAssumed) {
    console.note("nothing states the size of the pictures: " + std::to_string(card.image_size) +
                 " pixels assumed; --image-size says otherwise");
  }
  console.detail("model " + card.folder + ", device: " + model->backend()->info().description);
  prepare_outputs(names);
  Renderer renderer(flags, program, *model, request, names);
  ImageResult result = run_image(*model, request, {.observer = &renderer, .stop = program.stop});
  result.load_seconds = load_seconds;
  result.threads = threads_for(shared);
  renderer.finish(result);
  summarize(result, console);
  if (shared.json) console.print_line(image::to_json(result).dump());
  if (!result.is_check_equal()) {
    console.error("--check: " + request.decoder.name + " did not give sequential decoding's tokens");
    return kExitFailed;
  }
  if (!result.interrupted) return kExitDone;
  console.error("interrupted: " + std::to_string(result.pictures.size()) + " of " +
                plural(request.count, "picture") + " finished and kept");
  return kExitInterrupted;
}

}  // namespace

Verb add_image(CLI::App& program) {
  const auto flags = std::make_shared<ImageFlags>();
  CLI::App& verb = *program.add_subcommand("image", "make pictures of a class, many tokens a step");
  verb.footer(
      "Examples:\n"
      "  volley image red apple\n"
      "  volley image --class food-fruit --count 16 --grid\n"
      "  volley image --class food-fruit --decoder jacobi --check\n"
      "  volley image --class food-fruit --decoder parallel --steps 32 -o fruit-%03d.png -n 4\n"
      "Exit codes: 0 done, 1 failed, 2 usage, 4 model missing, 130 interrupted with finished pictures kept.");
  verb.add_option("prompt", flags->prompt,
                  "what to draw, in words; a model without a text encoder draws the class that they name")
      ->type_name("WORDS");
  verb.add_option("--class", flags->class_name, "what to draw: the exact name of a class")->type_name("NAME");
  add_integer(verb,
              {.names = "-n,--count",
               .meaning = "pictures, decoded together in batches of up to " +
                          std::to_string(image::kImageBatch) + " [1]",
               .low = 1,
               .high = image::kMaxCount},
              [flags = flags.get()](int64_t value) { flags->count = value; });
  verb.add_flag("--grid", flags->grid, "one file with all pictures side by side, instead of one each");
  add_integer(verb,
              {.names = "--steps",
               .meaning = "forwards of decoder parallel [the model's card]",
               .low = 1,
               .high = 65536},
              [flags = flags.get()](int64_t value) { flags->shared.method.steps = value; });
  add_shared_flags(
      verb, flags->shared,
      {"model",  "vq",    "image-size", "text-features", "out",     "out-dir",     "format", "overwrite",
       "device", "dtype", "threads",    "decoder",       "seed",    "temperature", "top-k",  "top-p",
       "cfg",    "json",  "events",     "check",         "dry-run", "no-progress"});
  return {.parser = &verb,
          .schema = std::string(image::kImageSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
