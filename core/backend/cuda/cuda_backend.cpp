#include "core/backend/cuda/cuda_backend.h"

#include <cmath>
#include <string>
#include <vector>

#include "core/backend/cuda/cuda_plan_queue.h"
#include "core/backend/cuda/cuda_queue.h"
#include "core/backend/cuda/kernels.h"
#include "core/backend/cuda/status.h"
#include "core/backend/q8_0.h"
#include "core/io/convert.h"

namespace volley {
namespace cuda {
namespace {

// Host values in device memory while they are packed.
Buffer to_device(const DeviceMemory& memory, const void* data, size_t bytes) {
  Buffer buffer = memory.allocate(static_cast<int64_t>(bytes));
  if (bytes > 0) check(cudaMemcpy(buffer.data(), data, bytes, cudaMemcpyHostToDevice), "weights");
  // The copy may end behind the call, and queues do not wait for this stream.
  check(cudaStreamSynchronize(nullptr), "weights");
  return buffer;
}

class CudaBackend : public Backend {
 public:
  CudaBackend(int device, DeviceInfo info, const Abilities& abilities)
      : device_(device), abilities_(abilities), info_(std::move(info)), memory_(device, info_.name) {}

  const DeviceInfo& info() const override { return info_; }
  std::unique_ptr<Queue> make_queue() const override {
    return std::make_unique<CudaQueue>(device_, memory_, abilities_, copiers_);
  }
  Buffer allocate(int64_t bytes) const override { return memory_.allocate(bytes); }
  int64_t allocated_bytes() const override { return memory_.allocated_bytes(); }
  int64_t peak_bytes() const override { return memory_.peak_bytes(); }

  CacheType cache_type(WeightType weights) const override {
    return weights == WeightType::kBF16 ? CacheType::kBF16 : CacheType::kF32;
  }

  LinearWeight pack_linear(const HostView& weight, WeightType type) const override {
    VOLLEY_ASSERT(weight.shape.rank() == 2);
    const int64_t out = weight.shape[0], in = weight.shape[1];
    const PackedBytes bytes = linear_bytes(weight.shape, type);
    if (first_non_finite(weight) >= 0) throw Error("weight with a value that is not finite");
    const std::vector<float> values = to_f32(weight);
    if (type == WeightType::kQ8_0) return pack_rounded(values, out, in);
    const Buffer source = to_device(memory_, values.data(), values.size() * sizeof(float));
    const auto* floats = reinterpret_cast<const float*>(source.data());
    LinearWeight packed{.type = type, .out_features = out, .in_features = in};
    packed.data = memory_.allocate(bytes.data);
    if (type == WeightType::kF32) {
      launch_pack_f32(floats, out, in, reinterpret_cast<float*>(packed.data.data()), Stream{});
    } else {
      launch_pack_bf16(floats, out, in, reinterpret_cast<uint16_t*>(packed.data.data()), Stream{});
    }
    check(cudaStreamSynchronize(nullptr), "weights");
    return packed;
  }

  LinearWeight pack_quantized(const HostView& quants, const HostView& scales) const override {
    return pack_planes({.quants = quants.data,
                        .scales = scales.data,
                        .out = quants.shape[0],
                        .in = quants.shape[1],
                        .blocks = quants.shape[1] / kQ8BlockSize});
  }

  ConvWeight pack_conv(const HostView& weight, const HostView& bias, WeightType type) const override {
    VOLLEY_ASSERT(weight.shape.rank() == 4);
    if (first_non_finite(weight) >= 0) throw Error("weight with a value that is not finite");
    ConvWeight packed{.type = type,
                      .out_channels = weight.shape[0],
                      .in_channels = weight.shape[1],
                      .kernel_h = weight.shape[2],
                      .kernel_w = weight.shape[3]};
    std::vector<float> bias_values(static_cast<size_t>(packed.out_channels), 0.0f);
    if (bias.data != nullptr) bias_values = to_f32(bias);
    packed.bias = to_device(memory_, bias_values.data(), bias_values.size() * sizeof(float));
    const std::vector<float> values = to_f32(weight);
    Buffer source = to_device(memory_, values.data(), values.size() * sizeof(float));
    if (type == WeightType::kF32) {
      packed.data = std::move(source);
      return packed;
    }
    packed.data = memory_.allocate(conv_bytes(weight.shape, type).data);
    launch_pack_conv_bf16(reinterpret_cast<const float*>(source.data()), conv_shape(weight.shape),
                          reinterpret_cast<uint16_t*>(packed.data.data()), Stream{});
    check(cudaStreamSynchronize(nullptr), "weights");
    return packed;
  }

  // Nothing is written to files yet.
  std::string_view packed_layout() const override { return {}; }
  PackedPlanes packed_planes(const LinearWeight&) const override { throw no_layout(); }
  LinearWeight map_linear(const MapLinearArgs&) const override { throw no_layout(); }
  LinearWeight conv_as_linear(const ConvWeight&) const override { throw no_layout(); }
  ConvWeight conv_from_linear(const LinearWeight&, const HostView&, const Shape&) const override {
    throw no_layout();
  }

  // Weights are packed on the device.
  PackedBytes linear_bytes(const Shape& shape, WeightType type) const override {
    const int64_t out = shape[0], in = shape[1];
    const int64_t blocks = out * ((in + kQ8BlockSize - 1) / kQ8BlockSize);
    switch (type) {
      case WeightType::kF32:
        return {.data = packed_elements_f32(out, in) * 4, .packing = shape.size() * 4};
      case WeightType::kBF16:
        return {.data = packed_elements_bf16(out, in) * 2, .packing = shape.size() * 4};
      case WeightType::kQ8_0:
        return {.data = packed_quants_q8_0(out, in),
                .beside = packed_scales_q8_0(out, in) * 2,
                .packing = blocks * (kQ8BlockSize + 2)};
      case WeightType::kQ4_1:
        break;
    }
    throw Error("this device has no products of 4-bit weights");
  }
  PackedBytes conv_bytes(const Shape& shape, WeightType type) const override {
    const int64_t values = shape.size() * 4, bias = shape[0] * 4;
    if (type == WeightType::kF32) return {.data = values, .beside = bias};  // as they come
    return {.data = packed_conv_elements_bf16(conv_shape(shape)) * 2, .beside = bias, .packing = values};
  }
  std::unique_ptr<Queue> make_plan_queue(const Memory& memory) const override {
    return std::make_unique<CudaPlanQueue>(device_, memory, abilities_);
  }

 private:
  static ConvShape conv_shape(const Shape& shape) {
    return {.out_channels = shape[0], .in_channels = shape[1], .kernel = shape[2] * shape[3]};
  }

  struct Planes {
    const std::byte* quants = nullptr;  // [out, blocks * 32]
    const std::byte* scales = nullptr;  // f16 [out, blocks]
    int64_t out = 0;
    int64_t in = 0;
    int64_t blocks = 0;
  };

  LinearWeight pack_rounded(std::span<const float> values, int64_t out, int64_t in) const {
    const int64_t blocks = (in + kQ8BlockSize - 1) / kQ8BlockSize;
    std::vector<int8_t> quants(static_cast<size_t>(out * blocks * kQ8BlockSize));
    std::vector<uint16_t> scales(static_cast<size_t>(out * blocks));
    for (int64_t b = 0; b < out * blocks; ++b) {
      const int64_t row = b / blocks, begin = b % blocks * kQ8BlockSize;
      scales[static_cast<size_t>(b)] =
          quantize_weight_block(values.data() + row * in + begin, std::min(kQ8BlockSize, in - begin),
                                quants.data() + b * kQ8BlockSize);
    }
    return pack_planes({.quants = reinterpret_cast<const std::byte*>(quants.data()),
                        .scales = reinterpret_cast<const std::byte*>(scales.data()),
                        .out = out,
                        .in = in,
                        .blocks = blocks});
  }

  LinearWeight pack_planes(const Planes& planes) const {
    const auto count = static_cast<size_t>(planes.out * planes.blocks);
    const Buffer quants = to_device(memory_, planes.quants, count * kQ8BlockSize);
    const Buffer scales = to_device(memory_, planes.scales, count * 2);
    LinearWeight packed{.type = WeightType::kQ8_0, .out_features = planes.out, .in_features = planes.in};
    const PackedBytes bytes = linear_bytes({planes.out, planes.in}, WeightType::kQ8_0);
    packed.data = memory_.allocate(bytes.data);
    packed.scales = memory_.allocate(bytes.beside);
    launch_pack_q8_0({.quants = reinterpret_cast<const int8_t*>(quants.data()),
                      .scales = reinterpret_cast<const uint16_t*>(scales.data()),
                      .out = planes.out,
                      .blocks = planes.blocks,
                      .packed_quants = reinterpret_cast<int8_t*>(packed.data.data()),
                      .packed_scales = reinterpret_cast<uint16_t*>(packed.scales.data())},
                     Stream{});
    check(cudaStreamSynchronize(nullptr), "weights");
    return packed;
  }

  Error no_layout() const { return Error(info_.name + " neither reads nor writes packed weights"); }

  int device_;
  Abilities abilities_;
  DeviceInfo info_;
  DeviceMemory memory_;
  Copiers copiers_;
};

}  // namespace
}  // namespace cuda

int64_t cuda_devices() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

int64_t cuda_free_bytes(int64_t device) {
  size_t free_bytes = 0, total_bytes = 0;
  if (cudaSetDevice(static_cast<int>(device)) == cudaSuccess &&
      cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess)
    return static_cast<int64_t>(free_bytes);
  cudaGetLastError();
  return 0;
}

std::shared_ptr<const Backend> make_cuda_backend(int64_t device) {
  const std::string name = "cuda:" + std::to_string(device);
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || device >= count) {
    cudaGetLastError();
    const std::string reason = status != cudaSuccess
                                   ? std::string(cudaGetErrorString(status))
                                   : std::to_string(count) + (count == 1 ? " device" : " devices") + " found";
    throw Error("--device " + name + ": no such device (" + reason + ")");
  }
  const int index = static_cast<int>(device);
  cudaDeviceProp properties{};
  cuda::check(cudaGetDeviceProperties(&properties, index), "--device " + name);
  cuda::check(cudaSetDevice(index), "--device " + name);
  if (const cudaError_t status = cuda::kernel_status(); status != cudaSuccess) {
    throw Error("--device " + name + ": " + properties.name + " has compute capability " +
                std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                ", for which this build has no kernels (" + cudaGetErrorString(status) + ")");
  }
  const std::string memory = std::to_string(properties.totalGlobalMem >> 20) + " MiB";
  const cuda::Abilities abilities{.overlaps = properties.major >= 9,
                                  .has_wgmma = cuda::has_wgmma_kernels(),
                                  .processors = properties.multiProcessorCount,
                                  .shared_bytes = static_cast<int64_t>(properties.sharedMemPerBlockOptin)};
  // What kernels are compiled for and chosen by. How many processors share the work changes no bits, nor does
  // memory.
  const std::string arithmetic = "cuda, compute capability " + std::to_string(properties.major) + "." +
                                 std::to_string(properties.minor) + (abilities.has_wgmma ? ", wgmma" : "") +
                                 ", " + std::to_string(abilities.shared_bytes) + " bytes of a block";
  return std::make_shared<cuda::CudaBackend>(
      index,
      DeviceInfo{.name = name,
                 .description = std::string(properties.name) + ", " + memory,
                 .has_bf16 = true,
                 .arithmetic = arithmetic},
      abilities);
}

}  // namespace volley
