#include "image/pixel_coder.h"

#include <algorithm>

#include "core/base/error.h"

namespace volley::image {
namespace {

constexpr uint8_t kGrey = 128;
constexpr size_t kPlansKept = 64;

}  // namespace

PixelCoder::PixelCoder(const ImageModel& model)
    : model_(model), queue_(model.backend()->make_queue()), arena_(*model.backend()) {}

View<uint8_t> PixelCoder::decode_on(Queue& queue, Arena& arena, std::span<const int32_t> codes,
                                    const Canvas& canvas) const {
  const View<int32_t> device = arena.indices({1, canvas.rows, canvas.columns});
  const Tensor pixels = arena.tensor({1, 3, canvas.height(), canvas.width()});
  queue.upload(codes.data(), device.data, static_cast<int64_t>(codes.size_bytes()));
  model_.vq().decode(queue, arena, {.codes = device, .pixels = pixels});
  const View<uint8_t> bytes = arena.bytes_of({1, canvas.height(), canvas.width(), 3});
  queue.channel_bytes({.x = pixels, .out = bytes});
  return bytes;
}

Picture PixelCoder::decode(std::span<const int32_t> codes, const Canvas& canvas) {
  VOLLEY_ASSERT(std::ssize(codes) == canvas.cells());
  if (canvas.cells() > most_cells_) {
    most_cells_ = canvas.cells();
    arena_.reset_for([&](Queue& queue, Arena& arena) { decode_on(queue, arena, codes, canvas); });
  } else {
    arena_.reset();
  }
  const View<uint8_t> bytes = decode_on(*queue_, arena_, codes, canvas);
  Picture picture{.width = canvas.width(),
                  .height = canvas.height(),
                  .rgb = std::vector<uint8_t>(static_cast<size_t>(bytes.size()))};
  queue_->download(bytes.data, picture.rgb.data(), bytes.size());
  return picture;
}

View<int32_t> PixelCoder::encode_on(Queue& queue, Arena& arena, const PlanesOfPicture& picture,
                                    int64_t side) const {
  const Tensor pixels = arena.tensor({1, 3, picture.height, picture.width});
  const Tensor latents = arena.tensor({1, model_.vq().config().codebook_embed_dim, side, side});
  const View<int32_t> codes = arena.indices({1, side, side});
  queue.upload(picture.values.data(), pixels.data, pixels.size() * 4);
  model_.vq().encode(queue, arena, {.pixels = pixels, .latents = latents, .codes = codes});
  return codes;
}

std::vector<int32_t> PixelCoder::encode(const Picture& picture, int64_t side) {
  const int64_t area = picture.width * picture.height;
  PlanesOfPicture planes{.height = picture.height, .width = picture.width, .values = {}};
  planes.values.resize(picture.rgb.size());
  for (int64_t i = 0; i < area; ++i) {
    for (int64_t c = 0; c < 3; ++c) {
      planes.values[static_cast<size_t>(c * area + i)] =
          static_cast<float>(picture.rgb[static_cast<size_t>(3 * i + c)]) / 127.5f - 1.0f;
    }
  }
  arena_.reset_for([&](Queue& queue, Arena& arena) { encode_on(queue, arena, planes, side); });
  const View<int32_t> codes = encode_on(*queue_, arena_, planes, side);
  std::vector<int32_t> result(static_cast<size_t>(side * side));
  queue_->download(codes.data, result.data(), side * side * 4);
  return result;
}

PictureMaker::PictureMaker(const ImageModel& model, const ImageRequest& request)
    : model_(model), request_(request), canvas_(canvas_of(model.card(), request)), coder_(model) {
  if (!request.edit) return;
  VOLLEY_ASSERT(request.edit->source != nullptr);
  init_codes_ = coder_.encode(request.edit->source->init, model.card().grid);
}

const EditPlan& PictureMaker::plan_of(int64_t item) {
  const int64_t key = request_.edit->strength > 0.0 ? item : 0;
  const auto found = plans_.find(key);
  if (found != plans_.end()) return found->second;
  if (plans_.size() >= kPlansKept) plans_.clear();
  return plans_.emplace(key, plan_edit(*request_.edit, canvas_, model_.card().grid, request_.seed_of(item)))
      .first->second;
}

std::vector<int32_t> PictureMaker::known_codes(int64_t item) {
  std::vector<int32_t> codes(static_cast<size_t>(canvas_.cells()), -1);
  if (!request_.edit) return codes;
  const EditPlan& plan = plan_of(item);
  const int64_t side = model_.card().grid;
  const Margins& margins = request_.edit->outpaint;
  for (int64_t i = 0; i < side * side; ++i) {
    const auto cell =
        static_cast<size_t>((margins.up + i / side) * canvas_.columns + margins.left + i % side);
    if (plan.repainted[cell] == 0) codes[cell] = init_codes_[static_cast<size_t>(i)];
  }
  return codes;
}

void PictureMaker::put_back(int64_t item, Picture& picture) {
  if (request_.edit) blend_kept(picture, *request_.edit, plan_of(item), canvas_);
}

Picture PictureMaker::whole(int64_t item, std::span<const int32_t> codes) {
  Picture picture = coder_.decode(codes, canvas_);
  put_back(item, picture);
  return picture;
}

Picture PictureMaker::partial(int64_t item, std::span<const int32_t> codes) {
  // A cell without a code borrows that of the cell before it, so that its neighbours look as they will.
  std::vector<int32_t> filled(codes.begin(), codes.end());
  const auto first = std::ranges::find_if(codes, [](int32_t code) { return code >= 0; });
  int32_t last = first == codes.end() ? 0 : *first;
  for (int32_t& code : filled) {
    if (code < 0) code = last;
    last = code;
  }
  Picture picture = coder_.decode(filled, canvas_);
  for (int64_t y = 0; y < picture.height; ++y) {
    for (int64_t x = 0; x < picture.width; ++x) {
      const int64_t cell = y / canvas_.cell * canvas_.columns + x / canvas_.cell;
      if (codes[static_cast<size_t>(cell)] >= 0) continue;
      std::fill_n(picture.rgb.begin() + 3 * (y * picture.width + x), 3, kGrey);
    }
  }
  put_back(item, picture);
  return picture;
}

}  // namespace volley::image
