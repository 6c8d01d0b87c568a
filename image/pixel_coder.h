#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "image/edit.h"
#include "image/image_model.h"
#include "image/image_request.h"

namespace volley::image {

// Codes to pixels and back, one picture at a time, with working memory of its own.
class PixelCoder {
 public:
  explicit PixelCoder(const ImageModel& model);

  // codes: [rows, columns] of the canvas.
  Picture decode(std::span<const int32_t> codes, const Canvas& canvas);
  // The codes of a picture of `side` x `side` cells.
  std::vector<int32_t> encode(const Picture& picture, int64_t side);

 private:
  // The same in an arena: pixels [1, H, W, 3], and codes [1, side, side] of values [3, height, width].
  View<uint8_t> decode_on(Queue& queue, Arena& arena, std::span<const int32_t> codes,
                          const Canvas& canvas) const;
  struct PlanesOfPicture {
    int64_t height = 0;
    int64_t width = 0;
    std::vector<float> values;
  };
  View<int32_t> encode_on(Queue& queue, Arena& arena, const PlanesOfPicture& picture, int64_t side) const;

  const ImageModel& model_;
  std::unique_ptr<Queue> queue_;
  Arena arena_;
  int64_t most_cells_ = 0;  // that were decoded at once: more may need more memory
};

// The pictures of a request's items: what its codes show, with the kept part of an edit in its place.
class PictureMaker {
 public:
  // Throws Error if an edit's pixels are not there or leave nothing to repaint.
  PictureMaker(const ImageModel& model, const ImageRequest& request);

  const Canvas& canvas() const { return canvas_; }
  // The codes of an item before it is made: -1 where they are to be chosen.
  std::vector<int32_t> known_codes(int64_t item);
  // All codes are chosen.
  Picture whole(int64_t item, std::span<const int32_t> codes);
  // Cells whose code is -1 are grey.
  Picture partial(int64_t item, std::span<const int32_t> codes);

 private:
  const EditPlan& plan_of(int64_t item);
  void put_back(int64_t item, Picture& picture);

  const ImageModel& model_;
  const ImageRequest& request_;
  Canvas canvas_;
  PixelCoder coder_;
  std::vector<int32_t> init_codes_;    // of an edit
  std::map<int64_t, EditPlan> plans_;  // by item; one for all without strength
};

}  // namespace volley::image
