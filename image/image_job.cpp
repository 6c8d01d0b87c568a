// The front end of pictures: request in, finished pictures out.
#include "image/image_job.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <thread>
#include <utility>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/nn/arena.h"
#include "image/image_prompt.h"
#include "image/pixel_coder.h"
#include "image/shared_work.h"

namespace volley::image {
namespace {

// An item in the making.
struct Item {
  int64_t index = 0;
  std::vector<int32_t> codes;  // [cells] of its canvas, -1 where not chosen yet
  int64_t known = 0;           // of them chosen, the given ones included
  PictureInfo info;
};

// Puts the codes of a batch together and hands over each picture when its last code is known.
class Collector : public Observer {
 public:
  struct Parts {
    const ImageModel& model;
    const ImageRequest& request;
    const ImageControl& control;
    PictureMaker& maker;
    double& pixels_seconds;
    int64_t side = 0;           // of the model's square, in cells
    const std::string& device;  // that works
  };
  Collector(const Parts& parts, std::span<Item> items) : parts_(parts), items_(items) {}

  // The cells that are decided from here on are those of this window, for these items.
  void look_at(Window window, std::span<const size_t> items) {
    window_ = window;
    active_.assign(items.begin(), items.end());
  }

  // Codes that an edit keeps are told before the first step.
  void tell_given() {
    for (Item& item : items_) {
      if (item.known == 0 || parts_.control.observer == nullptr) continue;
      std::vector<int32_t> positions, tokens;
      for (size_t cell = 0; cell < item.codes.size(); ++cell) {
        if (item.codes[cell] < 0) continue;
        positions.push_back(static_cast<int32_t>(cell));
        tokens.push_back(item.codes[cell]);
      }
      parts_.control.observer->on_step({.generation = item.index,
                                        .step = steps_[item.index]++,
                                        .positions = positions,
                                        .tokens = tokens,
                                        .source = kGivenSource,
                                        .done = item.known,
                                        .total = std::ssize(item.codes)});
    }
  }

  int64_t cell_of(int64_t position) const {
    return (window_.row + position / parts_.side) * parts_.maker.canvas().columns + window_.column +
           position % parts_.side;
  }

  void on_step(const StepEvent& event) override {
    parts_.model.begin_hashes();
    Item& item = items_[active_[static_cast<size_t>(event.generation)]];
    std::vector<int32_t> cells;
    for (size_t i = 0; i < event.positions.size(); ++i) {
      cells.push_back(static_cast<int32_t>(cell_of(event.positions[i])));
      int32_t& code = item.codes[static_cast<size_t>(cells.back())];
      item.known += code < 0;
      code = event.tokens[i];
    }
    if (parts_.control.observer == nullptr) return;
    StepEvent of_item = event;
    of_item.generation = item.index;
    of_item.step = steps_[item.index]++;
    of_item.positions = cells;
    of_item.done = item.known;
    of_item.total = std::ssize(item.codes);
    parts_.control.observer->on_step(of_item);
    if (item.known == of_item.total && event.is_final) deliver(item);
  }

 private:
  void deliver(const Item& item) {
    ImagePicture picture{.index = item.index,
                         .seed = parts_.request.seed_of(item.index),
                         .tokens = item.codes,
                         .token_hash = hash_tokens(item.codes),
                         .device = parts_.device};
    {
      const StopWatch watch(parts_.pixels_seconds);
      picture.picture = parts_.maker.whole(item.index, picture.tokens);
    }
    parts_.control.observer->on_picture(picture);
  }

  Parts parts_;
  std::span<Item> items_;
  Window window_;
  std::vector<size_t> active_;        // which item each generation is
  std::map<int64_t, int64_t> steps_;  // told of each item
};

class CheckProgress : public Observer {
 public:
  CheckProgress(std::span<const int64_t> items, const ImageControl& control)
      : items_(items), control_(control) {}
  void on_step(const StepEvent& event) override {
    if (control_.observer == nullptr) return;
    StepEvent of_item = event;
    of_item.generation = items_[static_cast<size_t>(event.generation)];
    control_.observer->on_check_step(of_item);
  }

 private:
  std::span<const int64_t> items_;
  const ImageControl& control_;
};

// What all items of a request have in common.
Generation make_generation(const ImageModel& model, const ImageRequest& request) {
  const ImagePrompt prompt = make_image_prompt(model, request);
  return {.prompt = prompt.given,
          .unconditional = prompt.null,
          .chain = {.guidance = {.kind = request.guidance,
                                 .scale = static_cast<float>(request.cfg),
                                 .interval = request.cfg_interval},
                    .temperature = static_cast<float>(request.temperature),
                    .top_k = static_cast<int32_t>(request.top_k),
                    .top_p = static_cast<float>(request.top_p)},
          .max_tokens = model.card().tokens(),
          .first_index = prompt.first_index};
}

std::unique_ptr<Session> make_session(const ImageModel& model, const Decoder& decoder,
                                      const Generation& generation, int64_t items) {
  return std::make_unique<Session>(model.step_model(), model.backend(),
                                   Session::Options{.sequences = items * (generation.unconditional ? 2 : 1),
                                                    .entries = decoder.entries(generation)});
}

// What one window of a batch asks for: a generation for each item that has open cells there.
struct WindowWork {
  std::vector<Generation> generations;
  std::vector<size_t> items;  // whose they are
};

WindowWork window_work(const Generation& common, const ImageRequest& request, const Collector& collector,
                       std::span<const Item> items, uint32_t window) {
  WindowWork work;
  for (size_t i = 0; i < items.size(); ++i) {
    Generation generation = common;
    generation.seed = request.seed_of(items[i].index);
    generation.stream = window;
    for (int32_t position = 0; position < common.max_tokens; ++position) {
      const int32_t code = items[i].codes[static_cast<size_t>(collector.cell_of(position))];
      if (code >= 0) generation.given.push_back({.position = position, .token = code});
    }
    if (std::ssize(generation.given) == common.max_tokens) continue;
    work.generations.push_back(std::move(generation));
    work.items.push_back(i);
  }
  return work;
}

// Adds to an item's report what one generation of it took.
void count(PictureInfo& info, const Generation& generation, const GenerationOutput& output) {
  info.tokens += generation.max_tokens - std::ssize(generation.given);
  info.forwards += output.forwards;
  info.rows += (generation.unconditional ? 2 : 1) * output.rows;  // an output counts one's rows
}

void check_batch(const ImageModel& model, std::span<const Generation> generations,
                 std::span<const int64_t> items, std::span<const GenerationOutput> outputs,
                 const ImageControl& control, ImageResult& result) {
  const StopWatch watch(result.check_seconds);
  const auto sequential = make_decoder({.name = "sequential"});
  const auto session = make_session(model, *sequential, generations.front(), std::ssize(generations));
  CheckProgress progress(items, control);
  const auto expected =
      sequential->decode(*session, generations, {.observer = &progress, .stop = control.stop});
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!expected[i].finished || !outputs[i].finished) continue;
    result.checks.push_back(compare_outputs(items[i], outputs[i], expected[i]));
    if (control.observer != nullptr) control.observer->on_check(result.checks.back());
  }
}

// What a run works with, the same for all of its batches.
struct Run {
  const ImageModel& model;
  const ImageRequest& request;
  const ImageControl& control;
  std::unique_ptr<Decoder> decoder;
  Generation common;
  std::vector<Window> windows;
  std::unique_ptr<Session> session;  // made for the first batch, which is the largest
};

std::vector<Item> make_items(const Run& run, PictureMaker& maker, std::span<const int64_t> indices) {
  std::vector<Item> items;
  for (int64_t index : indices) {
    items.push_back({.index = index,
                     .codes = maker.known_codes(index),
                     .info = {.index = index,
                              .seed = run.request.seed_of(index),
                              .device = run.model.backend()->info().name}});
    items.back().known = std::ranges::count_if(items.back().codes, [](int32_t code) { return code >= 0; });
  }
  return items;
}

// Decodes the open cells of a batch, window by window. Returns what the last window gave.
struct WindowOutputs {
  WindowWork work;
  std::vector<GenerationOutput> outputs;
};
WindowOutputs decode_batch(Run& run, PictureMaker& maker, std::vector<Item>& items, double& pixels_seconds) {
  if (!run.session) run.session = make_session(run.model, *run.decoder, run.common, std::ssize(items));
  Collector collector({.model = run.model,
                       .request = run.request,
                       .control = run.control,
                       .maker = maker,
                       .pixels_seconds = pixels_seconds,
                       .side = run.model.card().grid,
                       .device = run.model.backend()->info().name},
                      items);
  collector.tell_given();
  WindowOutputs last;
  for (size_t w = 0; w < run.windows.size() && !run.control.stop.stop_requested(); ++w) {
    collector.look_at(run.windows[w], {});
    WindowWork work = window_work(run.common, run.request, collector, items, static_cast<uint32_t>(w));
    if (work.items.empty()) continue;
    collector.look_at(run.windows[w], work.items);
    auto outputs = run.decoder->decode(*run.session, work.generations,
                                       {.observer = &collector, .stop = run.control.stop});
    for (size_t i = 0; i < outputs.size(); ++i)
      count(items[work.items[i]].info, work.generations[i], outputs[i]);
    last = {.work = std::move(work), .outputs = std::move(outputs)};
  }
  return last;
}

// Makes batches until there are none, or until it is told to stop.
ImageResult make_batches(const ImageModel& model, const ImageRequest& request, const ImageControl& control,
                         BatchQueue& batches) {
  ImageResult result;
  Run run{.model = model,
          .request = request,
          .control = control,
          .decoder = make_decoder(request.decoder),
          .common = make_generation(model, request),
          .windows = sliding_windows(request.edit ? request.edit->outpaint : Margins{}, model.card().grid)};
  PictureMaker maker(model, request);
  while (!control.stop.stop_requested()) {
    const std::span<const int64_t> indices = batches.take();
    if (indices.empty()) break;
    std::vector<Item> items = make_items(run, maker, indices);
    const WindowOutputs last = decode_batch(run, maker, items, result.pixels_seconds);
    for (Item& item : items) {
      if (item.known < std::ssize(item.codes)) continue;
      item.info.token_hash = hash_tokens(item.codes);
      result.pictures.push_back(item.info);
    }
    // Methods that promise sequential tokens know no edits: one window holds the whole of each picture.
    if (request.check == Check::kYes && !control.stop.stop_requested())
      check_batch(model, last.work.generations, indices, last.outputs, control, result);
  }
  if (run.session) result.statistics = run.session->statistics();
  result.statistics.peak_bytes = model.backend()->peak_bytes();
  return result;
}

// A worker for each model, on a thread of its own; the observer is called on this one. What fails, here or
// there, stops all of them.
ImageResult share_batches(std::span<const ImageModel* const> models, const ImageRequest& request,
                          const ImageControl& control, BatchQueue& batches) {
  std::vector<ImageResult> parts(models.size());
  std::vector<std::exception_ptr> failures(models.size() + 1);
  std::stop_source stop;
  const std::stop_callback passed_on(control.stop, [&] { stop.request_stop(); });
  ObserverRelay relay(std::ssize(models));
  const auto work = [&](size_t w) {
    ObserverRelay::Sender sender(relay, static_cast<int64_t>(w));
    const ImageControl own{.observer = control.observer != nullptr ? &sender : nullptr,
                           .stop = stop.get_token()};
    try {
      parts[w] = make_batches(*models[w], request, own, batches);
    } catch (...) {
      failures[w] = std::current_exception();
      stop.request_stop();
    }
    relay.leave();
  };
  {
    std::vector<std::jthread> workers;
    try {
      for (size_t w = 0; w < models.size(); ++w) workers.emplace_back(work, w);
      ImageObserver nobody;
      relay.run(control.observer != nullptr ? *control.observer : nobody);
    } catch (...) {
      failures.back() = std::current_exception();
      stop.request_stop();
      relay.abandon();
    }
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  return merge(std::move(parts));
}

}  // namespace

bool ImageResult::is_check_equal() const {
  return std::ranges::all_of(checks, &CheckOutcome::is_equal);
}

ImageResult run_image(const ImageModel& model, const ImageRequest& request, const ImageControl& control,
                      int64_t batch) {
  const ImageModel* const models[] = {&model};
  return run_image(models, request, control, batch);
}

ImageResult run_image(std::span<const ImageModel* const> models, const ImageRequest& request,
                      const ImageControl& control, int64_t batch) {
  VOLLEY_ASSERT(batch >= 1 && request.count >= 1 && !models.empty());
  std::vector<std::string> devices;
  for (const ImageModel* model : models) {
    VOLLEY_ASSERT(transformer_for(request.decoder) == model->transformer());
    devices.push_back(model->backend()->info().name);
  }
  double total_seconds = 0.0;
  ImageResult result;
  BatchQueue batches(request.items(), {.workers = std::ssize(models), .most = batch});
  {
    const StopWatch watch(total_seconds);
    result = models.size() == 1 ? make_batches(*models.front(), request, control, batches)
                                : share_batches(models, request, control, batches);
  }
  result.volley = version();
  result.request = request;
  result.weights = models.front()->weights();
  result.device = join_devices(devices);
  result.dtype = weight_type_name(models.front()->weight_type());
  result.total_seconds = total_seconds;
  const size_t count = batches.items().size();
  result.interrupted =
      result.pictures.size() < count || (request.check == Check::kYes && result.checks.size() < count);
  return result;
}

int64_t cache_bytes(const ImageModel& model, const ImageRequest& request, int64_t pictures) {
  const int64_t before = model.backend()->allocated_bytes();
  const auto session =
      make_session(model, *make_decoder(request.decoder), make_generation(model, request), pictures);
  return model.backend()->allocated_bytes() - before;
}

RunRecord make_run_record(const ImageModel& model, const ImageRequest& request,
                          std::span<const ImagePicture> pictures, GridLayout layout) {
  const Canvas canvas = canvas_of(model.card(), request);
  std::vector<std::string> makers;
  for (const ImagePicture& picture : pictures) {
    if (!picture.device.empty()) makers.push_back(picture.device);
  }
  std::ranges::sort(makers);
  RunRecord record{.volley = std::string(version()),
                   .request = request,
                   .weights = model.weights(),
                   .device = makers.empty() ? model.backend()->info().name : join_devices(makers),
                   .dtype = std::string(weight_type_name(model.weight_type())),
                   .width = layout.columns * canvas.width(),
                   .height = layout.rows * canvas.height(),
                   .tokens = canvas.cells(),
                   .layout = layout};
  for (const ImagePicture& picture : pictures) {
    record.pictures.push_back(
        {.index = picture.index, .seed = picture.seed, .token_hash = picture.token_hash});
  }
  return record;
}

}  // namespace volley::image
