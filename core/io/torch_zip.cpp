#include "core/io/torch_zip.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "core/io/byte_reader.h"
#include "core/io/checked_shape.h"
#include "core/io/crc32.h"
#include "core/io/pickle.h"
#include "core/io/untrusted_text.h"
#include "core/io/zip.h"

namespace volley {
namespace {

constexpr size_t kMaxNameBytes = 1024;

constexpr std::string_view kRebuildTensor = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view kRebuildParameter = "torch._utils._rebuild_parameter";
constexpr std::string_view kOrderedDict = "collections.OrderedDict";

constexpr std::array<std::pair<std::string_view, DType>, 10> kStorages{
    {{"torch.FloatStorage", DType::kF32},
     {"torch.HalfStorage", DType::kF16},
     {"torch.BFloat16Storage", DType::kBF16},
     {"torch.DoubleStorage", DType::kF64},
     {"torch.LongStorage", DType::kI64},
     {"torch.IntStorage", DType::kI32},
     {"torch.ShortStorage", DType::kI16},
     {"torch.CharStorage", DType::kI8},
     {"torch.ByteStorage", DType::kU8},
     {"torch.BoolStorage", DType::kBool}}};

// The allow-list. The second part only stands beside the weights, in what training scripts save along
// with them (arguments, optimizer state); such values are passed over.
constexpr std::array<std::string_view, 31> kAllowedGlobals{kRebuildTensor,
                                                           kRebuildParameter,
                                                           kOrderedDict,
                                                           "torch.FloatStorage",
                                                           "torch.HalfStorage",
                                                           "torch.BFloat16Storage",
                                                           "torch.DoubleStorage",
                                                           "torch.LongStorage",
                                                           "torch.IntStorage",
                                                           "torch.ShortStorage",
                                                           "torch.CharStorage",
                                                           "torch.ByteStorage",
                                                           "torch.BoolStorage",

                                                           "argparse.Namespace",
                                                           "collections.defaultdict",
                                                           "_codecs.encode",
                                                           "numpy.dtype",
                                                           "numpy.ndarray",
                                                           "numpy.core.multiarray.scalar",
                                                           "numpy.core.multiarray._reconstruct",
                                                           "numpy._core.multiarray.scalar",
                                                           "numpy._core.multiarray._reconstruct",
                                                           "torch.Size",
                                                           "torch.device",
                                                           "torch.float32",
                                                           "torch.float16",
                                                           "torch.bfloat16",
                                                           "torch.float64",
                                                           "torch.int64",
                                                           "torch.int32",
                                                           "torch.uint8"};

bool is_call(const PickleNode& node, std::string_view name) {
  return node.kind == PickleKind::kCall && node.text == name;
}

bool is_tensor(const PickleNode& node) {
  return is_call(node, kRebuildTensor) || is_call(node, kRebuildParameter);
}

bool is_dict(const PickleNode& node) {
  return node.kind == PickleKind::kDict || is_call(node, kOrderedDict);
}

// The entries of a dict or OrderedDict: key, value, key, value ...
std::span<const PickleId> entries(const PickleNode& dict) {
  return std::span(dict.items).subspan(dict.kind == PickleKind::kCall ? 1 : 0);
}

// How a tensor lies in its storage.
struct Layout {
  Shape shape;
  std::vector<int64_t> strides;  // in elements
  int64_t offset = 0;
  int64_t storage_elements = 0;
};

// Row-major without gaps; the stride of an extent of one, and all strides of an empty tensor, say nothing.
bool is_row_major(const Layout& layout) {
  int64_t expected = 1;
  for (int64_t i = layout.shape.rank(); i-- > 0;) {
    if (layout.shape[i] != 1 && layout.strides[static_cast<size_t>(i)] != expected) return false;
    expected *= layout.shape[i];
  }
  return true;
}

// Every element must lie within the storage.
std::optional<Fault> check_bounds(const Layout& layout) {
  int64_t last = layout.offset;
  bool overflow = false;
  for (int64_t i = 0; i < layout.shape.rank(); ++i) {
    const int64_t stride = layout.strides[static_cast<size_t>(i)];
    if (stride < 0) return Fault{"negative stride " + std::to_string(stride)};
    int64_t reach = 0;
    overflow |= __builtin_mul_overflow(stride, layout.shape[i] - 1, &reach);
    overflow |= __builtin_add_overflow(last, reach, &last);
  }
  if (overflow || last >= layout.storage_elements) {
    return Fault{"shape " + layout.shape.to_string() + " at offset " + std::to_string(layout.offset) +
                 " with its strides reaches past its storage of " + std::to_string(layout.storage_elements) +
                 " elements"};
  }
  return std::nullopt;
}

// Copies a strided view's elements into row-major order.
std::vector<std::byte> gather(const std::byte* storage, const Layout& layout, int64_t element_bytes) {
  std::vector<std::byte> dense(static_cast<size_t>(layout.shape.size() * element_bytes));
  std::array<int64_t, Shape::kMaxRank> index{};
  int64_t source = layout.offset;
  for (size_t at = 0; at < dense.size(); at += static_cast<size_t>(element_bytes)) {
    std::memcpy(dense.data() + at, storage + source * element_bytes, static_cast<size_t>(element_bytes));
    for (int64_t i = layout.shape.rank(); i-- > 0;) {
      const auto axis = static_cast<size_t>(i);
      source += layout.strides[axis];
      if (++index[axis] < layout.shape[i]) break;
      source -= index[axis] * layout.strides[axis];
      index[axis] = 0;
    }
  }
  return dense;
}

// The archive's members under the folder that all of them share, with their CRCs compared on first use.
class Archive {
 public:
  Archive(ZipIndex zip, CrcCheck crc) : zip_(std::move(zip)), crc_(crc) {}

  // Finds that folder: torch.save names it after the file.
  std::optional<Fault> find_folder() {
    for (const ZipMember& member : zip_.members()) {
      constexpr std::string_view kPickle = "/data.pkl";
      if (!member.name.ends_with(kPickle)) continue;
      if (!folder_.empty()) return Fault{"archive holds several data.pkl"};
      folder_ = member.name.substr(0, member.name.size() - kPickle.size() + 1);
    }
    if (folder_.empty()) return Fault{"archive holds no data.pkl: not a PyTorch checkpoint"};
    return std::nullopt;
  }

  // Null if there is no such member.
  const ZipMember* find(std::string_view name) const { return zip_.find(folder_ + std::string(name)); }

  Result<std::span<const std::byte>> read(const std::string& name) {
    const ZipMember* member = find(name);
    if (member == nullptr) return Fault{"archive holds no " + quote(name)};
    if (crc_ == CrcCheck::kVerify && !verified_[member]) {
      if (crc32(member->bytes) != member->crc) return Fault{"member " + quote(name) + " has a wrong CRC"};
      verified_[member] = true;
    }
    return member->bytes;
  }

 private:
  ZipIndex zip_;
  CrcCheck crc_;
  std::string folder_;
  std::map<const ZipMember*, bool> verified_;
};

// Reads the tensors that a pickle tree describes out of the archive.
class TensorReader {
 public:
  TensorReader(const PickleTree& tree, Archive& archive, int64_t copy_budget)
      : tree_(tree), archive_(archive), copy_budget_(copy_budget) {}

  Result<HostView> read(const PickleNode& call, std::vector<std::vector<std::byte>>& copies) {
    const PickleNode* tensor = &call;
    if (is_call(call, kRebuildParameter)) {  // (tensor, requires_grad, hooks)
      const PickleNode& arguments = tree_[call.items[0]];
      if (arguments.items.empty()) return Fault{"_rebuild_parameter without arguments"};
      tensor = &tree_[arguments.items[0]];
    }
    if (!is_call(*tensor, kRebuildTensor)) return Fault{"parameter holds no tensor"};
    // (storage, offset, size, strides, requires_grad, hooks[, metadata])
    const PickleNode& arguments = tree_[tensor->items[0]];
    if (arguments.items.size() < 4) return Fault{"_rebuild_tensor_v2 with too few arguments"};
    const Result<Storage> storage = read_storage(tree_[arguments.items[0]]);
    if (!storage) return storage.fault();
    const DType dtype = storage.value().dtype;
    Result<Layout> layout = read_layout(arguments, dtype);
    if (!layout) return layout.fault();
    layout.value().storage_elements = storage.value().elements;
    return place(storage.value().bytes.data(), layout.value(), dtype, copies);
  }

 private:
  struct Storage {
    DType dtype = DType::kF32;
    int64_t elements = 0;
    std::span<const std::byte> bytes;
  };

  // ('storage', type, key, location, elements)
  Result<Storage> read_storage(const PickleNode& persistent) {
    if (persistent.kind != PickleKind::kPersistent) return Fault{"tensor without a storage"};
    const PickleNode& id = tree_[persistent.items[0]];
    if (id.kind != PickleKind::kTuple || id.items.size() != 5) return Fault{"storage id is no tuple of five"};
    const PickleNode& tag = tree_[id.items[0]];
    const PickleNode& type = tree_[id.items[1]];
    const PickleNode& key = tree_[id.items[2]];
    const PickleNode& elements = tree_[id.items[4]];
    if (tag.kind != PickleKind::kText || tag.text != "storage") return Fault{"persistent id is no storage"};
    const auto found = std::ranges::find(kStorages, type.text, &std::pair<std::string_view, DType>::first);
    if (type.kind != PickleKind::kGlobal || found == kStorages.end())
      return Fault{"storage without a known type"};
    if (key.kind != PickleKind::kText) return Fault{"storage key is no text"};
    if (elements.kind != PickleKind::kInt || elements.integer < 0) return Fault{"storage size is no count"};
    const auto bytes = archive_.read("data/" + std::string(key.text));
    if (!bytes) return bytes.fault();
    const Storage storage{found->second, elements.integer, bytes.value()};
    if (storage.elements > std::ssize(storage.bytes) / dtype_size(storage.dtype)) {
      return Fault{"storage " + quote(key.text) + " has " + std::to_string(storage.bytes.size()) +
                   " bytes, " + std::to_string(storage.elements) + " elements of " +
                   std::string(dtype_name(storage.dtype)) + " were promised"};
    }
    return storage;
  }

  Result<std::vector<int64_t>> read_integers(const PickleNode& node, const char* what) {
    if (node.kind != PickleKind::kTuple) return Fault{std::string(what) + " is no tuple"};
    std::vector<int64_t> values;
    for (const PickleId id : node.items) {
      if (tree_[id].kind != PickleKind::kInt) return Fault{std::string(what) + " holds what is no integer"};
      values.push_back(tree_[id].integer);
    }
    return values;
  }

  Result<Layout> read_layout(const PickleNode& arguments, DType dtype) {
    const PickleNode& offset = tree_[arguments.items[1]];
    if (offset.kind != PickleKind::kInt) return Fault{"storage offset is no integer"};
    if (offset.integer < 0) return Fault{"negative storage offset " + std::to_string(offset.integer)};
    Result<std::vector<int64_t>> extents = read_integers(tree_[arguments.items[2]], "shape");
    if (!extents) return extents.fault();
    Result<std::vector<int64_t>> strides = read_integers(tree_[arguments.items[3]], "strides");
    if (!strides) return strides.fault();
    if (extents.value().size() != strides.value().size()) {
      return Fault{std::to_string(extents.value().size()) + " extents but " +
                   std::to_string(strides.value().size()) + " strides"};
    }
    const Result<Shape> shape = checked_shape(extents.value(), dtype);
    if (!shape) return shape.fault();
    return Layout{shape.value(), std::move(strides).value(), offset.integer};
  }

  Result<HostView> place(const std::byte* storage, const Layout& layout, DType dtype,
                         std::vector<std::vector<std::byte>>& copies) {
    HostView view{nullptr, dtype, layout.shape};
    if (layout.shape.size() == 0) return view;
    if (auto fault = check_bounds(layout)) return *fault;
    if (is_row_major(layout)) {
      view.data = storage + layout.offset * dtype_size(dtype);
      return view;
    }
    // An expanded view (stride 0) can stand for any amount of memory.
    if (view.bytes() > copy_budget_) {
      return Fault{"is not row-major and its copy of " + std::to_string(view.bytes()) +
                   " bytes is over the limit of the file's size"};
    }
    copy_budget_ -= view.bytes();
    copies.push_back(gather(storage, layout, dtype_size(dtype)));
    view.data = copies.back().data();
    return view;
  }

  const PickleTree& tree_;
  Archive& archive_;
  int64_t copy_budget_;
};

const PickleNode* find_state_dict(const PickleTree& tree) {
  const PickleNode& root = tree.root();
  if (!is_dict(root)) return nullptr;
  for (const char* wrapper : {"model", "module", "state_dict", "model_state_dict"}) {
    const PickleNode* inner = tree.find(root, wrapper);
    if (inner != nullptr && is_dict(*inner)) return inner;
  }
  return &root;
}

}  // namespace

Result<TorchCheckpoint> parse_torch_zip(std::span<const std::byte> file, CrcCheck crc) {
  Result<ZipIndex> zip = parse_zip(file);
  if (!zip) return zip.fault();
  Archive archive(std::move(zip).value(), crc);
  if (auto fault = archive.find_folder()) return *fault;
  if (archive.find("byteorder") != nullptr) {
    const auto order = archive.read("byteorder");
    if (!order) return order.fault();
    if (as_text(order.value()) != "little") {
      return Fault{"byte order is " + quote(as_text(order.value())) + ", expected 'little'"};
    }
  }
  const auto pickled = archive.read("data.pkl");
  if (!pickled) return pickled.fault();
  const Result<PickleTree> tree = parse_pickle(pickled.value(), kAllowedGlobals);
  if (!tree) return tree.fault();
  const PickleNode* state = find_state_dict(tree.value());
  if (state == nullptr) return Fault{"pickle holds no state dict"};

  TorchCheckpoint checkpoint;
  TensorReader reader(tree.value(), archive, std::ssize(file));
  const std::span<const PickleId> items = entries(*state);
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const PickleNode& key = tree.value()[items[i]];
    const PickleNode& value = tree.value()[items[i + 1]];
    if (!is_tensor(value)) continue;
    if (key.kind != PickleKind::kText || key.text.size() > kMaxNameBytes) {
      return Fault{"state dict has a tensor whose name is no text of at most 1024 bytes"};
    }
    const Result<HostView> view = reader.read(value, checkpoint.copies);
    if (!view) return Fault{"tensor " + quote(key.text) + ": " + view.fault().message};
    checkpoint.tensors.push_back({std::string(key.text), view.value()});
  }
  if (checkpoint.tensors.empty()) return Fault{"state dict holds no tensors"};
  std::ranges::sort(checkpoint.tensors, {}, &NamedTensor::name);
  const auto twin = std::ranges::adjacent_find(checkpoint.tensors, {}, &NamedTensor::name);
  if (twin != checkpoint.tensors.end()) return Fault{"tensor " + quote(twin->name) + " occurs twice"};
  return checkpoint;
}

TorchZipFile::TorchZipFile(MappedFile file, TorchCheckpoint checkpoint, std::string path)
    : file_(std::move(file)), checkpoint_(std::move(checkpoint)), path_(std::move(path)) {}

Result<std::unique_ptr<TorchZipFile>> TorchZipFile::open(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.fault();
  return from_mapping(std::move(file).value(), path);
}

Result<std::unique_ptr<TorchZipFile>> TorchZipFile::from_mapping(MappedFile file, std::string path,
                                                                 CrcCheck crc) {
  Result<TorchCheckpoint> checkpoint = parse_torch_zip(file.bytes(), crc);
  if (!checkpoint) return checkpoint.fault();
  return std::unique_ptr<TorchZipFile>(
      new TorchZipFile(std::move(file), std::move(checkpoint).value(), std::move(path)));
}

}  // namespace volley
