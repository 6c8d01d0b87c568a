# Warnings, sanitizers and the floating-point rules that every target of the project is built with.

add_library(volley_options INTERFACE)
add_library(volley::options ALIAS volley_options)
target_include_directories(volley_options INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/volley>)
target_compile_features(volley_options INTERFACE cxx_std_20)
# Contraction would let the compiler fuse a multiply and an add in one loop and not in its tail:
# results must not depend on where a row lies. Fused operations are written out where they are meant.
target_compile_options(volley_options INTERFACE
  $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>>
  $<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wshadow;-Wconversion;-Wno-sign-conversion;-Wno-missing-field-initializers>>)
# GCC 12 warns of copies inside std::string itself (GCC bugs 105329 and 105651), also where the header is precompiled.
target_compile_options(volley_options INTERFACE
  $<BUILD_INTERFACE:$<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-stringop-overflow;-Wno-array-bounds>>)
if(VOLLEY_SANITIZE)
  target_compile_options(volley_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=${VOLLEY_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
  target_link_options(volley_options INTERFACE $<BUILD_INTERFACE:-fsanitize=${VOLLEY_SANITIZE}>)
endif()

# Headers that most sources include, compiled once, as they take the compiler longer than most sources. With
# -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON, as in the fuzz preset, a build proves that each source and header includes what
# it uses.
file(TOUCH ${PROJECT_BINARY_DIR}/headers.cpp)
add_library(volley_headers OBJECT ${PROJECT_BINARY_DIR}/headers.cpp)
target_link_libraries(volley_headers PRIVATE volley::options)
target_precompile_headers(volley_headers PRIVATE
  <algorithm> <array> <cmath> <filesystem> <functional> <map> <memory> <optional> <span> <string> <vector>
  <nlohmann/json.hpp>)
# Without optimisation a sanitizer's build takes half as long; in these libraries the tests would then take longer still.
set(VOLLEY_BUSY_LIBRARIES base io backend_cpu)

# volley_library(NAME SOURCES... ) makes the static library volley_NAME with the alias volley::NAME.
function(volley_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;LINK;PRIVATE_LINK" ${ARGN})
  add_library(volley_${name} STATIC ${arg_SOURCES})
  add_library(volley::${name} ALIAS volley_${name})
  set_target_properties(volley_${name} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(volley_${name} PUBLIC volley::options ${arg_LINK} PRIVATE ${arg_PRIVATE_LINK})
  if(VOLLEY_SANITIZE AND name IN_LIST VOLLEY_BUSY_LIBRARIES)
    target_compile_options(volley_${name} PRIVATE -O1)
  else()
    target_precompile_headers(volley_${name} REUSE_FROM volley_headers)
  endif()
endfunction()
