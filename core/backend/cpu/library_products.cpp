// f32 products by oneDNN. Only its batch-reduce kernel "brg:avx512_core" keeps a row's bits whatever the row
// count; its other f32 matmul kernels do not, so it is accepted by name and everything else is left to our
// own kernel.
#include <sys/mman.h>

#include <array>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/panel_products.h"
#include "core/base/error.h"
#include "dnnl.hpp"

// From libgomp, which oneDNN runs on. Both act on the calling thread alone.
extern "C" int omp_get_max_threads(void);
extern "C" void omp_set_num_threads(int threads);

namespace volley {
namespace {

constexpr std::string_view kImplementation = "brg:avx512_core";

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

dnnl::matmul::primitive_desc describe(const dnnl::engine& engine, const PanelShape& shape, int64_t rows) {
  using Tag = dnnl::memory::format_tag;
  constexpr auto kF32 = dnnl::memory::data_type::f32;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return {{{{rows, shape.depth}, kF32, Tag::ab},
           {{shape.depth, shape.columns}, kF32, Tag::any},
           {{rows, shape.columns}, kF32, Tag::ab}},
          attributes,
          engine};
}

// A matmul of fixed extents with the argument sets of the threads that run it.
class Primitive {
 public:
  Primitive(const dnnl::engine& engine, const dnnl::matmul::primitive_desc& description)
      : engine_(engine), description_(description), matmul_(description) {}

  void run(const float* x, const std::byte* panel, float* out) {
    Arguments arguments = take();
    arguments.x.set_data_handle(const_cast<float*>(x));
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
      VOLLEY_ASSERT(description.impl_info_str() == kImplementation);
      VOLLEY_ASSERT(description.weights_desc() == packed_layout(shape));
      slot = std::make_unique<Primitive>(engine_, description);
    }
    return *slot;
  }

  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  mutable std::shared_mutex mutex_;
  mutable std::map<Key, std::unique_ptr<Primitive>> primitives_;
};

bool is_pinned(const dnnl::engine& engine, int64_t rows) {
  try {
    return describe(engine, {.depth = 256, .columns = 64}, rows).impl_info_str() == kImplementation;
  } catch (const dnnl::error&) {
    return false;
  }
}

}  // namespace

std::unique_ptr<const PanelProducts> make_library_products() {
  const SingleThreaded guard;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  if (!is_pinned(engine, 16) || !is_pinned(engine, kSliceRows)) return nullptr;
  return std::make_unique<LibraryProducts>();
}

void limit_library_to_avx2() {
  if (dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2) != dnnl::status::success)
    throw Error("oneDNN takes no limit of instructions: it is in use already, or built without the setting");
}

}  // namespace volley
