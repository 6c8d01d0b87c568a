// The front end of pictures: request in, finished pictures out.
#include "image/image_job.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/base/version.h"
#include "core/nn/arena.h"
#include "image/image_prompt.h"

namespace volley::image {
namespace {

// Codes to pixels, one picture at a time.
class PixelDecoder {
 public:
  explicit PixelDecoder(const ImageModel& model)
      : model_(model), queue_(model.backend()->make_queue()), arena_(*model.backend()) {}

  Picture decode(std::span<const int32_t> tokens) {
    const int64_t side = model_.card().image_size, grid = model_.card().grid;
    arena_.reset();
    const View<int32_t> codes = arena_.indices({1, grid, grid});
    const Tensor pixels = arena_.tensor({1, 3, side, side});
    queue_->upload(tokens.data(), codes.data, static_cast<int64_t>(tokens.size_bytes()));
    model_.vq().decode(*queue_, arena_, {.codes = codes, .pixels = pixels});
    std::vector<float> planes(static_cast<size_t>(pixels.size()));
    queue_->download(pixels.data, planes.data(), pixels.size() * 4);
    return picture_from_planes(planes, side, side);
  }

 private:
  const ImageModel& model_;
  std::unique_ptr<Queue> queue_;
  Arena arena_;
};

// Puts the tokens of a batch together and hands over each picture when its last token is known.
class Collector : public Observer {
 public:
  Collector(std::span<const int64_t> items, const ImageRequest& request, const ImageControl& control,
            PixelDecoder& pixels, double& pixels_seconds, int64_t tokens)
      : items_(items),
        request_(request),
        control_(control),
        pixels_(pixels),
        pixels_seconds_(pixels_seconds),
        tokens_(items.size(), std::vector<int32_t>(static_cast<size_t>(tokens), -1)) {}

  void on_step(const StepEvent& event) override {
    const auto generation = static_cast<size_t>(event.generation);
    for (size_t i = 0; i < event.positions.size(); ++i) {
      tokens_[generation][static_cast<size_t>(event.positions[i])] = event.tokens[i];
    }
    if (control_.observer == nullptr) return;
    StepEvent of_item = event;
    of_item.generation = items_[generation];
    control_.observer->on_step(of_item);
    if (event.done == event.total) deliver(generation);
  }

  const std::vector<int32_t>& tokens(size_t generation) const { return tokens_[generation]; }

 private:
  void deliver(size_t generation) {
    ImagePicture picture{.index = items_[generation],
                         .seed = request_.seed + static_cast<uint64_t>(items_[generation]),
                         .tokens = tokens_[generation],
                         .token_hash = hash_tokens(tokens_[generation])};
    {
      const StopWatch watch(pixels_seconds_);
      picture.picture = pixels_.decode(picture.tokens);
    }
    control_.observer->on_picture(picture);
  }

  std::span<const int64_t> items_;
  const ImageRequest& request_;
  const ImageControl& control_;
  PixelDecoder& pixels_;
  double& pixels_seconds_;
  std::vector<std::vector<int32_t>> tokens_;
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

std::vector<Generation> make_generations(const ImageModel& model, const ImageRequest& request,
                                         std::span<const int64_t> items) {
  const ImagePrompt prompt = make_image_prompt(model, request);
  Generation generation{.prompt = prompt.given,
                        .unconditional = prompt.null,
                        .chain = {.guidance = {.kind = request.guidance,
                                               .scale = static_cast<float>(request.cfg),
                                               .interval = request.cfg_interval},
                                  .temperature = static_cast<float>(request.temperature),
                                  .top_k = static_cast<int32_t>(request.top_k),
                                  .top_p = static_cast<float>(request.top_p)},
                        .max_tokens = model.card().tokens(),
                        .first_index = prompt.first_index};
  std::vector<Generation> generations;
  for (int64_t item : items) {
    generation.seed = request.seed + static_cast<uint64_t>(item);
    generations.push_back(generation);
  }
  return generations;
}

std::unique_ptr<Session> make_session(const ImageModel& model, const Decoder& decoder,
                                      std::span<const Generation> generations) {
  int64_t entries = 0, sequences = 0;
  for (const Generation& generation : generations) {
    entries = std::max(entries, decoder.entries(generation));
    sequences += generation.unconditional ? 2 : 1;
  }
  return std::make_unique<Session>(model.step_model(), model.backend(),
                                   Session::Options{.sequences = sequences, .entries = entries});
}

CheckOutcome compare(int64_t item, const GenerationOutput& made, const GenerationOutput& sequential) {
  CheckOutcome outcome{.index = item,
                       .tokens = static_cast<int64_t>(sequential.tokens.size()),
                       .forwards = made.forwards,
                       .sequential_forwards = sequential.forwards};
  for (size_t i = 0; i < sequential.tokens.size(); ++i) {
    const int32_t token = i < made.tokens.size() ? made.tokens[i] : -1;
    if (token == sequential.tokens[i]) {
      ++outcome.equal;
    } else if (outcome.position < 0) {
      outcome.position = static_cast<int64_t>(i);
      outcome.token = token;
      outcome.sequential_token = sequential.tokens[i];
    }
  }
  return outcome;
}

void check_batch(const ImageModel& model, std::span<const Generation> generations,
                 std::span<const int64_t> items, std::span<const GenerationOutput> outputs,
                 const ImageControl& control, ImageResult& result) {
  const StopWatch watch(result.check_seconds);
  const auto sequential = make_decoder({.name = "sequential"});
  const auto session = make_session(model, *sequential, generations);
  CheckProgress progress(items, control);
  const auto expected =
      sequential->decode(*session, generations, {.observer = &progress, .stop = control.stop});
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!expected[i].finished || !outputs[i].finished) continue;
    result.checks.push_back(compare(items[i], outputs[i], expected[i]));
    if (control.observer != nullptr) control.observer->on_check(result.checks.back());
  }
}

}  // namespace

bool ImageResult::is_check_equal() const {
  return std::ranges::all_of(checks, &CheckOutcome::is_equal);
}

ImageResult run_image(const ImageModel& model, const ImageRequest& request, const ImageControl& control,
                      int64_t batch) {
  VOLLEY_ASSERT(batch >= 1 && request.count >= 1);
  VOLLEY_ASSERT(transformer_for(request.decoder) == model.transformer());
  ImageResult result{.volley = std::string(version()),
                     .request = request,
                     .device = model.backend()->info().name,
                     .dtype = std::string(weight_type_name(model.weight_type()))};
  const auto decoder = make_decoder(request.decoder);
  const std::vector<int64_t> all_items = request.items();
  PixelDecoder pixels(model);
  std::unique_ptr<Session> session;
  {
    const StopWatch watch(result.total_seconds);
    for (size_t begin = 0; begin < all_items.size() && !control.stop.stop_requested();
         begin += static_cast<size_t>(batch)) {
      const auto items =
          std::span(all_items).subspan(begin, std::min(static_cast<size_t>(batch), all_items.size() - begin));
      const std::vector<Generation> generations = make_generations(model, request, items);
      if (!session) session = make_session(model, *decoder, generations);
      Collector collector(items, request, control, pixels, result.pixels_seconds, model.card().tokens());
      const auto outputs =
          decoder->decode(*session, generations, {.observer = &collector, .stop = control.stop});
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (!outputs[i].finished) continue;
        const int64_t partners = generations[i].unconditional ? 2 : 1;  // an output counts one's rows
        result.pictures.push_back({.index = items[i],
                                   .seed = generations[i].seed,
                                   .token_hash = hash_tokens(outputs[i].tokens),
                                   .tokens = static_cast<int64_t>(outputs[i].tokens.size()),
                                   .forwards = outputs[i].forwards,
                                   .rows = partners * outputs[i].rows});
      }
      if (request.check == Check::kYes && !control.stop.stop_requested()) {
        check_batch(model, generations, items, outputs, control, result);
      }
    }
  }
  result.weights = model.weights();
  if (session) result.statistics = session->statistics();
  result.statistics.peak_bytes = model.backend()->peak_bytes();
  result.interrupted = result.pictures.size() < all_items.size() ||
                       (request.check == Check::kYes && result.checks.size() < all_items.size());
  return result;
}

RunRecord make_run_record(const ImageModel& model, const ImageRequest& request,
                          std::span<const ImagePicture> pictures, GridLayout layout) {
  RunRecord record{.volley = std::string(version()),
                   .request = request,
                   .weights = model.weights(),
                   .device = model.backend()->info().name,
                   .dtype = std::string(weight_type_name(model.weight_type())),
                   .width = layout.columns * model.card().image_size,
                   .height = layout.rows * model.card().image_size,
                   .layout = layout};
  for (const ImagePicture& picture : pictures) {
    record.pictures.push_back(
        {.index = picture.index, .seed = picture.seed, .token_hash = picture.token_hash});
  }
  return record;
}

}  // namespace volley::image
