# Installs a built tree to an empty prefix, builds a project against it and runs what it made; then makes the archive
# and looks into it.
# usage: cmake -DBUILD=... -DCONSUMER=... -DWORK=... -DCOMPILER=... -P consumer_test.cmake

function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}\nfailed (${status}):\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})

run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
run(${CMAKE_COMMAND} -S ${CONSUMER} -B ${WORK}/build -G Ninja -DCMAKE_BUILD_TYPE=Debug
  -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_PREFIX_PATH=${WORK}/prefix)
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${CMAKE_COMMAND} -E chdir ${WORK}/build ${WORK}/build/generate)
message(STATUS "a consumer's tokens: ${output}")

# The archive holds our own files only: no library of another project, no file that is not under one top folder.
run(${CMAKE_COMMAND} -E chdir ${BUILD} ${CMAKE_CPACK_COMMAND} -G TGZ -B ${WORK}/archive)
file(GLOB archives ${WORK}/archive/*.tar.gz)
list(LENGTH archives count)
if(NOT count EQUAL 1)
  message(FATAL_ERROR "expected one archive in ${WORK}/archive, found ${count}")
endif()
run(${CMAKE_COMMAND} -E tar tzf ${archives})
string(REGEX REPLACE "\n$" "" output "${output}")
string(REPLACE "\n" ";" entries "${output}")
set(found_license OFF)
foreach(entry ${entries})
  if(NOT entry MATCHES "^volley-[^/]+/((bin|include/volley|share/volley|share/doc/volley|share/man|share/bash-completion|share/zsh|share/fish)/|lib[^/]*/([^/]*/)?(libvolley_[a-z_]+\\.a$|cmake/volley/))?"
     OR entry MATCHES "\\.so(\\.|$)|ffmpeg|libav|cuda|cublas|cudnn")
    message(FATAL_ERROR "the archive holds ${entry}")
  endif()
  if(entry MATCHES "LICENSE$")
    set(found_license ON)
  endif()
endforeach()
if(NOT found_license)
  message(FATAL_ERROR "the archive holds no licence")
endif()
list(LENGTH entries count)
message(STATUS "the archive holds ${count} files and folders, all ours")
