// volley image: pictures of words or of a class.
#include <algorithm>
#include <exception>
#include <iterator>
#include <memory>
#include <new>
#include <optional>

#include "apps/event_file.h"
#include "apps/image_flags.h"
#include "apps/image_memory.h"
#include "apps/image_renderer.h"
#include "apps/image_tasks.h"
#include "apps/image_words.h"
#include "apps/loaded_models.h"
#include "apps/model_path.h"
#include "apps/model_store.h"
#include "apps/output_names.h"
#include "apps/resume.h"
#include "apps/verbs.h"
#include "core/base/error.h"
#include "core/base/version.h"
#include "core/io/untrusted_text.h"
#include "image/image_job.h"

namespace volley::apps {
namespace {

using image::ImageRequest;
using image::ImageResult;

// Pixels of a grid that is animated: all of its frames are held at once.
constexpr int64_t kMaxAnimatedGrid = int64_t{1} << 22;

// Everything that a run writes to, known before anything is made.
struct Outputs {
  OutputNames names;
  SideOutputs sides;
};

// What is written besides the pictures.
std::vector<OutputPlace> side_places(const ImageFlags& flags, const SideOutputs& sides) {
  std::vector<OutputPlace> places;
  for (const std::string& path : sides.animations) places.push_back({"--animate", path});
  for (const std::string& path : sides.step_maps) places.push_back({"--step-map", path});
  for (const std::string& path : flags.previews) {
    if (path != "term") places.push_back({"--preview", path});
  }
  if (!flags.shared.events.empty()) places.push_back({"--events", flags.shared.events});
  return places;
}

Outputs name_all(const ImageFlags& flags, const ImageTasks& tasks, const image::ImageCard& card) {
  const SharedFlags& shared = flags.shared;
  std::vector<OutputFields> fields = tasks.fields();
  if (flags.grid) fields.resize(1);
  Outputs outputs{.names = name_outputs(shared, flags.grid ? "grid-" : "", fields)};
  const bool has_jpeg = std::ranges::count(outputs.names.formats, image::PictureFormat::kJpeg) > 0;
  const bool has_webp = std::ranges::count(outputs.names.formats, image::PictureFormat::kWebp) > 0;
  if (flags.quality && !has_jpeg && !has_webp) {
    throw Error("--quality " + std::to_string(*flags.quality) + ": PNG has none; JPEG and WebP do",
                ErrorKind::kUsage);
  }
  // A picture takes about a hundred bytes of the record, of which a JPEG file holds 64 KiB.
  if (flags.grid && has_jpeg && tasks.pictures() > 400) {
    throw Error("--grid: the run record of " + plural(tasks.pictures(), "picture") +
                    " does not fit into a JPEG file; PNG and WebP hold it",
                ErrorKind::kUsage);
  }
  if (!flags.animate.empty()) {
    if (!image::animation_format_of_path(flags.animate)) {
      throw Error("--animate " + flags.animate + ": expected a name that ends in .webp, .png or .gif",
                  ErrorKind::kUsage);
    }
    const image::GridLayout layout = image::grid_layout(tasks.pictures());
    if (flags.grid && layout.columns * layout.rows * card.image_size * card.image_size > kMaxAnimatedGrid) {
      throw Error("--animate " + flags.animate + ": a grid of " + plural(tasks.pictures(), "picture") +
                      " is too large to animate",
                  ErrorKind::kUsage);
    }
    outputs.sides.animations = name_side_outputs(shared, "--animate", flags.animate, fields);
  }
  if (!flags.step_map.empty()) {
    if (image::format_of_path(flags.step_map) != image::PictureFormat::kPng) {
      throw Error("--step-map " + flags.step_map + ": expected a name that ends in .png", ErrorKind::kUsage);
    }
    outputs.sides.step_maps = name_side_outputs(shared, "--step-map", flags.step_map, fields);
  }
  std::vector<OutputPlace> places;
  for (const std::string& path : outputs.names.paths) {
    for (size_t f = 0; f < outputs.names.formats.size(); ++f)
      places.push_back({.path = path_in_format(outputs.names, path, f)});
  }
  for (const std::string& path : flags.previews) {
    if (path == "term" || image::format_of_path(path)) continue;
    throw Error("--preview " + path + ": expected term or a name that ends in .png, .jpg or .webp",
                ErrorKind::kUsage);
  }
  refuse_taken_events(shared);
  std::ranges::move(side_places(flags, outputs.sides), std::back_inserter(places));
  refuse_shared_places(places);
  return outputs;
}

// What --dry-run tells of.
struct PlannedRun {
  const ImageFlags& flags;
  const ImageTasks& tasks;
  const image::ImageCard& card;
  const OutputNames& names;
  const MemoryCheck& memory;
};

int tell_plan(const PlannedRun& run, Console& console) {
  const auto& [flags, tasks, card, names, memory] = run;
  std::vector<std::string> files;
  for (const std::string& path : names.paths) {
    for (size_t f = 0; f < names.formats.size(); ++f) files.push_back(path_in_format(names, path, f));
  }
  if (flags.shared.json) {
    nlohmann::json json{
        {"schema", image::kImageSchema}, {"dry_run", true}, {"files", files}, {"memory", memory.json()}};
    if (flags.prompt_file.empty()) {
      json["request"] = to_json(tasks.tasks.front().request);
    } else {
      json["requests"] = nlohmann::json::array();
      for (const ImageTask& task : tasks.tasks) json["requests"].push_back(to_json(task.request));
    }
    console.print_line(json.dump());
    return tasks.failures.empty() ? kExitDone : kExitSomeFailed;
  }
  for (const ImageTask& task : tasks.tasks) {
    const ImageRequest& request = task.request;
    console.print_line("would make " + plural(request.count, "picture") + " of " +
                       subject_text(card, request) + " with " + request.model + " by " +
                       method_line(request));
  }
  for (const std::string& line : memory.lines()) console.print_line(line);
  for (const std::string& file : files) console.print_line(file);
  return tasks.failures.empty() ? kExitDone : kExitSomeFailed;
}

std::string seconds_text(double seconds) {
  return fixed(seconds, seconds < 1.0 ? 3 : 2) + " s";
}

void summarize(const image::ImageCard& card, const ImageResult& result, Console& console) {
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
    console.note(plural(made, "picture") + " of " + subject_text(card, result.request) + " in " +
                 seconds_text(result.total_seconds - result.check_seconds - result.render_seconds) + ": " +
                 average(tokens, made) + " tokens in " + average(forwards, made) + " forwards a picture, " +
                 average(tokens, forwards) + " tokens and " + average(rows, forwards) + " rows a forward");
  }
  const Statistics& statistics = result.statistics;
  console.detail("seconds: prompt " + fixed(statistics.prompt_seconds, 2) + ", decode " +
                 fixed(statistics.decode_seconds, 2) + ", sample " + fixed(statistics.sample_seconds, 2) +
                 ", pixels " + fixed(result.pixels_seconds, 2) + ", check " + fixed(result.check_seconds, 2) +
                 ", previews and animations " + fixed(result.render_seconds, 2));
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

// What came of the tasks.
struct RunOutcome {
  std::vector<ImageResult> results;
  int64_t made = 0;
  int64_t kept = 0;  // that were there already
  bool is_interrupted = false;
  bool is_check_equal = true;
};

// A task of which everything is there already.
ImageResult nothing_made(const image::ImageModel& model, const ImageRequest& request) {
  return {.volley = std::string(version()),
          .request = request,
          .weights = model.weights(),
          .device = model.backend()->info().name,
          .dtype = std::string(image::weight_type_name(model.weight_type()))};
}

std::string message_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::bad_alloc&) {
    return "out of memory";
  } catch (const std::exception& error) {
    return error.what();
  }
}

RunOutcome run_tasks(const ImageFlags& flags, Program& program, const LoadedModels& models, ImageTasks& tasks,
                     Outputs& outputs) {
  const image::ImageModel& model = models.first();
  const SharedFlags& shared = flags.shared;
  const Existing existing = shared.overwrite ? Existing::kReplace : Existing::kKeep;
  PictureWriter writer(program.console, outputs.names, flags.quality, existing);
  std::optional<EventFile> events;
  if (!shared.events.empty()) {
    // Events tell of one run: those of the run that is gone on with make place.
    const bool is_replaced = shared.overwrite || shared.skip_existing;
    events.emplace(shared.events, is_replaced ? EventFile::Existing::kReplace : EventFile::Existing::kRefuse);
  }
  const ResumeContext resume{
      .flags = flags, .model = model, .sides = outputs.sides, .writer = writer, .console = program.console};
  RunOutcome outcome;
  for (ImageTask& task : tasks.tasks) {
    if (program.stop.stop_requested()) {
      outcome.is_interrupted = true;
      break;
    }
    if (!task.source.empty()) {
      program.console.note(program.console.faint(
          task.source + ": " + subject_text(model.card(), task.request) + ", " + seeds_text(task.request)));
    }
    const int64_t kept = shared.skip_existing ? keep_existing(resume, task) : 0;
    outcome.kept += kept;
    if (kept == task.request.count) {
      outcome.results.push_back(nothing_made(model, task.request));
      continue;
    }
    ImageRenderer renderer({.flags = flags,
                            .program = program,
                            .model = model,
                            .task = task,
                            .sides = outputs.sides,
                            .writer = writer,
                            .events = events ? &*events : nullptr,
                            .encoders = models.is_processor() ? 1 : threads_for(shared)});
    ImageResult result;
    double finishing_seconds = 0.0;
    try {
      result = run_image(models.pointers(), task.request, {.observer = &renderer, .stop = program.stop},
                         batch_for(flags, *models.first().backend()));
      const StopWatch watch(finishing_seconds);
      renderer.finish(result);
    } catch (...) {
      const std::exception_ptr failure = std::current_exception(), another = renderer.keep_what_is_made();
      if (another && message_of(another) != message_of(failure))
        program.console.note(printable(message_of(another), 1000));
      throw;
    }
    result.threads = threads_for(shared);
    result.total_seconds += finishing_seconds;
    summarize(model.card(), result, program.console);
    outcome.made += std::ssize(result.pictures);
    outcome.is_interrupted = outcome.is_interrupted || result.interrupted;
    outcome.is_check_equal = outcome.is_check_equal && result.is_check_equal();
    outcome.results.push_back(std::move(result));
  }
  return outcome;
}

nlohmann::json json_of(const ImageFlags& flags, const ImageTasks& tasks, const RunOutcome& outcome) {
  if (flags.prompt_file.empty()) return to_json(outcome.results.front());
  nlohmann::json json{{"schema", image::kImageSchema},
                      {"prompt_file", flags.prompt_file},
                      {"runs", nlohmann::json::array()},
                      {"failures", nlohmann::json::array()}};
  for (const ImageResult& result : outcome.results) json["runs"].push_back(to_json(result));
  for (const TaskFailure& failure : tasks.failures)
    json["failures"].push_back({{"line", failure.line}, {"message", printable(failure.message, 1000)}});
  return json;
}

int run(const ImageFlags& flags, Program& program) {
  Console& console = program.console;
  const SharedFlags& shared = flags.shared;
  const image::ImageCard card = open_card(shared, find_model(shared.model));
  ImageTasks tasks = make_tasks(flags, card, console);
  for (const TaskFailure& failure : tasks.failures) console.error(printable(failure.message, 1000));
  if (tasks.tasks.empty()) {
    throw Error((flags.prompt_file == "-" ? "--prompt-file -" : flags.prompt_file) + ": no line can be made");
  }
  Outputs outputs = name_all(flags, tasks, card);
  if (std::ranges::count(flags.previews, "term") > 0 && !console.shows_pictures()) {
    console.note(
        "--preview term: standard error shows no colours, so nothing is drawn; --color always draws");
  }
  const auto backends = backends_for(shared);
  const MemoryCheck memory = check_memory({.flags = flags,
                                           .card = card,
                                           .tasks = tasks,
                                           .names = outputs.names,
                                           .sides = outputs.sides,
                                           .backends = backends},
                                          program.stop);
  if (shared.dry_run) return tell_plan({flags, tasks, card, outputs.names, memory}, console);
  for (const std::string& line : memory.lines()) console.detail(line);
  memory.require();

  prepare_outputs(outputs.names, side_places(flags, outputs.sides));
  double load_seconds = 0.0;
  LoadedModels models;
  const ImageRequest& first = tasks.tasks.front().request;
  {
    const StopWatch watch(load_seconds);
    models = load_models(card, backends, {.dtype = shared.dtype, .decoder = first.decoder});
  }
  console.note(console.faint(card.name + " on " + models.devices() + " (" +
                             std::string(image::weight_type_name(models.first().weight_type())) + ", " +
                             plural(threads_for(shared), "thread") + "): " + method_line(first)));
  if (card.size_source == image::SizeSource::kAssumed) {
    console.note("nothing states the size of the pictures: " + std::to_string(card.image_size) +
                 " pixels assumed; --image-size says otherwise");
  }
  console.detail("model " + card.folder + ", loaded in " + fixed(load_seconds, 2) + " s");
  for (const auto& model : models.all)
    console.detail("device " + model->backend()->info().name + ": " + model->backend()->info().description);
  RunOutcome outcome = run_tasks(flags, program, models, tasks, outputs);
  if (!outcome.results.empty()) outcome.results.front().load_seconds = load_seconds;
  if (outcome.kept > 0) {
    console.note(plural(outcome.kept, "picture") + " of " + std::to_string(tasks.pictures()) +
                 " made before and kept");
  }
  if (shared.json && !outcome.results.empty()) console.print_line(json_of(flags, tasks, outcome).dump());
  if (!outcome.is_check_equal) {
    console.error("--check: " + first.decoder.name + " did not give sequential decoding's tokens");
    return kExitFailed;
  }
  if (outcome.is_interrupted) {
    const std::string message = "interrupted: " + std::to_string(outcome.made + outcome.kept) + " of " +
                                plural(tasks.pictures(), "picture") + " finished and kept";
    if (outcome.results.empty()) throw Interrupted(message);
    console.error(message);
    return kExitInterrupted;
  }
  return tasks.failures.empty() ? kExitDone : kExitSomeFailed;
}

}  // namespace

Verb add_image(CLI::App& program) {
  const auto flags = std::make_shared<ImageFlags>();
  CLI::App& verb = add_verb(program, "image", "make pictures of words or of a class, many tokens a step");
  add_footer(
      verb,
      "Examples:\n"
      "  volley image red apple\n"
      "  volley image --class food-fruit --count 16 --grid\n"
      "  volley image --class food-fruit --decoder jacobi --check\n"
      "  volley image --class food-fruit --decoder parallel --steps 32 -o fruit-%03d.png -n 4\n"
      "  volley image --class food-fruit --animate fill.webp --step-map steps.png\n"
      "  volley image --init cat.png --mask m.png lion\n"
      "  volley image --init cat.png --outpaint right=16 cat\n"
      "  volley image -f prompts.txt -o {prompt}.webp --skip-existing\n"
      "Exit codes: 0 done, 1 failed, 2 usage, 3 some lines of the prompt file failed, 4 model missing, 130 "
      "interrupted with finished pictures kept.");
  add_image_flags(verb, *flags);
  add_shared_flags(verb, flags->shared,
                   {"model",   "vq",        "image-size",    "text-features", "out",        "out-dir",
                    "format",  "overwrite", "skip-existing", "device",        "dtype",      "threads",
                    "decoder", "seed",      "temperature",   "top-k",         "top-p",      "cfg",
                    "json",    "events",    "check",         "dry-run",       "no-progress"});
  return {.parser = &verb,
          .schema = std::string(image::kImageSchema),
          .flags = &flags->shared,
          .run = [flags](Program& p) { return run(*flags, p); }};
}

}  // namespace volley::apps
