#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "image/picture.h"

namespace volley::image {

// A file that a request reads.
struct SourceFile {
  std::string name;  // without its folder
  std::string sha256;

  bool operator==(const SourceFile&) const = default;
};

// By how many cells a picture is widened on each side.
struct Margins {
  int64_t left = 0;
  int64_t right = 0;
  int64_t up = 0;
  int64_t down = 0;

  bool any() const { return left + right + up + down > 0; }
  bool operator==(const Margins&) const = default;
};

// The pixels of an edit's files, fitted to a model's square.
struct EditSource {
  Picture init;               // [side, side]
  std::vector<uint8_t> mask;  // [side, side], 0 keep or 1 repaint; empty: there is none
};

// An existing picture of which some cells are made anew.
struct EditRequest {
  SourceFile init;
  std::optional<SourceFile> mask;
  double strength =
      0.0;  // share of cells, chosen by each item's seed, that are made anew; 0 with mask or margins
  int64_t feather = 0;  // pixels around the repainted area in which old and new are blended
  Margins outpaint;
  std::shared_ptr<const EditSource> source;  // needed to run; no part of the JSON
};

inline constexpr double kDefaultStrength = 0.75;
inline constexpr int64_t kMaxFeather = 256;
inline constexpr int64_t kMaxMargin = 256;    // cells
inline constexpr int64_t kMaxCanvas = 16384;  // cells

// Scales the picture so that its shorter side is the model's and cuts the middle square out. The mask, its
// light parts white, is stretched to the picture first; what is transparent counts as black.
EditSource fit_edit(const RgbaPicture& init, const RgbaPicture* mask, int64_t side);

// The cells of a picture that may be wider than the model's square.
struct Canvas {
  int64_t columns = 0;
  int64_t rows = 0;
  int64_t cell = 0;  // pixels of a cell's side

  int64_t cells() const { return columns * rows; }
  int64_t width() const { return columns * cell; }
  int64_t height() const { return rows * cell; }
};

// Where the model's square lies in a canvas, in cells.
struct Window {
  int64_t column = 0;
  int64_t row = 0;
};
// The windows that make a canvas in turn: the one with the given picture, then outwards, half a square at a
// time, so that each sees what stands beside it. `side` is the model's, in cells.
std::vector<Window> sliding_windows(const Margins& margins, int64_t side);

// What of a canvas is kept.
struct EditPlan {
  std::vector<uint8_t> repainted;  // [cells] 1: made anew
  std::vector<float> weights;  // [pixels] of the new picture: 1 inside, falling to 0 around, then exactly 0
};
// `side` is the model's, in cells. Throws Error kUsage if nothing is to be repainted.
EditPlan plan_edit(const EditRequest& edit, const Canvas& canvas, int64_t side, uint64_t seed);

// Puts the old pixels back where the new picture does not count: bit for bit where its weight is 0.
void blend_kept(Picture& picture, const EditRequest& edit, const EditPlan& plan, const Canvas& canvas);

// "left=4,right": a side alone stands for `fallback` cells. Throws Error kUsage.
Margins parse_margins(const std::string& text, int64_t fallback);

nlohmann::json to_json(const EditRequest& edit);
// Throws Error "<subject>: key ...".
EditRequest read_edit(const JsonFields& fields, const std::string& subject);

}  // namespace volley::image
