// Products by oneDNN. Only its batch-reduce kernels ("brg") keep a row's bits whatever the row count; its
// other matmul kernels do not, so an implementation is accepted by name and everything else is left to our
// own kernel:
//   f32:  brg:avx512_core, any extents.
//   bf16: brg:avx512_core_amx_bf16 where the processor has AMX. oneDNN 2.6 falls back to another kernel for
//   few rows or
//         narrow panels, and fails on odd extents, so rows come in multiples of 16, depth of 32 and columns
//         of 16, at least 32. brg:avx512_core_bf16 on processors without AMX, same extents.
#include <sys/mman.h>

#include <array>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "core/backend/cpu/panel_products.h"
#include "core/base/error.h"
#include "dnnl.hpp"

// From libgomp, which oneDNN runs on. Both act on the calling thread alone.
extern "C" int omp_get_max_threads(void);
extern "C" void omp_set_num_threads(int threads);

namespace volley {
namespace {

// Keeps oneDNN single-threaded in this thread while it lives: our own pool shares out the work.
class SingleThreaded {
 public:
  SingleThreaded() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~SingleThreaded() {
    if (before_ != 1) omp_set_num_threads(before_);
  }
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  int before_;
};

dnnl::memory::data_type data_type(WeightType type) {
  return type == WeightType::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
}

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const PanelShape& shape, int64_t rows) {
  using Tag = dnnl::memory::format_tag;
  const auto type = data_type(shape.type);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return {{{{rows, shape.depth}, type, Tag::ab},
           {{shape.depth, shape.columns}, type, Tag::any},
           {{rows, shape.columns}, dnnl::memory::data_type::f32, Tag::ab}},
          attributes,
          engine};
}

// A matmul of fixed extents with the argument sets of the threads that run it.
class Primitive {
 public:
  Primitive(const dnnl::engine& engine, const dnnl::matmul::primitive_desc& description)
      : engine_(engine), description_(description), matmul_(description) {}

  void run(const void* x, const std::byte* panel, float* out) {
    Arguments arguments = take();
    arguments.x.set_data_handle(const_cast<void*>(x));
    arguments.panel.set_data_handle(const_cast<std::byte*>(panel));
    arguments.out.set_data_handle(out);
    const std::array<dnnl_exec_arg_t, 4> list{{{DNNL_ARG_SRC, arguments.x.get()},
                                               {DNNL_ARG_WEIGHTS, arguments.panel.get()},
                                               {DNNL_ARG_DST, arguments.out.get()},
                                               {DNNL_ARG_SCRATCHPAD, arguments.scratchpad.get()}}};
    const dnnl_status_t status = dnnl_primitive_execute(matmul_.get(), arguments.stream.get(),
                                                        static_cast<int>(list.size()), list.data());
    if (status != dnnl_success) throw Error("out of memory: oneDNN could not run a product");
    std::lock_guard lock(mutex_);
    free_.push_back(std::move(arguments));
  }

 private:
  struct Arguments {
    dnnl::memory x, panel, out, scratchpad;
    dnnl::stream stream;
  };

  Arguments take() {
    {
      std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        Arguments arguments = std::move(free_.back());
        free_.pop_back();
        return arguments;
      }
    }
    return {dnnl::memory(description_.src_desc(), engine_, nullptr),
            dnnl::memory(description_.weights_desc(), engine_, nullptr),
            dnnl::memory(description_.dst_desc(), engine_, nullptr),
            dnnl::memory(description_.scratchpad_desc(), engine_), dnnl::stream(engine_)};
  }

  dnnl::engine engine_;
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul matmul_;
  std::mutex mutex_;
  std::vector<Arguments> free_;
};

// oneDNN crashes when it gets no memory for the code it generates: try first whether there is some.
void require_memory_for_code() {
  constexpr size_t kBytes = size_t{16} << 20;
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw Error("out of memory: no room for the code of a product kernel");
  munmap(memory, kBytes);
}

class LibraryProducts : public PanelProducts {
 public:
  explicit LibraryProducts(std::string_view implementation) : implementation_(implementation) {}

  SourceFormat source_format(WeightType type) const override {
    return type == WeightType::kF32 ? SourceFormat::kF32 : SourceFormat::kBF16;
  }
  PanelGranularity granularity(WeightType type) const override {
    if (type == WeightType::kF32) return {};
    return {.rows = 16, .depth = 32, .columns = 16, .least_columns = 32};
  }

  int64_t packed_bytes(const PanelShape& shape) const override {
    const SingleThreaded guard;
    require_memory_for_code();
    return static_cast<int64_t>(packed_layout(shape).get_size());
  }

  void pack(const PanelShape& shape, const float* weight, std::byte* panel) const override {
    const SingleThreaded guard;
    require_memory_for_code();
    dnnl::stream stream(engine_);
    dnnl::memory source(
        {{shape.depth, shape.columns}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::ab}, engine_,
        const_cast<float*>(weight));
    dnnl::memory packed(packed_layout(shape), engine_, panel);
    dnnl::reorder(source, packed).execute(stream, source, packed);
    stream.wait();
  }

  void multiply(const PanelProductArgs& args) const override {
    const SingleThreaded guard;
    primitive(args.shape, args.rows).run(args.x, args.panel, args.out);
  }

 private:
  using Key = std::pair<PanelShape, int64_t>;

  // The same layout for every row count, or the implementation would not be the pinned one (asserted below).
  dnnl::memory::desc packed_layout(const PanelShape& shape) const {
    return describe(engine_, shape, kSliceRows).weights_desc();
  }

  Primitive& primitive(const PanelShape& shape, int64_t rows) const {
    const Key key{shape, rows};
    {
      std::shared_lock lock(mutex_);
      if (const auto found = primitives_.find(key); found != primitives_.end()) return *found->second;
    }
    std::unique_lock lock(mutex_);
    auto& slot = primitives_[key];
    if (slot == nullptr) {
      require_memory_for_code();
      const auto description = describe(engine_, shape, rows);
      VOLLEY_ASSERT(description.impl_info_str() == implementation_);
      VOLLEY_ASSERT(description.weights_desc() == packed_layout(shape));
      slot = std::make_unique<Primitive>(engine_, description);
    }
    return *slot;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  std::string_view implementation_;
  mutable std::shared_mutex mutex_;
  mutable std::map<Key, std::unique_ptr<Primitive>> primitives_;
};

// Name of the implementation that this processor gets for a plain panel, or "".
std::string implementation(const dnnl::engine& engine, WeightType type, int64_t rows) {
  try {
    return describe(engine, {.depth = 256, .columns = 64, .type = type}, rows).impl_info_str();
  } catch (const dnnl::error&) {
    return {};
  }
}

}  // namespace

std::unique_ptr<const PanelProducts> make_library_products(WeightType type) {
  const SingleThreaded guard;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  constexpr std::array<std::string_view, 1> kF32{"brg:avx512_core"};
  constexpr std::array<std::string_view, 2> kBF16{"brg:avx512_core_amx_bf16", "brg:avx512_core_bf16"};
  const std::span<const std::string_view> accepted =
      type == WeightType::kF32 ? std::span<const std::string_view>(kF32) : kBF16;
  const std::string name = implementation(engine, type, 16);
  for (std::string_view candidate : accepted) {
    if (name == candidate && implementation(engine, type, kSliceRows) == name) {
      return std::make_unique<LibraryProducts>(candidate);
    }
  }
  return nullptr;
}

void limit_library_to_avx2() {
  if (dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2) != dnnl::status::success)
    throw Error("oneDNN takes no limit of instructions: it is in use already, or built without the setting");
}

}  // namespace volley
