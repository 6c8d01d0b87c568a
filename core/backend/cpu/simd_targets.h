#pragma once

// Include before hwy/highway.h and hwy/foreach_target.h. Kernels are compiled for single elements (Highway's
// fallback), SSE4, AVX2 and AVX-512; the steps between add build time and no speed to what we do.
// A file that needs AVX-512 with 8-bit dot products for itself defines HWY_WANT_AVX3_DL before.
#ifdef HWY_WANT_AVX3_DL
#define HWY_DISABLED_TARGETS HWY_SSSE3
#else
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)
#endif
