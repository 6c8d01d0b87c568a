#pragma once

#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend/backend.h"
#include "core/io/weight_source.h"
#include "core/nn/packed_weights.h"

namespace volley {

// A weight vector or table in the backend's memory, f32.
struct Weight {
  Buffer buffer;
  Shape shape;

  ConstTensor view() const { return buffer.data() ? ConstTensor(buffer.view<float>(shape)) : ConstTensor{}; }
};

// How weights of products are stored.
struct WeightStorage {
  WeightStorage(WeightType type) : floats(type) {}  // all of them, whatever the file has
  // Blocks of integers stay as small as they are, where the device has blocks: types of 4 bits become q4_1,
  // all others q8_0. What the file has as floats becomes `floats`.
  static WeightStorage keeping_blocks(WeightType floats) {
    WeightStorage storage(floats);
    storage.keeps_blocks = true;
    return storage;
  }

  // "f32", "q8_0", ..., or "blocks".
  std::string_view name() const { return keeps_blocks ? "blocks" : weight_type_name(floats); }

  WeightType floats;
  bool keeps_blocks = false;
};

// A table of rows by id: f32, or a product's weight that is quantised in the file, too, which may be the
// output head's.
struct Embedding {
  Weight table;
  LinearWeight packed;

  bool is_packed() const { return packed.out_features > 0; }
  int64_t width() const { return is_packed() ? packed.in_features : table.shape[1]; }
};

// Takes the tensors of a checkpoint by name, checks their shapes and packs them for a backend. Any float or
// block type is accepted, and q8_0 planes: a weight NAME stored as NAME.quants [N, K] i8 and NAME.scales [N,
// K / 32] f16. Weights that are packed already (packed_weights.h) are mapped; they must be of the asked
// storage.
//
// Every method throws Error naming the file, the tensor, what was expected and what is there.
class WeightLoader {
 public:
  // `writer`, if given, takes everything that is loaded.
  WeightLoader(const WeightSource& source, const Backend& backend, WeightStorage storage,
               PackedWriter* writer = nullptr)
      : source_(source), backend_(backend), storage_(storage), type_(storage.floats), writer_(writer) {}

  bool has(std::string_view name) const;
  // Shape of a tensor that must exist.
  Shape shape(std::string_view name) const;

  // A product's weight [out, in].
  LinearWeight linear(const std::string& name, int64_t out, int64_t in);
  // Rows [begin, begin + count) of a weight [rows, in] as a weight of their own.
  struct RowRange {
    int64_t rows = 0;
    int64_t begin = 0;
    int64_t count = 0;
  };
  LinearWeight linear_rows(const std::string& name, const RowRange& range, int64_t in);
  // A weight of host values (rows re-ordered by the model, say). It cannot be written to a packed file.
  LinearWeight linear(std::span<const float> values, int64_t out, int64_t in) const;
  // A table [rows, width]: packed if the storage keeps its blocks, else f32.
  Embedding embedding(const std::string& name, int64_t rows, int64_t width);
  // A vector or table, f32.
  Weight tensor(const std::string& name, Shape shape);
  // Tables [rows, width] as one, each behind the one before.
  struct Table {
    std::string name;
    int64_t rows = 0;
  };
  Weight joined_tables(std::span<const Table> tables, int64_t width);
  Weight tensor(std::span<const float> values, Shape shape) const;
  // NAME.weight [out, in, h, w] and NAME.bias [out]; a signal's weight [out, in, w] counts as [out, in, 1,
  // w].
  ConvWeight conv(const std::string& name, int64_t out, int64_t in, int64_t kernel);
  ConvWeight conv1d(const std::string& name, int64_t out, int64_t in, int64_t kernel);
  // Values on the host.
  std::vector<float> values(const std::string& name, Shape shape);

  // Tensors that the model does not read, by name or by prefix.
  void ignore(std::string_view prefix);
  // Throws Error if the checkpoint holds tensors nobody asked for.
  void finish() const;

  const Backend& backend() const { return backend_; }
  // Of what the file has as floats.
  WeightType type() const { return type_; }

 private:
  [[noreturn]] void fail(std::string_view name, const std::string& fault) const;
  void require_finite(std::string_view name, std::span<const float> found) const;
  const HostView& find(const std::string& name, const Shape& shape);
  const HostView& find_floats(const std::string& name, const Shape& shape);
  // q8_0 planes as a checkpoint has them: quants and scales.
  std::optional<PackedPlanes> find_quantized(const std::string& name, const Shape& shape);
  ConvWeight conv_as(const std::string& name, Shape stored, Shape used);
  // A tensor's values to memory of the backend; nothing where the source has none.
  void upload(const std::string& name, Shape shape, std::byte* to);
  // How a tensor of such a type is stored.
  WeightType type_of(DType dtype) const;
  // Packs what `view` shows of tensor `name`.
  LinearWeight pack(const std::string& name, const HostView& view) const;
  // Packs q8_0 planes as they are; `scales_name` is for messages.
  LinearWeight pack_planes(const std::string& scales_name, const PackedPlanes& planes) const;
  // The packed weight of that name, if there is one, of shape [out, in].
  std::optional<LinearWeight> find_mapped(const std::string& name, WeightType type, int64_t out, int64_t in);
  void record(const std::string& name, const LinearWeight& weight) const;

  const WeightSource& source_;
  const Backend& backend_;
  WeightStorage storage_;
  WeightType type_;  // of what the file has as floats
  PackedWriter* writer_;
  std::set<std::string, std::less<>> used_;
  std::vector<std::string> ignored_;
};

}  // namespace volley
