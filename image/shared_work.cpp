#include "image/shared_work.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

namespace volley::image {
namespace {

constexpr size_t kMostMessages = 256;

int64_t divide_up(int64_t count, int64_t parts) {
  return (count + parts - 1) / parts;
}

}  // namespace

BatchQueue::BatchQueue(std::vector<int64_t> items, const Sizes& sizes) : items_(std::move(items)) {
  const auto count = std::ssize(items_);
  const int64_t turns = std::max<int64_t>(1, divide_up(count, sizes.workers * sizes.most));
  size_ = static_cast<size_t>(std::max<int64_t>(1, divide_up(count, sizes.workers * turns)));
}

std::span<const int64_t> BatchQueue::take() {
  const std::scoped_lock lock(mutex_);
  const std::span<const int64_t> rest = std::span(items_).subspan(next_);
  const auto batch = rest.first(std::min(size_, rest.size()));
  next_ += batch.size();
  return batch;
}

std::string join_devices(const std::vector<std::string>& names) {
  std::vector<std::string> all;
  for (const std::string& name : names) {
    if (std::ranges::count(all, name) == 0) all.push_back(name);
  }
  std::string text;
  for (const std::string& name : all) text += (text.empty() ? "" : ",") + name;
  return text;
}

ImageResult merge(std::vector<ImageResult> parts) {
  ImageResult all;
  for (ImageResult& part : parts) {
    std::ranges::move(part.pictures, std::back_inserter(all.pictures));
    std::ranges::move(part.checks, std::back_inserter(all.checks));
    all.statistics.add(part.statistics);
    all.pixels_seconds += part.pixels_seconds;
    all.check_seconds += part.check_seconds;
  }
  std::ranges::sort(all.pictures, {}, &PictureInfo::index);
  std::ranges::sort(all.checks, {}, &CheckOutcome::index);
  return all;
}

void ObserverRelay::Sender::send_step(const StepEvent& event, void (ImageObserver::*call)(const StepEvent&)) {
  relay_.send([event, worker = worker_, call,
               positions = std::vector(event.positions.begin(), event.positions.end()),
               tokens = std::vector(event.tokens.begin(), event.tokens.end()),
               source = std::string(event.source)](ImageObserver& observer) {
    StepEvent kept = event;
    kept.worker = worker;
    kept.positions = positions;
    kept.tokens = tokens;
    kept.source = source;
    (observer.*call)(kept);
  });
}

void ObserverRelay::Sender::on_picture(const ImagePicture& picture) {
  relay_.send([picture](ImageObserver& observer) { observer.on_picture(picture); });
}

void ObserverRelay::Sender::on_check(const CheckOutcome& outcome) {
  relay_.send([outcome](ImageObserver& observer) { observer.on_check(outcome); });
}

void ObserverRelay::send(Message message) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return is_abandoned_ || messages_.size() < kMostMessages; });
  if (is_abandoned_) return;
  messages_.push_back(std::move(message));
  changed_.notify_all();
}

void ObserverRelay::leave() {
  const std::scoped_lock lock(mutex_);
  --working_;
  changed_.notify_all();
}

void ObserverRelay::run(ImageObserver& observer) {
  for (;;) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return working_ == 0 || !messages_.empty(); });
    if (messages_.empty()) return;
    const Message message = std::move(messages_.front());
    messages_.pop_front();
    changed_.notify_all();
    lock.unlock();
    message(observer);
  }
}

void ObserverRelay::abandon() {
  const std::scoped_lock lock(mutex_);
  is_abandoned_ = true;
  messages_.clear();
  changed_.notify_all();
}

}  // namespace volley::image
