// Products of packed weights for any vector width.
#define HWY_WANT_AVX3_DL
#include "core/backend/cpu/grouped_products.h"
#include "core/backend/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/vector_products.cpp"
#include "hwy/foreach_target.h"
// behind foreach_target.h
#include "core/backend/cpu/vector_bf16-inl.h"
#include "core/backend/cpu/vector_q4_1-inl.h"
#include "core/backend/cpu/vector_q8_0-inl.h"

#if HWY_ONCE
namespace volley {
namespace {

HWY_EXPORT(multiply_bf16);
HWY_EXPORT(multiply_q8_0);
HWY_EXPORT(multiply_q4_1);

class VectorProducts : public GroupedProducts {
 public:
  std::string_view name() const override { return "vector"; }
  RowFormat row_format(WeightType type) const override {
    return type == WeightType::kBF16   ? RowFormat::kRoundedF32
           : type == WeightType::kQ8_0 ? RowFormat::kInterleaved16
                                       : RowFormat::kSigned8;
  }
  void multiply_bf16(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_bf16)(args);
  }
  void multiply_q8_0(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_q8_0)(args);
  }
  void multiply_q4_1(const GroupedProductArgs& args) const override {
    HWY_DYNAMIC_DISPATCH(multiply_q4_1)(args);
  }
};

}  // namespace

std::unique_ptr<const GroupedProducts> make_vector_products() {
  return std::make_unique<VectorProducts>();
}

}  // namespace volley
#endif  // HWY_ONCE
