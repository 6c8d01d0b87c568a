#include "apps/image_renderer.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>

#include "core/decode/statistics.h"

namespace volley::apps {
namespace {

using image::CheckOutcome;
using image::ImagePicture;

Progress::Work work(const RenderContext& context, const std::string& label) {
  const image::ImageRequest& request = context.task.request;
  return {.label = label,
          .outputs = std::ssize(request.items()),
          .tokens_each = canvas_of(context.model.card(), request).cells()};
}

// Items of the grid's one file, or those of the task.
std::vector<std::string> files_of(const std::vector<std::string>& all, const RenderContext& context) {
  if (all.empty() || context.flags.grid) return all;
  const auto begin = all.begin() + static_cast<int64_t>(context.task.first_file);
  return {begin, begin + context.task.request.count};
}

}  // namespace

ImageRenderer::ImageRenderer(const RenderContext& context)
    : context_(context),
      console_(context.program.console),
      request_(context.task.request),
      progress_(console_, work(context, request_.decoder.name)),
      check_progress_(console_, work(context, "check")),
      most_made_(static_cast<size_t>(context.encoders)),
      items_(request_.items()) {
  if (context_.events != nullptr) context_.events->start(request_);
  const ImageFlags& flags = context.flags;
  const SharedFlags& shared = flags.shared;
  Preview::Options preview{.every = flags.preview_every};
  for (const std::string& place : flags.previews) {
    if (place != "term") {
      preview.files.push_back(place);
    } else {
      preview.on_terminal = console_.shows_pictures();
    }
  }
  FillOutputs::Options fills{
      .animations = files_of(context.sides.animations, context),
      .step_maps = files_of(context.sides.step_maps, context),
      .layout = flags.grid ? FillOutputs::Layout::kGrid : FillOutputs::Layout::kFiles,
      .existing = shared.overwrite || shared.skip_existing ? Existing::kReplace : Existing::kKeep,
      .record = [this](std::span<const ImagePicture> pictures, image::GridLayout layout) {
        return make_run_record(context_.model, request_, pictures, layout);
      }};
  const bool has_preview = preview.on_terminal || !preview.files.empty();
  const bool has_fills = !fills.animations.empty() || !fills.step_maps.empty();
  if (has_preview || has_fills) maker_.emplace(context.model, request_);
  if (has_preview) preview_.emplace(console_, std::move(preview), *maker_);
  if (has_fills) fills_.emplace(std::move(fills), *maker_);
}

template <typename Show>
void ImageRenderer::show(Show show) {
  const StopWatch watch(render_seconds_);
  if (fills_) show(*fills_);  // first: a preview that fails takes no picture from them
  if (preview_) show(*preview_);
}

size_t ImageRenderer::file_of(int64_t item) const {
  return context_.flags.grid ? 0 : context_.task.first_file + static_cast<size_t>(item);
}

void ImageRenderer::on_step(const StepEvent& event) {
  settle(most_made_);
  if (context_.events != nullptr) context_.events->step(event);
  show([&](auto& renderer) { renderer.on_step(event); });
  progress_.on_step(event);
}

void ImageRenderer::on_picture(const ImagePicture& picture) {
  auto kept = std::make_shared<const ImagePicture>(picture);
  std::future<std::vector<std::string>> encoded;
  if (!context_.flags.grid) {
    const auto encode_it = [kept, encoding = context_.writer.encoding_of(file_of(picture.index)),
                            record = make_run_record(context_.model, request_, {&picture, 1}, {})] {
      return encode(encoding, kept->picture, record);
    };
    try {
      if (most_made_ > 1) encoded = std::async(std::launch::async, encode_it);
    } catch (const std::system_error&) {  // no more threads: in its turn
    }
    if (!encoded.valid()) encoded = std::async(std::launch::deferred, encode_it);
  }
  made_.push_back({.picture = std::move(kept), .encoded = std::move(encoded)});
  settle(most_made_ - 1);
}

void ImageRenderer::settle(size_t most) {
  const auto is_encoded = [](const Made& made) {
    return !made.encoded.valid() ||
           made.encoded.wait_for(std::chrono::seconds(0)) != std::future_status::timeout;
  };
  while (!made_.empty() && (made_.size() > most || is_encoded(made_.front()))) write_first_made();
}

// One fewer is left, whatever fails.
void ImageRenderer::write_first_made() {
  Made made = std::move(made_.front());
  made_.pop_front();
  const ImagePicture& picture = *made.picture;
  const size_t file = file_of(picture.index);
  if (context_.flags.grid) {
    kept_.push_back(picture);
  } else {
    context_.writer.write(file, made.encoded.get());
    finished_.insert(picture.index);
  }
  // No animation stands beside a picture that is not there.
  show([&](auto& renderer) { renderer.on_picture(picture); });
  announce_in_order();
  if (context_.events != nullptr) context_.events->picture(picture, context_.writer.paths(file).front());
}

void ImageRenderer::on_check_step(const StepEvent& event) {
  settle(most_made_);
  check_progress_.on_step(event);
}

void ImageRenderer::on_check(const CheckOutcome& outcome) {
  settle(0);  // a picture is told of before its check
  if (context_.events != nullptr) context_.events->check(outcome);
  const std::string name = "picture " + std::to_string(outcome.index) + " (seed " +
                           std::to_string(request_.seed_of(outcome.index)) + "): ";
  const std::string counts =
      std::to_string(outcome.equal) + " of " + std::to_string(outcome.tokens) + " tokens equal";
  const std::string forwards = "; " + request_.decoder.name + " " + std::to_string(outcome.forwards) +
                               " forwards, sequential " + std::to_string(outcome.sequential_forwards);
  if (outcome.is_equal()) return console_.note(name + console_.good(counts) + forwards);
  console_.note(name + console_.bad("first difference at position " + std::to_string(outcome.position)) +
                ": " + request_.decoder.name + " chose " + std::to_string(outcome.token) + ", sequential " +
                std::to_string(outcome.sequential_token) + "; " + counts + forwards);
}

std::exception_ptr ImageRenderer::keep_what_is_made() {
  std::exception_ptr first;
  const auto attempt = [&](auto&& act) {
    try {
      act();
    } catch (...) {
      if (!first) first = std::current_exception();
    }
  };
  while (!made_.empty()) attempt([&] { write_first_made(); });
  progress_.clear();
  if (!kept_.empty()) attempt([&] { write_grid(); });
  if (fills_) attempt([&] { fills_->finish(); });
  for (int64_t item : finished_) attempt([&] { announce(file_of(item)); });
  // What has failed once is not tried again.
  kept_.clear();
  fills_.reset();
  finished_.clear();
  return first;
}

void ImageRenderer::finish(image::ImageResult& result) {
  if (const std::exception_ptr failure = keep_what_is_made()) std::rethrow_exception(failure);
  result.render_seconds = render_seconds_;
  for (image::PictureInfo& info : result.pictures)
    info.file = context_.writer.paths(file_of(info.index)).front();
  if (context_.events != nullptr) context_.events->end(result);
}

void ImageRenderer::announce(size_t file) {
  const SharedFlags& shared = context_.flags.shared;
  if (shared.json || shared.events == "-") return;  // whose lines say it
  for (const std::string& path : context_.writer.paths(file)) {
    if (path != "-") console_.print_line(path);
  }
}

// Pictures are finished in any order; their names are printed in the run's.
void ImageRenderer::announce_in_order() {
  while (next_ < items_.size() && finished_.erase(items_[next_]) > 0) announce(file_of(items_[next_++]));
}

// After an interruption or a failure the places of pictures that are missing stay white.
void ImageRenderer::write_grid() {
  std::ranges::sort(kept_, {}, &ImagePicture::index);
  const int64_t first = kept_.front().index, count = kept_.back().index - first + 1;
  std::vector<const image::Picture*> cells(static_cast<size_t>(count), nullptr);
  for (const ImagePicture& picture : kept_)
    cells[static_cast<size_t>(picture.index - first)] = &picture.picture;
  const image::GridLayout layout = image::grid_layout(count);
  context_.writer.write(0, encode(context_.writer.encoding_of(0), image::make_grid(cells, layout),
                                  make_run_record(context_.model, request_, kept_, layout)));
  announce(0);
}

}  // namespace volley::apps
