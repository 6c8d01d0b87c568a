# libwebp: WebP::webp (pixels), WebP::mux (containers written), WebP::demux (containers read).
include(FindPackageHandleStandardArgs)
find_path(WebP_INCLUDE_DIR webp/encode.h)
find_library(WebP_LIBRARY webp)
find_library(WebP_MUX_LIBRARY webpmux)
find_library(WebP_DEMUX_LIBRARY webpdemux)
find_package_handle_standard_args(WebP
  REQUIRED_VARS WebP_LIBRARY WebP_MUX_LIBRARY WebP_DEMUX_LIBRARY WebP_INCLUDE_DIR)
mark_as_advanced(WebP_INCLUDE_DIR WebP_LIBRARY WebP_MUX_LIBRARY WebP_DEMUX_LIBRARY)

if(WebP_FOUND AND NOT TARGET WebP::webp)
  add_library(WebP::webp UNKNOWN IMPORTED)
  set_target_properties(WebP::webp PROPERTIES
    IMPORTED_LOCATION ${WebP_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${WebP_INCLUDE_DIR})
  foreach(part mux demux)
    string(TOUPPER ${part} upper)
    add_library(WebP::${part} UNKNOWN IMPORTED)
    set_target_properties(WebP::${part} PROPERTIES
      IMPORTED_LOCATION ${WebP_${upper}_LIBRARY}
      INTERFACE_LINK_LIBRARIES WebP::webp)
  endforeach()
endif()
