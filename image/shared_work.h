#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <vector>

#include "image/image_job.h"

namespace volley::image {

// The items of a run in batches, for several workers to take. All batches but the last are of one size: the
// smallest with which each worker takes no more batches than with the largest. With few items the last
// batch is small, or workers have none (5 items for 4 workers: 2, 2, 1).
class BatchQueue {
 public:
  struct Sizes {
    int64_t workers = 1;
    int64_t most = 1;  // items of a batch
  };
  BatchQueue(std::vector<int64_t> items, const Sizes& sizes);

  // The next batch; empty when there is none. From any thread.
  std::span<const int64_t> take();
  const std::vector<int64_t>& items() const { return items_; }
  // Items of a batch, but for the last.
  int64_t size() const { return static_cast<int64_t>(size_); }

 private:
  std::vector<int64_t> items_;
  size_t size_ = 0;  // of a batch
  std::mutex mutex_;
  size_t next_ = 0;
};

// "cuda:0,cuda:1": each once, in their order.
std::string join_devices(const std::vector<std::string>& names);

// What each of several workers made, together: sums, and lists by index.
ImageResult merge(std::vector<ImageResult> parts);

// Carries what several workers observe to one thread, in the order in which it came.
class ObserverRelay {
 public:
  // An observer for one worker's thread. Its calls wait while too much is on the way.
  class Sender : public ImageObserver {
   public:
    Sender(ObserverRelay& relay, int64_t worker) : relay_(relay), worker_(worker) {}
    void on_step(const StepEvent& event) override { send_step(event, &ImageObserver::on_step); }
    void on_picture(const ImagePicture& picture) override;
    void on_check_step(const StepEvent& event) override { send_step(event, &ImageObserver::on_check_step); }
    void on_check(const CheckOutcome& outcome) override;

   private:
    void send_step(const StepEvent& event, void (ImageObserver::*call)(const StepEvent&));

    ObserverRelay& relay_;
    int64_t worker_;
  };

  explicit ObserverRelay(int64_t workers) : working_(workers) {}

  // Called by each worker when it has sent its last.
  void leave();
  // Hands everything to `observer` until all workers have left.
  void run(ImageObserver& observer);
  // From here on nothing is kept, so that no worker waits.
  void abandon();

 private:
  using Message = std::function<void(ImageObserver&)>;
  void send(Message message);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Message> messages_;
  int64_t working_ = 0;
  bool is_abandoned_ = false;
};

}  // namespace volley::image
