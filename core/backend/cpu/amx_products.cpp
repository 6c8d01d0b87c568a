// Products by AMX tiles: 16 rows of 64 bytes, multiplied 16 x 16 outputs at a time.
// Ref: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
#include "core/backend/cpu/grouped_products.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/backend/cpu/amx_bf16-inl.h"
#include "core/backend/cpu/amx_q8_0-inl.h"
#include "core/backend/cpu/avx512_q4_1-inl.h"
#include "hwy/targets.h"

namespace volley {
namespace {

class AmxProducts : public GroupedProducts {
 public:
  std::string_view name() const override { return "amx"; }
  RowFormat row_format(WeightType type) const override {
    return type == WeightType::kBF16 ? RowFormat::kBF16 : RowFormat::kSigned8;
  }
  void multiply_bf16(const GroupedProductArgs& args) const override { multiply_bf16_tiles(args); }
  void multiply_q8_0(const GroupedProductArgs& args) const override { multiply_q8_0_tiles(args); }
  void multiply_q4_1(const GroupedProductArgs& args) const override { multiply_by_words<Q4_1Words>(args); }
};

bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8 = 1u << 25;
  if ((d & kBf16) == 0 || (d & kTile) == 0 || (d & kInt8) == 0) return false;
  if ((hwy::SupportedTargets() & HWY_AVX3) == 0) return false;  // none there, or capped
  // Tile data are kept only for processes that ask. Ref: Linux, Documentation/arch/x86/xstate.rst.
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

std::unique_ptr<const GroupedProducts> make_amx_products() {
  if (!has_amx()) return nullptr;
  return std::make_unique<AmxProducts>();
}

}  // namespace volley

#else

namespace volley {

std::unique_ptr<const GroupedProducts> make_amx_products() {
  return nullptr;
}

}  // namespace volley

#endif
